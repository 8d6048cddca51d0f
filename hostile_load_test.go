package wsroom_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// A flood of messages under WithRateLimit reaches the callback at the rate, whatever is sent.
func TestHostileMessageFlood(t *testing.T) {
	const n, rate, burst = 10, 100, 50
	var calls atomic.Int64
	opts := []wsroom.Option{
		wsroom.WithRateLimit(rate, burst),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if c.Room() == "/attack" {
				calls.Add(1)
				return
			}
			echoRoom(c, text, err)
		}),
	}
	withBystanders(t, opts, func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		calls.Store(0)
		s := besiege(t, srv, n, "flood", "", string(rawFrame(0x81, "x")))
		s.begin()
		<-time.After(time.Duration(scale(1, 10)) * time.Second)
		got, seconds := calls.Load(), time.Since(s.watch.start).Seconds()
		t.Logf("%d callbacks in %.1f s", got, seconds)
		if most := n * (rate*seconds + burst); got < n*burst || float64(got) > most {
			t.Errorf("%d callbacks in %.1f s, want %.0f at the most", got, seconds, most)
		}
		hub.To("/attack").Close(4000, "") // or it would read what they sent, slowly
		s.lift()
	})
}

// Members that never read, and members that read a byte a second, end when their queue is full or a
// write takes too long, hold no more than their queues, and cost the room that they are in nothing.
func TestHostileReaders(t *testing.T) {
	const queue, timeout = 256 << 10, time.Second
	deaf, slow := scale(50, 500), scale(100, 1000)
	var a attackers
	opts := []wsroom.Option{
		a.onClose(), wsroom.WithSendQueue(64, queue), wsroom.WithWriteTimeout(timeout),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return c.Join("/honest") }),
	}
	withBystanders(t, opts, func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		for attack, n := range map[string]int{"hold": deaf, "sip": slow} {
			s := besiege(t, srv, n, attack)
			s.begin()
			defer s.lift()
		}
		heap := heapInUse()
		part := strings.Repeat("x", 16<<10)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for range 5 << 20 / len(part) { // more than the kernel takes for a peer
			hub.SendTextToRoom("/attack", part)
			<-tick.C
		}
		grown := heapInUse() - heap
		if t.Logf("heap grew by %d KiB", grown>>10); grown > int64(deaf+slow)*queue {
			t.Errorf("heap grew by %d KiB", grown>>10)
		}
		watch := startWatch()
		until(t, "they have ended", func() bool { return len(hub.Members("/attack")) == 0 })
		watch.within(t, "their end", time.Since(watch.start), timeout+time.Second)
		a.want(t, deaf+slow, wsroom.ErrSlow, os.ErrDeadlineExceeded)
	})
}

// Thousands that are reset at once leave empty rooms, and are all let in again.
func TestHostileResets(t *testing.T) {
	n := scale(300, 9000)
	hub := wsroom.New()
	srv := serve(t, hub)
	before := count()
	for range scale(2, 10) {
		watch := startWatch()
		s := besiege(t, srv, n, "reset")
		back := time.Since(watch.start)
		watch.within(t, "coming back", back, 10*time.Second)
		if got := len(hub.Members("/attack")); got != n {
			t.Errorf("%d members, want %d", got, n)
		}
		s.begin()
		until(t, "the rooms are empty", func() bool { return len(hub.Rooms()) == 0 })
		empty := time.Since(s.watch.start)
		s.lift()
		s.watch.within(t, "emptying the rooms", empty, 2*time.Second)
		t.Logf("back after %v, empty after %v", back, empty)
	}
	wantNoMore(t, before)
}

// A message that peers leave unfinished keeps nobody from closing: each kick, drain and Shutdown ends
// within its budget.
func TestHostileUnfinishedMessages(t *testing.T) {
	const budget = 5 * time.Second // of the close handshake
	ends := func(hub *wsroom.Hub) bool { s := hub.Stats(); return s.Opened == s.Closed }
	shut := func(ctx context.Context, hub *wsroom.Hub, want error) {
		if err := hub.Shutdown(ctx); !errors.Is(err, want) {
			t.Errorf("Shutdown: %v, want %v", err, want)
		}
	}
	soon, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for name, test := range map[string]struct {
		most  time.Duration
		opts  []wsroom.Option
		close func(hub *wsroom.Hub)
	}{
		"kick": {budget, nil, func(hub *wsroom.Hub) {
			hub.To("/attack").Close(4000, "bye")
			until(t, "all sockets are closed", func() bool { return ends(hub) })
		}},
		"Shutdown":     {budget, nil, func(hub *wsroom.Hub) { shut(t.Context(), hub, nil) }},
		"with a drain": {time.Second + budget, []wsroom.Option{wsroom.WithDrain(time.Second)}, func(hub *wsroom.Hub) { shut(t.Context(), hub, nil) }},
		"with a deadline": {time.Second, nil, func(hub *wsroom.Hub) {
			time.AfterFunc(time.Second, cancel)
			shut(soon, hub, context.Canceled)
		}},
	} {
		hub := wsroom.New(append(test.opts, wsroom.OnText(discardText), wsroom.WithMessageTimeout(time.Minute))...)
		s := besiege(t, serve(t, hub), scale(100, 1000), "hold", string(rawFrame(0x01, "x")), string(rawFrame(0x80, "0123456789")[:9]))
		s.begin()
		wg.Go(func() {
			watch := startWatch()
			test.close(hub)
			took := time.Since(watch.start)
			until(t, "all have ended", func() bool { return ends(hub) })
			s.lift()
			watch.within(t, name, took, test.most+time.Second/2)
		})
	}
	wg.Wait()
}
