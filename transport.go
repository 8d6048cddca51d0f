package wsroom

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
)

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
