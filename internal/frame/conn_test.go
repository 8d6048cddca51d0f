package frame

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func TestReadGivesBytesOfOneFrameAtATime(t *testing.T) {
	stream, frames, _ := sequence(true)
	overSocks(t, func(t *testing.T, s sock) {
		for _, size := range []int{1, 3, 16, 100, readSize - 1, readSize, 1 << 17} {
			server, client := s.make(t)
			wire, _ := newWire(server, nil, relaxed)
			wait := mustWrite(t, client, stream)
			p, at := make([]byte, size), 0
			for at < len(stream) {
				n, err := wire.Read(p)
				if n <= 0 || err != nil {
					t.Fatalf("by %d: after %d of %d bytes: %d, %v", size, at, len(stream), n, err)
				}
				if !bytes.Equal(p[:n], stream[at:at+n]) {
					t.Fatalf("by %d: bytes %d to %d aren't the stream's", size, at, at+n)
				}
				if next, _ := slices.BinarySearch(frames, at+1); at+n > frames[next] {
					t.Fatalf("by %d: bytes %d to %d reach over a frame's end at %d", size, at, at+n, frames[next])
				}
				at += n
			}
			wait()
			if wire.buf != nil || !wire.PeerClosing() {
				t.Errorf("by %d: buffer kept: %v; peer closing: %v", size, wire.buf != nil, wire.PeerClosing())
			}
		}
	})
}

func TestEarlyBytesComeFirst(t *testing.T) {
	stream, _, _ := sequence(true)
	for _, n := range []int{0, 1, 6, 7, 500, readSize, readSize + 1, len(stream) - 1} {
		server, client := pipePair(t)
		wire, _ := newWire(server, bytes.Clone(stream[:n]), relaxed)
		if n > 0 {
			if err := wire.Wait(); err != nil { // nothing comes from the socket yet
				t.Fatal(err)
			}
		}
		mustWrite(t, client, stream[n:])
		got := make([]byte, len(stream))
		if _, err := io.ReadFull(wire, got); err != nil || !bytes.Equal(got, stream) {
			t.Errorf("%d early bytes: %v, equal %v", n, err, bytes.Equal(got, stream))
		}
	}
}

func TestEarlyBytesAreCopied(t *testing.T) {
	server, _ := pipePair(t)
	early := []byte("\x81\x80abcd")
	wire, _ := newWire(server, early, relaxed)
	clear(early)
	var p [6]byte
	if n, _ := wire.Read(p[:]); string(p[:n]) != "\x81\x80abcd" {
		t.Errorf("read %q", p[:n])
	}
}

func TestWaitSwallowsOnlyEmptyPongs(t *testing.T) {
	pong, text := string(fromClient(0x8a, "")), string(fromClient(0x81, "text"))
	for _, c := range []struct{ name, sent, read string }{
		{"a message", text, text},
		{"an empty pong", pong + text, text},
		{"three of them", pong + pong + pong + text, text},
		{"a pong that says something", string(fromClient(0x8a, "x")) + text, string(fromClient(0x8a, "x"))},
		{"an empty ping", string(fromClient(0x89, "")) + text, string(fromClient(0x89, ""))},
		{"a fragmented pong", string(fromClient(0x0a, "")) + text, string(fromClient(0x0a, ""))},
		{"a pong with RSV1", string(fromClient(0xca, "")) + text, string(fromClient(0xca, ""))},
		{"an unmasked pong", "\x8a\x00" + text, "\x8a\x00"},
		{"an empty pong in the longer form", string(build(0x8a, "", 2, true)) + text, string(build(0x8a, "", 2, true))},
		{"an empty text", string(fromClient(0x81, "")) + text, string(fromClient(0x81, ""))},
	} {
		server, _ := pipePair(t)
		wire, _ := newWire(server, []byte(c.sent), relaxed)
		if err := wire.Wait(); err != nil {
			t.Fatal(err)
		}
		var p [100]byte
		if n, err := wire.Read(p[:]); err != nil || string(p[:n]) != c.read {
			t.Errorf("%s: read %x, %v, want %x", c.name, p[:n], err, c.read)
		}
	}
}

