package load

import (
	"encoding/binary"
	"errors"
)

// WebSocket opcodes, RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const maxPayload = readBuffer - 16 // a frame must fit in the poller's buffer

var (
	errMasked  = errors.New("load: a server's frame is masked")
	errTooBig  = errors.New("load: a frame is longer than any scenario sends")
	errControl = errors.New("load: a control frame is fragmented or too long")
)

// A frame is one frame from a server. Its payload lies in the buffer it was parsed from.
type frame struct {
	opcode     byte
	fin        bool
	compressed bool
	payload    []byte
}

// parseFrame reads the frame that p begins with. It returns the frame's whole size, header
// included; where p is too short for it, ok is false and size is what is needed at least.
func parseFrame(p []byte) (f frame, size int, ok bool, err error) {
	if len(p) < 2 {
		return f, 2, false, nil
	}
	if p[1]&0x80 != 0 {
		return f, 0, false, errMasked
	}
	header, length := 2, uint64(p[1])
	switch length {
	case 126:
		header = 4
	case 127:
		header = 10
	}
	if len(p) < header {
		return f, header, false, nil
	}
	switch header {
	case 4:
		length = uint64(binary.BigEndian.Uint16(p[2:]))
	case 10:
		length = binary.BigEndian.Uint64(p[2:])
	}
	if length > maxPayload {
		return f, 0, false, errTooBig
	}
	f = frame{opcode: p[0] & 0x0F, fin: p[0]&0x80 != 0, compressed: p[0]&0x40 != 0}
	if f.opcode >= opClose && (!f.fin || length > 125) {
		return f, 0, false, errControl
	}
	size = header + int(length)
	if len(p) < size {
		return f, size, false, nil
	}
	f.payload = p[header:size]
	return f, size, true, nil
}

// appendFrame appends one whole client frame to dst, masked with mask.
func appendFrame(dst []byte, opcode byte, mask [4]byte, payload []byte) []byte {
	dst = append(dst, 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, 0x80|byte(n))
	case n < 1<<16:
		dst = append(dst, 0x80|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, 0x80|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, mask[:]...)
	start := len(dst)
	dst = append(dst, payload...)
	for i, rest := 0, dst[start:]; i < len(rest); i++ {
		rest[i] ^= mask[i&3]
	}
	return dst
}
