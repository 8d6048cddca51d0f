// Package lookup finds values in a list: one by one where they are few, else by a map. It knows nothing of what they are.
package lookup

import "slices"

// few is how many values are looked through one by one.
const few = 8

// List is values to look into. It may be read concurrently.
type List[T comparable] struct {
	values  []T
	indexes map[T]int // nil where they are few
}

// New returns a list of these values, which it keeps.
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

// Values are the values, as they were given.
func (l *List[T]) Values() []T { return l.values }

// Index returns where v stands first, or -1.
func (l *List[T]) Index(v T) int {
	if l.indexes == nil {
		return slices.Index(l.values, v)
	}
	if i, ok := l.indexes[v]; ok {
		return i
	}
	return -1
}

// Has reports whether v is among the values.
func (l *List[T]) Has(v T) bool { return l.Index(v) >= 0 }

// Distinct returns the values, each once, as they stand first.
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
