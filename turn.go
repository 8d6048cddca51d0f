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

// event is a join, a leave or an expiry that its callback is to be told of.
type event struct {
	room string
	name string
	run  func(c *Conn, room string)
}

// events are what callbacks are still to be told of a connection. Those of drops come first, as one.
type events struct {
	queue []event
	drops int // messages
}

// next takes the next event; there must be one.
func (es *events) next() event {
	if n := es.drops; n > 0 {
		es.drops = 0
		return event{name: "OnDrop", run: func(c *Conn, _ string) { c.hub.cfg.onDrop(c, n) }}
	}

	e := es.queue[0]
	es.queue = es.queue[1:]
	return e
}

func (es *events) empty() bool { return es.drops == 0 && len(es.queue) == 0 }

// eventsLocked returns the events to add to; mu is locked.
func (c *Conn) eventsLocked() *events {
	if c.events == nil {
		c.events = new(events)
	}
	return c.events
}

// postLocked adds an event; mu is locked. The caller has runEventsAsync run it, once mu is free.
func (c *Conn) postLocked(e event) {
	es := c.eventsLocked()
	es.queue = append(es.queue, e)
}

// nextEvent takes the next event, if there is one and events are reported.
func (c *Conn) nextEvent() (e event, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasEventsLocked() {
		return event{}, false
	}

	e = c.events.next()
	if c.events.empty() {
		c.events = nil
	}
	return e, true
}

// setReporting lets events be reported: after OnConnect, until all are.
func (c *Conn) setReporting(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reporting = on
}

// noteDrops counts messages dropped for the connection and has OnDrop told of them.
func (c *Conn) noteDrops(n int) {
	c.hub.countDrops(c, n)
	if c.hub.cfg.onDrop == nil {
		return
	}

	c.mu.Lock()
	es := c.eventsLocked()
	first := es.drops == 0
	es.drops += n
	c.mu.Unlock()

	if first { // the goroutine that reports it reports the rest with it
		c.runEventsAsync()
	}
}

func (c *Conn) hasEvents() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasEventsLocked()
}

func (c *Conn) hasEventsLocked() bool { return c.reporting && c.events != nil }

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

// runEventsAsync runs what is due on a goroutine of its own, for callers that may hold locks.
func (c *Conn) runEventsAsync() {
	c.mu.Lock()
	due := c.ending == nil && c.hasEventsLocked()
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
