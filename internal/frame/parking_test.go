//go:build linux

package frame

import (
	"net"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/wsroom/wsroom/internal/netpoll"
)

// parks are limits under which a Conn is parked after 50 ms.
var parks = &Limits{Quiet: 50 * time.Millisecond, Message: 10 * time.Second, Write: 10 * time.Second}

// wakes waits for a call of Wake, and fails the test if there is a second one.
func wakes(t *testing.T, h *hub) {
	t.Helper()
	select {
	case <-h.woken:
	case <-time.After(20 * time.Second):
		t.Fatal("waited in vain for Wake")
	}
	if len(h.woken) > 0 {
		t.Error("Wake was called twice")
	}
}

// quietAfter waits for ErrQuiet and returns when it came.
func quietAfter(t *testing.T, wire *Conn) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := wire.WaitOrQuiet(); err != ErrQuiet {
		t.Fatalf("WaitOrQuiet: %v", err)
	}
	return time.Since(begin)
}

// message lets the peer send a message and reads it.
func message(t *testing.T, wire *Conn, peer net.Conn) {
	t.Helper()
	peer.Write(frameOf(0x81, "x", true))
	if err := wire.WaitOrQuiet(); err != nil {
		t.Fatal(err)
	}
	wire.readMu.Lock()
	wire.consume(wire.scanIn(wire.buf[wire.r:wire.w]))
	wire.readMu.Unlock()
}

// A Conn is quiet before its first message, and then only once none has come for the time. Its time begins with
// each message, and pongs don't count.
func TestQuietWithoutAMessage(t *testing.T) {
	server, client := tcpPair(t)
	wire, _ := newWire(server, nil, parks)
	quietAfter(t, wire)
	for range 2 {
		message(t, wire, client)
		half := time.AfterFunc(parks.Quiet/2, func() { client.Write(frameOf(0x8a, "", true)) })
		defer half.Stop()
		if after := quietAfter(t, wire); after < parks.Quiet/2 {
			t.Errorf("quiet %v after a message", after)
		}
		if after := Now() - wire.active; after < int64(parks.Quiet) {
			t.Errorf("quiet %v after a message", time.Duration(after))
		}
		client.Write(frameOf(0x8a, "", true)) // the next wait is for a pong only
		quietAfter(t, wire)
	}
	if err := wire.Conn.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	message(t, wire, client)
	time.AfterFunc(3*parks.Quiet, wire.Interrupt)
	if err := wire.Wait(); !wire.Interrupted(err) { // not quiet
		t.Errorf("Wait: %v", err)
	}
}

// A Conn has been quiet for long when no message has come for four times as long, or none ever.
func TestLongQuiet(t *testing.T) {
	server, client := tcpPair(t)
	wire, _ := newWire(server, nil, parks)
	if quietAfter(t, wire); !wire.LongQuiet() {
		t.Error("not before the first message")
	}
	message(t, wire, client)
	if wire.LongQuiet() {
		t.Error("after a message")
	}
	wire.active = Now() - int64(2*parks.Quiet)
	if wire.LongQuiet() {
		t.Error("too soon")
	}
	wire.active = Now() - int64(4*parks.Quiet)
	if !wire.LongQuiet() {
		t.Error("not after four times the time")
	}
}

// While messages come, the deadline of a quiet Conn isn't moved, and takes no message away.
func TestQuietCostsNoMessage(t *testing.T) {
	server, client := tcpPair(t)
	wire, h := newWire(server, nil, parks)
	for begin := time.Now(); time.Since(begin) < 4*parks.Quiet; {
		message(t, wire, client)
	}
	quietAfter(t, wire)
	if h.readErr != nil {
		t.Errorf("the owner heard of %v", h.readErr)
	}
}

// What is parked is woken once: by bytes, by bytes that came before, by the peer's end, by an Interrupt.
func TestParkIsWokenOnce(t *testing.T) {
	for name, act := range map[string]func(wire *Conn, peer net.Conn){
		"bytes":     func(_ *Conn, peer net.Conn) { peer.Write([]byte{0x81}) },
		"end":       func(_ *Conn, peer net.Conn) { peer.Close() },
		"interrupt": func(wire *Conn, _ net.Conn) { wire.Interrupt() },
		"both": func(wire *Conn, peer net.Conn) {
			peer.Write([]byte{0x81})
			wire.Interrupt()
			wire.Ready()
			wire.Interrupt()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var set netpoll.Set
			server, client := tcpPair(t)
			wire, h := newWire(server, nil, parks)
			for range 2 {
				quietAfter(t, wire)
				if !wire.Park(&set) {
					t.Fatal("not parked")
				}
				if wire.WaitingSince() == 0 {
					t.Error("nobody waits")
				}
				wire.Ready() // the set may tell of nothing
				wakes(t, h)
			}
			if !wire.Park(&set) {
				t.Fatal("not parked again")
			}
			act(wire, client)
			wakes(t, h)
			wire.Unpark(&set)
			wire.Unpark(&set)
			wire.Ready()
			wire.Interrupt()
			if len(h.woken) > 0 {
				t.Error("woken although it wasn't parked")
			}
		})
	}
}

