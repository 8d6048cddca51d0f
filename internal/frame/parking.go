package frame

import "github.com/wsroom/wsroom/internal/netpoll"

// Park lets set wait in place of a goroutine whose [Conn.WaitOrQuiet] has returned [ErrQuiet]. It reports whether
// set does. Then the goroutine must read no more, and the owner's Wake is called once: when there is something to
// read, when the peer is gone, or by [Conn.Interrupt]. What Wake starts calls WaitOrQuiet again, and after that
// [Conn.Unpark] or, if it returned ErrQuiet, Park. All calls are with the same set.
//
// If Park reports false, WaitOrQuiet never returns ErrQuiet again, unless it was an Interrupt that kept set from
// waiting.
func (c *Conn) Park(set *netpoll.Set) bool {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock() // until then, Ready waits
	if c.interrupted {
		return false
	}

	var err error
	if c.place == (netpoll.ID{}) {
		c.place, err = set.Add(c.raw, c)
	} else {
		err = set.Again(c.raw, c.place)
	}
	c.parked = err == nil
	c.settled = err != nil
	return c.parked
}

// Unpark takes the socket out of the set. The reader calls it once something has come after a Park, so that the
// set has no work with sockets that are read.
func (c *Conn) Unpark(set *netpoll.Set) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if c.place != (netpoll.ID{}) {
		set.Remove(c.raw, c.place)
		c.place = netpoll.ID{}
	}
}

// Ready is for the set. It ends the Park, if there is one.
func (c *Conn) Ready() {
	c.deadlineMu.Lock()
	parked := c.parked
	c.parked = false
	c.deadlineMu.Unlock()
	if parked {
		c.owner.Wake()
	}
}