// Wait takes the peer's close frame and says what is in it. What breaks the rules for one is left, byte for byte,
// for coder/websocket, which refuses it.
func TestWaitTakesTheClose(t *testing.T) {
	long := "\x0f\xa0" + fill(MaxControl-2, 1)
	for _, c := range []struct {
		sent []byte
		want websocket.CloseError
	}{
		{fromClient(0x88, ""), websocket.CloseError{Code: websocket.StatusNoStatusRcvd}},
		{fromClient(0x88, "\x03\xe8"), websocket.CloseError{Code: 1000}},
		{fromClient(0x88, "\x03\xf1bye"), websocket.CloseError{Code: 1009, Reason: "bye"}},
		{fromClient(0x88, long), websocket.CloseError{Code: 4000, Reason: long[2:]}},
		{append(fromClient(0x8a, ""), fromClient(0x88, "\x0b\xb8\xff")...), websocket.CloseError{Code: 3000, Reason: "\xff"}},
	} {
		server, _ := pipePair(t)
		wire, _ := newWire(server, append(c.sent, "and more"...), relaxed)
		if err := wire.Wait(); err != c.want || !wire.PeerClosing() {
			t.Errorf("%x: %v, peer closing %t", c.sent, err, wire.PeerClosing())
		}
	}

	for name, sent := range map[string][]byte{
		"half a code":          fromClient(0x88, "\x03"),
		"a code that is none":  fromClient(0x88, "\x03\xed"),
		"a code of TLS":        fromClient(0x88, "\x03\xf7"),
		"a code below all":     fromClient(0x88, "\x00\x00"),
		"a code above all":     fromClient(0x88, "\x13\x88"),
		"a fragment":           fromClient(0x08, "\x03\xe8"),
		"RSV1":                 fromClient(0xc8, "\x03\xe8"),
		"no mask":              []byte("\x88\x02\x03\xe8"),
		"the longer form":      build(0x88, "\x03\xe8", 2, true),
		"more than it may say": build(0x88, fill(MaxControl+1, 1), 2, true),
	} {
		server, _ := pipePair(t)
		wire, _ := newWire(server, bytes.Clone(sent), relaxed)
		if err := wire.Wait(); err != nil || wire.PeerClosing() {
			t.Errorf("%s: %v, peer closing %t", name, err, wire.PeerClosing())
		}
		got := make([]byte, len(sent))
		if _, err := io.ReadFull(wire, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%s: read %x, %v, want %x", name, got, err, sent)
		}
	}
}

// The owner hears of each ping and pong, also of those that Wait swallows, and of no other frame alone.
func TestOwnerHearsOfControlFrames(t *testing.T) {
	server, _ := pipePair(t)
	sent := bytes.Repeat(fromClient(0x8a, ""), 3)
	for _, first := range []byte{0x01, 0x89, 0x8a, 0x00, 0x8a, 0x80, 0x81} {
		sent = append(sent, fromClient(first, "x")...)
	}
	wire, h := newWire(server, append(sent, fromClient(0x88, "")...), relaxed)
	for !wire.PeerClosing() {
		if err := wire.Wait(); err != nil && websocket.CloseStatus(err) < 0 {
			t.Fatal(err)
		} else if err == nil {
			wire.Read(make([]byte, 1))
		}
	}
	if h.empty != 6 {
		t.Errorf("%d pings and pongs, want 6", h.empty)
	}
}

// The owner hears of fragments by what they carry less than 16 bytes on average, but of no message's
// first and last.
func TestOwnerHearsOfFragmentsThatCarryLittle(t *testing.T) {
	begun, more, over := fromClient(0x02, ""), func(n int) []byte { return fromClient(0x00, fill(n, 1)) }, fromClient(0x80, "")
	for name, c := range map[string]struct {
		stream []byte
		want   int
	}{
		"empty, nearly":            {slices.Concat(begun, bytes.Repeat(more(0), 255)), 0},
		"empty":                    {slices.Concat(begun, bytes.Repeat(more(0), 256)), 1},
		"empty, many":              {slices.Concat(begun, bytes.Repeat(more(0), 2560)), 10},
		"a byte each":              {slices.Concat(begun, bytes.Repeat(more(1), 274)), 1},
		"enough":                   {slices.Concat(begun, bytes.Repeat(more(16), 10000)), 0},
		"enough together":          {slices.Concat(begun, bytes.Repeat(slices.Concat(more(0), more(0), more(48)), 10000)), 0},
		"enough was before":        {slices.Concat(begun, more(1<<17), bytes.Repeat(more(0), 256)), 1},
		"enough, but longer after": {slices.Concat(begun, bytes.Repeat(more(0), 255), more(1<<17), bytes.Repeat(more(0), 255)), 0},
		"in messages":              {bytes.Repeat(slices.Concat(begun, more(0), over), 256), 1},
		"compressed":               {slices.Concat(fromClient(0x42, ""), bytes.Repeat(more(0), 256)), 1},
		"messages of two":          {bytes.Repeat(slices.Concat(begun, over), 1000), 0},
		"messages":                 {bytes.Repeat(fromClient(0x82, ""), 1000), 0},
	} {
		t.Run(name, func(t *testing.T) {
			wire, h := newWire(&chunked{stream: c.stream, end: io.EOF}, nil, relaxed)
			wire.AcceptDeflate()
			for p, err := make([]byte, 1000), error(nil); err == nil; {
				_, err = wire.Read(p)
			}
			if h.empty != c.want {
				t.Errorf("heard of %d, want %d", h.empty, c.want)
			}
		})
	}
}

