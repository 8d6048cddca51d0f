package frame

import (
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// boundaries are the lengths at which a header changes its form, and their neighbours.
var boundaries = []int{0, 1, 124, 125, 126, 127, 65534, 65535, 65536, 65537, 100_000}

func TestMessageIsOneUnmaskedFrame(t *testing.T) {
	for _, n := range boundaries {
		payload := fill(n, 1)
		for opcode, first := range map[byte]byte{Text: 0x81, Binary: 0x82} {
			got := NewMessage(opcode, payload, false).Bytes(false)
			if want := frameOf(first, payload, false); !bytes.Equal(got, want) {
				t.Errorf("%d bytes: frame begins %x, want %x", n, got[:min(len(got), 12)], want[:min(len(want), 12)])
			}
			if b := NewMessage(opcode, []byte(payload), false).Bytes(false); !bytes.Equal(b, got) {
				t.Errorf("%d bytes: []byte and string make different frames", n)
			}
			if cap(got) != len(got) {
				t.Errorf("%d bytes: the frame of %d bytes holds %d", n, len(got), cap(got))
			}
		}
	}
}

func TestMessageCopiesItsPayload(t *testing.T) {
	payload := []byte(strings.Repeat("before ", 100))
	m := NewMessage(Text, payload, true)
	want := [2]string{string(m.Bytes(false)), string(m.Bytes(true))}
	copy(payload, "after")
	NewMessage(Text, strings.Repeat("another ", 100), true) // may reuse what the first one's deflater had
	if got := [2]string{string(m.Bytes(false)), string(m.Bytes(true))}; got != want {
		t.Error("the message changed after it was made")
	}
}

// compressible is text that shrinks; fill's bytes don't.
func compressible(n int) string { return strings.Repeat("all work and no play ", n/21+1)[:n] }

func TestMessageIsCompressedOnlyWhereItPays(t *testing.T) {
	for _, n := range boundaries {
		for name, payload := range map[string]string{"compressible": compressible(n), "random": fill(n, 7)} {
			m := NewMessage(Text, payload, true)
			plain, deflated := m.Bytes(false), m.Bytes(true)
			if !bytes.Equal(plain, frameOf(0x81, payload, false)) {
				t.Errorf("%s %d: the plain frame isn't plain", name, n)
			}
			if len(deflated) > len(plain) {
				t.Errorf("%s %d: compressed to %d bytes from %d", name, n, len(deflated), len(plain))
			}
			if shrinks := name == "compressible" && n > 100; shrinks != (deflated[0] == 0xc1) {
				t.Errorf("%s %d: first byte %#x", name, n, deflated[0])
			}
			if m := NewMessage(Text, payload, false); !bytes.Equal(m.Bytes(true), plain) {
				t.Errorf("%s %d: compressed unasked", name, n)
			}
		}
	}
}

// Each compressed frame inflates by itself: no context is taken over from the one before.
func TestCompressedMessageStandsAlone(t *testing.T) {
	payload := compressible(70000)
	first := NewMessage(Text, payload, true).Bytes(true)
	for range 3 {
		again := NewMessage(Text, payload, true).Bytes(true)
		if !bytes.Equal(again, first) {
			t.Fatal("the same message is compressed differently")
		}
		body := again[headerOf(again):]
		got, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(body), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
		if err != nil || string(got) != payload {
			t.Fatalf("inflates to %d bytes, %v", len(got), err)
		}
	}
}

// testMessages are payloads of all lengths and of both kinds of compressibility.
func testMessages() (payloads []string) {
	for _, n := range boundaries {
		payloads = append(payloads, compressible(n), fill(n, 3))
	}
	return payloads
}

func TestCoderReadsOurMessages(t *testing.T) {
	for _, receiver := range []bool{false, true} {
		for _, encoded := range []bool{false, true} {
			t.Run(fmt.Sprintf("negotiated %v, asked for %v", receiver, encoded), func(t *testing.T) {
				server, client := pipePair(t)
				go io.Copy(io.Discard, server)
				go func() {
					for _, p := range testMessages() {
						_, _ = server.Write(NewMessage(Text, p, encoded).Bytes(receiver))
						_, _ = server.Write(NewMessage(Binary, []byte(p), encoded).Bytes(receiver))
					}
					_, _ = server.Write(AppendClose(nil, 4321, "enough"))
				}()
				wantMessages(t, dial(t, client, receiver))
			})
		}
	}
}

func wantMessages(t *testing.T, ws *websocket.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, want := range testMessages() {
		for _, kind := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
			typ, got, err := ws.Read(ctx)
			if err != nil || typ != kind || string(got) != want {
				t.Fatalf("%v of %d bytes: got %v of %d bytes, %v", kind, len(want), typ, len(got), err)
			}
		}
	}
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != 4321 || !strings.Contains(err.Error(), "enough") {
		t.Errorf("at the end: %v", err)
	}
}

func TestMessagesMayBeMadeConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				payload := fmt.Sprint(i, j, compressible(300+i*j))
				b := NewMessage(Text, payload, true).Bytes(true)
				ws := dial(t, canned{bytes.NewReader(b)}, true)
				if _, got, err := ws.Read(t.Context()); err != nil || string(got) != payload {
					t.Errorf("%d %d: %v, %v", i, j, string(got) == payload, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestControlFrames(t *testing.T) {
	longest := fill(MaxControl, 1)
	for _, c := range []struct {
		name string
		got  []byte
		want wireFrame
	}{
		{"empty ping", AppendControl(nil, Ping, nil), wireFrame{first: 0x89, size: 2}},
		{"pong", AppendControl(nil, Pong, []byte("x")), wireFrame{first: 0x8a, payload: "x", size: 3}},
		{"longest", AppendControl(nil, Pong, []byte(longest)), wireFrame{first: 0x8a, payload: longest, size: 127}},
		{"close without a code", AppendClose(nil, 0, "ignored"), wireFrame{first: 0x88, size: 2}},
		{"close", AppendClose(nil, 1000, ""), wireFrame{first: 0x88, payload: "\x03\xe8", size: 4}},
		{"close with the longest reason", AppendClose(nil, 4999, longest[:123]), wireFrame{first: 0x88, payload: "\x13\x87" + longest[:123], size: 127}},
	} {
		if got := parse(t, c.got); len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	two := parse(t, AppendClose(AppendControl(nil, Ping, []byte("a")), 1001, "b"))
	if len(two) != 2 || two[0].payload != "a" || two[1].payload != "\x03\xe9b" {
		t.Errorf("appended: %+v", two)
	}
}
