package frame

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
)

// unpacking is a compressed message (RFC 7692) that is being read. The message is inflated once it is
// complete, and coder/websocket reads it as one uncompressed frame. Control frames between the fragments
// are passed on at once (RFC 6455, section 5.4).
type unpacking struct {
	opcode   byte   // 0 before the first header is complete
	deflated []byte // the payload so far, unmasked
	inflated []byte // a header and the message
	at       int    // bytes of the current frame's payload in deflated

	out  []byte // what coder/websocket is to read next
	last bool   // out is the last that belongs to the message
}

// maxKept bounds the memory that is kept for the next compressed message.
const maxKept = 128 << 10

var unpackings = sync.Pool{New: func() any { return new(unpacking) }}

// AcceptDeflate lets compressed messages in. It must be called before anything is read, and only if the
// peer negotiated permessage-deflate without context takeover. coder/websocket needn't know of it.
func (c *Conn) AcceptDeflate() { c.deflate = true }

// beginsPacked reports whether the next unread byte begins a compressed message.
func (c *Conn) beginsPacked() bool {
	first := c.buf[c.r]
	return c.deflate && c.in.between() && first&rsv1Bit != 0 && (first&0x0f == Text || first&0x0f == Binary)
}

// readPacked is Read while a compressed message is being read.
func (c *Conn) readPacked(p []byte) (int, error) {
	for u := c.unpacking; ; {
		if len(u.out) > 0 {
			n := copy(p, u.out)
			if u.out = u.out[n:]; len(u.out) == 0 && u.last {
				c.endPacked()
			}
			return n, nil
		}

		if err := c.next(); err != nil {
			return 0, c.readError(err)
		}

		n, err := c.unpack(p)
		if err != nil {
			c.endPacked()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// endPacked returns to reading without decompression.
func (c *Conn) endPacked() {
	u := c.unpacking
	c.unpacking = nil
	if cap(u.deflated)+cap(u.inflated) <= maxKept {
		*u = unpacking{deflated: u.deflated[:0], inflated: u.inflated[:0]}
		unpackings.Put(u)
	}
}

// unpack takes a part of what is unread: one byte of a header, or payload. It copies the payload of control
// frames to p.
func (c *Conn) unpack(p []byte) (n int, err error) {
	switch {
	case c.in.have < c.in.headerLen():
		if err := c.unpackHeader(); err != nil {
			return 0, err
		}
	case c.in.opcode >= Close:
		piece := c.buf[c.r:min(c.w, c.r+len(p))]
		n = copy(p, piece[:c.scanIn(piece)])
		c.consume(n)
	default:
		piece := c.buf[c.r:c.w]
		piece = piece[:c.scanIn(piece)]
		c.unpacking.add(piece, c.in.head[headerOf(c.in.head[:])-4:])
		c.consume(len(piece))
	}

	u := c.unpacking
	if c.limits.Frame > 0 && uint64(len(u.deflated)) > 2*c.limits.Frame { // headers of many short blocks add much
		return n, c.tooBig()
	}
	if c.in.have == 0 && c.in.opcode < Close && !c.in.fragmented && !u.last { // the message is complete
		return n, c.inflate()
	}
	return n, nil
}

// unpackHeader takes one byte of a header.
func (c *Conn) unpackHeader() error {
	c.scanIn(c.buf[c.r : c.r+1])
	c.consume(1)
	if c.in.have == 0 || c.in.have == c.in.headerLen() { // the header is complete
		return c.judgeHeader()
	}
	return nil
}

// judgeHeader checks a frame whose header is complete. Control frames are passed on. A frame that can't
// belong to the message (RFC 6455, sections 5.1, 5.2 and 5.4) is passed on with RSV1 set, so that
// coder/websocket refuses it.
func (c *Conn) judgeHeader() error {
	u, head := c.unpacking, c.in.head[:headerOf(c.in.head[:])]
	want := byte(Continuation)
	if u.opcode == 0 {
		want = c.in.opcode | rsv1Bit
	}

	switch {
	case c.in.opcode >= Close:
		u.out = slices.Clone(head)
	case head[0]&^finBit != want || head[1]&maskBit == 0 || c.in.payloadLen() > math.MaxInt64:
		u.out, u.last = slices.Clone(head), true
		u.out[0] |= rsv1Bit
	case c.oversized():
		return c.tooBig()
	case u.opcode == 0:
		u.opcode = c.in.opcode
	}
	u.at = 0
	return nil
}

// add unmasks a piece of a frame's payload (RFC 6455, section 5.3) and appends it.
func (u *unpacking) add(piece, mask []byte) {
	start := len(u.deflated)
	u.deflated = append(u.deflated, piece...)
	for i := range u.deflated[start:] {
		u.deflated[start+i] ^= mask[u.at&3]
		u.at++
	}
}

// inflateTail is appended to a message before it is inflated. It is the end of the block, which the sender
// left out (RFC 7692, section 7.2.2), and a final block. Without a final block a flate.Reader can't tell
// the end from a cut.
const inflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

type inflater struct {
	src bytes.Reader
	r   io.ReadCloser
}

// inflaters are shared by the process, because a flate.Reader holds some 44 KB.
var inflaters = sync.Pool{New: func() any {
	z := new(inflater)
	z.r = flate.NewReader(&z.src)
	return z
}}

var errTooLong = errors.New("wsroom: message too long once inflated")

// inflate makes one uncompressed frame of the message, which is complete.
func (c *Conn) inflate() error {
	u, z := c.unpacking, inflaters.Get().(*inflater)
	defer inflaters.Put(z)
	u.deflated = append(u.deflated, inflateTail...)
	var err error
	u.inflated, err = z.inflate(append(u.inflated[:0], make([]byte, maxHeader)...), u.deflated, c.limits.Size)
	if err == errTooLong {
		return c.tooBig()
	}
	if err != nil {
		return err
	}

	head := appendHeader(make([]byte, 0, maxHeader), finBit|u.opcode, len(u.inflated)-maxHeader)
	head[1] |= maskBit
	head = append(head, 0, 0, 0, 0)
	u.out, u.last = u.inflated[maxHeader-len(head):], true
	copy(u.out, head)
	return nil
}

// inflate appends the inflated p to b. A final block may be followed by inflateTail, or by more blocks that
// don't refer to anything before it (RFC 7692, section 7.2.3.4).
func (z *inflater) inflate(b, p []byte, most int64) ([]byte, error) {
	defer z.src.Reset(nil)
	z.src.Reset(p)
	for start := len(b); z.src.Len() > len(inflateTail); {
		_ = z.r.(flate.Resetter).Reset(&z.src, nil)
		for err := error(nil); err != io.EOF; {
			if err != nil {
				return b, err
			}
			b = slices.Grow(b, 1)
			var n int
			n, err = z.r.Read(b[len(b):cap(b)])
			if b = b[:len(b)+n]; most > 0 && int64(len(b)-start) > most {
				return b, errTooLong
			}
		}
	}
	return b, nil
}
