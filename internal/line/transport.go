package line

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// transport is the part of a Line that its wire, the frame.Conn below coder/websocket, knows.
type transport Line

var _ frame.Owner = (*transport)(nil)

// EmptyFrame ends the line of a peer that sends too many frames which carry nothing. Such frames pile up while
// a callback runs and nobody reads. So the budget is measured from caughtUp, when the peer's data was last
// fully read, and not from when the frames are read.
func (t *transport) EmptyFrame(caughtUp int64) {
	l := (*Line)(t)
	wait := l.emptyFrames.Take(1, l.owner().Limits().EmptyFrames, caughtUp)
	if wait > time.Duration(frame.Now()-caughtUp) {
		l.end(flooded)
	}
}

// Pong takes the answers to the pings that stand behind messages.
func (t *transport) Pong(payload []byte) (known bool) { return t.Answer(payload) }

// Oversized ends the line of a peer that announces a larger message than it may send.
func (t *transport) Oversized() { (*Line)(t).end(tooBig) }

// Unmasked ends the line of a peer that sends a frame without a mask (RFC 6455, section 5.1). coder/websocket
// refuses the frame without saying so.
func (t *transport) Unmasked() {
	(*Line)(t).end(refused(errors.New("wsroom: read: frame without a mask"), websocket.StatusProtocolError))
}

// Control queues pings and pongs ahead of the messages (RFC 6455, section 5.5.2: a pong as soon as is
// practical). A close frame becomes the ending of the line, which sends its own close frame.
func (t *transport) Control(opcode byte, payload []byte) (taken bool) {
	if opcode != frame.Close {
		return t.PushControl(opcode, payload, false)
	}
	t.closing(payload)
	return true
}

// closing ends the line by a close frame of coder/websocket.
func (t *transport) closing(payload []byte) {
	l := (*Line)(t)
	by := frame.CloseErrorOf(payload)
	refusal := by.Code == websocket.StatusProtocolError || by.Code == websocket.StatusMessageTooBig

	switch {
	case refusal && l.refusal.CompareAndSwap(readingNow, int32(by.Code)): // the reader ends the line
		l.Wire().Interrupt() // needed if the application closes, and not coder/websocket
	case refusal && refusedByCoder(by.Reason, l.Wire().PeerClosing()): // the application reads itself
		cause := fmt.Errorf("wsroom: read: %s", by.Reason)
		if by.Code == websocket.StatusMessageTooBig {
			cause = fmt.Errorf("wsroom: read: %w", websocket.ErrMessageTooBig)
		}
		l.end(refused(cause, by.Code))
	case l.Wire().PeerClosing():
		l.end(closedByPeer(by))
	default:
		l.end(Closed(by))
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
func (t *transport) MessageSent() { t.Queue.Resume() }

// Failed ends the line, because a frame may have been written only in part.
func (t *transport) Failed(err error) { (*Line)(t).end(WriteFailed(err)) }

// ReadFailed ends the line, whether this package or the application was reading.
func (t *transport) ReadFailed(err error) { (*Line)(t).end(readFailed(err)) }

// Closed ends the line if the application closed the websocket.Conn itself. If coder/websocket closed it
// because of what it read, the reader ends the line.
func (t *transport) Closed() {
	if t.refusal.Load() > 0 {
		return
	}
	(*Line)(t).end(closedThroughWebSocket())
}

// Wake has the owner read again.
func (t *transport) Wake() { (*Line)(t).owner().Wake() }
