// Package lookup finds values in a list: it compares them one by one if they are few, and uses a map if
// not. It lets a map shrink, too. It knows nothing of what the values are.
package lookup

import (
	"slices"
	"sync"
)

// few is the largest number of values that are compared one by one.
const few = 8

// List is a list of values. It may be read concurrently.
type List[T comparable] struct {
	values  []T
	indexes map[T]int // nil or empty if the values are few
}

// New returns a [List] of these values. It keeps the slice.
func New[T comparable](values []T) (l List[T]) {
	l.Set(values)
	return l
}

// Set makes l a list of these values, with the memory that it has. It keeps the slice.
func (l *List[T]) Set(values []T) {
	if len(l.indexes) > maxKept {
		l.indexes = nil
	}
	clear(l.indexes)
	if l.values = values; len(values) <= few {
		return
	}
	if l.indexes == nil {
		l.indexes = make(map[T]int, len(values))
	}
	for i, v := range values {
		if _, ok := l.indexes[v]; !ok {
			l.indexes[v] = i
		}
	}
}

// Values returns the values in the order in which they were given.
func (l *List[T]) Values() []T { return l.values }

// Index returns the first index of v, or -1.
func (l *List[T]) Index(v T) int {
	if len(l.indexes) == 0 {
		return slices.Index(l.values, v)
	}
	if i, ok := l.indexes[v]; ok {
		return i
	}
	return -1
}

// Has reports whether v is one of the values.
func (l *List[T]) Has(v T) bool { return l.Index(v) >= 0 }

// maxKept is how many names a map has at most that is kept for another list.
const maxKept = 1024

// sets are empty, for Distinct.
var sets = sync.Pool{New: func() any { return map[string]bool{} }}

// Distinct returns each name once, in the order of first occurrence. It allocates nothing else.
func Distinct(names []string) []string {
	once := make([]string, 0, len(names))
	if len(names) <= few {
		for _, name := range names {
			if !slices.Contains(once, name) {
				once = append(once, name)
			}
		}
		return once
	}

	seen := sets.Get().(map[string]bool)
	for _, name := range names {
		if !seen[name] {
			seen[name] = true
			once = append(once, name)
		}
	}
	if len(seen) <= maxKept {
		clear(seen)
		sets.Put(seen)
	}
	return once
}
