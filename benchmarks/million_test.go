package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// Scenario million runs with few members as with many: all are let in, pinged, sent to, and closed.
func TestMillionRuns(t *testing.T) {
	m := millionOf(2000, true)
	m.beat, m.part, m.drain = 300*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	r := &millionRun{million: m}
	if err := r.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.rows) < 10 {
		t.Errorf("rows %q", r.rows)
	}
	if n := r.fleet.pings.Load(); n < 2000 {
		t.Errorf("%d pings", n)
	}
}

// The sockets of scenario million show what a connection costs, and stop at the machine's limit.
func TestSocketsRun(t *testing.T) {
	t.Parallel()
	row, err := runIdle(t.Context(), 1, 50*time.Millisecond)
	if err != nil || len(row) < 5 || row[0] != "100" {
		t.Errorf("row %q, %v", row, err)
	}

	if l := socketLimit(1 << 40); l.by == "" || l.sockets <= 0 || l.sockets >= 1<<40 || !strings.Contains(l.String(), "aise it") && l.by != "of memory" {
		t.Errorf("limit: %v", l)
	}
	if l := socketLimit(10); l.by != "" || l.sockets != 10 {
		t.Errorf("limit: %v", l)
	}
}

// A client without a socket answers pings and close frames, and counts each message of a write once.
func TestMemoryConn(t *testing.T) {
	fleet := memoryFleet{rooms: make([]memoryRoom, 1)}
	room := &fleet.rooms[0]
	room.done = make(chan time.Time, 1)
	room.left.Store(30)

	got := make(chan string, 10)
	hub := wsroom.New(wsroom.WithHeartbeat(10*time.Millisecond, 10*time.Second),
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { got <- err.Error() }))
	conn := newMemoryConn(&fleet, 0)
	hub.ServeHTTP(&memoryWriter{conn: conn, header: http.Header{}}, upgradeRequest("/a"))
	for i := range 30 {
		if err := hub.SendTextToRoom("/a", strings.Repeat("x", 10*i)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-room.done:
	case <-time.After(20 * time.Second):
		t.Fatalf("%d messages came", fleet.messages.Load())
	}
	for begin := time.Now(); fleet.pings.Load() < 3 && time.Since(begin) < 20*time.Second; {
		time.Sleep(time.Millisecond)
	}
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if n, p, c := fleet.messages.Load(), fleet.pings.Load(), fleet.closes.Load(); n != 30 || p < 3 || c != 1 {
		t.Errorf("%d messages, %d pings, %d close frames", n, p, c)
	}
	if cause := <-got; cause != wsroom.ErrShutdown.Error() {
		t.Errorf("ended: %s", cause)
	}
}
