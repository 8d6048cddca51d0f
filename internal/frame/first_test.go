package frame

import (
	"io"
	"net"
	"slices"
	"testing"
)

// script is a socket without a file descriptor. Each Read returns the next piece, as much of it as there is space.
type script struct {
	net.Conn
	pieces [][]byte
	spaces []int // of the Reads
}

func (s *script) Read(p []byte) (int, error) {
	s.spaces = append(s.spaces, len(p))
	if len(s.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.pieces[0])
	if s.pieces[0] = s.pieces[0][n:]; len(s.pieces[0]) == 0 {
		s.pieces = s.pieces[1:]
	}
	return n, nil
}

// Where a file descriptor can't be waited on, a connection that waits for a message has a small buffer. A long
// message, and messages that come together, are read into large ones.
func TestWaitingHoldsASmallBuffer(t *testing.T) {
	server, client := tcpPair(t)
	defer client.Close()
	short := fromClient(0x82, fill(100, 1))
	var many []byte
	for range 40 {
		many = append(many, short...)
	}
	long := fromClient(0x82, fill(2000, 1))

	s := &script{Conn: server, pieces: [][]byte{short, long, short, many, short}}
	wire, _ := newWire(s, nil, relaxed)
	var read []byte
	p := make([]byte, 64)
	for {
		n, err := wire.Read(p)
		if read = append(read, p[:n]...); err != nil {
			break
		}
	}

	want := len(short)*43 + len(long)
	if len(read) != want {
		t.Errorf("%d bytes, want %d", len(read), want)
	}
	const small = 512
	if spaces := []int{small, small, readSize, readSize, small, readSize, readSize, small}; !slices.Equal(s.spaces, spaces) {
		t.Errorf("reads have space for %d, want %d", s.spaces, spaces)
	}
}