// Bytes that came after the last read and before the Park wake at once.
func TestParkMissesNoBytes(t *testing.T) {
	var set netpoll.Set
	server, client := tcpPair(t)
	wire, h := newWire(server, nil, parks)
	for range 100 {
		client.Write(frameOf(0x81, "x", true))
		if !wire.Park(&set) {
			t.Fatal("not parked")
		}
		wakes(t, h)
		if err := wire.WaitOrQuiet(); err != nil {
			t.Fatal(err)
		}
		wire.readMu.Lock()
		wire.consume(wire.scanIn(wire.buf[wire.r:wire.w]))
		wire.readMu.Unlock()
	}
	wire.Unpark(&set)
}

// The time in which a Conn is parked counts as listening, in one piece.
func TestParkListens(t *testing.T) {
	var set netpoll.Set
	server, client := tcpPair(t)
	wire, h := newWire(server, nil, parks)
	begin := Now()
	for range 3 {
		if !wire.Park(&set) {
			t.Fatal("not parked")
		}
		since := wire.WaitingSince()
		time.AfterFunc(10*time.Millisecond, wire.Ready)
		wakes(t, h)
		quietAfter(t, wire)
		if again := wire.WaitingSince(); again != since || since < begin {
			t.Errorf("waiting since %d, then %d", since, again)
		}
	}
	message(t, wire, client)
	if listened := wire.Listened(Now()); listened < int64(30*time.Millisecond) {
		t.Errorf("listened for %v", time.Duration(listened))
	}
	if wire.WaitingSince() != 0 || wire.CaughtUp() != wire.LastRead() {
		t.Error("what was waited for counts as what lay there")
	}
	wire.Unpark(&set)
}

// Nothing is parked while something is unread, after an Interrupt, without a time, and without a file descriptor of
// its own.
func TestParkNeedsASilentSocket(t *testing.T) {
	var set netpoll.Set
	server, client := tcpPair(t)
	for name, wire := range map[string]*Conn{
		"unread":  newParking(server, frameOf(0x81, "x", true), parks),
		"never":   newParking(server, nil, relaxed),
		"wrapped": newParking(struct{ net.Conn }{server}, nil, parks),
		"interrupted": func() *Conn {
			w := newParking(server, nil, parks)
			w.Interrupt()
			return w
		}(),
	} {
		if wire.Park(&set) {
			t.Errorf("%s: parked", name)
		}
	}
	server.SetReadDeadline(time.Time{})

	tlsServer, _ := tlsOver(server, client)
	wire := newParking(tlsServer, nil, parks)
	if wire.Park(&set) {
		t.Error("parked over TLS")
	}
	time.AfterFunc(3*parks.Quiet, wire.Interrupt)
	if err := wire.WaitOrQuiet(); !wire.Interrupted(err) {
		t.Errorf("over TLS WaitOrQuiet returned %v", err)
	}
}

func newParking(socket net.Conn, early []byte, limits *Limits) *Conn {
	wire, _ := newWire(socket, early, limits)
	return wire
}

// closedRaw returns access to a socket that is closed: every use of it fails.
func closedRaw(t *testing.T) syscall.RawConn {
	server, _ := tcpPair(t)
	raw := rawConn(server)
	server.Close()
	return raw
}

// Where the system lets a socket not be waited for, its goroutine goes on waiting.
func TestParkFails(t *testing.T) {
	var set netpoll.Set
	server, client := tcpPair(t)
	wire, _ := newWire(server, nil, parks)
	quietAfter(t, wire)
	wire.raw = closedRaw(t)
	if wire.Park(&set) {
		t.Fatal("parked")
	}
	wire.raw = rawConn(server)
	time.AfterFunc(3*parks.Quiet, func() { client.Write(frameOf(0x81, "x", true)) })
	if err := wire.WaitOrQuiet(); err != nil {
		t.Errorf("after a Park that failed WaitOrQuiet returned %v", err)
	}
}

// A Conn is of the allocator's size class of 352 bytes. What is parked is mostly Conns.
func TestConnIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); size > 352 && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("a Conn has %d bytes, not 352", size)
	}
}
