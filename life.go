package wsroom

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/outbound"
)

const (
	closeBudget = 5 * time.Second // for the close handshake, what is queued included
	ridBudget   = 1 * time.Second // where we are rid of the client
)

// ending says how a connection ends. The first one wins.
type ending struct {
	cause  error
	label  string // for metrics
	code   websocket.StatusCode
	reason string
	mute   bool          // no close frame, no handshake
	drop   bool          // what is queued isn't written any more
	budget time.Duration // for what is queued and the close frame; 0: the socket is closed at once
	kill   *time.Timer   // closes the socket when the budget is spent; set by beginClosing, for hangUp
}

// What is queued when a connection ends goes out before the close frame, for as long as the budget lasts: it
// was sent before, whatever the peer did then. Two kinds of ends drop it:
//
//	slow                                     the queue is full, for the peer doesn't read it
//	lost, write_timeout, heartbeat           the line is dead
//	closed, by the websocket.Conn's CloseNow the application wants no more of it
//
// The budget is 1 s where the peer did wrong, and 5 s for all others; also for a peer that closed, or that
// shut down its own writing.
var (
	endingSlow      = droppingAll(rid("slow", ErrSlow, websocket.StatusTryAgainLater, "too slow"))
	endingFlood     = rid("overhead", fmt.Errorf("%w: pings, pongs or fragments", ErrRateLimited), websocket.StatusPolicyViolation, "too many pings, pongs or small fragments")
	endingHeartbeat = droppingAll(ending{cause: ErrHeartbeat, label: "heartbeat", mute: true})
	endingTooBig    = rid("too_big", fmt.Errorf("wsroom: read: frame announced: %w", websocket.ErrMessageTooBig), websocket.StatusMessageTooBig, "message too big")
	endingNotUTF8   = rid("not_utf8", errNotUTF8, websocket.StatusInvalidFramePayloadData, "text must be UTF-8")
)

// rid is the ending of a peer that did wrong.
func rid(label string, cause error, code websocket.StatusCode, reason string) ending {
	return ending{cause: cause, label: label, code: code, reason: reason, budget: ridBudget}
}

func droppingAll(e ending) ending {
	e.drop = true
	return e
}

func endingShutdown(code websocket.StatusCode) ending {
	e := ending{cause: ErrShutdown, label: "shutdown", code: code, reason: "server is going away", budget: closeBudget}
	if code == websocket.StatusServiceRestart {
		e.reason = "server restarts"
	}
	return e
}

func endingClosed(by websocket.CloseError) ending {
	return ending{cause: by, label: "closed", code: by.Code, reason: by.Reason, budget: closeBudget}
}

// endingLost is the end of a line that is dead.
func endingLost(doing string, err error) ending {
	return ending{cause: fmt.Errorf("wsroom: %s: %w", doing, err), label: "lost", mute: true, drop: true}
}

// endingWriteFailed is the end by an error of the socket's writing side.
func endingWriteFailed(err error) ending {
	e := endingLost("write", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.label = "write_timeout"
	}
	return e
}

// endingReadFailed is the end by an error of the socket's reading side.
func endingReadFailed(err error) ending {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return rid("message_timeout", fmt.Errorf("wsroom: message took too long: %w", err),
			websocket.StatusPolicyViolation, "message took too long")
	}
	e := endingLost("read", err)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the peer may still read
		e.drop, e.budget = false, closeBudget
	}
	return e
}

// endingPeer answers the peer's close frame, whose reason must be UTF-8 (RFC 6455, section 5.5.1), once what
// was queued before it is out (section 5.5.1 allows that).
func endingPeer(by websocket.CloseError) ending {
	if !utf8.ValidString(by.Reason) {
		return endingNotUTF8
	}
	return ending{cause: by, label: "peer", code: by.Code, budget: closeBudget}
}

// endingBy is what an error of OnConnect or Serve asks for.
func endingBy(err error) ending {
	if err == nil {
		return endingClosed(websocket.CloseError{Code: websocket.StatusNormalClosure})
	}
	e := ending{cause: err, label: "error", code: websocket.StatusInternalError, budget: closeBudget}
	if e.closeBy(err) {
		e.label = "closed"
	}
	return e
}

