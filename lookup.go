package wsroom

import "slices"

// few is how many values are looked through one by one.
const few = 8

// lookup is values to look into: one by one where they are few, else by a map.
type lookup[T comparable] struct {
	values  []T
	indexes map[T]int // nil where they are few
}

func newLookup[T comparable](values []T) lookup[T] {
	l := lookup[T]{values: values}
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

// index returns where v stands first, or -1.
func (l *lookup[T]) index(v T) int {
	if l.indexes == nil {
		return slices.Index(l.values, v)
	}
	if i, ok := l.indexes[v]; ok {
		return i
	}
	return -1
}

func (l *lookup[T]) has(v T) bool { return l.index(v) >= 0 }

// distinct returns the values, each once, as they stand first.
func distinct[T comparable](values []T) []T {
	l := newLookup(values)
	once := make([]T, 0, len(values))
	for i, v := range values {
		if l.index(v) == i {
			once = append(once, v)
		}
	}
	return once
}
