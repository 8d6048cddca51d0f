package frame

import "encoding/binary"

// scanner finds the frames in a stream of bytes, however the stream is cut into chunks. It judges
// nothing: what breaks the protocol is for coder/websocket to refuse.
type scanner struct {
	head [maxHeader]byte
	have uint8 // bytes of head so far; 0 between frames

	opcode     byte // of the current frame, or of the last one between frames
	fragmented bool // a data message has begun whose last frame hasn't ended

	left uint64 // bytes of the payload still to come, once the header is whole
}

// between reports whether the stream stands between two messages.
func (s *scanner) between() bool { return s.have == 0 && !s.fragmented }

// scan takes the bytes at the start of p that belong to the current frame and reports how many
// they are and whether the frame is complete with them.
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

// unmasked reports whether the frame that scan took the last bytes of is known to have no mask.
func (s *scanner) unmasked() bool {
	return s.head[1]&maskBit == 0 && (s.have == 0 || s.have == s.headerLen())
}

// headerLen is the header's length as far as it is known by now.
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

// headerOf returns the length of the header that the whole frame p begins with.
func headerOf(p []byte) int {
	s := scanner{have: 2}
	copy(s.head[:2], p)
	return int(s.headerLen())
}