// closeBy takes the code and reason of a websocket.CloseError and reports whether err is one.
func (e *ending) closeBy(err error) bool {
	by := websocket.CloseError{}
	ok := errors.As(err, &by) && frame.CheckCloseCode(by.Code) == nil
	if ok {
		e.code, e.reason = by.Code, cutReason(by.Reason)
	}
	return ok
}

// cutReason is a text as far as it fits a close frame; a character that is cut goes altogether, and so does
// what isn't UTF-8.
func cutReason(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), frame.MaxControl-2)], "")
}

// closeFrame returns the close frame that is sent, "" if none is.
func (e *ending) closeFrame() string {
	if e.mute {
		return ""
	}

	var buf [frame.MaxControl + 2]byte
	if e.code == websocket.StatusNoStatusRcvd { // stands for a frame without a code (RFC 6455, section 7.1.5)
		return string(frame.AppendClose(buf[:0], 0, ""))
	}
	return string(frame.AppendClose(buf[:0], int(e.code), e.reason))
}

// end begins the end of the connection and reports whether it was the first to. It takes these steps:
//
//  1. the ending is noted, and from then on nobody joins a room or sends;
//  2. the connection leaves every room;
//  3. the queue is closed, with the close frame behind what waits;
//  4. the reader is interrupted, and a timer bounds the rest (beginClosing; by attach if there is no socket yet);
//  5. the context is done, for which finish waits.
//
// end never waits and may be called by anyone who holds no lock.
func (c *Conn) end(e ending) bool {
	c.mu.Lock()
	if c.ending != nil {
		c.mu.Unlock()
		return false
	}
	c.ending = &e
	wire := c.wire // nil: attach finds the ending
	if c.expiry != nil {
		c.expiry.Stop()
	}
	c.mu.Unlock()

	for _, room := range c.hub.store.remove(c) {
		c.hub.left(c, room)
	}
	c.hub.unsubscribe(cluster.EveryRoom)
	c.hub.countLost(c, c.queue.CloseWith(e.closeFrame(), e.drop))

	if wire != nil {
		c.beginClosing(wire, &e)
	}

	c.mu.Lock()
	c.gone = true
	ctx := c.context
	c.mu.Unlock()
	if ctx != nil {
		ctx.cancel(e.cause)
	}
	return true
}

// beginClosing interrupts the reader, and has the socket closed when the ending's budget is spent. It is called once,
// by whichever of end and attach comes second.
func (c *Conn) beginClosing(wire *frame.Conn, e *ending) {
	wire.Interrupt()

	switch {
	case e.budget == 0:
		c.killSocket()
	case !e.mute || !c.queue.IsDone(): // else there is nothing to wait for
		e.kill = time.AfterFunc(e.budget, c.killSocket)
	}
}

// attach gives the connection its socket. Nothing is written to it before start. If the connection has ended already,
// what follows at the socket is done here.
func (c *Conn) attach(wire *frame.Conn, ws *websocket.Conn) {
	c.mu.Lock()
	c.wire, c.ws = wire, ws
	ending := c.ending
	c.mu.Unlock()

	if ending != nil {
		c.beginClosing(wire, ending)
	}
}

// start lets writers run, once the client has been sent the 101.
func (c *Conn) start() { c.queue.Attach(c.wire) }

// killSocket closes the socket, if there is one yet, and the websocket.Conn above it, for callbacks
// that wait inside; that may take a while and has a goroutine of its own.
func (c *Conn) killSocket() {
	c.mu.Lock()
	wire := c.wire
	c.mu.Unlock()
	if wire == nil {
		return
	}
	wire.Kill()
	go func() {
		if ws := c.WebSocket(); ws != nil {
			_ = ws.CloseNow()
		}
	}()
}

// open runs OnConnect and then lets room messages through.
func (c *Conn) open(r *http.Request) {
	f := c.hub.cfg.onConnect
	if f == nil {
		c.connected = true
	} else {
		c.queue.SnapshotBy(goroutine.Current())
		c.callback("OnConnect", func() error {
			err := f(c, r)
			if c.connected = err == nil; !c.connected {
				c.end(endingBy(err))
			}
			return err
		})
	}
	c.queue.Release()
	c.beating.Store(true)
	c.hub.startHeartbeat()
}

