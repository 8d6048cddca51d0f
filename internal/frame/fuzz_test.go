package frame

import (
	"bytes"
	"errors"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// program reads choices out of the fuzzer's bytes; when they are used up it chooses 0.
type program struct {
	b    []byte
	most int // bytes that its sizes may still come to, so that no run takes long
}

func (p *program) next() int {
	if len(p.b) == 0 {
		return 0
	}
	n := p.b[0]
	p.b = p.b[1:]
	return int(n)
}

// size is mostly small, and at most 64 KiB and some.
func (p *program) size() int {
	n := p.next()
	if n >= 200 {
		n = 1<<(n%17) + p.next()
	}
	n = min(n, p.most)
	p.most -= n
	return n
}

// writing is a run of FuzzWriter: the frame-wise writer and what is expected of it.
type writing struct {
	t    *testing.T
	tape *tape
	wire *Conn
	raw  []byte   // what the application has still to write
	cuts []rawEnd // the ends of its frames in raw, counted from the last one
	want []byte
	open bool // a message in several frames is under way on the wire

	planned bool // the same at raw's end
	frames  uint32
}

type rawEnd struct {
	frame []byte
	left  int // bytes of it in raw
}

// plan adds a frame of the application's that is valid where raw ends.
func (w *writing) plan(p *program) {
	first := byte(p.next())
	n := p.size()
	switch {
	case first%4 == 0:
		first, n = 0x80|[]byte{Ping, Pong}[first/4%2], min(n, MaxControl)
	case w.planned:
		first = first & finBit
		w.planned = first == 0
	default:
		first = first&(finBit|rsv1Bit) | (Text + first>>2&1)
		w.planned = first&finBit == 0
	}
	w.frames++
	f := frameOf(first, fill(n, w.frames), false)
	w.raw = append(w.raw, f...)
	w.cuts = append(w.cuts, rawEnd{f, len(f)})
}

// write lets the application write n bytes.
func (w *writing) write(n int) {
	n = min(n, len(w.raw))
	if got, err := w.wire.Write(w.raw[:n]); got != n || err != nil {
		w.t.Fatalf("write of %d: %d, %v", n, got, err)
	}
	w.raw = w.raw[n:]
	for n > 0 {
		c := &w.cuts[0]
		step := min(n, c.left)
		c.left -= step
		if n -= step; c.left == 0 {
			w.want = append(w.want, c.frame...)
			if first := c.frame[0]; first&0x0f < Close {
				w.open = first&finBit == 0
			}
			w.cuts = w.cuts[1:]
		}
	}
}

// send sends some frames of the hub's, data only where the wire lets it pass.
func (w *writing) send(p *program) {
	data := w.wire.Lock()
	defer w.wire.Unlock()
	if data == w.open {
		w.t.Fatalf("data may pass: %v, within a message: %v", data, w.open)
	}
	var batch []byte
	for range 1 + p.next()%3 {
		w.frames++
		if payload := fill(p.size(), w.frames); data {
			batch = append(batch, NewMessage(Binary, payload, true).Bytes(p.next()%2 == 0)...)
		} else {
			batch = AppendControl(batch, Ping, []byte(payload[:min(len(payload), MaxControl)]))
		}
	}
	if err := w.wire.Send(batch); err != nil {
		w.t.Fatal(err)
	}
	w.want = append(w.want, batch...)
}

// However the application's frames are cut into writes, and whatever the hub sends meanwhile, whole
// frames come out, in order, and none is lost.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("\x00\x01\x05\x01\x03\x02\x01\x07\x03\x01\x02"))
	f.Add([]byte("\x00\x41\xff\x90\x01\x02\x02\x10\x00\x02\xc8\x11\x01\xff\x02\x33\x01\x01\x03\x01\x01\x01"))
	f.Add(bytes.Repeat([]byte("\x00\x02\x7f\x01\x05\x02\x04\x03\x02\x11\x00\x81\x20\x01\xff"), 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := program{b, 1 << 18}
		w := &writing{t: t, tape: &tape{Conn: nowhere{}}}
		w.wire, _ = newWire(w.tape, nil, relaxed)
		for len(p.b) > 0 {
			switch p.next() % 4 {
			case 0:
				w.plan(&p)
			case 1:
				w.write(p.size())
			case 2:
				w.send(&p)
			case 3:
				w.write(len(w.raw))
			}
		}
		w.write(len(w.raw))
		if !bytes.Equal(w.tape.Bytes(), w.want) {
			t.Fatalf("%d bytes came out, want %d, or they differ", w.tape.Len(), len(w.want))
		}
		wantSequence(t, parse(t, w.tape.Bytes()))
	})
}

