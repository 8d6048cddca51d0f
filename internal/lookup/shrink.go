package lookup

import "maps"

// small is how many entries a map may have had whose memory isn't worth a copy.
const small = 64

// Delete deletes a key from a map and returns the map. A Go map keeps the memory of all entries that it has ever
// had. So when less than a quarter of them is left, Delete returns a copy with less memory. most belongs to the map:
// Delete keeps there how many entries the map has had. It begins with 0, and with 0 again for another map.
//
// A loop over the map that calls Delete goes on with the entries that the map had, and must not rely on deleted
// ones to be left out.
func Delete[K comparable, V any](m map[K]V, key K, most *int) map[K]V {
	*most = max(*most, len(m))
	delete(m, key)
	if *most <= small || len(m) >= *most/4 {
		return m
	}
	*most = len(m)
	less := make(map[K]V, len(m))
	maps.Copy(less, m)
	return less
}

// Trim is Delete for a slice whose elements beyond its length are zero: it returns a copy with less memory if less
// than a quarter of its capacity is used.
func Trim[E any](s []E) []E {
	if cap(s) <= small || len(s) >= cap(s)/4 {
		return s
	}
	return append(make([]E, 0, 2*len(s)), s...)
}
