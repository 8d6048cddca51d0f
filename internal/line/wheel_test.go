package line

import (
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
)

// Each line is visited at the tick for which it is scheduled, once, whatever other lines come and go.
func TestWheelVisitsEachLineAtItsTick(t *testing.T) {
	for seed := range uint64(20) {
		random := mathrand.New(mathrand.NewPCG(seed, 0))
		const buckets = 10
		w := wheel{buckets: make([][]uint32, buckets)}
		due := map[*Line]int64{} // never: it isn't scheduled
		var lines []*Line
		for range 3000 {
			switch n := random.IntN(10); {
			case n < 5 && len(lines) < 2000:
				l := new(Line)
				lines = append(lines, l)
				w.add(l)
				due[l] = w.visited + 1 + random.Int64N(buckets)
				w.schedule(l, due[l])
			case n < 7 && len(lines) > 0:
				l := lines[random.IntN(len(lines))]
				due[l] = w.visited + 1 + random.Int64N(buckets)
				w.schedule(l, due[l])
			case n < 9 && len(lines) > 0:
				i := random.IntN(len(lines))
				w.remove(lines[i])
				w.remove(lines[i]) // does nothing
				delete(due, lines[i])
				lines[i] = lines[len(lines)-1]
				lines = lines[:len(lines)-1]
			case n == 9:
				now := w.visited + random.Int64N(3*buckets)
				jumps := now-w.visited > buckets
				for {
					bucket, more := w.advance(now)
					if !more {
						break
					}
					for _, l := range w.due(nil, bucket) {
						if due[l] > w.visited || due[l] < w.visited && !jumps {
							t.Fatalf("seed %d: due at %d, visited at %d of %d", seed, due[l], w.visited, now)
						}
						due[l] = never
					}
				}
				for l, at := range due {
					if at <= now {
						t.Fatalf("seed %d: due at %d, not visited by %d", seed, at, now)
					}
					if at == never {
						due[l] = now + 1 + random.Int64N(buckets)
						w.schedule(l, due[l])
					}
				}
			}
			if w.lines != len(lines) {
				t.Fatalf("%d lines, want %d", w.lines, len(lines))
			}
		}
	}
}

// A line that is due, and moves to another seat before its visit, is visited at the next tick at the latest.
func TestWheelVisitsALineThatMoves(t *testing.T) {
	w := wheel{buckets: make([][]uint32, 10)}
	var later, due Line
	w.add(&later)
	w.schedule(&later, 5)
	w.add(&due)
	w.schedule(&due, 1)

	bucket, _ := w.advance(1)
	w.remove(&later) // the other line moves to its seat
	lines := w.due(nil, bucket)
	bucket, _ = w.advance(2)
	if lines = w.due(lines, bucket); len(lines) != 1 || lines[0] != &due {
		t.Errorf("visited by tick 2: %d lines, want the one that was due at tick 1", len(lines))
	}
}

// A wheel that many lines have left has no more memory than the few that are left need.
func TestWheelShrinks(t *testing.T) {
	w := wheel{buckets: make([][]uint32, 4)}
	lines := make([]Line, 100_000)
	for i := range lines {
		w.add(&lines[i])
		w.schedule(&lines[i], int64(i))
	}
	for i := range lines[10:] {
		w.remove(&lines[i])
	}
	for range w.buckets {
		bucket, _ := w.advance(w.visited + 1)
		w.due(nil, bucket)
	}
	if n, c := len(w.chunks), cap(w.chunks); n > 3 || c > 100 {
		t.Errorf("%d chunks, space for %d", n, c)
	}
	for _, b := range w.buckets {
		if cap(b) > 0 {
			t.Errorf("a bucket has space for %d", cap(b))
		}
	}
}

// Lines that begin together are pinged at all ticks of the last tenth of the interval, and none later.
func TestPingsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 1000 * time.Second
		var b Heartbeat
		b.Init(interval, 10*time.Second)
		l := newLine(t, &recorder{})

		const lines = 10_000
		ticks := map[time.Duration]int{}
		begin := frame.Now()
		for range lines {
			at := time.Duration(l.due(&b, begin) - begin)
			if at < interval*9/10-time.Second || at > interval-time.Second {
				t.Fatalf("due after %v", at)
			}
			ticks[at/time.Second]++
		}
		for tick, n := range ticks {
			if n > 3*lines/100 {
				t.Errorf("after %d s: %d lines", tick, n)
			}
		}
		if len(ticks) < 90 {
			t.Errorf("%d ticks", len(ticks))
		}
	})
}

// A line with traffic isn't visited before it may have been silent for the interval, so at most twice in it. A silent
// one is visited once more for its answer.
func TestHeartbeatVisitsWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Heartbeat
		b.Init(25*time.Second, 10*time.Second)
		server, client := net.Pipe()
		l := new(Line)
		l.Init(new(outbound.Limits), &recorder{}, false)
		wire := l.NewWire(server, nil, &frame.Limits{Message: time.Second, Write: time.Second})
		l.Attach(wire, nil)
		b.Add(l)
		go func() {
			for range 1000 {
				time.Sleep(time.Second)
				client.Write([]byte{0x8a, 0x80, 0, 0, 0, 0}) // a pong
			}
			client.Close()
		}()

		visits, seen := 0, int64(0)
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-time.After(100 * time.Millisecond):
				case <-stop:
					return
				}
				b.mu.Lock()
				if tick := b.wheel.seat(0).tick; tick != seen {
					visits, seen = visits+1, tick
				}
				b.mu.Unlock()
			}
		}()
		for l.Wait() == nil {
		}
		close(stop)
		synctest.Wait()
		if visits < 1000/25 || visits > 2*1000/25 {
			t.Errorf("%d visits in 1,000 s", visits)
		}
		b.Remove(l)
		wire.Kill()
	})
}

// deadSocket is a socket without a peer.
type deadSocket struct{ net.Conn }

func (deadSocket) SetReadDeadline(time.Time) error { return nil }

// One tick, for lines that have traffic and are looked at each 25 s.
func BenchmarkHeartbeatTick(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		b.Run(fmt.Sprintf("lines=%d", n), func(b *testing.B) {
			var h Heartbeat
			h.Init(ever, 10*time.Second)
			h.wheel.buckets = make([][]uint32, 25) // nothing is further ahead
			h.running = true                       // without the timer
			h.begun = frame.Now()
			o, limits := new(recorder), new(frame.Limits)
			lines := make([]*Line, n)
			for i := range lines {
				lines[i] = new(Line)
				lines[i].Init(new(outbound.Limits), o, false)
				lines[i].Attach(lines[i].NewWire(deadSocket{}, nil, limits), nil)
				h.Add(lines[i])
			}
			mathrand.Shuffle(n, func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
			for i, l := range lines {
				h.wheel.schedule(l, int64(1+i%25))
			}

			b.ReportAllocs()
			now := h.begun
			for b.Loop() {
				now += int64(h.tick)
				for h.visit(now, false) {
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(max(1, n/25)), "ns/due")
		})
	}
}
