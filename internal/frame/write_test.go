package frame

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// tape is a socket that keeps what is written to it.
type tape struct {
	net.Conn
	bytes.Buffer
	writes int
}

func newTape(t testing.TB) *tape {
	server, _ := pipePair(t)
	return &tape{Conn: server}
}

func (t *tape) Read(p []byte) (int, error) { return t.Conn.Read(p) }

func (t *tape) Write(p []byte) (int, error) {
	t.writes++
	return t.Buffer.Write(p)
}

func TestOnlyWholeFramesPass(t *testing.T) {
	stream, ends, _ := sequence(false)
	for _, chunk := range []int{1, 2, 7, 100, readSize, 1 << 20} {
		tape := newTape(t)
		wire, _ := newWire(tape, nil, relaxed)
		for at := 0; at < len(stream); {
			n, err := wire.Write(stream[at:min(at+chunk, len(stream))])
			if err != nil {
				t.Fatal(err)
			}
			at += n
			whole, _ := slices.BinarySearch(ends, at+1) // how many frames are complete
			if want := append([]int{0}, ends...)[whole]; tape.Len() != want {
				t.Fatalf("by %d: %d bytes are out after %d, want %d", chunk, tape.Len(), at, want)
			}
		}
		if !bytes.Equal(tape.Bytes(), stream) {
			t.Errorf("by %d: what came out isn't what was written", chunk)
		}
		if len(wire.out.part) != 0 {
			t.Errorf("by %d: %d bytes are kept", chunk, len(wire.out.part))
		}
	}
}

func TestLockTellsWhetherDataMayPass(t *testing.T) {
	tape := newTape(t)
	wire, h := newWire(tape, nil, relaxed)
	for i, f := range []struct {
		first byte
		data  bool // may pass afterwards
		sent  int  // messages, afterwards
	}{
		{0x81, true, 1}, {0x01, false, 1}, {0x89, false, 1}, {0x00, false, 1}, {0x8a, false, 1},
		{0x80, true, 2}, {0x89, true, 2}, {0xc1, true, 3}, {0x41, false, 3}, {0x80, true, 4},
	} {
		if _, err := wire.Write(frameOf(f.first, "payload", false)); err != nil {
			t.Fatal(err)
		}
		data := wire.Lock()
		wire.Unlock()
		if _, sent, _ := h.counts(); data != f.data || sent != f.sent {
			t.Errorf("after frame %d, %#x: data may pass: %v, %d messages; want %v, %d", i, f.first, data, sent, f.data, f.sent)
		}
	}
	if controls, _, _ := h.counts(); len(controls) != 3 || controls[0] != `0x9 "payload"` {
		t.Errorf("controls %q", controls)
	}
}

// mute is an Owner that sends nothing.
type mute struct{ hub }

func (*mute) Control(byte, []byte) bool { return true }

func TestControlFramesGoToTheOwnerAlone(t *testing.T) {
	tape := newTape(t)
	wire := NewConn(tape, nil, new(mute), relaxed)
	for _, first := range []byte{0x88, 0x89, 0x8a} {
		if _, err := wire.Write(frameOf(first, "payload", false)); err != nil {
			t.Fatal(err)
		}
	}
	if tape.Len() != 0 {
		t.Errorf("on the wire: %x", tape.Bytes())
	}
}

