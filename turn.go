package wsroom

import (
	"fmt"
	"runtime/debug"

	"github.com/coder/websocket"
)

// callback runs a callback in its turn.
func (c *Conn) callback(name string, f func() error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.guard(name, f)
}

// guard runs application code. A panic or runtime.Goexit in it ends the connection, and nothing else; its
// error is for the Tracer.
func (c *Conn) guard(name string, f func() error) {
	guard(name, f, func(v any) { c.panicked(name, v) }, c.trace(name))
}

// guard runs application code that belongs to no connection.
func (h *Hub) guard(name, room string, f func()) {
	guard(name, func() error { f(); return nil }, func(v any) {
		h.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", room,
			"panic", v, "stack", string(debug.Stack()))
	}, h.trace(name))
}

// guard calls failed with what f panicked with, or if it ended the goroutine, and end, unless it is nil,
// with what became of f.
func guard(name string, f func() error, failed func(v any), end func(error)) {
	returned := false
	var err error
	defer func() {
		if !returned {
			v := recover()
			if v == nil {
				v = "runtime.Goexit was called"
			}
			failed(v)
			err = panicError(name, v)
		}
		if end != nil {
			end(err)
		}
	}()
	err = f()
	returned = true
}

func panicError(name string, v any) error { return fmt.Errorf("%w: %s: %v", ErrPanic, name, v) }

// panicked ends the connection.
func (c *Conn) panicked(name string, v any) {
	if last := c.hub.cfg.last; last != nil && last.name == name {
		c.finished = true
	}
	c.hub.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", c.room, "conn", c.id,
		"panic", v, "stack", string(debug.Stack()))
	c.end(endingPanic(name, v))
}

func endingPanic(name string, v any) ending {
	return ending{cause: panicError(name, v), label: "panic", code: websocket.StatusInternalError, budget: closeBudget}
}

// event is a Join or a Leave that its callback is to hear of.
type event struct {
	room string
	name string
	run  func(c *Conn, room string)
}

// news is what callbacks are still to hear of a connection.
type news struct {
	events []event
	drops  int
}

// newsLocked and tellLocked add to the news; mu is locked.
func (c *Conn) newsLocked() *news {
	if c.news == nil {
		c.news = new(news)
	}
	return c.news
}

func (c *Conn) tellLocked(e event) {
	n := c.newsLocked()
	n.events = append(n.events, e)
}

// nextEvent takes what is due next, if anything is.
func (c *Conn) nextEvent() (e event, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.reporting || c.news == nil {
		return event{}, false
	}
	if n := c.news.drops; n > 0 {
		c.news.drops = 0
		e = event{name: "OnDrop", run: func(c *Conn, _ string) { c.hub.cfg.onDrop(c, n) }}
	} else {
		e = c.news.events[0]
		c.news.events = c.news.events[1:]
	}
	if len(c.news.events) == 0 {
		c.news = nil
	}
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
	news := c.newsLocked()
	first := news.drops == 0
	news.drops += n
	c.mu.Unlock()
	if first { // whoever reports it reports the rest with it
		c.runEventsAside()
	}
}

func (c *Conn) hasEvents() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reporting && c.news != nil
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
		c.guard(e.name, func() error { e.run(c, e.room); return nil })
	}
}

// runEventsAside runs what is due on a goroutine of its own, for callers that may hold locks.
func (c *Conn) runEventsAside() {
	c.mu.Lock()
	due := c.ending == nil && c.reporting && c.news != nil
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
