// Package line is one client's WebSocket as messages: one in at a time, a bounded queue out, and one end.
//
// It knows the socket as a *frame.Conn, coder/websocket above it, the queue of package outbound, and an
// [Owner] that it asks to end the line. It knows no rooms and no callbacks, and it calls nothing of the
// application.
package line

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
)

// Limits bound what a peer may send. One Limits serves many lines.
type Limits struct {
	Message     int64       // bytes of a message
	Messages    bucket.Rate // messages
	Bytes       bucket.Rate // bytes of messages
	Disconnect  bool        // what is over these rates ends the line; otherwise it waits
	EmptyFrames bucket.Rate // pings, pongs and tiny fragments; what is over this rate ends the line
}

// LimitsMessages reports whether there is a limit on messages or their bytes.
func (s *Limits) LimitsMessages() bool { return s.Messages.Limits() || s.Bytes.Limits() }

// Owner is what a [Line] belongs to. Its methods are called with no lock of the line or of the queue held.
type Owner interface {
	// Wrote must pass what it gets to [Line.Wrote], too.
	outbound.Owner
	// End ends the line, unless it is ending already, as [Line.SetEnding] and [Line.Close] say. It never waits.
	End(Ending)
	// Received reports that a message of this many bytes was read.
	Received(bytes int)
	// Context is done once the line is closed. Its cause is that of the ending.
	Context() context.Context
	// Limits bound what the peer may send.
	Limits() *Limits
	// Wake starts a goroutine that reads again, after a [Line.Park]. It must not wait.
	Wake()
}

// Line is one client's WebSocket. It begins with [Line.Init], [Line.NewWire], [Line.Attach] and
// [outbound.Queue.Start]. It ends with [Line.SetEnding], [Line.Close] and [Line.HangUp]. Senders use the
// embedded queue. One goroutine at a time may read.
type Line struct {
	outbound.Queue // it has the wire, and the Owner

	ws     atomic.Pointer[websocket.Conn] // set by Attach, before the wire; then nil from Shrink until it is needed
	ending atomic.Pointer[Ending]         // nil until SetEnding
	in     atomic.Pointer[inbound]        // nil if there is nothing in it; set by Init or the reader

	// refusal is readingNow while this package reads through coder/websocket. It is a close code once
	// coder/websocket has refused what was read with that code, and 0 otherwise.
	refusal atomic.Int32

	seat        uint32        // in the heartbeat's wheel, plus 1; 0: in none; belongs to the heartbeat
	emptyFrames bucket.Bucket // belongs to the wire's reader

	// pingedAt is the wire's Listened, plus 1, when the ping that the heartbeat waits for was written. It is 0
	// if none was. The writer sets it; the heartbeat sets and reads it.
	pingedAt   atomic.Int64
	readAtPing int64 // the wire's LastRead when that ping was queued; belongs to the heartbeat
	askedAt    int64 // when a ping was last queued, by frame.Now; belongs to the heartbeat
}

// Init prepares a line. If held is set, messages wait for [outbound.Queue.Release].
func (l *Line) Init(limits *outbound.Limits, o Owner, held bool) {
	l.Queue.Init(limits, o, held)
	if o.Limits().LimitsMessages() {
		l.in.Store(new(inbound))
	}
}

// owner returns the line's owner, which the queue keeps.
func (l *Line) owner() Owner { return l.Queue.Owner().(Owner) }

// NewWire returns the net.Conn that coder/websocket gets in place of the socket. early are bytes that have
// been read from the socket already.
func (l *Line) NewWire(socket net.Conn, early []byte, limits *frame.Limits) *frame.Conn {
	return frame.NewConn(socket, early, (*transport)(l), limits)
}

// Attach gives the line its wire and what coder/websocket made of it. Nothing is written before
// [outbound.Queue.Start]. If the line is closed already, Attach does for the socket what [Line.Close] would
// have done.
func (l *Line) Attach(wire *frame.Conn, ws *websocket.Conn) {
	l.ws.Store(ws)
	if closed := l.Queue.Attach(wire); closed {
		l.beginClosing(wire, l.Ending())
	}
}

// Ending returns how the line ends. It returns nil before [Line.SetEnding].
func (l *Line) Ending() *Ending { return l.ending.Load() }

// IsEnding reports whether [Line.SetEnding] was called.
func (l *Line) IsEnding() bool { return l.ending.Load() != nil }

// SetEnding says how the line ends. It reports whether this call was the first: a line has one ending. The
// caller of the first calls [Line.Close] next.
func (l *Line) SetEnding(e *Ending) (first bool) { return l.ending.CompareAndSwap(nil, e) }

// Close stops the queue from taking anything more, and puts the close frame behind what waits. It interrupts
// the reader, and sees to it that the socket is closed when the ending's budget is spent. Without a socket
// [Line.Attach] does that. Close returns the number of messages that are lost. It never waits.
func (l *Line) Close() (lost int) {
	e := l.Ending()
	lost, attached := l.Queue.CloseWith(e.closeFrame(), e.Drop)
	if attached {
		l.beginClosing(l.Wire(), e)
	}
	return lost
}

// beginClosing interrupts the reader, and arranges that the socket is closed when the ending's budget is
// spent. It is called once, by Close or by Attach: the one that comes second.
func (l *Line) beginClosing(wire *frame.Conn, e *Ending) {
	wire.Interrupt()

	shaken := !e.Mute && wire.PeerClosing() && wire.CanTry() && l.IsDone() // over TLS closing may wait
	switch {
	case e.Budget == 0, shaken && l.Awaits():
		l.Kill()
	case shaken:
		wire.Kill() // now, because callbacks may take long before HangUp
		e.killed = true
	case !e.Mute || !l.IsDone() || l.Awaits(): // otherwise there is nothing to wait for
		e.kill = time.AfterFunc(e.Budget, l.Kill)
	}
}

// Kill closes the socket at once, if there is one yet. Then it closes the websocket.Conn above it, because
// callbacks may be waiting inside. That may take a while and so has a goroutine of its own.
func (l *Line) Kill() {
	wire := l.Attached()
	if wire == nil {
		return
	}
	wire.Kill()
	if ws := l.ws.Load(); ws != nil {
		go ws.CloseNow()
	}
}

// HangUp completes the close handshake within the ending's budget (RFC 6455, section 7.1.1) and closes the
// socket. The line is closed, and nobody reads any more. HangUp reads while the queue is still being written:
// a peer in the middle of a long send of its own may not read before that is done.
func (l *Line) HangUp() {
	e, wire := l.Ending(), l.Wire()
	if !e.Mute && !wire.PeerClosing() {
		wire.Resume()
		wire.Drain()
	}

	<-l.Done()
	if !e.killed {
		wire.Hangup() // over TLS it may wait for the peer, too
	}

	if e.kill != nil {
		e.kill.Stop()
	}
	if ws := l.ws.Load(); ws != nil {
		_ = ws.CloseNow()
	}
}

// end asks the owner to end the line.
func (l *Line) end(e Ending) { l.owner().End(e) }

// cause waits until the line is closed, and returns the reason.
func (l *Line) cause() error {
	ctx := l.owner().Context()
	<-ctx.Done()
	return context.Cause(ctx)
}
