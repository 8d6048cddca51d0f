package wsroom

import (
	"context"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/outbound"
)

// endingShutdown is the ending by Shutdown, with the code of WithShutdownCode.
func endingShutdown(code websocket.StatusCode) line.Ending {
	e := line.Ending{Cause: ErrShutdown, Label: "shutdown", Code: code, Reason: "server is going away", Budget: line.CloseBudget}
	if code == websocket.StatusServiceRestart {
		e.Reason = "server restarts"
	}
	return e
}

// endingBy is the ending by the result of OnConnect's or Serve's function. nil closes normally.
func endingBy(err error) line.Ending {
	if err == nil {
		return line.Closed(websocket.CloseError{Code: websocket.StatusNormalClosure})
	}
	e := line.Ending{Cause: err, Label: "error", Code: websocket.StatusInternalError, Budget: line.CloseBudget}
	if e.CloseBy(err) {
		e.Label = "closed"
	}
	return e
}

// end begins the end of the connection. It reports whether this call was the first to do so. It takes these
// steps:
//
//  1. the ending is set; from then on the connection joins no room;
//  2. the connection leaves every room;
//  3. the line is closed: the close frame goes behind the messages that wait, the reader is interrupted, and a
//     timer limits the rest;
//  4. the connection's context is cancelled; finish waits for that.
//
// end never waits. Any goroutine that holds no lock may call it.
func (c *Conn) end(e line.Ending) bool {
	c.mu.Lock()
	first := c.line.SetEnding(&e)
	if first {
		c.timers.stop()
	}
	c.mu.Unlock()
	if !first {
		return false
	}

	for _, room := range c.hub.store.remove(c) {
		c.hub.left(c, room)
	}
	c.hub.unsubscribeConn()

	c.hub.countLost(c, c.line.Close())
	c.ownContext().cancel(e.Cause)
	return true
}

// cause waits until the connection's context is done, and returns the reason for the end.
func (c *Conn) cause() error {
	ctx := c.Context()
	<-ctx.Done()
	return context.Cause(ctx)
}

// open runs OnConnect and then releases the messages that others sent meanwhile.
func (c *Conn) open(r *http.Request) {
	f := c.hub.cfg.onConnect
	if f == nil {
		c.openMailbox()
	} else {
		c.line.SnapshotBy(goroutine.Current())
		c.callback("OnConnect", func() error {
			err := f(c, r)
			if err == nil {
				c.openMailbox()
			} else {
				c.end(endingBy(err))
			}
			return err
		})
		c.line.Release()
	}
	c.line.StartHeartbeat()
	c.hub.heartbeat.Start()
}

// run is the connection's goroutine after OnConnect has returned. It takes these steps; the last two are
// taken even if a callback ends the goroutine:
//
//  1. begin reports the first joins; if Serve is set, begin runs it and Serve does all of the reading;
//  2. messages are read and handled until the connection ends;
//  3. finish runs the last callbacks;
//  4. hangUp completes the close handshake and closes the socket.
//
// An idle connection waits in Wait, where its stack costs memory. As long as less than 1 KB is in use
// there, the stack stays at 2 KB. Handling a message makes the stack grow to 4 KB, and it doesn't shrink.
// So after a message run hands the connection over to a new goroutine, which continues with step 2. since is
// when that happened last, in seconds, or 0 for the first goroutine.
func (c *Conn) run(since uint32) {
	handedOver := false
	defer func() {
		if handedOver {
			go c.run(c.lastRead())
		} else {
			c.finish()
		}
	}()

	if since == 0 && !c.begin() {
		return
	}

	for !handedOver {
		if err := c.line.Wait(); err != nil {
			if c.line.WaitFailed(err) {
				return
			}
		} else if !c.handle() {
			return
		} else {
			handedOver = c.lastRead() != since && !c.line.Wire().Unread()
		}
	}
}

// lastRead returns when the peer's bytes last came, in seconds; never 0. It tells one second from the next: a
// peer that sends all the time has a new goroutine once a second, so these don't slow it down.
func (c *Conn) lastRead() uint32 { return uint32(c.line.Wire().LastRead() / int64(time.Second)) }

// begin reports the first joins, and runs Serve if it is set. It reports whether run has messages to read.
func (c *Conn) begin() bool {
	c.runEvents()
	if c.isEnded() {
		return false
	}

	serve := c.hub.cfg.serve
	if serve != nil {
		c.guard("Serve", func() error {
			err := serve(c)
			if !c.end(endingBy(err)) {
				return nil // the connection had ended before, and err tells only that
			}
			return err
		})
	}
	return serve == nil
}

// finish runs the last callbacks, each even if the one before it ended the goroutine. So they are deferred.
// They run in this order: drainEvents, closeMailbox, fail, OnClose, hangUp.
func (c *Conn) finish() {
	cause := c.cause() // by then the connection has left every room
	c.line.AwaitPending()

	defer c.hangUp()
	if f := c.hub.cfg.onClose; f != nil {
		defer c.callback("OnClose", func() error { f(c, cause); return nil })
	}

	if !c.mailbox.opened() { // OnConnect didn't succeed; without mu: only this goroutine closes the mailbox
		return
	}

	defer c.fail(cause)
	defer c.closeMailbox()
	c.drainEvents()
}

// fail calls the message callback with the cause of the end, unless it had its last call before.
func (c *Conn) fail(err error) {
	last := c.hub.cfg.last
	if last == nil {
		return
	}

	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.mailbox.finished {
		c.mailbox.finished = true
		c.guard(last.name, func() error { last.fail(c, err); return nil })
	}
}

// hangUp completes the close handshake, closes the socket, and releases what the connection holds. The rooms
// need none of its callbacks any more.
func (c *Conn) hangUp() {
	c.doneWithAll()
	c.line.HangUp()
	c.line.Abandon(c.cause())
	c.hub.release(c)
}

// checkPeers pings silent peers and ends connections whose peers don't answer. To peers that were promised it, it
// sends a beat if nothing else was sent. The heartbeat calls it.
func (h *Hub) checkPeers(now int64, late bool) {
	var silent, mute []*Conn
	h.store.eachConn(func(c *Conn) {
		if c.line.IsMute(&h.heartbeat, now) {
			mute = append(mute, c)
		}
		if c.line.IsSilent(&h.heartbeat, now) {
			silent = append(silent, c)
		}
	})

	for _, c := range silent {
		c.line.Check(&h.heartbeat, now, late)
	}
	for _, c := range mute {
		c.line.Beat()
	}
}

// owner is the part of a Conn that its line knows.
type owner Conn

var _ line.Owner = (*owner)(nil)

// End ends the connection, unless it is ending already.
func (o *owner) End(e line.Ending) { (*Conn)(o).end(e) }

// Context returns the connection's context, which is done when the connection is ending.
func (o *owner) Context() context.Context { return (*Conn)(o).Context() }

// Limits returns the hub's limits on what peers send.
func (o *owner) Limits() *line.Limits { return &o.hub.cfg.inbound }

// Received counts a message that was read.
func (o *owner) Received(bytes int) { o.hub.countIn((*Conn)(o), bytes) }

// Wrote counts what was written.
func (o *owner) Wrote(w outbound.Written) {
	o.line.Wrote(w)
	o.hub.countOut((*Conn)(o), w)
}

// WriteFailed counts the lost messages and ends the connection. If the connection's own end closed the
// socket, that end stands.
func (o *owner) WriteFailed(err error, lost int) {
	c := (*Conn)(o)
	c.hub.countLost(c, lost)
	c.end(line.WriteFailed(err))
}