// A frame that is announced as too long is refused with its header, however that is cut, and another
// isn't.
func TestAnnouncedLengthIsBounded(t *testing.T) {
	limits := &Limits{Message: patience, Write: patience, Frame: 1000}
	for _, test := range []struct {
		first  byte
		length int
		refuse bool
	}{{0x81, 1000, false}, {0x81, 1001, true}, {0x02, 70_000, true}, {0x80, 1001, true}, {0x89, 1001, false}, {0x83, 1001, false}} {
		for _, size := range []int{1, 100} {
			server, _ := pipePair(t)
			frame := build(test.first, strings.Repeat("x", test.length), 8, true)
			wire, h := newWire(server, frame[:14], limits)
			var err error
			for at := 0; at < 14 && err == nil; {
				var n int
				n, err = wire.Read(make([]byte, size))
				at += n
			}
			if refused := err != nil; refused != test.refuse || h.oversize > 0 != test.refuse {
				t.Errorf("%#x of %d, read by %d: %v, the owner heard %d times", test.first, test.length, size, err, h.oversize)
			}
		}
	}
}

func TestWaitKnowsAPongFromAMessageThatLooksLikeOne(t *testing.T) {
	server, _ := pipePair(t)
	inside := string(fromClient(0x8a, ""))
	message := "\x82\x86\x00\x00\x00\x00" + inside // 6 bytes, masked with zeros
	wire, _ := newWire(server, []byte(message), relaxed)
	var p [6]byte
	if _, err := io.ReadFull(wire, p[:]); err != nil { // the header
		t.Fatal(err)
	}
	if err := wire.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, err := wire.Read(p[:]); string(p[:n]) != inside {
		t.Errorf("payload %x, %v, want %x", p[:n], err, inside)
	}
}

func TestWaitLeavesAPongThatComesInPieces(t *testing.T) {
	for cut := 1; cut < controlHeader; cut++ {
		server, client := pipePair(t)
		pong := fromClient(0x8a, "")
		wire, _ := newWire(server, pong[:cut], relaxed)
		if err := wire.Wait(); err != nil {
			t.Fatal(err)
		}
		mustWrite(t, client, pong[cut:])
		got := make([]byte, len(pong))
		if _, err := io.ReadFull(wire, got); err != nil || !bytes.Equal(got, pong) {
			t.Errorf("cut after %d: %x, %v", cut, got, err)
		}
	}
}

func TestBufferIsGivenBackWhenNothingIsUnread(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		for _, n := range []int{0, 1, readSize, 3 * readSize} {
			frame := fromClient(0x81, fill(n, 1))
			wait := mustWrite(t, client, frame)
			if _, err := io.CopyN(io.Discard, readOnly{wire}, int64(len(frame))); err != nil {
				t.Fatal(err)
			}
			wait()
			if wire.buf != nil {
				t.Errorf("a buffer is kept after a frame of %d bytes", len(frame))
			}
		}
		waited := make(chan error)
		go func() { waited <- wire.Wait() }()
		until(t, "a read waits", func() bool { return wire.WaitingSince() != 0 })
		if s.raw && wire.buf != nil {
			t.Error("a buffer is kept while nothing comes")
		}
		before := Now()
		mustWrite(t, client, fromClient(0x8a, ""))()
		until(t, "the pong is read", func() bool { return wire.LastRead() > before && wire.WaitingSince() > before })
		wire.Interrupt()
		if err := receive(t, waited, "Wait"); !wire.Interrupted(err) || wire.buf != nil {
			t.Errorf("interrupted: %v; a buffer is kept: %v", err, wire.buf != nil)
		}
	})
}

