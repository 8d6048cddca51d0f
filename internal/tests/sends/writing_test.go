package sends_test

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// A large message is written from the one copy that all receivers share, also beside a pong and before a close frame.
func TestALargeMessageIsCopiedForNobody(t *testing.T) {
	const receivers, size = 20, 1 << 20
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.OnText(kit.DiscardText), wsroom.WithWriteTimeout(time.Minute))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		var raws []*kit.RawConn
		for range receivers {
			raws = append(raws, s.DialRaw("/a"))
		}
		synctest.Wait()
		hub.SendTextToRoom("/a", "a first one, which the writers are at")
		synctest.Wait()
		for _, raw := range raws {
			raw.Frame(0x89, "ping")
		}
		synctest.Wait()
		if err := hub.SendTextToRoom("/a", strings.Repeat("x", size)); err != nil {
			t.Fatal(err)
		}
		if err := hub.To("/a").Close(4000, "bye"); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		var reading sync.WaitGroup
		var read atomic.Int64
		runtime.ReadMemStats(&before)
		for _, raw := range raws {
			reading.Go(func() {
				buf := make([]byte, 64<<10)
				for {
					n, err := raw.Read(buf)
					if read.Add(int64(n)); err != nil || string(buf[max(0, n-3):n]) == "bye" {
						return
					}
				}
			})
		}
		reading.Wait()
		runtime.ReadMemStats(&after)
		for _, raw := range raws {
			raw.Close()
		}
		if read.Load() < receivers*size {
			t.Errorf("%d bytes were read, of %d messages of %d", read.Load(), receivers, size)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 5*size {
			t.Errorf("%d bytes were allocated to write %d bytes to %d receivers", n, size, receivers)
		}
	})
}

// What goes out is in order, and whole, whatever goes out at a time: pongs first, then messages of all
// sizes as they were sent, then the close frame.
func TestOrderOfSmallAndLarge(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.OnText(kit.DiscardText), wsroom.WithSendQueue(100, 100<<20), wsroom.WithWriteTimeout(time.Minute))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		synctest.Wait()
		c := kit.Member(t, hub, "/a")
		c.SendText("first")
		synctest.Wait()
		raw.Frame(0x89, "ping")
		synctest.Wait()
		sizes := []int{10, 40 << 10, 32<<10 - 140, 32<<10 - 130, 32<<10 - 4, 32 << 10, 1 << 20, 0, 20 << 10, 20 << 10, 300 << 10, 5}
		for i, n := range sizes {
			if err := c.SendText(strings.Repeat(string(rune('a'+i)), n)); err != nil {
				t.Fatal(err)
			}
		}
		c.Close(4000, strings.Repeat("r", 123))
		if _, first, _ := raw.Next(); first != "first" {
			t.Errorf("got %q", first)
		}
		if first, pong, _ := raw.Next(); first != 0x8a || pong != "ping" {
			t.Errorf("got %#x %q, want the pong", first, kit.Short(pong))
		}
		for i, n := range sizes {
			if first, text, err := raw.Next(); first != 0x81 || text != strings.Repeat(string(rune('a'+i)), n) || err != nil {
				t.Errorf("message %d: %#x %q, %v", i, first, kit.Short(text), err)
			}
		}
		if code, reason := raw.CloseCode(); code != 4000 || len(reason) != 123 {
			t.Errorf("closed with %d %q", code, reason)
		}
		raw.Close()
	})
}

// lossObserver calls lost when messages are lost with their connection.
type lossObserver struct{ lost func() }

func (o lossObserver) Add(metric, _, cause string, _ int) {
	if metric == wsroom.MetricDropped && cause == "ended" {
		o.lost()
	}
}

func (lossObserver) Record(string, string, string, float64) {}

// Once a write has failed nothing is taken any more, and nothing waits, before the connection's end is known.
func TestNothingIsTakenAfterAFailedWrite(t *testing.T) {
	type after struct {
		small, large error
		queued       int
		bytes        int64
	}
	var conn atomic.Pointer[wsroom.Conn]
	var told atomic.Bool
	var found chan after
	newHub := func() *wsroom.Hub {
		found = make(chan after, 1)
		return wsroom.New(wsroom.WithWriteTimeout(time.Second), wsroom.WithObserver(lossObserver{func() {
			if told.CompareAndSwap(false, true) { // the writer's goroutine: it hasn't ended the connection yet
				c := conn.Load()
				queued, bytes := c.Queued()
				found <- after{c.SendText("late"), c.SendText(strings.Repeat("x", 1<<20)), queued, bytes}
			}
		}}))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		synctest.Wait()
		c := kit.Member(t, hub, "/a")
		conn.Store(c)
		for range 3 {
			c.SendText("never read")
			synctest.Wait()
		}
		got := <-found
		if !errors.Is(got.small, wsroom.ErrClosed) || !errors.Is(got.large, wsroom.ErrClosed) || got.queued != 0 || got.bytes != 0 {
			t.Errorf("after a failed write: %+v, want ErrClosed, and nothing that waits", got)
		}
		raw.Close()
	})
}
