package wsroom

import (
	"fmt"
	"runtime/debug"

	"github.com/coder/websocket"
)

// callback runs a callback in its turn.
func (c *Conn) callback(name string, f func()) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.guard(name, f)
}

// guard runs application code. A panic or runtime.Goexit in it ends the connection, and nothing else.
func (c *Conn) guard(name string, f func()) {
	returned := false
	defer func() {
		if !returned {
			c.panicked(name, recover())
		}
	}()
	f()
	returned = true
}

// panicked ends the connection; v is nil after runtime.Goexit.
func (c *Conn) panicked(name string, v any) {
	if v == nil {
		v = "runtime.Goexit was called"
	}
	if last := c.hub.cfg.last; last != nil && last.name == name {
		c.finished = true
	}
	c.hub.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", c.room, "conn", c.id,
		"panic", v, "stack", string(debug.Stack()))
	c.end(ending{
		cause: fmt.Errorf("%w: %s: %v", ErrPanic, name, v), label: "panic",
		code: websocket.StatusInternalError, budget: closeBudget,
	})
}

// event is a Join or a Leave that its callback is to hear of.
type event struct {
	room string
	name string
	run  func(c *Conn, room string)
}

func (c *Conn) nextEvent() (event, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reporting {
		return event{}, false
	}
	if c.drops > 0 {
		n := c.drops
		c.drops = 0
		return event{name: "OnDrop", run: func(c *Conn, _ string) { c.hub.cfg.onDrop(c, n) }}, true
	}
	if len(c.events) == 0 {
		c.events = nil
		return event{}, false
	}
	e := c.events[0]
	c.events = c.events[1:]
	return e, true
}

// setReporting lets joins, leaves and drops be reported: after OnConnect, until all are.
func (c *Conn) setReporting(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reporting = on
}

// noteDrops counts messages dropped for the connection and lets OnDrop hear of them.
func (c *Conn) noteDrops(n int) {
	c.hub.countDrops(c, n)
	if c.hub.cfg.onDrop == nil {
		return
	}
	c.mu.Lock()
	first := c.drops == 0
	c.drops += n
	c.mu.Unlock()
	if first { // whoever reports it reports the rest with it
		c.runEventsAside()
	}
}

func (c *Conn) hasEvents() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reporting && (len(c.events) > 0 || c.drops > 0)
}

// runEvents runs what is due, unless the goroutine whose turn it is will do so.
func (c *Conn) runEvents() {
	for c.hasEvents() && c.turn.TryLock() {
		func() {
			defer c.turn.Unlock()
			c.report()
		}()
	}
}

// report runs what is due. The caller has the turn, so that the order of events is that of their
// callbacks.
func (c *Conn) report() {
	for e, ok := c.nextEvent(); ok; e, ok = c.nextEvent() {
		c.guard(e.name, func() { e.run(c, e.room) })
	}
}

// runEventsAside runs what is due on a goroutine of its own, for callers that may hold locks.
func (c *Conn) runEventsAside() {
	c.mu.Lock()
	due := c.ending == nil && c.reporting && (len(c.events) > 0 || c.drops > 0)
	if due {
		c.hub.wg.Add(1) // the connection isn't finished, so Shutdown's Wait isn't either
	}
	c.mu.Unlock()
	if due {
		go func() {
			defer c.hub.wg.Done()
			c.runEvents()
		}()
	}
}

// drainEvents runs all that is left, even if one of them ends the goroutine.
func (c *Conn) drainEvents() {
	done := false
	defer func() {
		if !done {
			c.drainEvents()
		}
	}()
	c.turn.Lock()
	defer c.turn.Unlock()
	c.report()
	done = true
}
