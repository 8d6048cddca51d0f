package frame

import "encoding/binary"

// scanner finds the frames in a stream of bytes, however the stream is cut into chunks. It doesn't check
// them: coder/websocket refuses what breaks the protocol.
type scanner struct {
	head [maxHeader]byte
	have uint8 // bytes of head so far; 0 between frames

	opcode     byte // of the current frame, or of the last one between frames
	fragmented bool // a data message has begun and its last frame hasn't ended

	left uint64 // bytes of the payload still to come, once the header is complete
}

// between reports whether the stream is between two messages.
func (s *scanner) between() bool { return s.have == 0 && !s.fragmented }

// scan takes the bytes at the start of p that belong to the current frame. It returns their number and
// whether they complete the frame.
func (s *scanner) scan(p []byte) (n int, end bool) {
	for s.have < s.headerLen() {
		if n == len(p) {
			return n, false
		}
		s.head[s.have] = p[n]
		s.have++
		n++
		if s.have == s.headerLen() {
			s.opcode = s.head[0] & 0x0f
			s.left = s.payloadLen()
		}
	}
	step := min(s.left, uint64(len(p)-n))
	s.left -= step
	n += int(step)
	if s.left > 0 {
		return n, false
	}
	s.have = 0
	if s.opcode < Close {
		s.fragmented = s.head[0]&finBit == 0
	}
	return n, true
}

// unmasked reports whether the frame of the last scanned bytes is known to have no mask (RFC 6455, section
// 5.1).
func (s *scanner) unmasked() bool {
	return s.head[1]&maskBit == 0 && (s.have == 0 || s.have == s.headerLen())
}

// headerLen returns the header's length as far as it is known yet (RFC 6455, section 5.2).
func (s *scanner) headerLen() uint8 {
	if s.have < 2 {
		return 2
	}
	n := uint8(2)
	switch s.head[1] &^ maskBit {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if s.head[1]&maskBit != 0 {
		n += 4
	}
	return n
}

func (s *scanner) payloadLen() uint64 {
	switch l := s.head[1] &^ maskBit; l {
	case 126:
		return uint64(binary.BigEndian.Uint16(s.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(s.head[2:])
	default:
		return uint64(l)
	}
}

// headerOf returns the length of the header at the beginning of the whole frame p.
func headerOf(p []byte) int {
	s := scanner{have: 2}
	copy(s.head[:2], p)
	return int(s.headerLen())
}