func TestConnTellsSinceWhenItWaits(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		if wire.WaitingSince() != 0 {
			t.Error("it waits before anyone reads")
		}
		begin, waited := Now(), make(chan error)
		go func() { waited <- wire.Wait() }()
		until(t, "a read waits", func() bool { return wire.WaitingSince() != 0 })
		if since := wire.WaitingSince(); since < begin || since > Now() {
			t.Errorf("waiting since %d, which isn't within [%d, now]", since, begin)
		}
		before := Now()
		mustWrite(t, client, fromClient(0x81, "x"))
		if err := receive(t, waited, "Wait"); err != nil {
			t.Fatal(err)
		}
		if wire.WaitingSince() != 0 {
			t.Error("it still waits")
		}
		if last := wire.LastRead(); last < before || last > Now() {
			t.Errorf("last read at %d, which isn't within [%d, now]", last, before)
		}
	})
}

func TestSocketErrorIsTheSocketsOwn(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		wait := mustWrite(t, client, fromClient(0x81, "x"))
		var p [100]byte
		if _, err := wire.Read(p[:]); err != nil || socketError(wire) != nil {
			t.Fatalf("%v, %v", err, socketError(wire))
		}
		wait()
		client.Close()
		if _, err := wire.Read(p[:]); err != io.EOF || socketError(wire) != io.EOF || wire.buf != nil {
			t.Errorf("after the peer's close: %v, %v", err, socketError(wire))
		}
		if err := wire.Wait(); err != io.EOF {
			t.Errorf("again: %v", err)
		}
		wire.Hangup()
		if err := wire.Wait(); err == nil || wire.Interrupted(err) {
			t.Errorf("after our close: %v", err)
		}
	})
}

// A Read that returns bytes and an error at once keeps its error for later.
func TestBytesThatComeWithAnErrorAreRead(t *testing.T) {
	server, _ := pipePair(t)
	wire, _ := newWire(lastWords{server}, nil, relaxed)
	var p [100]byte
	if n, err := wire.Read(p[:]); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := wire.Read(p[:]); n != 7 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

type lastWords struct{ net.Conn }

func (lastWords) Read(p []byte) (int, error) { return copy(p, fromClient(0x81, "x")), io.EOF }

func TestKillAndHangupEndReadsAndWrites(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		for name, end := range map[string]func(*Conn){"Kill": (*Conn).Kill, "Hangup": (*Conn).Hangup} {
			server, _ := s.make(t)
			wire, _ := newWire(server, nil, relaxed)
			errs := make(chan error, 2)
			go func() { errs <- wire.Wait() }()
			until(t, "a read waits", func() bool { return wire.WaitingSince() != 0 })
			go func() {
				wire.Lock()
				defer wire.Unlock()
				var err error
				for err == nil { // until the socket is full
					err = wire.Send(frameOf(0x82, fill(1<<16, 1), false))
				}
				errs <- err
			}()
			end(wire)
			for range 2 {
				if err := receive(t, errs, "the end of a read and a write"); err == nil {
					t.Errorf("%s: no error", name)
				}
			}
		}
	})
}

// A TLS socket's own Close waits for the peer to take its closing alert.
func TestKillDoesNotWaitForTLS(t *testing.T) {
	for name, end := range map[string]func(*Conn){"Kill": (*Conn).Kill, "Hangup": (*Conn).Hangup} {
		synctest.Test(t, func(t *testing.T) {
			server, client := tlsOver(net.Pipe())
			wire, _ := newWire(server, nil, relaxed)
			begin := time.Now()
			end(wire)
			if took := time.Since(begin); name == "Kill" && took != 0 || took > 5*time.Second {
				t.Errorf("%s took %v", name, took)
			}
			if err := wire.Wait(); err == nil {
				t.Errorf("the socket isn't closed after %s", name)
			}
			client.Close()
		})
	}
}

// own is a socket with a Read and a Write of its own.
type own struct {
	*net.TCPConn
	reads, writes int
}

func (o *own) Read(p []byte) (int, error)  { o.reads++; return o.TCPConn.Read(p) }
func (o *own) Write(p []byte) (int, error) { o.writes++; return o.TCPConn.Write(p) }

func TestConnUsesTheSocketsOwnReadAndWrite(t *testing.T) {
	server, client := tcpPair(t)
	socket := &own{TCPConn: server.(*net.TCPConn)}
	wire, h := newWire(socket, nil, relaxed)
	mustWrite(t, client, fromClient(0x81, "x"))
	if err := wire.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := h.send([]byte{0x82, 0}); err != nil {
		t.Fatal(err)
	}
	if socket.reads == 0 || socket.writes == 0 {
		t.Errorf("%d reads, %d writes", socket.reads, socket.writes)
	}
}

