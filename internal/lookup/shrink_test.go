package lookup

import (
	mathrand "math/rand/v2"
	"testing"
)

// A map that shrinks has the entries that it should have, and is copied seldom: a delete costs little.
func TestDeleteKeepsTheRest(t *testing.T) {
	m, most, copies := map[int]int{}, 0, 0
	want := map[int]bool{}
	for i := range 100_000 {
		m[i] = -i
		want[i] = true
	}
	for _, i := range mathrand.Perm(100_000) {
		before := most
		m = Delete(m, i, &most)
		if delete(want, i); most < before {
			copies++
		}
		if len(m) != len(want) || m[i] != 0 {
			t.Fatalf("%d entries, want %d", len(m), len(want))
		}
		if len(m) < 50_000 && most > 4*max(len(m), small)+4 {
			t.Fatalf("memory for %d entries, with %d", most, len(m))
		}
	}
	if copies < 5 || copies > 10 {
		t.Errorf("%d copies", copies)
	}
	if m = Delete(m, 1, &most); len(m) != 0 {
		t.Errorf("%d entries", len(m))
	}
}

// A slice that shrinks keeps its elements, and no more than four times their memory.
func TestTrim(t *testing.T) {
	s := make([]int, 100_000)
	for i := range s {
		s[i] = i
	}
	for len(s) > 0 {
		s[len(s)-1] = 0
		s = Trim(s[:len(s)-1])
		if n := len(s); n > 0 && s[n-1] != n-1 || cap(s) > max(4*n, small)+4 {
			t.Fatalf("%d elements, space for %d", n, cap(s))
		}
	}
}
