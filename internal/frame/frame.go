// Package frame is the part of RFC 6455 that wsroom does itself: it encodes each message once for
// all who receive it, stands between coder/websocket and the socket so that only whole frames pass, and
// inflates what comes in compressed. Handshake, parsing and unmasking stay with coder/websocket.
package frame

import (
	"encoding/binary"
	"math"
)

// Opcodes of RFC 6455, section 5.2.
const (
	Continuation = 0x0
	Text         = 0x1
	Binary       = 0x2
	Close        = 0x8
	Ping         = 0x9
	Pong         = 0xA
)

const (
	finBit  = 0x80
	rsv1Bit = 0x40 // compressed, RFC 7692, section 6
	maskBit = 0x80

	maxHeader = 14

	// MaxControl is the longest payload of a control frame (RFC 6455, section 5.5).
	MaxControl = 125
)

// appendHeader appends the header of an unmasked frame that is whole in itself.
func appendHeader(b []byte, first byte, length int) []byte {
	switch {
	case length <= 125:
		return append(b, first, byte(length))
	case length <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(b, first, 126), uint16(length))
	default:
		return binary.BigEndian.AppendUint64(append(b, first, 127), uint64(length))
	}
}

// AppendControl appends a control frame. The payload is at most MaxControl bytes.
func AppendControl(b []byte, opcode byte, payload []byte) []byte {
	return append(appendHeader(b, finBit|opcode, len(payload)), payload...)
}

// AppendClose appends a close frame with a code and a reason of at most 123 bytes; without either
// where the code is 0.
func AppendClose(b []byte, code int, reason string) []byte {
	if code == 0 {
		return appendHeader(b, finBit|Close, 0)
	}
	b = appendHeader(b, finBit|Close, 2+len(reason))
	return append(binary.BigEndian.AppendUint16(b, uint16(code)), reason...)
}
