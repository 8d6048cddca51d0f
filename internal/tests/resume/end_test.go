package resume_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Shutdown leaves nothing of the histories: no byte in the gauge, no goroutine and no timer. So it does if its
// context is done first.
func TestShutdownLeavesNoHistory(t *testing.T) {
	bubbles(t, func(t *testing.T, opts ...wsroom.Option) {
		for _, patient := range []bool{true, false} {
			observer := &kit.Observer{Sums: map[string]float64{}}
			hub := wsroom.New(append(opts, wsroom.WithHistory(100, 1<<20, time.Hour), wsroom.WithObserver(observer))...)
			s := serve(t, hub)
			for i := range 5 {
				c := newV1(t, fmt.Sprint("/", i))
				c.connect(s)
				hub.SendTextToRoom(c.path, "kept")
				c.await(c.path, 1)
				if i%2 == 0 {
					c.cut()
				} else {
					go c.run()
				}
			}
			if observer.Sum("history") == 0 {
				t.Error("nothing is kept")
			}
			ctx, cancel := context.WithCancel(context.Background())
			if !patient {
				cancel()
			}
			if err := hub.Shutdown(ctx); (err == nil) != patient {
				t.Errorf("Shutdown: %v", err)
			}
			cancel()
			synctest.Wait()
			if n := observer.Sum("history"); n != 0 {
				t.Errorf("patient %t: %v bytes are left", patient, n)
			}
			hub.SendTextToRoom("/1", "nobody gets it")
			time.Sleep(2 * time.Hour)
			if n := observer.Sum("history"); n != 0 {
				t.Errorf("patient %t: later %v bytes are left", patient, n)
			}
		}
	})
}

// The gauge is what is kept, and 0 once all of it has aged, with members and without.
func TestGaugeOfHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observer := &kit.Observer{Sums: map[string]float64{}}
		hub := newHub(t, wsroom.WithHistory(3, 1<<20, time.Minute), wsroom.WithObserver(observer))
		s := serve(t, hub)
		c := newV1(t, "/a")
		c.connect(s)
		other := newV1(t, "/b")
		other.connect(s)
		other.cut()
		synctest.Wait()
		for range 10 {
			hub.SendTextToRoom("/a", "12345678")
			hub.To("/b").SendText("12345678")
		}
		if n := observer.Sum("history"); n != 2*3*(10+160) { // a message takes memory besides its frame
			t.Errorf("%v bytes", n)
		}
		for range 20 {
			time.Sleep(5 * time.Second)
			c.ask(1)
		}
		if n := observer.Sum("history"); n != 0 {
			t.Errorf("%v bytes are left", n)
		}
		c.cut()
	})
}

// An idle connection of a plain client costs the same with a history as without; one of wsroom.v1 little more.
func TestIdleConnectionsMemory(t *testing.T) {
	if kit.UnderRace() {
		t.Skip("the race detector needs memory, too")
	}
	plain := idle(t, "")
	kept := idle(t, "", wsroom.WithHistory(256, 256<<10, time.Minute))
	v1 := idle(t, "Sec-WebSocket-Protocol: wsroom.v1\r\n", wsroom.WithHistory(256, 256<<10, time.Minute))
	t.Logf("%d bytes, with a history %d, of wsroom.v1 %d", plain, kept, v1)
	if kept > plain+1500 {
		t.Errorf("with a history %d bytes, without %d", kept, plain)
	}
	if v1 > plain+3000 {
		t.Errorf("of wsroom.v1 %d bytes, plain %d", v1, plain)
	}
}

// idle returns how much memory of the heap one of many idle connections takes, without what the test itself needs for
// it.
func idle(t *testing.T, header string, opts ...wsroom.Option) int {
	const n = 1000
	hub := wsroomtest.CheckHub(t, wsroom.New(opts...))
	s := serve(t, hub)
	used := func() int {
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	before := used()
	for range n {
		conn, err := s.listener.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		raw := kit.UpgradeRaw(t, conn, "/a", header)
		defer raw.Close()
		go io.Copy(io.Discard, raw.R)
	}
	kit.Until(t, "all are idle", func() bool { return hub.Len() == n })
	return (used() - before) / n
}