func TestCloseIsForTheOwner(t *testing.T) {
	server, client := pipePair(t)
	wire, h := newWire(server, nil, relaxed)
	if err := wire.Close(); err != nil {
		t.Error(err)
	}
	if _, _, closed := h.counts(); closed != 1 {
		t.Errorf("Closed was called %d times", closed)
	}
	mustWrite(t, client, fromClient(0x81, "x")) // the socket is open
	if err := wire.Wait(); err != nil {
		t.Error(err)
	}
}

// drains are what a peer may do once the connection is ending.
var drains = []struct {
	name  string
	reads int // by coder/websocket, before
	sent  []byte
	rest  []byte // sent but not read, as it comes after the close frame
	eof   bool
}{
	{name: "close frame", sent: fromClient(0x88, "\x03\xe8bye")},
	{name: "close frame without payload", sent: fromClient(0x88, "")},
	{name: "close frame, then more", sent: fromClient(0x88, ""), rest: fromClient(0x81, "more")},
	{name: "messages, then close frame", sent: slices.Concat(fromClient(0x81, "x"), fromClient(0x82, fill(100000, 1)), fromClient(0x8a, ""), fromClient(0x88, "\x03\xe8"))},
	{name: "within a message's fragments", sent: slices.Concat(fromClient(0x01, "x"), fromClient(0x88, ""))},
	{name: "inside a header", reads: 1, sent: slices.Concat(fromClient(0x82, fill(300, 1)), fromClient(0x88, ""))},
	{name: "inside a payload", reads: 1000, sent: slices.Concat(fromClient(0x82, fill(9000, 1)), fromClient(0x88, ""))},
	{name: "a payload that looks like a close frame", sent: slices.Concat([]byte("\x82\x86\x00\x00\x00\x00\x88\x80\x00\x00\x00\x00"), fromClient(0x88, "")), reads: 6},
	{name: "EOF", eof: true},
	{name: "EOF inside a header", sent: fromClient(0x82, fill(300, 1))[:3], eof: true},
	{name: "EOF inside a payload", sent: fromClient(0x82, fill(300, 1))[:200], eof: true, reads: 100},
	{name: "EOF inside the close frame", sent: fromClient(0x88, "\x03\xe8bye")[:8], eof: true},
	{name: "EOF between fragments", sent: fromClient(0x02, "x"), eof: true},
}

func TestDrainStopsAtTheCloseFrameAndAtTheEnd(t *testing.T) {
	for _, d := range drains {
		t.Run(d.name, func(t *testing.T) {
			overSocks(t, func(t *testing.T, s sock) {
				server, client := s.make(t)
				wire, _ := newWire(server, nil, relaxed)
				wait := mustWrite(t, client, d.sent)
				if _, err := io.CopyN(io.Discard, readOnly{wire}, int64(d.reads)); err != nil {
					t.Fatal(err)
				}
				wire.Interrupt()
				wire.Resume()
				drained := make(chan struct{})
				go func() { wire.Drain(); close(drained) }()
				wait()
				if d.rest != nil {
					go client.Write(d.rest)
				}
				if d.eof {
					client.Close()
				}
				receive(t, drained, "Drain")
				if wire.PeerClosing() == d.eof {
					t.Errorf("peer closing: %v", wire.PeerClosing())
				}
			})
		})
	}
}

// readOnly hides what io.Copy would use instead of Read.
type readOnly struct{ io.Reader }

func TestDrainReturnsAtOnceAfterTheCloseFrame(t *testing.T) {
	server, _ := pipePair(t)
	frame := fromClient(0x88, "")
	wire, _ := newWire(server, frame, relaxed)
	if _, err := io.ReadFull(wire, make([]byte, len(frame))); err != nil {
		t.Fatal(err)
	}
	wire.Drain()
}

func TestInterruptedMeansInterruptAndNothingElse(t *testing.T) {
	server, client := pipePair(t)
	wire, _ := newWire(server, nil, relaxed)
	for _, err := range []error{nil, io.EOF, net.ErrClosed, errors.New("x")} {
		if wire.Interrupted(err) {
			t.Errorf("%v isn't of an interrupt", err)
		}
	}
	wire.Interrupt()
	if err := wire.Wait(); !wire.Interrupted(err) || !wire.Interrupted(fmt.Errorf("wrapped: %w", err)) {
		t.Errorf("%v is of an interrupt", err)
	}
	if wire.Interrupted(nil) || wire.Interrupted(io.EOF) {
		t.Error("an interrupt explains the end of the stream")
	}
	wire.Resume()
	client.Close()
	if err := wire.Wait(); wire.Interrupted(err) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("after Resume: %v", err)
	}
}

// socketError returns the error with which the socket's reading side failed, if it did.
func socketError(c *Conn) error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readErr
}
