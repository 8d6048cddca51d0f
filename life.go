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
	closeBudget = 5 * time.Second // for queued messages and the close handshake
	ridBudget   = 1 * time.Second // the same, for a peer that did something wrong
)

// ending says how a connection ends. A connection has one ending: the first.
type ending struct {
	cause  error
	label  string // for metrics
	code   websocket.StatusCode
	reason string
	mute   bool          // no close frame, no handshake
	drop   bool          // queued messages are dropped
	budget time.Duration // for queued messages and the close handshake; 0: the socket is closed at once
	kill   *time.Timer   // closes the socket when the budget is spent; set by beginClosing, for hangUp
}

// Messages that are queued when a connection ends are written before the close frame, for as long as the budget
// lasts: they were sent before the end, whatever its cause. These endings drop them:
//
//	slow                                     the queue is full, because the peer doesn't read
//	lost, write_timeout, heartbeat           the network connection is dead
//	closed, by the websocket.Conn's CloseNow the application wants nothing more to be written
//
// The budget is 1 s if the peer did something wrong. Otherwise it is 5 s, also for a peer that closed, or that
// shut down its own writing. The close codes are those of RFC 6455, section 7.4.1: 1008 for a flood of empty
// frames, 1009 for a message that is too big, and 1007 for text that isn't UTF-8 (section 8.1, too). 1013, for
// a slow client, has been registered since (section 11.7).
var (
	endingSlow      = droppingAll(rid("slow", ErrSlow, websocket.StatusTryAgainLater, "too slow"))
	endingFlood     = rid("overhead", fmt.Errorf("%w: pings, pongs or fragments", ErrRateLimited), websocket.StatusPolicyViolation, "too many pings, pongs or small fragments")
	endingHeartbeat = droppingAll(ending{cause: ErrHeartbeat, label: "heartbeat", mute: true})
	endingTooBig    = rid("too_big", fmt.Errorf("wsroom: read: frame announced: %w", websocket.ErrMessageTooBig), websocket.StatusMessageTooBig, "message too big")
	endingNotUTF8   = rid("not_utf8", errNotUTF8, websocket.StatusInvalidFramePayloadData, "text must be UTF-8")
)

// rid is the ending of a peer that did something wrong.
func rid(label string, cause error, code websocket.StatusCode, reason string) ending {
	return ending{cause: cause, label: label, code: code, reason: reason, budget: ridBudget}
}

// droppingAll returns the ending with drop set.
func droppingAll(e ending) ending {
	e.drop = true
	return e
}

// endingShutdown is the ending by Shutdown, with the code of WithShutdownCode.
func endingShutdown(code websocket.StatusCode) ending {
	e := ending{cause: ErrShutdown, label: "shutdown", code: code, reason: "server is going away", budget: closeBudget}
	if code == websocket.StatusServiceRestart {
		e.reason = "server restarts"
	}
	return e
}

// endingClosed is the ending by a Close of the application: of the Conn, of a Target, of the
// websocket.Conn, or by a callback's result.
func endingClosed(by websocket.CloseError) ending {
	return ending{cause: by, label: "closed", code: by.Code, reason: by.Reason, budget: closeBudget}
}

// endingLost is the ending of a dead network connection.
func endingLost(doing string, err error) ending {
	return ending{cause: fmt.Errorf("wsroom: %s: %w", doing, err), label: "lost", mute: true, drop: true}
}

// endingWriteFailed is the ending by an error of writing to the socket.
func endingWriteFailed(err error) ending {
	e := endingLost("write", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.label = "write_timeout"
	}
	return e
}

// endingReadFailed is the ending by an error of reading from the socket.
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

// endingPeer answers the peer's close frame with a close frame of the same code (RFC 6455, section 5.5.1).
// The answer follows the messages queued before, which section 5.5.1 allows. A reason that isn't UTF-8
// breaks the same section.
func endingPeer(by websocket.CloseError) ending {
	if !utf8.ValidString(by.Reason) {
		return endingNotUTF8
	}
	return ending{cause: by, label: "peer", code: by.Code, budget: closeBudget}
}

// endingBy is the ending by the result of OnConnect's or Serve's function. nil closes normally.
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

// closeBy takes over the code and reason of a websocket.CloseError. It reports whether err is one with a
// code that can be sent.
func (e *ending) closeBy(err error) bool {
	by := websocket.CloseError{}
	ok := errors.As(err, &by) && frame.CheckCloseCode(by.Code) == nil
	if ok {
		e.code, e.reason = by.Code, cutReason(by.Reason)
	}
	return ok
}

