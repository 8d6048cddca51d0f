package attack_test

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
	"github.com/wsroom/wsroom/internal/tests/kit"
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
			kit.EchoRoom(c, text, err)
		}),
	}
	withBystanders(t, opts, func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		calls.Store(0)
		a := connectAttackers(t, srv, n, "flood", "", string(kit.RawFrame(0x81, "x")))
		a.begin()
		<-time.After(time.Duration(kit.Scale(1, 10)) * time.Second)
		got, seconds := calls.Load(), time.Since(a.watch.start).Seconds()
		t.Logf("%d callbacks in %.1f s", got, seconds)
		if most := n * (rate*seconds + burst); got < n*burst || float64(got) > most {
			t.Errorf("%d callbacks in %.1f s, want %.0f at the most", got, seconds, most)
		}
		hub.To("/attack").Close(4000, "") // or it would read what they sent, slowly
		a.stop()
	})
}

// Members that never read, and members that read a byte a second, end when their queue is full or a
// write takes too long, hold no more than their queues, and cost the room that they are in nothing.
func TestHostileReaders(t *testing.T) {
	const queue, timeout = 256 << 10, time.Second
	unread, slow := kit.Scale(50, 500), kit.Scale(100, 1000)
	var causes attackCauses
	opts := []wsroom.Option{
		causes.onClose(), wsroom.WithSendQueue(64, queue), wsroom.WithWriteTimeout(timeout),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return c.Join("/honest") }),
	}
	withBystanders(t, opts, func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		for attack, n := range map[string]int{"idle": unread, "slow read": slow} {
			a := connectAttackers(t, srv, n, attack)
			a.begin()
			defer a.stop()
		}
		heap := kit.HeapInUse()
		part := strings.Repeat("x", 16<<10)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for range 5 << 20 / len(part) { // more than the kernel takes for a peer
			hub.SendTextToRoom("/attack", part)
			<-tick.C
		}
		grown := kit.HeapInUse() - heap
		if t.Logf("heap grew by %d KiB", grown>>10); grown > int64(unread+slow)*queue {
			t.Error("which is too much")
		}
		watch := startWatch()
		kit.Until(t, "they have ended", func() bool { return len(hub.Members("/attack")) == 0 })
		watch.within(t, "their end", time.Since(watch.start), timeout+time.Second)
		causes.want(t, unread+slow, wsroom.ErrSlow, os.ErrDeadlineExceeded)
	})
}

// Thousands that are reset at once leave empty rooms, and are all let in again.
func TestHostileResets(t *testing.T) {
	n := kit.Scale(300, 9000)
	hub := wsroom.New()
	srv := kit.Serve(t, hub)
	before := countResources()
	for range kit.Scale(2, 10) {
		watch := startWatch()
		a := connectAttackers(t, srv, n, "reset")
		back := time.Since(watch.start)
		watch.within(t, "coming back", back, 10*time.Second)
		if got := len(hub.Members("/attack")); got != n {
			t.Errorf("%d members, want %d", got, n)
		}
		a.begin()
		kit.Until(t, "the rooms are empty", func() bool { return len(hub.Rooms()) == 0 })
		empty := time.Since(a.watch.start)
		a.stop()
		a.watch.within(t, "emptying the rooms", empty, 2*time.Second)
		t.Logf("back after %v, empty after %v", back, empty)
	}
	wantNoMore(t, before)
}

// A message that peers leave unfinished delays no close: each kick, drain and Shutdown ends
// within its budget.
func TestHostileUnfinishedMessages(t *testing.T) {
	const budget = 5 * time.Second // of the close handshake
	n := kit.Scale(100, 1000)
	before := countResources()
	t.Cleanup(func() { wantNoMore(t, before) })
	unfinished := string(kit.RawFrame(0x81, "x")) + string(kit.RawFrame(0x01, "x")) + string(kit.RawFrame(0x80, "0123456789")[:9])
	ended := func(hub *wsroom.Hub) bool { return hub.Stats().Closed == n }
	shut := func(ctx context.Context, hub *wsroom.Hub, want error) {
		if err := hub.Shutdown(ctx); !errors.Is(err, want) {
			t.Errorf("Shutdown: %v, want %v", err, want)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for name, test := range map[string]struct {
		most  time.Duration
		drain time.Duration
		close func(hub *wsroom.Hub)
	}{
		"kick": {budget, 0, func(hub *wsroom.Hub) {
			hub.To("/attack").Close(4000, "bye")
			kit.Until(t, "all sockets are closed", func() bool { return ended(hub) })
		}},
		"Shutdown":     {budget, 0, func(hub *wsroom.Hub) { shut(t.Context(), hub, nil) }},
		"with a drain": {time.Second + budget, time.Second, func(hub *wsroom.Hub) { shut(t.Context(), hub, nil) }},
		"with a deadline": {time.Second, 0, func(hub *wsroom.Hub) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			shut(ctx, hub, context.DeadlineExceeded)
		}},
	} {
		hub := wsroom.New(wsroom.OnText(kit.DiscardText), wsroom.WithMessageTimeout(time.Minute), wsroom.WithDrain(test.drain))
		a := connectAttackers(t, kit.Serve(t, hub), n, "idle", unfinished)
		a.begin()
		kit.Until(t, "all have begun", func() bool { return hub.Stats().Received == n })
		wg.Go(func() {
			watch := startWatch()
			test.close(hub)
			took := time.Since(watch.start)
			kit.Until(t, "all have ended", func() bool { return ended(hub) })
			a.stop()
			watch.within(t, name, took, test.most+time.Second/2)
		})
	}
}