// Most messages of the application come out in one write, as do those in the hub's buffers.
func TestRawMessageIsOneWrite(t *testing.T) {
	for n, most := range map[int]int{0: 1, 100: 1, 1000: 1, readSize - 4: 1, 10 * readSize: 2} {
		tape := newTape(t)
		wire, _ := newWire(tape, nil, relaxed)
		ws := accept(t, wire, false)
		if err := ws.Write(t.Context(), websocket.MessageBinary, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if tape.writes > most {
			t.Errorf("%d bytes: %d writes, want at most %d", n, tape.writes, most)
		}
		if f := parse(t, tape.Bytes()); len(f) != 1 || len(f[0].payload) != n {
			t.Errorf("%d bytes: %d frames", n, len(f))
		}
	}
}

func TestNothingFollowsTheCloseFrame(t *testing.T) {
	tape := newTape(t)
	wire, _ := newWire(tape, nil, relaxed)
	wire.Lock()
	if err := wire.Send(AppendClose(nil, 1000, "")); err != nil {
		t.Fatal(err)
	}
	wire.Shut()
	wire.Unlock()
	for _, first := range []byte{0x81, 0x01, 0x89, 0x8a, 0x88} {
		_, err := wire.Write(frameOf(first, "late", false))
		if data := first&8 == 0; data != errors.Is(err, net.ErrClosed) {
			t.Errorf("%#x: %v", first, err)
		}
	}
	if f := parse(t, tape.Bytes()); len(f) != 1 {
		t.Errorf("%d frames on the wire, want the close frame alone", len(f))
	}
}

func TestTrySendNeverWaits(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, _ := newWire(server, nil, relaxed)
		if wire.CanTry() != s.raw {
			t.Fatalf("can try: %v", wire.CanTry())
		}
		if !s.raw {
			return
		}
		frame, whole := frameOf(0x82, fill(maxWrite, 1), false), 0
		if data, ok := wire.TryLock(); !ok || !data {
			t.Fatalf("TryLock: %v, %v", data, ok)
		}
		n, err := wire.TrySend(frame)
		for ; err == nil && n == len(frame); whole++ { // until the socket is full
			n, err = wire.TrySend(frame)
		}
		if err != nil {
			t.Fatal(err)
		}
		if again, err := wire.TrySend(frame[n:]); again == len(frame)-n || err != nil {
			t.Errorf("a full socket took %d bytes, %v", again, err)
		} else {
			n += again
		}
		got := make(chan []byte, 1)
		go func() {
			all, _ := io.ReadAll(io.LimitReader(client, int64(len(frame)*(whole+1))))
			got <- all
		}()
		sent := make(chan error, 1)
		go func() { // another goroutine may go on
			defer wire.Unlock()
			sent <- wire.Send(frame[n:])
		}()
		if err := receive(t, sent, "the rest"); err != nil {
			t.Error(err)
		}
		if all := receive(t, got, "all frames"); !bytes.Equal(all, bytes.Repeat(frame, whole+1)) {
			t.Errorf("%d bytes arrived, want %d, or they differ", len(all), len(frame)*(whole+1))
		}
	})
}

func TestTryLockFindsTheWireTaken(t *testing.T) {
	wire, _ := newWire(newTape(t), nil, relaxed)
	wire.Lock()
	if _, ok := wire.TryLock(); ok {
		t.Error("it was taken twice")
	}
	wire.Unlock()
	for _, first := range []byte{0x01, 0x80} {
		if _, err := wire.Write(frameOf(first, "x", false)); err != nil {
			t.Fatal(err)
		}
		if data, ok := wire.TryLock(); !ok || data != (first == 0x80) {
			t.Errorf("after %#x: data may pass: %v, %v", first, data, ok)
		}
		wire.Unlock()
	}
}

func TestTrySendFailsLikeSend(t *testing.T) {
	if !rawIO {
		t.Skip("no socket can try here")
	}
	server, _ := tcpPair(t)
	wire, _ := newWire(server, nil, relaxed)
	wire.Lock()
	defer wire.Unlock()
	wire.Kill()
	first, err := wire.TrySend([]byte{0x82, 0})
	if first != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%d, %v", first, err)
	}
	if again := wire.Send([]byte{0x82, 0}); again != err {
		t.Errorf("then Send: %v", again)
	}
	if n, again := wire.TrySend([]byte{0x82, 0}); n != 0 || again != err {
		t.Errorf("then TrySend: %d, %v", n, again)
	}

	server, client := unixPair(t)
	gone, _ := newWire(server, nil, relaxed)
	gone.Lock()
	defer gone.Unlock()
	client.Close()
	if n, err := gone.TrySend([]byte{0x82, 0}); n != 0 || err == nil {
		t.Errorf("to a peer that has gone: %d, %v", n, err)
	}
}

func TestFailedWriteTellsTheWriter(t *testing.T) {
	server, client := pipePair(t)
	wire, h := newWire(server, nil, relaxed)
	ws := accept(t, wire, false)
	client.Close()
	if err := ws.Write(t.Context(), websocket.MessageText, []byte("x")); !errors.Is(err, io.ErrClosedPipe) || h.failed != io.ErrClosedPipe {
		t.Errorf("the application got %v, the owner %v", err, h.failed)
	}
}

// The sizes of the messages that TestFramesStayWhole writes, by the application and by the hub.
const (
	rawMessages  = 60
	sentMessages = 200
)