// cutReason cuts a text to the length that fits a close frame: 123 bytes, since a control frame has at most
// 125 (RFC 6455, section 5.5). It drops a character that the cut would split, and everything that isn't
// UTF-8.
func cutReason(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), frame.MaxControl-2)], "")
}

// closeFrame returns the close frame to send. It returns "" if none is sent.
func (e *ending) closeFrame() string {
	if e.mute {
		return ""
	}

	var buf [frame.MaxControl + 2]byte
	if e.code == websocket.StatusNoStatusRcvd { // a frame without a code (RFC 6455, section 7.1.5)
		return string(frame.AppendClose(buf[:0], 0, ""))
	}
	return string(frame.AppendClose(buf[:0], int(e.code), e.reason))
}

// end begins the end of the connection. It reports whether this call was the first to do so. It takes these
// steps:
//
//  1. the ending is noted; from then on the connection joins no room and takes no send;
//  2. the connection leaves every room;
//  3. the queue is closed; the close frame goes behind the messages that wait;
//  4. beginClosing interrupts the reader and sets a timer for the rest (later, by attach, without a socket);
//  5. the connection's context is cancelled; finish waits for that.
//
// end never waits. Any goroutine that holds no lock may call it.
func (c *Conn) end(e ending) bool {
	c.mu.Lock()
	if c.ending != nil {
		c.mu.Unlock()
		return false
	}
	c.ending = &e
	wire := c.wire // if it is nil, attach finds the ending
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

// beginClosing interrupts the reader, and arranges that the socket is closed when the ending's budget is
// spent. It is called once, by end or by attach: the one that comes second.
func (c *Conn) beginClosing(wire *frame.Conn, e *ending) {
	wire.Interrupt()

	switch {
	case e.budget == 0:
		c.killSocket()
	case !e.mute || !c.queue.IsDone(): // otherwise there is nothing to wait for
		e.kill = time.AfterFunc(e.budget, c.killSocket)
	}
}

// attach gives the connection its socket. Nothing is written to the socket before start. If the connection
// has ended already, attach does for the socket what end would have done.
func (c *Conn) attach(wire *frame.Conn, ws *websocket.Conn) {
	c.mu.Lock()
	c.wire, c.ws = wire, ws
	ending := c.ending
	c.mu.Unlock()

	if ending != nil {
		c.beginClosing(wire, ending)
	}
}

// start lets the queue be written, once the 101 has been sent to the client.
func (c *Conn) start() { c.queue.Attach(c.wire) }

// killSocket closes the socket, if there is one yet. Then it closes the websocket.Conn above it, because
// callbacks may be waiting inside. That may take a while and so has a goroutine of its own.
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

// open runs OnConnect and then releases the messages that others sent meanwhile.
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
// So after a message run hands the connection over to a new goroutine, which continues with step 2.
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

// mayRest reports whether nothing more is there to be read. It reports true at most once a second, so a
// peer that sends all the time isn't slowed down by new goroutines.
func (c *Conn) mayRest() bool {
	now := uint32(c.wire.LastRead() / int64(time.Second))
	if now == c.freshAt || c.wire.Unread() {
		return false
	}
	c.freshAt = now
	return true
}

// begin reports the first joins, and runs Serve if it is set. It reports whether run has messages to read.
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
				return nil // the connection had ended before, and err tells only that
			}
			return err
		})
	}
	return serve == nil
}

