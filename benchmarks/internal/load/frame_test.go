package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// serverFrame is an unmasked frame; first is its first byte.
func serverFrame(first byte, payload []byte) []byte {
	p := []byte{first}
	switch n := len(payload); {
	case n < 126:
		p = append(p, byte(n))
	case n < 1<<16:
		p = binary.BigEndian.AppendUint16(append(p, 126), uint16(n))
	default:
		p = binary.BigEndian.AppendUint64(append(p, 127), uint64(n))
	}
	return append(p, payload...)
}

func TestParseFrameNeedsTheWholeFrame(t *testing.T) {
	for _, length := range []int{0, 1, 125, 126, 65535, 65536} {
		whole := serverFrame(0xC1, bytes.Repeat([]byte("x"), length))
		for _, n := range []int{0, 1, 2, 3, 9, len(whole) - 1} {
			if n >= len(whole) {
				continue
			}
			if _, size, ok, err := parseFrame(whole[:n]); ok || err != nil || size <= n {
				t.Errorf("%d of %d bytes: ok %t, size %d, err %v", n, len(whole), ok, size, err)
			}
		}
		f, size, ok, err := parseFrame(append(whole, "more"...))
		if !ok || err != nil || size != len(whole) || len(f.payload) != length {
			t.Fatalf("length %d: ok %t, size %d, payload %d, err %v", length, ok, size, len(f.payload), err)
		}
		if !f.fin || !f.compressed || f.opcode != opText {
			t.Errorf("length %d: %+v", length, f)
		}
	}
}

func TestParseFrameRefuses(t *testing.T) {
	tooBig := binary.BigEndian.AppendUint64([]byte{0x81, 127}, maxPayload+1)
	for _, c := range []struct {
		name string
		in   []byte
		want error
	}{
		{"a masked frame", []byte{0x81, 0x80, 1, 2, 3, 4}, errMasked},
		{"a huge frame", tooBig, errTooBig},
		{"a fragmented ping", []byte{0x09, 0x00}, errControl},
		{"a long close", append([]byte{0x88, 126, 0, 200}, make([]byte, 200)...), errControl},
	} {
		if _, _, _, err := parseFrame(c.in); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestAppendFrameMasks(t *testing.T) {
	for _, length := range []int{0, 125, 126, 65536} {
		payload := bytes.Repeat([]byte("wsroom!"), length/7+1)[:length]
		got := appendFrame(nil, opText, clientMask, payload)
		if got[0] != 0x81 || got[1]&0x80 == 0 {
			t.Fatalf("header % x", got[:2])
		}
		body, mask := got[len(got)-length:], got[len(got)-length-4:]
		for i := range body {
			if body[i]^mask[i&3] != payload[i] {
				t.Fatalf("length %d: byte %d is wrong", length, i)
			}
		}
	}
}

// FuzzMember feeds a member the same bytes whole and in two pieces: it must see the same.
func FuzzMember(f *testing.F) {
	message := newTemplate(80, false)
	writeStamp(message, stamp{0, 1, 5})
	whole := serverFrame(0x81, message)
	f.Add(whole, 5)
	f.Add(append(serverFrame(0x01, message[:30]), serverFrame(0x80, message[30:])...), 40)
	f.Add(append(whole, whole...), len(whole)+1)
	f.Add([]byte{0x88, 0x00}, 1)
	f.Fuzz(func(t *testing.T, p []byte, at int) {
		if len(p) > readBuffer/2 || bytes.IndexByte(p, 0x89) >= 0 {
			return // a ping would be answered, and there is no socket
		}
		at = min(max(at, 0), len(p))
		one, two := newTestMember(), newTestMember()
		err1 := one.parse(p)
		err2 := two.parse(p[:at])
		if err2 == nil {
			err2 = two.parse(append(bytes.Clone(two.rest), p[at:]...))
		}
		if (err1 == nil) != (err2 == nil) || one.count != two.count || one.checkers[0].Doubled != two.checkers[0].Doubled {
			t.Errorf("whole: %d messages, %v; in pieces: %d, %v", one.count, err1, two.count, err2)
		}
	})
}

func newTestMember() *Member {
	f := &Fleet{dialect: Plain, inflater: newInflater(), clock: NewClock()}
	m := newMember(newRoom(f, 0), 0)
	m.fd = -1
	return m
}