// wantSequence checks that no data frame lies inside of a fragmented message.
func wantSequence(t *testing.T, frames []wireFrame) {
	t.Helper()
	open := false
	for i, f := range frames {
		if f.control() {
			continue
		}
		if (f.opcode() == Continuation) != open {
			t.Fatalf("frame %d, %#x, where a message in several frames is under way: %v", i, f.first, open)
		}
		open = !f.fin()
	}
}

// nowhere is a socket without deadlines or an end.
type nowhere struct{ net.Conn }

func (nowhere) Close() error                     { return nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

// chunked is a socket from which a stream comes in chunks of given sizes.
type chunked struct {
	nowhere
	stream []byte
	sizes  []byte
	reads  int
	end    error
	out    bytes.Buffer
}

func (c *chunked) Read(p []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, c.end
	}
	size := len(c.stream)
	if len(c.sizes) > 0 {
		size = 1 + int(c.sizes[c.reads%len(c.sizes)])*int(c.sizes[c.reads%len(c.sizes)])/8
		c.reads++
	}
	n := copy(p, c.stream[:min(size, len(c.stream))])
	c.stream = c.stream[n:]
	return n, nil
}

func (c *chunked) Write(p []byte) (int, error) { return c.out.Write(p) }

// heard is what coder/websocket makes of a stream.
type heard struct {
	messages []string
	err      string
	answers  []wireFrame
}

// hear reads all messages from conn, whose answers go to out.
func hear(t *testing.T, conn net.Conn, out *bytes.Buffer, deflate bool, wait func() error) (h heard) {
	ws := accept(t, conn, deflate)
	ws.SetReadLimit(1 << 16)
	for h.err == "" {
		err := wait()
		var by websocket.CloseError
		if errors.As(err, &by) { // Wait has taken the close frame: the owner answers it as coder/websocket would
			h.err = "failed to get reader: received close frame: " + by.Error()
			var payload []byte
			if by.Code != websocket.StatusNoStatusRcvd {
				payload = ClosePayload(by.Code, by.Reason)
			}
			out.Write(Append(nil, Close, payload))
			break
		}
		if err == nil {
			var typ websocket.MessageType
			var p []byte
			if typ, p, err = ws.Read(t.Context()); err == nil {
				h.messages = append(h.messages, typ.String()+string(p))
			}
		} else {
			_, _, err = ws.Read(t.Context()) // has the same error, in its own words
		}
		if err != nil && !errors.Is(err, ErrIdle) {
			h.err = err.Error()
		}
	}
	ws.CloseNow()
	h.answers = parse(t, out.Bytes())
	return h
}