// finish runs the last callbacks, each even if the one before it ended the goroutine. So they are deferred.
// They run in this order: drainEvents, setReporting, fail, OnClose, hangUp.
func (c *Conn) finish() {
	cause := c.cause() // by then the connection has left every room
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

// fail calls the message callback with the cause of the end, unless it had its last call before.
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

// hangUp completes the close handshake within the ending's budget (RFC 6455, section 7.1.1) and releases
// what the connection holds. It reads while the queue is still being written: a peer in the middle of a
// long send of its own may not read before that is done.
func (c *Conn) hangUp() {
	if !c.ending.mute {
		c.wire.Resume()
		c.wire.Drain()
	}

	<-c.queue.Done()
	c.wire.Hangup() // over TLS it may wait for the peer, too

	if kill := c.ending.kill; kill != nil {
		kill.Stop()
	}
	_ = c.ws.CloseNow()
	c.hub.release(c)
}

// readEnding returns the ending for an error of reading through coder/websocket. Errors of the socket have
// ended the connection before.
func (c *Conn) readEnding(err error) ending {
	if by := (websocket.CloseError{}); errors.As(err, &by) {
		return endingPeer(by)
	}
	return endingRefused(fmt.Errorf("wsroom: read: %w", err), websocket.StatusCode(c.refusal.Load()))
}

// endingRefused is the ending when coder/websocket refused what it read. code is the close code it chose,
// or 0. A message that is too big ends with 1009, everything else with 1002 (RFC 6455, section 7.4.1).
func endingRefused(cause error, code websocket.StatusCode) ending {
	if code == websocket.StatusMessageTooBig {
		return rid("too_big", cause, code, "message too big")
	}
	return rid("protocol", cause, websocket.StatusProtocolError, "protocol error")
}

// transport is the part of a Conn that the frame.Conn below coder/websocket and the outbound queue know.
type transport Conn

// Overhead ends the connection of a peer that sends too many frames which carry nothing. Such frames pile
// up while a callback runs and nobody reads. So the budget is measured from caughtUp, when the peer's data
// was last fully read, and not from when the frames are read.
func (t *transport) Overhead(caughtUp int64) {
	c := (*Conn)(t)
	wait := c.overhead.Take(1, c.hub.cfg.overheadRate, caughtUp)
	if wait > time.Duration(frame.Now()-caughtUp) {
		c.end(endingFlood)
	}
}

// Oversized ends the connection of a peer that announces a larger message than it may send.
func (t *transport) Oversized() { (*Conn)(t).end(endingTooBig) }

// Unmasked ends the connection of a peer that sends a frame without a mask (RFC 6455, section 5.1).
// coder/websocket refuses the frame without saying so.
func (t *transport) Unmasked() {
	(*Conn)(t).end(endingRefused(errors.New("wsroom: read: frame without a mask"), websocket.StatusProtocolError))
}

// Control queues pings and pongs ahead of the messages (RFC 6455, section 5.5.2: a pong as soon as is
// practical). A close frame becomes the ending of the connection, which sends its own close frame.
func (t *transport) Control(opcode byte, payload []byte) {
	c := (*Conn)(t)
	if opcode != frame.Close {
		c.queue.PushControl(opcode, payload, false)
		return
	}

	by := frame.CloseErrorOf(payload)
	refusal := by.Code == websocket.StatusProtocolError || by.Code == websocket.StatusMessageTooBig

	switch {
	case refusal && c.refusal.CompareAndSwap(readingNow, int32(by.Code)): // the reader ends the connection
		c.wire.Interrupt() // needed if the application closes, and not coder/websocket
	case refusal && refusedByCoder(by.Reason, c.wire.PeerClosing()): // the application reads itself
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

// refusedByCoder reports whether a close frame's reason has the words of coder/websocket for what it
// refuses to read. Otherwise the words are those of the application or, if the peer is closing, may be
// those of the peer.
func refusedByCoder(reason string, peerCloses bool) bool {
	if peerCloses {
		return strings.HasPrefix(reason, "received invalid close payload: ")
	}
	return strings.HasPrefix(reason, "received ") || strings.HasPrefix(reason, "read limited at ")
}

// MessageSent lets queued messages follow a message that the application wrote in several frames.
func (t *transport) MessageSent() { t.queue.Resume() }

// Failed ends the connection, because a frame may have been written only in part.
func (t *transport) Failed(err error) { (*Conn)(t).end(endingWriteFailed(err)) }

// ReadFailed ends the connection, whether this package or the application was reading.
func (t *transport) ReadFailed(err error) { (*Conn)(t).end(endingReadFailed(err)) }

// Closed ends the connection if the application closed the websocket.Conn itself. If coder/websocket closed
// it because of what it read, the reader ends the connection.
func (t *transport) Closed() {
	if t.refusal.Load() > 0 {
		return // the reader ends the connection
	}
	(*Conn)(t).end(ending{
		cause: fmt.Errorf("wsroom: closed through WebSocket(): %w", net.ErrClosed),
		label: "closed", mute: true, drop: true,
	})
}

// Wrote counts what was written. The heartbeat waits for an answer to the first ping that was written since
// it last knew the peer to be alive.
func (t *transport) Wrote(w outbound.Written) {
	c := (*Conn)(t)
	if w.Pinged {
		c.pingedAt.CompareAndSwap(0, c.wire.Listened(w.At)+1)
	}
	c.hub.countOut(c, w)
}

// WriteFailed counts the lost messages and ends the connection. If the connection's own end closed the
// socket, that end stands.
func (t *transport) WriteFailed(err error, lost int) {
	c := (*Conn)(t)
	c.hub.countLost(c, lost)
	c.end(endingWriteFailed(err))
}

var (
	_ frame.Owner    = (*transport)(nil)
	_ outbound.Owner = (*transport)(nil)
)
