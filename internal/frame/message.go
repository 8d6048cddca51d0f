package frame

import (
	"bytes"
	"compress/flate"
	"sync"
)

// Message is one outgoing message, encoded as the frame that every receiver gets. A server's frames carry
// no mask (RFC 6455, section 5.1), so all receivers share the bytes. A Message doesn't change once it has a receiver. One with no frame only carries
// its Tag.
type Message struct {
	plain    []byte
	deflated []byte // nil if compression wasn't asked for or doesn't make the frame shorter

	// Tag says what the message is a part of. This package doesn't look at it. It is set before the message
	// has a receiver.
	Tag any

	// Made is when the message was encoded, by [Now]. It is 0 unless somebody measures.
	Made int64
}

// With returns a message with the same frame and another tag.
func (m *Message) With(tag any) *Message {
	return &Message{plain: m.plain, deflated: m.deflated, Tag: tag, Made: m.Made}
}

// Payload returns the message's opcode and its payload, which mustn't be changed. The message must have a
// frame.
func (m *Message) Payload() (opcode byte, payload []byte) {
	size := 2
	switch m.plain[1] {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	return m.plain[0] &^ finBit, m.plain[size:]
}

// Size returns how many bytes the message holds: those of its frame, and of the compressed one.
func (m *Message) Size() int64 { return int64(len(m.plain) + len(m.deflated)) }

// NewMessage encodes payload and copies it. With deflate it also makes the compressed frame, for the
// receivers that negotiated permessage-deflate.
func NewMessage[P string | []byte](opcode byte, payload P, deflate bool) *Message {
	b := make([]byte, 0, headerSize(len(payload))+len(payload))
	m := &Message{plain: append(appendHeader(b, finBit|opcode, len(payload)), payload...)}
	if deflate {
		m.deflated = compress(opcode, m.plain[len(m.plain)-len(payload):])
	}
	return m
}

func headerSize(length int) int {
	var b [maxHeader]byte
	return len(appendHeader(b[:0], 0, length))
}

// Bytes returns the frame for a receiver. deflate says whether the receiver negotiated permessage-deflate.
func (m *Message) Bytes(deflate bool) []byte {
	if deflate && m.deflated != nil {
		return m.deflated
	}
	return m.plain
}

// compress returns the compressed frame of payload, without context takeover (RFC 7692, section 7.2.1). It
// returns nil if that frame isn't shorter than the plain one.
func compress(opcode byte, payload []byte) []byte {
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	d.buf.Reset()
	d.w.Reset(&d.buf)
	// Neither call can fail: the writer below is a bytes.Buffer.
	_, _ = d.w.Write(payload)
	_ = d.w.Flush()
	body := bytes.TrimSuffix(d.buf.Bytes(), flushTail)
	if len(body) >= len(payload) {
		return nil
	}
	b := make([]byte, 0, headerSize(len(body))+len(body))
	return append(appendHeader(b, finBit|rsv1Bit|opcode, len(body)), body...)
}

// flushTail ends every flushed block. The sender leaves it out of the frame (RFC 7692, section 7.2.1).
var flushTail = []byte{0, 0, 0xff, 0xff}

type deflater struct {
	buf bytes.Buffer
	w   *flate.Writer
}

// deflaters are shared by the process, because a flate.Writer holds more than 600 KB.
var deflaters = sync.Pool{New: func() any {
	d := new(deflater)
	d.w, _ = flate.NewWriter(&d.buf, flate.BestSpeed) // the level is a valid one
	return d
}}