// run is the connection's goroutine after OnConnect's return. It takes these steps; the last two are taken even if a
// callback ends the goroutine:
//
//  1. begin reports the first joins, or has Serve do all of the reading;
//  2. messages are read and handled until the connection ends;
//  3. finish runs the last callbacks;
//  4. hangUp completes the close handshake and closes the socket.
//
// Between messages the connection idles in Wait, and pays for what lies on the stack there: with less than 1 KB that
// stays at 2 KB. Handling a message makes it grow, to 4 KB for good. So once that is done the connection is handed
// over to a fresh goroutine, which goes on with step 2.
func (c *Conn) run(first bool) {
	handedOver := false
	defer func() {
		if handedOver {
			go c.run(false)
		} else {
			c.finish()
		}
	}()

	if first && !c.begin() {
		return
	}

	for !handedOver {
		if err := c.wire.Wait(); err != nil {
			if c.waitFailed(err) {
				return
			}
		} else if !c.handle() {
			return
		} else {
			handedOver = c.mayRest()
		}
	}
}

// mayRest reports whether nothing more is there to be read, but at most once a second: a peer that sends all the
// time isn't slowed down.
func (c *Conn) mayRest() bool {
	now := uint32(c.wire.LastRead() / int64(time.Second))
	if now == c.freshAt || c.wire.Unread() {
		return false
	}
	c.freshAt = now
	return true
}

// begin reports the first joins, or has Serve do all of it. It reports whether there is to be read.
func (c *Conn) begin() bool {
	if !c.connected {
		return false
	}
	c.setReporting(true)
	c.runEvents()
	if c.isEnded() {
		return false
	}
	serve := c.hub.cfg.serve
	if serve != nil {
		c.guard("Serve", func() error {
			err := serve(c)
			if !c.end(endingBy(err)) {
				return nil // what it returns is how it heard of the end
			}
			return err
		})
	}
	return serve == nil
}

// finish runs the last callbacks, each even if the one before it ended the goroutine. So they are deferred, and read
// from the bottom up: drainEvents, setReporting, fail, OnClose, hangUp.
func (c *Conn) finish() {
	cause := c.cause() // it has left every room then
	c.awaitPending()

	defer c.hangUp()
	if f := c.hub.cfg.onClose; f != nil {
		defer c.callback("OnClose", func() error { f(c, cause); return nil })
	}

	if !c.connected {
		return
	}

	defer c.fail(cause)
	defer c.setReporting(false)
	c.drainEvents()
}

