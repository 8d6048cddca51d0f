package load

// maxMissing bounds what a checker remembers; what is missing beyond it is lost for good.
const maxMissing = 1 << 16

// A Checker follows the sequence numbers that one member receives. It starts with the first that
// comes, so a member may join a room that is already talking.
type Checker struct {
	next      uint64 // 0 before the first message
	missing   map[uint64]struct{}
	forgotten int

	Doubled   int // came again
	Reordered int // came after a later one
}

// Saw records that message seq arrived.
func (c *Checker) Saw(seq uint64) {
	switch {
	case seq == c.next, c.next == 0:
		c.next = seq + 1
	case seq > c.next:
		c.miss(c.next, seq)
		c.next = seq + 1
	default:
		c.late(seq)
	}
}

// miss notes that from up to (not including) to did not come.
func (c *Checker) miss(from, to uint64) {
	if c.missing == nil {
		c.missing = make(map[uint64]struct{})
	}
	for ; from < to && len(c.missing) < maxMissing; from++ {
		c.missing[from] = struct{}{}
	}
	c.forgotten += int(to - from)
}

// late tells a message that was missed so far from one that came before.
func (c *Checker) late(seq uint64) {
	if _, ok := c.missing[seq]; !ok {
		c.Doubled++
		return
	}
	delete(c.missing, seq)
	c.Reordered++
}

// Lost is how many messages up to and including last never came. A member that got none at all
// has lost them all.
func (c *Checker) Lost(last uint64) int {
	lost := len(c.missing) + c.forgotten
	if last >= max(c.next, 1) {
		lost += int(last - max(c.next, 1) + 1)
	}
	return lost
}
