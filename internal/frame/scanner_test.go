package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// ends scans the stream in chunks and returns where frames end and where the scanner says that it
// stands between two messages.
func ends(t *testing.T, stream []byte, chunk func() int) (frames, messages []int) {
	t.Helper()
	var s scanner
	for at := 0; at < len(stream); {
		p := stream[at:min(len(stream), at+chunk())]
		for len(p) > 0 {
			n, end := s.scan(p)
			if n <= 0 || n > len(p) || !end && n != len(p) {
				t.Fatalf("scan took %d of %d bytes, end %v", n, len(p), end)
			}
			at, p = at+n, p[n:]
			if end {
				frames = append(frames, at)
			}
			if s.between() {
				messages = append(messages, at)
			}
		}
	}
	return frames, messages
}

func TestScannerKnowsEveryHeaderForm(t *testing.T) {
	payload := fill(70000, 1)
	lengths := map[int][]int{0: {0, 1, 124, 125}, 2: {0, 125, 126, 65535}, 8: {0, 125, 126, 65535, 65536, 70000}}
	for opcode := byte(0); opcode < 16; opcode++ {
		for _, bits := range []byte{0x00, 0x80, 0x40, 0xc0, 0xf0} {
			for _, client := range []bool{false, true} {
				for width, all := range lengths {
					for _, n := range all {
						f := build(bits|opcode, payload[:n], width, client)
						var s scanner
						got, end := s.scan(append(slices.Clone(f), f...))
						if got != len(f) || !end || s.opcode != opcode || s.left != 0 || s.have != 0 {
							t.Fatalf("first %#x, length %d in %d bytes, masked %v: took %d of %d, %v, %+v",
								bits|opcode, n, width, client, got, len(f), end, s)
						}
						if want := len(f) - n; headerOf(f) != want {
							t.Fatalf("headerOf %#x %d in %d bytes, masked %v: %d, want %d",
								bits|opcode, n, width, client, headerOf(f), want)
						}
						if fragment := opcode < 8 && bits&0x80 == 0; s.between() == fragment {
							t.Fatalf("first %#x: between %v", bits|opcode, s.between())
						}
					}
				}
			}
		}
	}
}

// sequence is a stream of both kinds of sender with control frames inside of fragmented messages.
func sequence(client bool) (stream []byte, frames, messages []int) {
	for _, f := range []struct {
		first byte
		n     int
		whole bool // the end of a message, or of a control frame between two
	}{
		{0x81, 0, true}, {0x81, 5, true}, {0x89, 0, true}, {0x8a, 125, true},
		{0x01, 3, false}, {0x89, 4, false}, {0x00, 0, false}, {0x8a, 0, false}, {0x00, 126, false},
		{0x00, 1, false}, {0x80, 0, true},
		{0x82, 300, true}, {0x02, 0, false}, {0x80, 65536, true}, {0xc1, 10, true}, {0x41, 10, false},
		{0x80, 10, true}, {0x88, 2, true},
	} {
		stream = append(stream, frameOf(f.first, fill(f.n, uint32(len(frames))), client)...)
		frames = append(frames, len(stream))
		if f.whole {
			messages = append(messages, len(stream))
		}
	}
	return stream, frames, messages
}

func TestScannerFindsTheSameFramesHoweverTheyAreCut(t *testing.T) {
	chunks := map[string]func() int{"whole": func() int { return 1 << 20 }}
	for n := 1; n <= 20; n++ {
		chunks[fmt.Sprintf("by %d", n)] = func() int { return n }
	}
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 0))
		chunks[fmt.Sprintf("random %d", seed)] = func() int { return 1 + r.IntN(1<<r.IntN(10)) }
	}
	for _, client := range []bool{false, true} {
		stream, wantFrames, wantMessages := sequence(client)
		for name, chunk := range chunks {
			frames, messages := ends(t, stream, chunk)
			if !slices.Equal(frames, wantFrames) {
				t.Errorf("%s, masked %v: frames end at %v, want %v", name, client, frames, wantFrames)
			}
			if !slices.Equal(messages, wantMessages) {
				t.Errorf("%s, masked %v: messages end at %v, want %v", name, client, messages, wantMessages)
			}
		}
	}
}

func TestScannerStandsInAFrameUntilItsLastByte(t *testing.T) {
	f := fromClient(0x81, fill(200, 1))
	var s scanner
	for i, b := range f[:len(f)-1] {
		if _, end := s.scan([]byte{b}); end || s.between() {
			t.Fatalf("byte %d of %d: end %v, between %v", i, len(f), end, s.between())
		}
	}
	if _, end := s.scan(f[len(f)-1:]); !end || !s.between() {
		t.Errorf("at the last byte: end %v, between %v", end, s.between())
	}
}

func TestScannerTakesNothingOfNothing(t *testing.T) {
	var s scanner
	for _, p := range [][]byte{nil, {0x81}, nil, {0x02}, nil, {'x'}, nil} {
		if n, end := s.scan(p); n != len(p) || end {
			t.Errorf("scan(%x): %d, %v", p, n, end)
		}
	}
	if _, end := s.scan([]byte("y")); !end {
		t.Error("the frame has no end")
	}
}

// What breaks the protocol is for coder/websocket to refuse; the scanner only must not lose itself.
func TestScannerSurvivesAbsurdLengths(t *testing.T) {
	for _, n := range []uint64{math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		var s scanner
		head := binary.BigEndian.AppendUint64([]byte{0x82, 127}, n)
		if got, end := s.scan(head); got != len(head) || end {
			t.Fatalf("%d: scan took %d, end %v", n, got, end)
		}
		p := bytes.Repeat([]byte{0x88, 0}, 1000)
		for range 10 {
			if got, end := s.scan(p); got != len(p) || end || s.between() {
				t.Fatalf("%d: scan took %d of %d, end %v", n, got, len(p), end)
			}
		}
		if want := n - 10*uint64(len(p)); s.left != want {
			t.Errorf("%d: %d left, want %d", n, s.left, want)
		}
	}
}