// fail gives the message callback its err, once.
func (c *Conn) fail(err error) {
	last := c.hub.cfg.last
	if last == nil {
		return
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.finished {
		c.finished = true
		c.guard(last.name, func() error { last.fail(c, err); return nil })
	}
}

// hangUp completes the close handshake within the ending's budget and frees what is left. It reads while
// the queue is still being written: a peer in the middle of a send of its own may read only after.
func (c *Conn) hangUp() {
	if !c.ending.mute {
		c.wire.Resume()
		c.wire.Drain()
	}

	<-c.queue.Done()
	c.wire.Hangup() // over TLS it waits for the peer, too

	if kill := c.ending.kill; kill != nil {
		kill.Stop()
	}
	_ = c.ws.CloseNow()
	c.hub.release(c)
}

// readEnding says what an error of coder/websocket's reading means for the connection. Those of the socket
// have ended it before.
func (c *Conn) readEnding(err error) ending {
	if by := (websocket.CloseError{}); errors.As(err, &by) {
		return endingPeer(by)
	}
	return endingRefused(fmt.Errorf("wsroom: read: %w", err), websocket.StatusCode(c.refusal.Load()))
}

// endingRefused is the end by what coder/websocket refused with a close code, or without one.
func endingRefused(cause error, code websocket.StatusCode) ending {
	if code == websocket.StatusMessageTooBig {
		return rid("too_big", cause, code, "message too big")
	}
	return rid("protocol", cause, websocket.StatusProtocolError, "protocol error")
}

// transport is what the frame.Conn beneath coder/websocket, and the queue that is written to it, see of a Conn.
type transport Conn

// Overhead ends the connection of a peer that sends too many frames which carry nothing. While nobody
// reads, because a callback runs, they gather: so the time since the peer was last known to have nothing
// more to say counts in full, whatever comes how fast at its end.
func (t *transport) Overhead(caughtUp int64) {
	c := (*Conn)(t)
	wait := c.overhead.Take(1, c.hub.cfg.overheadRate, caughtUp)
	if wait > time.Duration(frame.Now()-caughtUp) {
		c.end(endingFlood)
	}
}

// Oversized ends the connection of a peer that announces more than it may send.
func (t *transport) Oversized() { (*Conn)(t).end(endingTooBig) }

// Unmasked ends the connection of a peer that breaks the protocol where coder/websocket doesn't say so.
func (t *transport) Unmasked() {
	(*Conn)(t).end(endingRefused(errors.New("wsroom: read: frame without a mask"), websocket.StatusProtocolError))
}

// Control sends pings and pongs ahead of the messages. A close frame becomes the end of the
// connection, which sends its own.
func (t *transport) Control(opcode byte, payload []byte) {
	c := (*Conn)(t)
	if opcode != frame.Close {
		c.queue.PushControl(opcode, payload, false)
		return
	}
	by := frame.CloseErrorOf(payload)
	refusal := by.Code == websocket.StatusProtocolError || by.Code == websocket.StatusMessageTooBig
	switch {
	case refusal && c.refusal.CompareAndSwap(readingNow, int32(by.Code)): // the reader says why
		c.wire.Interrupt() // in case the application closes, and not coder/websocket
	case refusal && refusedByCoder(by.Reason, c.wire.PeerClosing()): // the application reads by itself
		cause := fmt.Errorf("wsroom: read: %s", by.Reason)
		if by.Code == websocket.StatusMessageTooBig {
			cause = fmt.Errorf("wsroom: read: %w", websocket.ErrMessageTooBig)
		}
		c.end(endingRefused(cause, by.Code))
	case c.wire.PeerClosing():
		c.end(endingPeer(by))
	default:
		c.end(endingClosed(by))
	}
}

// refusedByCoder reports whether a close frame's reason is in coder/websocket's words for what it refuses
// to read, and not in the application's, nor, if that closes, in the peer's.
func refusedByCoder(reason string, peerCloses bool) bool {
	if peerCloses {
		return strings.HasPrefix(reason, "received invalid close payload: ")
	}
	return strings.HasPrefix(reason, "received ") || strings.HasPrefix(reason, "read limited at ")
}

// MessageSent lets what is queued follow a message that the application wrote in several frames.
func (t *transport) MessageSent() { t.queue.Resume() }

// Failed ends the connection, for a frame may have been cut.
func (t *transport) Failed(err error) { (*Conn)(t).end(endingWriteFailed(err)) }

// ReadFailed ends the connection, whoever reads: we, or the application by itself.
func (t *transport) ReadFailed(err error) { (*Conn)(t).end(endingReadFailed(err)) }

// Closed ends the connection where the application closed the websocket.Conn itself, and not
// coder/websocket because of what it read.
func (t *transport) Closed() {
	if t.refusal.Load() > 0 {
		return // the reader says why
	}
	(*Conn)(t).end(ending{
		cause: fmt.Errorf("wsroom: closed through WebSocket(): %w", net.ErrClosed),
		label: "closed", mute: true, drop: true,
	})
}

// Wrote counts what was written. The first ping since the peer was last known to live is the one that is judged.
func (t *transport) Wrote(w outbound.Written) {
	c := (*Conn)(t)
	if w.Pinged {
		c.pingedAt.CompareAndSwap(0, c.wire.Listened(w.At)+1)
	}
	c.hub.countOut(c, w)
}

// WriteFailed ends the connection, unless it was its end that closed the socket.
func (t *transport) WriteFailed(err error, lost int) {
	c := (*Conn)(t)
	c.hub.countLost(c, lost)
	c.end(endingWriteFailed(err))
}

var (
	_ frame.Owner    = (*transport)(nil)
	_ outbound.Owner = (*transport)(nil)
)
