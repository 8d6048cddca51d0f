package load

// An order has the place of each of a room's messages, counted from 1, as the first to hear it heard it. Where
// a room has several senders, its messages' numbers don't say in which order all are to see them.
type order map[uint64]int

func (o order) placeOf(seq uint64) int {
	place, ok := o[seq]
	if !ok {
		place = len(o) + 1
		o[seq] = place
	}
	return place
}
