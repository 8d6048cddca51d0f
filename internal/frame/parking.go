package frame

import "github.com/wsroom/wsroom/internal/netpoll"

// Park lets set wait in place of a goroutine whose [Conn.WaitOrQuiet] has returned [ErrQuiet], or that hasn't waited
// yet. It reports whether set does. Then the goroutine must read no more, and the owner's Wake is called once: when
// there is something to read, when the peer is gone, or by [Conn.Interrupt]. What Wake starts calls WaitOrQuiet
// again, and after that [Conn.Unpark] or, if it returned ErrQuiet, Park. All calls are with the same set.
//
// Park reports false if something is unread, after an Interrupt, over TLS and wherever there is no file descriptor,
// and if the system lets no more sockets be waited for. In the last cases WaitOrQuiet never returns ErrQuiet again.
func (c *Conn) Park(set *netpoll.Set) bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if !c.canPark() || c.r < c.w {
		return false
	}

	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock() // until then, Ready waits
	if c.interrupted {
		return false
	}
	c.waiting.CompareAndSwap(0, Now())
	err := c.enter(set)
	c.parked, c.settled = err == nil, err != nil
	return c.parked
}

// canPark reports whether a set can wait for the peer.
func (c *Conn) canPark() bool { return c.limits.Quiet > 0 && c.raw != nil && !c.settled }

// enter lets set wait once, for the first time or again.
func (c *Conn) enter(set *netpoll.Set) (err error) {
	if c.place != (netpoll.ID{}) {
		return set.Again(c.raw, c.place)
	}
	c.place, err = set.Add(c.raw, c)
	return err
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

// manyQuiets is how many times Limits.Quiet is long. With the default that is 20 s, so peers that send every ten
// seconds or so pay nothing for it.
const manyQuiets = 4

// LongQuiet reports whether no message has come for long, or none ever. The reader calls it.
func (c *Conn) LongQuiet() bool { return c.quietIn(Now()) <= -(manyQuiets-1)*c.limits.Quiet }

// Hand says that the application gets the websocket.Conn above the Conn.
func (c *Conn) Hand() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.handed = true
}

// Drop calls drop, unless Hand was called. No Hand returns meanwhile.
func (c *Conn) Drop(drop func()) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if !c.handed {
		drop()
	}
}
