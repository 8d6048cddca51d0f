package frame

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// The owner is told of the pongs that it knows, wherever they stand and however they come. coder/websocket
// gets everything else as it came.
func TestKnownPongsGoToTheOwner(t *testing.T) {
	known, unknown := fromClient(0x8a, "known 1"), fromClient(0x8a, "unknown")
	long := fromClient(0x8a, "known"+strings.Repeat("x", 120))
	parts := [][]byte{
		known, fromClient(0x81, "text"), known, unknown, fromClient(0x8a, ""), fromClient(0x01, "frag"), known, unknown,
		fromClient(0x80, "ment"), long, fromClient(0x89, "ping"), known, fromClient(0x82, string(known)), known,
	}
	var rest []byte
	for _, p := range parts {
		if !bytes.Equal(p, known) && !bytes.Equal(p, long) {
			rest = append(rest, p...)
		}
	}
	withoutEmpty := bytes.Replace(rest, fromClient(0x8a, ""), nil, 1)

	for _, size := range []int{1, 2, 3, 5, 6, 7, 13, 14, 20, 1000} {
		server, client := pipePair(t)
		wire, h := newWire(server, nil, relaxed)
		go func() {
			for chunk := range slices.Chunk(slices.Concat(parts...), size) {
				if _, err := client.Write(chunk); err != nil {
					t.Error(err)
				}
			}
			client.Close()
		}()

		var got []byte
		for wire.Wait() == nil {
			buf := make([]byte, 16)
			for {
				n, err := wire.Read(buf)
				got = append(got, buf[:n]...)
				if err != nil {
					if !errors.Is(err, ErrIdle) && err != io.EOF {
						t.Errorf("in chunks of %d: %v", size, err)
					}
					break
				}
			}
		}
		if !bytes.Equal(got, rest) && !bytes.Equal(got, withoutEmpty) {
			t.Errorf("in chunks of %d: got %q, want %q", size, got, rest)
		}
		if len(h.pongs) != 6 || h.pongs[4] != "known"+strings.Repeat("x", 120) && h.pongs[3] != "known"+strings.Repeat("x", 120) || h.empty != 4 {
			t.Errorf("in chunks of %d: the owner got %q, and %d empty frames", size, h.pongs, h.empty)
		}
	}
}

// What answers a ping while the connection is drained reaches the owner, too.
func TestDrainHearsKnownPongs(t *testing.T) {
	stream := slices.Concat(fromClient(0x89, ""), fromClient(0x8a, "known 1"), fromClient(0x02, "x"), fromClient(0x8a, "known 2"), fromClient(0x88, ""))
	for _, size := range []int{1, 5, 1000} {
		server, client := pipePair(t)
		wire, h := newWire(server, nil, relaxed)
		go func() {
			for chunk := range slices.Chunk(stream, size) {
				_, _ = client.Write(chunk)
			}
		}()
		if err := wire.Wait(); err != nil {
			t.Error(err)
		}
		wire.Drain()
		if !slices.Equal(h.pongs, []string{"known 1", "known 2"}) || !wire.PeerClosing() {
			t.Errorf("in chunks of %d: %q", size, h.pongs)
		}
		client.Close()
	}
}

// Where nothing follows a pong, no reader waits within coder/websocket.
func TestNothingIsAwaitedBehindAKnownPong(t *testing.T) {
	server, client := pipePair(t)
	wire, _ := newWire(server, nil, relaxed)
	mustWrite(t, client, slices.Concat(fromClient(0x89, ""), fromClient(0x8a, "known")))
	if err := wire.Wait(); err != nil {
		t.Fatal(err)
	}
	read := make(chan error, 1)
	go func() {
		for {
			if _, err := wire.Read(make([]byte, 16)); err != nil {
				read <- err
				return
			}
		}
	}()
	if err := receive(t, read, "the end of what there is"); err != ErrIdle {
		t.Errorf("got %v", err)
	}
}
