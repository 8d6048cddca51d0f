package frame

import (
	"bytes"
	"compress/flate"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

// conversation is what the client side of coder/websocket writes in TestCoderReadsThroughConn.
func conversation(t *testing.T, ws *websocket.Conn) (sent []string) {
	ctx := t.Context()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		payload := fill(r.IntN(1<<r.IntN(17)), uint32(i))
		if i%3 == 0 {
			payload = compressible(len(payload))
		}
		sent = append(sent, payload)
		if i%2 == 0 {
			if err := ws.Write(ctx, websocket.MessageBinary, []byte(payload)); err != nil {
				t.Error(err)
			}
			continue
		}
		w, err := ws.Writer(ctx, websocket.MessageText)
		if err != nil {
			t.Error(err)
			return sent
		}
		for len(payload) > 0 {
			n := 1 + r.IntN(len(payload))
			if _, err := io.WriteString(w, payload[:n]); err != nil {
				t.Error(err)
			}
			payload = payload[n:]
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
	return sent
}

func TestCoderReadsThroughConn(t *testing.T) {
	for _, deflate := range []bool{false, true} {
		overSocks(t, func(t *testing.T, s sock) {
			server, client := s.make(t)
			wire, h := newWire(server, nil, relaxed)
			ws, peer := accept(t, wire, deflate), dial(t, client, deflate)
			ws.SetReadLimit(1 << 20)
			sent, closed := make(chan []string, 1), make(chan error, 1)
			go func() {
				all := conversation(t, peer)
				sent <- all
				closed <- peer.Close(4001, "bye")
			}()
			var got []string
			var err error
			for err == nil {
				if err = wire.Wait(); err != nil {
					break
				}
				var p []byte
				if _, p, err = ws.Read(t.Context()); err == nil {
					got = append(got, string(p))
				}
			}
			if websocket.CloseStatus(err) != 4001 || !wire.PeerClosing() {
				t.Fatalf("after %d messages: %v, peer closing %v", len(got), err, wire.PeerClosing())
			}
			wire.Lock()
			_ = wire.Send(AppendClose(nil, 4001, ""))
			wire.Unlock()
			if want := receive(t, sent, "all messages"); !slices.Equal(got, want) {
				t.Errorf("%d messages read, %d sent, or they differ", len(got), len(want))
			}
			if err := receive(t, closed, "the client's Close"); err != nil {
				t.Errorf("the client's Close: %v", err)
			}
			if controls, _, _ := h.counts(); len(controls) > 0 {
				t.Errorf("controls %q", controls)
			}
		})
	}
}

// Where nothing but control frames came, coder/websocket's read ends and Wait goes on.
func TestReadWaitsForNoMessageAfterWait(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, h := newWire(server, nil, relaxed)
		ws := accept(t, wire, false)
		for _, control := range [][]byte{fromClient(0x89, "ping"), fromClient(0x8a, "pong"), fromClient(0x8a, "")[:3]} {
			mustWrite(t, client, control)
			go io.CopyN(io.Discard, client, 6) // the answer
			if err := wire.Wait(); err != nil {
				t.Fatal(err)
			}
			if len(control) < controlHeader {
				mustWrite(t, client, fromClient(0x8a, "")[3:])
			}
			if _, _, err := ws.Reader(t.Context()); !errors.Is(err, ErrIdle) {
				t.Fatalf("%x: %v", control, err)
			}
		}
		if controls, _, _ := h.counts(); len(controls) != 1 {
			t.Errorf("controls %q", controls)
		}
		for range 2 { // the second time without Wait: an application that reads by itself waits there
			read := make(chan error)
			mustWrite(t, client, fromClient(0x81, "x"))
			go func() { _, _, err := ws.Read(t.Context()); read <- err }()
			if err := receive(t, read, "a message"); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A message that the connection's end cuts short isn't taken for a whole one.
func TestCutMessageIsNoMessage(t *testing.T) {
	var deflated bytes.Buffer
	w, _ := flate.NewWriter(&deflated, flate.BestSpeed)
	for _, part := range []string{"delete everything ", "but this"} {
		_, _ = io.WriteString(w, part)
		_ = w.Flush()
	}
	compressed := fromClient(0xc1, strings.TrimSuffix(deflated.String(), "\x00\x00\xff\xff"))
	long := fromClient(0x81, fill(3000, 1))
	for name, sent := range map[string][]byte{
		"after a fragment":              fromClient(0x01, "delete everything"),
		"after an empty fragment":       slices.Concat(fromClient(0x01, "delete everything"), fromClient(0x00, "")),
		"after a pong behind it":        slices.Concat(fromClient(0x01, "delete everything"), fromClient(0x8a, "x")),
		"inside the next header":        slices.Concat(fromClient(0x01, "delete everything"), fromClient(0x80, "but this")[:1]),
		"after a header":                fromClient(0x81, "x")[:6],
		"after as much as a read takes": long[:8+512],
		"inside a payload":              long[:1000],
		"inside a compressed payload":   compressed[:len(compressed)-8],
		"after a compressed fragment":   append([]byte{0x41}, compressed[1:]...),
	} {
		t.Run(name, func(t *testing.T) {
			for _, end := range []error{io.EOF, io.ErrUnexpectedEOF} { // TLS has the second inside a record
				wire, _ := newWire(&chunked{stream: bytes.Clone(sent), end: end}, nil, relaxed)
				if _, p, err := accept(t, wire, true).Read(t.Context()); err == nil || errors.Is(err, end) {
					t.Errorf("up to %v: read %q, %v", end, p, err)
				}
			}
			overSocks(t, func(t *testing.T, s sock) {
				server, client := s.make(t)
				wire, _ := newWire(server, nil, relaxed)
				ws := accept(t, wire, true)
				go func() {
					_, _ = client.Write(sent)
					if c, ok := client.(*tls.Conn); ok {
						client = c.NetConn() // without TLS's own end
					}
					client.Close()
				}()
				if _, p, err := ws.Read(t.Context()); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("read %q, %v", p, err)
				}
				if err := socketError(wire); err != io.EOF && err != io.ErrUnexpectedEOF {
					t.Errorf("socket error %v", err)
				}
			})
		})
	}
}

func TestCoderAnswersPings(t *testing.T) {
	server, client := tcpPair(t)
	wire, h := newWire(server, nil, relaxed)
	ws, peer := accept(t, wire, false), dial(t, client, false)
	go ws.Read(t.Context())
	ctx := peer.CloseRead(t.Context())
	for range 100 {
		if err := peer.Ping(ctx); err != nil {
			t.Fatal(err)
		}
	}
	controls, _, _ := h.counts()
	if len(controls) != 100 || controls[0] != `0xa "1"` || controls[99] != `0xa "100"` {
		t.Errorf("controls %q", controls)
	}
	wire.Kill()
}