// writeRaw writes messages through coder/websocket: whole, large, and in many fragments.
func writeRaw(t *testing.T, ws *websocket.Conn) {
	for i := range rawMessages {
		payload := fmt.Sprintf("raw %d ", i) + fill(i*i*50, uint32(i))
		if i%3 > 0 {
			if err := ws.Write(t.Context(), websocket.MessageBinary, []byte(payload)); err != nil {
				t.Errorf("raw %d: %v", i, err)
			}
			continue
		}
		w, err := ws.Writer(t.Context(), websocket.MessageBinary)
		if err != nil {
			t.Error(err)
			return
		}
		for size := 0; len(payload) > 0; size = (size*5 + 1) % 3000 {
			n := min(size, len(payload))
			if _, err := io.WriteString(w, payload[:n]); err != nil {
				t.Errorf("raw %d: %v", i, err)
			}
			payload = payload[n:]
		}
		if err := w.Close(); err != nil {
			t.Errorf("raw %d: %v", i, err)
		}
	}
}

// writeAll lets the application and the hub write at the same time, then ends with a close frame.
func writeAll(t *testing.T, wire *Conn, h *hub, ws *websocket.Conn) {
	var writers sync.WaitGroup
	writers.Go(func() { writeRaw(t, ws) })
	writers.Go(func() {
		for i := range sentMessages {
			m := NewMessage(Text, fmt.Sprintf("sent %d ", i)+fill(i*i%5000, uint32(i)), false)
			if err := h.send(m.Bytes(false)); err != nil {
				t.Errorf("sent %d: %v", i, err)
			}
		}
	})
	writers.Go(func() {
		for i := range sentMessages {
			wire.Lock()
			if err := wire.Send(AppendControl(nil, Ping, fmt.Append(nil, i))); err != nil {
				t.Errorf("ping %d: %v", i, err)
			}
			wire.Unlock()
		}
	})
	writers.Wait()
	wire.Lock()
	defer wire.Unlock()
	if err := wire.Send(AppendClose(nil, 1000, "")); err != nil {
		t.Error(err)
	}
	wire.Shut()
}

// arrived is what a receiver makes of the frames.
type arrived struct {
	raw, sent, pings []string
	fragments        int
}

// receiveAll reads frames until the close frame and fails if they aren't a valid sequence.
func receiveAll(t *testing.T, r io.Reader) (a arrived) {
	open, message := false, ""
	for {
		f, err := readFrame(r)
		switch {
		case err != nil:
			t.Errorf("after %d raw and %d sent messages: %v", len(a.raw), len(a.sent), err)
			return a
		case f.opcode() == Close:
			if open {
				t.Error("the close frame came within a message")
			}
			return a
		case f.control():
			a.pings = append(a.pings, f.payload)
			continue
		case f.masked, f.first&0x30 != 0, f.opcode() > Binary, (f.opcode() == Continuation) != open:
			t.Errorf("frame %#x, masked %v, where a message in several frames is under way: %v", f.first, f.masked, open)
			return a
		}
		message += f.payload
		if open = !f.fin(); open {
			a.fragments++
			continue
		}
		if strings.HasPrefix(message, "sent") {
			a.sent = append(a.sent, message)
		} else {
			a.raw = append(a.raw, message)
		}
		message = ""
	}
}

// However the application and the hub write at once, what arrives is a valid sequence of frames, in
// which no data frame lies inside of a fragmented message and none is lost.
func TestFramesStayWhole(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, h := newWire(server, nil, relaxed)
		ws := accept(t, wire, false)
		done := make(chan arrived, 1)
		go func() { done <- receiveAll(t, bufio.NewReader(client)) }()
		writeAll(t, wire, h, ws)
		a := receive(t, done, "the close frame")
		if len(a.raw) != rawMessages || len(a.sent) != sentMessages || len(a.pings) != sentMessages {
			t.Errorf("%d raw, %d sent, %d pings", len(a.raw), len(a.sent), len(a.pings))
		}
		for i, m := range a.raw {
			if m != fmt.Sprintf("raw %d ", i)+fill(i*i*50, uint32(i)) {
				t.Errorf("raw %d: %.20q of %d bytes", i, m, len(m))
			}
		}
		for i, m := range a.sent {
			if m != fmt.Sprintf("sent %d ", i)+fill(i*i%5000, uint32(i)) {
				t.Errorf("sent %d: %.20q of %d bytes", i, m, len(m))
			}
		}
		for i, p := range a.pings {
			if p != fmt.Sprint(i) {
				t.Errorf("ping %d: %q", i, p)
			}
		}
		if a.fragments == 0 {
			t.Error("no message came in fragments")
		}
	})
}