// However a client's stream is cut, and whatever it consists of, coder/websocket reads the same from
// a Conn as from the stream itself, or with compression from a Conn over the whole stream, and the end is
// found.
func FuzzReader(f *testing.F) {
	zero := func(first byte, payload string) []byte { // masked with zeros, which the fuzzer can see through
		b := build(first, payload, 0, false)
		b[1] |= maskBit
		return append(append(b[:2:2], 0, 0, 0, 0), payload...)
	}
	f.Add(uint16(0), []byte{}, []byte{}, uint16(0), false)
	f.Add(uint16(0), slices.Concat(zero(0x8a, ""), zero(0x01, "ab"), zero(0x8a, ""), zero(0x89, "ping"), zero(0x80, "c"), zero(0x88, "\x03\xe8")), []byte{0, 4}, uint16(7), false)
	f.Add(uint16(50), slices.Concat(zero(0xc1, "\x4a\x04\x00"), zero(0x8a, ""), zero(0x41, "\x4a"), zero(0x80, "\x04\x00")), []byte{3}, uint16(0), true)
	f.Add(uint16(300), []byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff0123456789"), []byte{2}, uint16(3), false)
	f.Add(uint16(65535), zero(0x88, ""), []byte{0, 200, 255}, uint16(4096), false)
	f.Fuzz(func(t *testing.T, large uint16, stream, sizes []byte, early uint16, deflate bool) {
		stream = append(fromClient(0x82, fill(int(large), 1)), stream...)
		n := min(int(early), len(stream), readSize)
		plain := &chunked{stream: bytes.Clone(stream), end: errCut} // io.EOF may look like a message's end
		want := heard{}
		if deflate {
			whole, _ := newWire(plain, nil, relaxed)
			want = hear(t, whole, &plain.out, true, whole.Wait)
		} else {
			want = hear(t, plain, &plain.out, false, func() error { return nil })
		}

		cut := &chunked{stream: bytes.Clone(stream[n:]), sizes: sizes, end: io.EOF}
		wire, _ := newWire(cut, stream[:n], relaxed)
		got := hear(t, wire, &cut.out, deflate, wire.Wait)
		if !slices.Equal(got.messages, want.messages) {
			t.Errorf("%d messages, want %d, or they differ", len(got.messages), len(want.messages))
		}
		got.err, want.err = withoutCutControl(got.err), withoutCutControl(want.err)
		if got.err != want.err && got.err != strings.ReplaceAll(want.err, errCut.Error(), "EOF") {
			t.Errorf("ended by %q, want %q", got.err, want.err)
		}
		if !slices.Equal(got.answers, want.answers) {
			t.Errorf("answered %+v, want %+v", got.answers, want.answers)
		}
		wire.Drain()
		if wire.buf == nil != (wire.r == wire.w) || len(cut.stream) > 0 && !wire.PeerClosing() {
			t.Errorf("drained: %d bytes left, %d in the buffer, peer closing %v", len(cut.stream), wire.w-wire.r, wire.PeerClosing())
		}
	})
}

// cutControl is what coder/websocket says of a control frame that is cut within.
var cutControl = regexp.MustCompile(`failed to handle control frame op\w+: failed to read frame payload: ` + regexp.QuoteMeta(errCut.Error()))

// withoutCutControl returns an error's text as if a cut control frame had been cut in its header: a Conn hands on short
// control frames whole, so coder/websocket sees no part of them.
func withoutCutControl(text string) string {
	return cutControl.ReplaceAllString(text, "failed to read frame header: "+errCut.Error())
}

// coder/websocket reads what was encoded, compressed or not, each message by itself.
func FuzzEncoder(f *testing.F) {
	for _, times := range []uint16{0, 1, 125, 126, 127} {
		f.Add([]byte("a"), times, times%2 == 0, true, true)
	}
	f.Add([]byte(fill(257, 1)), uint16(255), false, true, true) // 65535 bytes
	f.Add([]byte(fill(256, 1)), uint16(256), true, true, true)
	f.Add([]byte("plain"), uint16(9), true, false, true)
	f.Add([]byte("not negotiated"), uint16(50), true, true, false)
	f.Fuzz(func(t *testing.T, part []byte, times uint16, text, deflate, negotiated bool) {
		payload := bytes.Repeat(part, min(int(times), 1<<17/(len(part)+1)))
		opcode, typ := byte(Binary), websocket.MessageBinary
		if text {
			opcode, typ = Text, websocket.MessageText
		}
		b := NewMessage(opcode, payload, deflate).Bytes(negotiated)
		if frames := parse(t, b); len(frames) != 1 || frames[0].masked || !frames[0].fin() || len(frames[0].payload) > len(payload) {
			t.Fatalf("%d frames", len(frames))
		}
		ws := dial(t, canned{bytes.NewReader(append(b, NewMessage(opcode, string(payload), deflate).Bytes(negotiated)...))}, negotiated)
		for range 2 {
			if got, p, err := ws.Read(t.Context()); err != nil || got != typ || !bytes.Equal(p, payload) {
				t.Fatalf("%v of %d bytes, %v, want %v of %d", got, len(p), err, typ, len(payload))
			}
		}
	})
}
