package line

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// The budgets of an [Ending].
const (
	CloseBudget = 5 * time.Second
	KickBudget  = 1 * time.Second // for a peer that did something wrong
)

// Ending says how a line ends.
//
// Messages that are queued then are written before the close frame, for as long as the budget lasts: they
// were sent before the end, whatever its cause. These endings drop them:
//
//	slow                                     the queue is full, because the peer doesn't read
//	lost, write_timeout, heartbeat           the network connection is dead
//	closed, by the websocket.Conn's CloseNow the application wants nothing more to be written
//
// The budget is [KickBudget] if the peer did something wrong. Otherwise it is [CloseBudget], also for a peer
// that closed, or that shut down its own writing. The close codes are those of RFC 6455, section 7.4.1: 1008
// for a flood of empty frames, 1009 for a message that is too big, and 1007 for text that isn't UTF-8 (section
// 8.1, too).
type Ending struct {
	Cause  error
	Label  string // for metrics
	Code   websocket.StatusCode
	Reason string        // at most 123 bytes; see CutReason
	Mute   bool          // no close frame, no handshake
	Drop   bool          // queued messages are dropped
	killed bool          // beginClosing has closed the socket
	Budget time.Duration // for queued messages and the close handshake; 0: the socket is closed at once

	kill *time.Timer // closes the socket when the budget is spent; set by beginClosing, for HangUp
}

// Causes of a line's end that programs can tell apart.
var (
	ErrRateLimited = errors.New("wsroom: rate limit exceeded")
	ErrSlow        = errors.New("wsroom: connection is too slow")
	ErrHeartbeat   = errors.New("wsroom: peer does not answer")
)

// ErrNotUTF8 is the cause where text of the peer isn't UTF-8.
var ErrNotUTF8 = errors.New("wsroom: text isn't valid UTF-8")

var (
	flooded  = Kick("overhead", fmt.Errorf("%w: pings, pongs or fragments", ErrRateLimited), websocket.StatusPolicyViolation, "too many pings, pongs or small fragments")
	tooFast  = Kick("rate", ErrRateLimited, websocket.StatusPolicyViolation, "rate limit exceeded")
	tooBig   = Kick("too_big", fmt.Errorf("wsroom: read: frame announced: %w", websocket.ErrMessageTooBig), websocket.StatusMessageTooBig, "message too big")
	notUTF8  = Kick("not_utf8", ErrNotUTF8, websocket.StatusInvalidFramePayloadData, "text must be UTF-8")
	silenced = Ending{Cause: ErrHeartbeat, Label: "heartbeat", Mute: true, Drop: true}
)

// TooSlow is the ending of a peer whose queue is full. Its close code 1013 has been registered since RFC 6455
// (section 11.7).
var TooSlow = Ending{
	Cause: ErrSlow, Label: "slow", Code: websocket.StatusTryAgainLater, Reason: "too slow",
	Drop: true, Budget: KickBudget,
}

// Kick is the ending of a peer that did something wrong.
func Kick(label string, cause error, code websocket.StatusCode, reason string) Ending {
	return Ending{Cause: cause, Label: label, Code: code, Reason: reason, Budget: KickBudget}
}

// Closed is the ending by a Close of the application.
func Closed(by websocket.CloseError) Ending {
	return Ending{Cause: by, Label: "closed", Code: by.Code, Reason: by.Reason, Budget: CloseBudget}
}

// Lost is the ending of a dead network connection. doing is a word for what failed.
func Lost(doing string, err error) Ending {
	return Ending{Cause: fmt.Errorf("wsroom: %s: %w", doing, err), Label: "lost", Mute: true, Drop: true}
}

// WriteFailed is the ending by an error of writing to the socket.
func WriteFailed(err error) Ending {
	e := Lost("write", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Label = "write_timeout"
	}
	return e
}

// readFailed is the ending by an error of reading from the socket.
func readFailed(err error) Ending {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return Kick("message_timeout", fmt.Errorf("wsroom: message took too long: %w", err),
			websocket.StatusPolicyViolation, "message took too long")
	}
	e := Lost("read", err)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the peer may still read
		e.Drop, e.Budget = false, CloseBudget
	}
	return e
}

// closedByPeer answers the peer's close frame with a close frame of the same code (RFC 6455, section 5.5.1).
// The answer follows the messages queued before, which section 5.5.1 allows. A reason that isn't UTF-8 breaks
// the same section.
func closedByPeer(by websocket.CloseError) Ending {
	if !utf8.ValidString(by.Reason) {
		return notUTF8
	}
	return Ending{Cause: by, Label: "peer", Code: by.Code, Budget: CloseBudget}
}

// refused is the ending when coder/websocket refused what it read. code is the close code it chose, or 0. A
// message that is too big ends with 1009, everything else with 1002 (RFC 6455, section 7.4.1).
func refused(cause error, code websocket.StatusCode) Ending {
	if code == websocket.StatusMessageTooBig {
		return Kick("too_big", cause, code, "message too big")
	}
	return Kick("protocol", cause, websocket.StatusProtocolError, "protocol error")
}

// closedThroughWebSocket is the ending when the application closed the websocket.Conn itself.
func closedThroughWebSocket() Ending {
	return Ending{
		Cause: fmt.Errorf("wsroom: closed through WebSocket(): %w", net.ErrClosed),
		Label: "closed", Mute: true, Drop: true,
	}
}

// CloseBy takes over the code and reason of a websocket.CloseError. It reports whether err is one with a code
// that can be sent.
func (e *Ending) CloseBy(err error) bool {
	by := websocket.CloseError{}
	ok := errors.As(err, &by) && frame.CheckCloseCode(by.Code) == nil
	if ok {
		e.Code, e.Reason = by.Code, CutReason(by.Reason)
	}
	return ok
}

// CutReason cuts a text to the length that fits a close frame: 123 bytes, since a control frame has at most
// 125 (RFC 6455, section 5.5). It drops a character that the cut would split, and everything that isn't
// UTF-8.
func CutReason(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), frame.MaxControl-2)], "")
}

// closeFrame returns the close frame to send. It returns "" if none is sent.
func (e *Ending) closeFrame() string {
	if e.Mute {
		return ""
	}

	var buf [frame.MaxControl + 2]byte
	if e.Code == websocket.StatusNoStatusRcvd { // a frame without a code (RFC 6455, section 7.1.5)
		return string(frame.AppendClose(buf[:0], 0, ""))
	}
	return string(frame.AppendClose(buf[:0], int(e.Code), e.Reason))
}