// The same with compression, read by coder/websocket itself.
func TestFramesStayWholeWithCompression(t *testing.T) {
	server, client := tcpPair(t)
	wire, h := newWire(server, nil, relaxed)
	ws, peer := accept(t, wire, true), dial(t, client, true)
	done := make(chan arrived, 1)
	go func() {
		var a arrived
		for {
			typ, p, err := peer.Read(t.Context())
			switch {
			case err != nil:
				a.pings = append(a.pings, fmt.Sprint(websocket.CloseStatus(err)))
				done <- a
				return
			case typ == websocket.MessageText:
				a.sent = append(a.sent, string(p))
			default:
				a.raw = append(a.raw, string(p))
			}
		}
	}()
	go io.Copy(io.Discard, readOnly{wire}) // the peer's pongs
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range rawMessages {
			w, err := ws.Writer(t.Context(), websocket.MessageBinary)
			for range i {
				if err == nil {
					_, err = io.WriteString(w, compressible(10*i))
				}
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Errorf("raw %d: %v", i, err)
			}
		}
	})
	writers.Go(func() {
		for i := range sentMessages {
			if err := h.send(NewMessage(Text, compressible(i*20), i%3 > 0).Bytes(true)); err != nil {
				t.Errorf("sent %d: %v", i, err)
			}
		}
	})
	writers.Wait()
	wire.Lock()
	err := wire.Send(AppendClose(nil, 4000, ""))
	wire.Unlock()
	a := receive(t, done, "the close frame")
	wire.Kill()
	if err != nil || len(a.raw) != rawMessages || len(a.sent) != sentMessages || a.pings[0] != "StatusCode(4000)" {
		t.Errorf("%d raw, %d sent, ended by %v, %v", len(a.raw), len(a.sent), a.pings, err)
	}
	for i, m := range a.raw {
		if m != strings.Repeat(compressible(10*i), i) {
			t.Errorf("raw %d has %d bytes", i, len(m))
		}
	}
	for i, m := range a.sent {
		if m != compressible(i*20) {
			t.Errorf("sent %d has %d bytes", i, len(m))
		}
	}
}

// Reading and writing go on at the same time, each by one goroutine and more.
func TestConnIsFullDuplex(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, h := newWire(server, nil, relaxed)
		const n = 300
		frame := fromClient(0x82, fill(2000, 1))
		var both sync.WaitGroup
		both.Go(func() {
			for range n {
				if _, err := client.Write(frame); err != nil {
					t.Error(err)
				}
			}
		})
		both.Go(func() {
			if _, err := io.CopyN(io.Discard, client, int64(n*len(frameOf(0x82, fill(2000, 1), false)))); err != nil {
				t.Error(err)
			}
		})
		both.Go(func() {
			for range n {
				if err := h.send(frameOf(0x82, fill(2000, 1), false)); err != nil {
					t.Error(err)
				}
			}
		})
		both.Go(func() {
			for range n {
				if err := wire.Wait(); err != nil {
					t.Error(err)
				}
				got, err := readFrame(wire)
				if err != nil || got.payload != fill(2000, 1) {
					t.Errorf("%v; equal %v", err, got.payload == fill(2000, 1))
				}
			}
		})
		both.Wait()
	})
}

// A large write to a peer that reads late goes out in pieces and arrives whole.
func TestLargeWriteArrives(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, h := newWire(server, nil, relaxed)
		big := frameOf(0x82, fill(3<<20, 1), false)
		sent := make(chan error, 1)
		go func() {
			err := h.send(big)
			if err == nil {
				err = h.send(frameOf(0x81, "next", false))
			}
			sent <- err
		}()
		r := bufio.NewReader(client)
		if f, err := readFrame(r); err != nil || f.size != len(big) || f.payload != string(big[len(big)-3<<20:]) {
			t.Errorf("%d of %d bytes, %v", f.size, len(big), err)
		}
		if f, err := readFrame(r); err != nil || f.payload != "next" {
			t.Errorf("then %q, %v", f.payload, err)
		}
		if err := receive(t, sent, "the writer"); err != nil {
			t.Error(err)
		}
		wire.Kill()
	})
}
