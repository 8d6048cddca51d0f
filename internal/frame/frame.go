// Package frame is the part of RFC 6455 that wsroom does itself. It encodes each message once for all its
// receivers. It stands between coder/websocket and the socket, so that only whole frames pass. It inflates
// compressed messages. coder/websocket does the handshake, the parsing and the unmasking.
//
// The package knows frames, messages and sockets. It knows no rooms, no queues and no callbacks.
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

// appendHeader appends the header of an unmasked frame (RFC 6455, section 5.2).
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

// Append appends a message in one frame.
func Append(b []byte, opcode byte, payload []byte) []byte {
	return append(appendHeader(b, finBit|opcode, len(payload)), payload...)
}

// AppendControl appends a control frame. The payload must be at most [MaxControl] bytes.
func AppendControl(b []byte, opcode byte, payload []byte) []byte {
	return append(appendHeader(b, finBit|opcode, len(payload)), payload...)
}

// AppendClose appends a close frame with a code and a reason of at most 123 bytes. If the code is 0, the
// frame has neither (RFC 6455, section 5.5.1).
func AppendClose(b []byte, code int, reason string) []byte {
	if code == 0 {
		return appendHeader(b, finBit|Close, 0)
	}
	b = appendHeader(b, finBit|Close, 2+len(reason))
	return append(binary.BigEndian.AppendUint16(b, uint16(code)), reason...)
}
