// Package lookup finds values in a list: it compares them one by one if they are few, and uses a map if
// not. It lets a map shrink, too. It knows nothing of what the values are.
package lookup

import "slices"

// few is the largest number of values that are compared one by one.
const few = 8

// List is a list of values. It may be read concurrently.
type List[T comparable] struct {
	values  []T
	indexes map[T]int // nil if the values are few
}

// New returns a [List] of these values. It keeps the slice.
func New[T comparable](values []T) List[T] {
	l := List[T]{values: values}
	if len(values) > few {
		l.indexes = make(map[T]int, len(values))
		for i, v := range values {
			if _, ok := l.indexes[v]; !ok {
				l.indexes[v] = i
			}
		}
	}
	return l
}

// Values returns the values in the order in which they were given.
func (l *List[T]) Values() []T { return l.values }

// Index returns the first index of v, or -1.
func (l *List[T]) Index(v T) int {
	if l.indexes == nil {
		return slices.Index(l.values, v)
	}
	if i, ok := l.indexes[v]; ok {
		return i
	}
	return -1
}

// Has reports whether v is one of the values.
func (l *List[T]) Has(v T) bool { return l.Index(v) >= 0 }

// Distinct returns each value once, in the order of first occurrence.
func Distinct[T comparable](values []T) []T {
	l := New(values)
	once := make([]T, 0, len(values))
	for i, v := range values {
		if l.Index(v) == i {
			once = append(once, v)
		}
	}
	return once
}
