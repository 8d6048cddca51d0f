package scale_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// heap returns the bytes of the heap that are in use.
func heap() float64 {
	for range 3 { // what a pool has survives one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// each calls f for each connection, concurrently.
func each(conns []*wsroom.Conn, f func(i int, c *wsroom.Conn)) {
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() { f(i, c) })
	}
	wg.Wait()
}

// sinks returns a hub's connections, whose clients take everything and send nothing.
func sinks(t testing.TB, n int, opts ...wsroom.Option) ([]*wsroom.Conn, *wsroom.Hub) {
	t.Helper()
	came := make(chan *wsroom.Conn, n)
	hub := wsroom.New(append(opts, wsroom.WithHeartbeat(0, 0), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		came <- c
		return nil
	}))...)
	ln := kit.NewSinkListener()
	srv := &http.Server{Handler: hub}
	go srv.Serve(ln)
	t.Cleanup(func() {
		ln.Disconnect()
		srv.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})

	conns := make([]*wsroom.Conn, n)
	for i := range conns {
		ln.Connect(fmt.Sprint("/", i))
		conns[i] = kit.Await(t, came, "a connection")
	}
	return conns, hub
}

// Rooms that have come and gone take no memory, whatever is kept of rooms.
func TestRoomsThatHaveGoneTakeNoMemory(t *testing.T) {
	const clients = 100
	for name, test := range map[string]struct {
		rooms int
		paced bool // rooms are left at 8 a millisecond, because a goroutine begins for each
		opts  []wsroom.Option
	}{
		"rooms":   {100_000, false, nil},
		"history": {20_000, false, []wsroom.Option{wsroom.WithHistory(4, 4096, time.Second)}},
		"presence": {100_000, false, []wsroom.Option{wsroom.WithPresenceGrace(0),
			wsroom.OnMemberJoin(func(string, wsroom.Member) {}), wsroom.OnMemberLeave(func(string, wsroom.Member) {})}},
		"callbacks": {20_000, true, []wsroom.Option{wsroom.OnRoomOpen(func(string) {}), wsroom.OnRoomClose(func(string) {})}},
		"broker":    {20_000, true, []wsroom.Option{wsroom.WithBroker(brokertest.NewMemory().Open())}},
	} {
		t.Run(name, func(t *testing.T) {
			conns, hub := sinks(t, clients, append([]wsroom.Option{wsroom.WithPresenceGrace(time.Second),
				wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Path })}, test.opts...)...)
			rooms := test.rooms / clients
			comeAndGo := func(round string, rooms int) {
				each(conns, func(i int, c *wsroom.Conn) {
					for j := range rooms {
						room := fmt.Sprint(round, "/", i, "/", j)
						if err := c.Join(room); err != nil {
							t.Error(err)
						}
						_ = hub.SendTextToRoom(room, "hello")
					}
				})
				if got := len(hub.Rooms()); got < rooms*clients {
					t.Errorf("%d rooms", got)
				}
				pace := time.NewTicker(time.Millisecond)
				defer pace.Stop()
				each(conns, func(i int, c *wsroom.Conn) {
					for j := range rooms {
						if test.paced && j%8 == 0 {
							<-pace.C
						}
						if err := c.Leave(fmt.Sprint(round, "/", i, "/", j)); err != nil {
							t.Error(err)
						}
					}
				})
			}

			comeAndGo("warm", 10) // what is made once is made
			beginGoroutines(10_000)
			before := heap()
			comeAndGo("many", rooms)
			after := settled(t, func() bool { return heap() < before*1.1 })
			t.Logf("%.0f KB, with %d rooms that have gone %.0f KB", before/1e3, rooms*clients, after/1e3)
			if after > before*1.1 {
				t.Errorf("%.0f KB became %.0f KB", before/1e3, after/1e3)
			}
		})
	}
}

// beginGoroutines has so many goroutines at once. Go keeps some memory for each, which later ones use.
func beginGoroutines(n int) {
	var wg sync.WaitGroup
	end := make(chan struct{})
	for range n {
		wg.Go(func() { <-end })
	}
	close(end)
	wg.Wait()
}

// settled waits a while for enough to be true, and returns the heap then.
func settled(t *testing.T, enough func() bool) float64 {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !enough() && time.Now().Before(deadline) {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	return heap()
}
