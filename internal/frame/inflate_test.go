package frame

import (
	"bytes"
	"compress/flate"
	"io"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// packed is a client's compressed message in fragments, as many as there are parts: each is flushed, or,
// where final says so, ended by a final block. Behind each comes what is between.
func packed(parts []string, final bool, between []byte) (stream []byte) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	for i, part := range parts {
		_, _ = io.WriteString(w, part)
		last := i == len(parts)-1
		if final {
			_ = w.Close()
			w.Reset(&b)
		} else {
			_ = w.Flush()
		}
		payload := b.String()
		b.Reset()
		first := byte(Continuation)
		if i == 0 {
			first = rsv1Bit | Binary
		}
		switch {
		case last && final:
			payload += "\x00" // RFC 7692, section 7.2.3.4
		case last:
			payload = strings.TrimSuffix(payload, string(flushTail))
		}
		if last {
			first |= finBit
		}
		stream = append(append(stream, fromClient(first, payload)...), between...)
	}
	return stream
}

// unpackAll reads a stream, cut into chunks of these sizes, through coder/websocket.
func unpackAll(t *testing.T, stream, sizes []byte, limits *Limits) (heard, *hub) {
	socket := &chunked{stream: stream, sizes: sizes, end: io.EOF}
	wire, h := newWire(socket, nil, limits)
	return hear(t, wire, &socket.out, true, wire.Wait), h
}

// However a message is compressed, cut into fragments, and those into pieces, it comes out as it was, and
// the messages behind it do.
func FuzzInflate(f *testing.F) {
	f.Add([]byte("Hello"), byte(1), false, false, []byte{})
	f.Add([]byte("Hello"), byte(2), true, true, []byte{0})
	f.Add([]byte{}, byte(1), false, false, []byte{1})
	f.Add([]byte{}, byte(3), true, false, []byte{2})
	f.Add([]byte(compressible(20000)), byte(7), false, true, []byte{0, 90, 3})
	f.Add([]byte(fill(20000, 1)), byte(3), true, true, []byte{200, 9})
	f.Fuzz(func(t *testing.T, payload []byte, n byte, final, pings bool, sizes []byte) {
		parts := make([]string, 1+n%16)
		for i := range parts {
			parts[i] = string(payload[len(payload)*i/len(parts) : len(payload)*(i+1)/len(parts)])
		}
		var between []byte
		if pings {
			between = fromClient(0x89, "ping")
		}
		stream := packed(parts, final, between)
		stream = append(append(stream, fromClient(0x82, "plain")...), stream...)
		got, _ := unpackAll(t, stream, sizes, relaxed)
		want := websocket.MessageBinary.String() + string(payload)
		if len(got.messages) != 3 || got.messages[0] != want || got.messages[2] != want || got.messages[1] != websocket.MessageBinary.String()+"plain" {
			t.Errorf("%d messages, or others than were sent; %s", len(got.messages), got.err)
		}
		if pongs := len(got.answers); pings && pongs != 2*len(parts) || !pings && pongs > 0 {
			t.Errorf("%d answers to pings between %d fragments, twice", pongs, len(parts))
		}
	})
}

// A compressed message is bounded before and after it is inflated, and its memory given back.
func TestCompressedMessagesAreBounded(t *testing.T) {
	limits := &Limits{Message: patience, Write: patience, Frame: 100, Size: 1000}
	for name, c := range map[string]struct {
		stream []byte
		bad    bool
	}{
		"as long as may be":  {packed([]string{compressible(1000)}, false, nil), false},
		"a byte more":        {packed([]string{compressible(1001)}, false, nil), true},
		"a bomb":             {packed([]string{compressible(30000)}, false, nil), true},
		"a long frame":       {packed([]string{fill(120, 1)}, false, nil), true},
		"in fragments":       {packed([]string{fill(60, 1), fill(60, 2), fill(50, 3)}, false, nil), false},
		"too many fragments": {packed([]string{fill(60, 1), fill(60, 2), fill(60, 3), fill(60, 4)}, false, nil), true},
	} {
		t.Run(name, func(t *testing.T) {
			got, h := unpackAll(t, c.stream, nil, limits)
			if bad := h.oversize > 0; bad != c.bad || bad && len(got.messages) > 0 {
				t.Errorf("too big: %v, want %v; %d messages came", bad, c.bad, len(got.messages))
			}
			if h.wire.unpacking != nil {
				t.Error("its memory is kept")
			}
		})
	}
}

// A ping within a compressed message is answered before that is complete.
func TestPingsDoNotWaitForACompressedMessage(t *testing.T) {
	server, client := tcpPair(t)
	wire, _ := newWire(server, nil, relaxed)
	ws := accept(t, wire, true)
	now := fromClient(0x89, "now")
	message := packed([]string{"Hel", "lo"}, false, now)
	half := bytes.Index(message, now) + len(now)
	read := make(chan string, 1)
	go func() {
		_, p, _ := ws.Read(t.Context())
		read <- string(p)
	}()
	mustWrite(t, client, message[:half])
	if f, err := readFrame(client); f.first != 0x8a || f.payload != "now" {
		t.Fatalf("%#x %q, %v", f.first, f.payload, err)
	}
	mustWrite(t, client, message[half:])
	if got := receive(t, read, "the message"); got != "Hello" {
		t.Errorf("got %q", got)
	}
}
