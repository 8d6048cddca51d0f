package frame

import (
	"errors"
	"math"
	"net"
	"os"
	"time"
)

// maxWrite bounds the bytes that must be written within one write timeout. So a large message reaches a
// slow receiver that still reads.
const maxWrite = 256 << 10

// ForWriting returns how long the write of this many bytes may take.
func (l *Limits) ForWriting(bytes int64) time.Duration {
	pieces := max(1, (bytes+maxWrite-1)/maxWrite)
	if int64(l.Write) > math.MaxInt64/pieces {
		return math.MaxInt64
	}
	return l.Write * time.Duration(pieces)
}

// TimeToWrite returns how long the write of this many bytes to this Conn may take. See [Limits.ForWriting].
func (c *Conn) TimeToWrite(bytes int64) time.Duration { return c.limits.ForWriting(bytes) }

// outgoing is what coder/websocket is writing. On most connections it never writes.
type outgoing struct {
	scanner
	part []byte // the bytes of an incomplete frame
}

// Write is for coder/websocket. It passes on the frames that p completes and keeps the rest, which is less
// than the caller's buffer.
func (c *Conn) Write(p []byte) (int, error) {
	if c.out == nil {
		c.out = new(outgoing)
	}
	for n := 0; n < len(p); {
		k, end := c.out.scan(p[n:])
		if !end {
			c.out.part = append(c.out.part, p[n:n+k]...)
		} else if err := c.frameWritten(p[n : n+k]); err != nil {
			return n, err
		}
		n += k
	}
	return len(p), nil
}

// frameWritten passes on the frame that begins with the kept part and ends with last.
func (c *Conn) frameWritten(last []byte) error {
	part := c.out.part
	c.out.part = nil
	if c.out.opcode >= Close {
		whole := append(part, last...)
		if !c.owner.Control(c.out.opcode, whole[headerOf(whole):]) {
			return net.ErrClosed
		}
		return nil
	}
	if err := c.writeData(part, last); err != nil {
		c.owner.Failed(err)
		return err
	}
	if !c.out.fragmented {
		c.owner.MessageSent()
	}
	return nil
}

func (c *Conn) writeData(part, last []byte) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	if c.shut {
		return net.ErrClosed
	}
	if len(part) > 0 && len(part)+len(last) <= readSize {
		part, last = append(part, last...), nil
	}
	if !c.open && c.announce != nil { // a message begins
		if err := c.Send(c.announce()); err != nil {
			return err
		}
	}
	c.open = c.out.fragmented
	if err := c.Send(part); err != nil {
		return err
	}
	return c.Send(last)
}

// AnnounceWith sets the function that returns what is sent before each message of the application's own. It
// is called with the wire held. AnnounceWith is called before anything is written.
func (c *Conn) AnnounceWith(announce func() []byte) { c.announce = announce }

// Lock takes the wire for [Conn.Send]. It reports whether a data frame may be sent now. A control frame may
// always be sent (RFC 6455, section 5.4).
func (c *Conn) Lock() (data bool) {
	c.writeMu.Lock()
	return !c.open
}

// TryLock is [Conn.Lock] if the wire is free.
func (c *Conn) TryLock() (data, ok bool) {
	if !c.writeMu.TryLock() {
		return false, false
	}
	return !c.open, true
}

// Unlock gives the wire back.
func (c *Conn) Unlock() { c.writeMu.Unlock() }

// Shut ends all writing. The caller holds the wire and has sent the close frame (RFC 6455, section 5.5.1).
func (c *Conn) Shut() { c.shut = true }

// Send writes whole frames. The caller holds the wire. Send tries without a deadline first, which costs
// nothing, and sets one only if the socket is full. A failed write may have cut a frame, so nothing follows
// it: every later Send returns the same error.
func (c *Conn) Send(p []byte) error {
	for len(p) > 0 && c.sendErr == nil {
		piece := p[:min(len(p), maxWrite)]
		c.sendErr = c.sendPiece(piece)
		p = p[len(piece):]
	}
	return c.sendErr
}

// SendBy is [Conn.Send] for what is written by a deadline, before anything else. It is no frame.
func (c *Conn) SendBy(p []byte, deadline time.Time) error {
	p, err := c.sendAtOnce(p)
	if err != nil || len(p) == 0 {
		return err
	}
	if err := c.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := c.Conn.Write(p); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

func (c *Conn) sendPiece(p []byte) error {
	p, err := c.sendAtOnce(p)
	if err != nil || len(p) == 0 {
		return err
	}
	if err := c.SetWriteDeadline(time.Now().Add(c.limits.Write)); err != nil {
		return err
	}
	n, err := c.Conn.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && c.SetWriteDeadline(time.Now().Add(extension)) == nil {
		if _, again := c.Conn.Write(p[n:]); again == nil { // over TLS it fails again
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}

// sendAtOnce writes as much of p as the socket takes without waiting, and returns the rest.
func (c *Conn) sendAtOnce(p []byte) (rest []byte, err error) {
	if c.raw == nil {
		return p, nil
	}
	n, err := c.trySend(p)
	return p[n:], err
}

// CanTry reports whether [Conn.TrySend] can write. Over TLS it can't.
func (c *Conn) CanTry() bool { return c.raw != nil }

// TrySend writes as much of p as the socket takes at once. The caller holds the wire, and must send the
// rest before anything else.
func (c *Conn) TrySend(p []byte) (n int, err error) {
	if c.sendErr != nil {
		return 0, c.sendErr
	}
	n, c.sendErr = c.trySend(p)
	return n, c.sendErr
}

func (c *Conn) trySend(p []byte) (n int, err error) {
	c.pending, c.sent = p, 0
	err = c.raw.Write(c.writeFunc)
	c.pending = nil
	if err == nil {
		err = c.sendErr
	}
	return c.sent, err
}
