package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// shards is a broker whose topics fail, hang or take their time each by itself.
type shards struct {
	*kit.Wire
	calls atomic.Int64
	does  func(ctx context.Context, topic string, size int) error // before it publishes
}

func (s *shards) Publish(ctx context.Context, topic string, data []byte) error {
	s.calls.Add(1)
	own := bytes.Clone(data)
	if err := s.does(ctx, topic, len(own)); err != nil {
		return err
	}
	return s.Wire.Publish(ctx, topic, own)
}

// takes waits for d as a call to a distant broker does.
func takes(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// hangs waits for a broker that doesn't answer.
func hangs(ctx context.Context) error { return takes(ctx, time.Hour) }

// An outage of less than the buffer's 5 s refuses no send, neither while it lasts nor afterwards, and loses
// nothing, whether calls fail or hang.
func TestOutageOfLessThanTheBufferRefusesNothing(t *testing.T) {
	for _, kind := range []string{"fails", "hangs"} {
		for away := 500 * time.Millisecond; away <= 4900*time.Millisecond; away += 400 * time.Millisecond {
			t.Run(fmt.Sprint(kind, " ", away), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var isAway atomic.Bool
					w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, _ string, _ int) error {
						if isAway.Load() && kind == "hangs" {
							return hangs(ctx)
						}
						if isAway.Load() {
							return kit.ErrDown
						}
						return nil
					}}
					gaps := make(chan string, 10)
					hubs := kit.Nodes(t, w, 2, noteGaps(gaps))
					a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
					var want []string
					say := func(for_ time.Duration) {
						for end := time.Now().Add(for_); time.Now().Before(end); time.Sleep(35 * time.Millisecond) {
							text := fmt.Sprint(len(want))
							if err := hubs[0].SendTextToRoom("/a", text); err != nil {
								t.Fatalf("send %s: %v", text, err)
							}
							want = append(want, text)
						}
					}
					say(time.Second)
					isAway.Store(true)
					say(away)
					isAway.Store(false)
					say(10 * time.Second)
					synctest.Wait()
					for _, c := range []*wsroomtest.Client{a, b} {
						if got := c.Drain(); !slices.Equal(got, want) {
							t.Errorf("%d of %d came: %q", len(got), len(want), got)
						}
					}
					wantGaps(t, gaps)
				})
			})
		}
	}
}

// Where one part of the broker hangs, or refuses, rooms on the others notice nothing: not the rooms that were
// there before, and not new ones. Those on that part bridge it by themselves.
func TestOneHungShardHoldsUpNoOther(t *testing.T) {
	for _, kind := range []string{"hangs", "fails"} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const sick, sound = 300, 40
				var isAway atomic.Bool
				w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, topic string, _ int) error {
					switch {
					case !isAway.Load() || !strings.Contains(topic, "/sick"):
						return takes(ctx, 5*time.Millisecond)
					case kind == "hangs":
						return hangs(ctx)
					default:
						return kit.ErrDown
					}
				}}
				hubs := kit.Nodes(t, w, 2)
				var sounds, sicks []*wsroomtest.Client
				for i := range sound {
					sounds = append(sounds, wsroomtest.Dial(t, hubs[1], fmt.Sprint("/sound", i)))
				}
				for i := range 3 {
					sicks = append(sicks, wsroomtest.Dial(t, hubs[1], fmt.Sprint("/sick", i)))
				}
				isAway.Store(true)
				send := func(room, text string) {
					if err := hubs[0].SendTextToRoom(room, text); err != nil {
						t.Fatalf("send to %s: %v", room, err)
					}
				}
				for second := range 10 {
					for i := range sick {
						if second == 0 { // later they may be refused
							send(fmt.Sprint("/sick", i), "bridged")
						}
					}
					for i, c := range sounds {
						began := time.Now()
						send(fmt.Sprint("/sound", i), fmt.Sprint(second))
						c.ExpectText(fmt.Sprint(second))
						if took := time.Since(began); took > 20*time.Millisecond {
							t.Fatalf("in second %d a message took %v, where one call takes 5ms", second, took)
						}
					}
					time.Sleep(time.Second)
				}
				fresh := wsroomtest.Dial(t, hubs[1], "/new")
				send("/new", "new")
				fresh.ExpectText("new")
				if err := hubs[0].SendTextToRoom("/sick0", "refused"); !errors.Is(err, wsroom.ErrOutage) {
					t.Errorf("a send to a room that has been away for 10s: %v, want ErrOutage", err)
				}
				isAway.Store(false)
				time.Sleep(2 * recovery)
				for i, c := range sicks {
					send(fmt.Sprint("/sick", i), "after")
					c.ExpectText("bridged", "after")
				}
			})
		})
	}
}

// A room that was quiet while another one's part of the broker was away isn't refused for that.
func TestQuietRoomOnASoundShardIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var over atomic.Bool
		w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, topic string, _ int) error {
			if strings.Contains(topic, "/sick") && !over.Load() {
				return kit.ErrDown
			}
			return nil
		}}
		hub := kit.Nodes(t, w, 1)[0]
		quiet := wsroomtest.Dial(t, hub, "/quiet")
		send := func(room string) error { return hub.SendTextToRoom(room, "text") }
		if err := errors.Join(send("/quiet"), send("/sick")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if err := send("/quiet"); err != nil {
			t.Error(err)
		}
		quiet.ExpectText("text", "text")

		// One that nothing is known of goes by what the others know, and is looked at.
		time.Sleep(10 * time.Second)
		_ = send("/unknown")
		time.Sleep(time.Second)
		if err := send("/unknown"); err != nil {
			t.Error(err)
		}
		over.Store(true) // for Shutdown
	})
}

// A broker that is away isn't asked more than some 1,000 times a second, however many rooms wait, and all
// of them come when it is back.
func TestProbesDoNotFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rooms = 5000
		var isAway atomic.Bool
		w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, _ string, _ int) error {
			if isAway.Load() {
				return kit.ErrDown
			}
			return takes(ctx, 20*time.Millisecond)
		}}
		hub := kit.Nodes(t, w, 1)[0]
		last := wsroomtest.Dial(t, hub, fmt.Sprint("/", rooms-1))
		isAway.Store(true)
		for i := range rooms {
			if err := hub.SendTextToRoom(fmt.Sprint("/", i), "waits"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(4 * time.Second)
		if calls := w.calls.Load(); calls > rooms+8000 {
			t.Errorf("%d calls within 4s, for %d rooms", calls, rooms)
		}
		isAway.Store(false)
		began := time.Now()
		last.ExpectText("waits")
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it came %v after the broker was back", took)
		}
		w.Wire.Traffic()
		time.Sleep(recovery)
		for i := range rooms {
			if err := hub.SendTextToRoom(fmt.Sprint("/", i), "after"); err != nil {
				t.Fatalf("room %d: %v", i, err)
			}
		}
		last.ExpectText("after")
	})
}

// A large message over a slow line takes the time that it takes.
func TestLargeMessageOverASlowLine(t *testing.T) {
	for _, tc := range []struct{ size, rate int }{{12 << 20, 4 << 20}, {900 << 10, 300 << 10}, {3 << 20, 200 << 10}} {
		t.Run(fmt.Sprint(tc.size, " at ", tc.rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gaps := make(chan string, 10)
				w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, _ string, size int) error {
					return takes(ctx, time.Duration(size)*time.Second/time.Duration(tc.rate))
				}}
				hub := kit.Nodes(t, w, 1, noteGaps(gaps), wsroom.WithSendQueue(1000, 64<<20))[0]
				a := wsroomtest.Dial(t, hub, "/a")
				text := strings.Repeat("x", tc.size)
				if err := hub.SendTextToRoom("/a", text); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(tc.size)*time.Second/time.Duration(tc.rate) + time.Second)
				if err := hub.SendTextToRoom("/a", "after"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				if got := a.Drain(); len(got) != 2 || got[0] != text || got[1] != "after" {
					t.Errorf("%d messages came", len(got))
				}
				wantGaps(t, gaps)
			})
		})
	}
}

// A message that the broker doesn't take, although it takes others on the same topic, ends: it is a gap on
// each node, and what was sent after it comes.
func TestMessageThatNeverGetsThroughEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := make(chan string, 100)
		w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, _ string, size int) error {
			if size > 100_000 {
				return hangs(ctx)
			}
			return nil
		}}
		hubs := kit.Nodes(t, w, 2, noteGaps(gaps))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		for _, text := range []string{"before", strings.Repeat("x", 200_000), "after"} {
			if err := hubs[0].SendTextToRoom("/a", text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		a.ExpectText("before", "after")
		b.ExpectText("before", "after")
		wantGaps(t, gaps, "/a: wsroom: broker: a message isn't taken: context deadline exceeded", "/a: wsroom: broker: messages are missing")
		if err := hubs[0].SendTextToRoom("/a", "then"); err != nil {
			t.Error(err)
		}
		b.ExpectText("then")
	})
}

// What was given up, or rejected, is a gap on other nodes at once, also where nothing is sent after it. Where it
// has arrived all the same it is none.
func TestOtherNodesAreToldOfWhatWasGivenUp(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		arrives bool
		want    []string
	}{
		"rejected":          {rejected{kit.ErrDown}, false, []string{"/a: wsroom: broker: messages are missing"}},
		"given up":          {kit.ErrDown, false, []string{"/a: wsroom: broker: messages are missing"}},
		"given up, arrives": {kit.ErrDown, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := kit.NewWire()
				gaps := make(chan string, 100)
				from, to := kit.Nodes(t, w, 1)[0], kit.Nodes(t, w, 1, noteGaps(gaps))[0]
				c := wsroomtest.Dial(t, to, "/a")
				w.Set(func(_ string, data []byte) (int, error) {
					switch arrives := map[bool]int{true: 1}[tc.arrives]; {
					case len(data) > 1000:
						return arrives, tc.err
					default:
						return 1, nil
					}
				})
				if err := from.SendTextToRoom("/a", strings.Repeat("x", 2000)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(30 * time.Second)
				wantGaps(t, gaps, tc.want...)
				if tc.arrives {
					c.ExpectText(strings.Repeat("x", 2000))
				}
				c.ExpectNothing()
				if err := from.SendTextToRoom("/a", "after"); err != nil {
					t.Fatal(err)
				}
				c.ExpectText("after")
				wantGaps(t, gaps)
			})
		})
	}
}

// With the broker 50 ms away (there and back) a node gets 10,000 messages a second to 1,000 rooms, each within
// two round trips.
func TestThroughputOverDistance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rooms, rate, trip = 1000, 10_000, 50 * time.Millisecond
		w := &shards{Wire: kit.NewWire(), does: func(ctx context.Context, _ string, _ int) error { return takes(ctx, trip) }}
		var worst atomic.Int64
		var heard atomic.Int64
		hub := kit.Nodes(t, w, 1)[0]
		var stops []func()
		var sent sync.Map // by room and text
		for i := range rooms {
			stop, err := w.Node.Subscribe(t.Context(), fmt.Sprint(":room:/", i), func(data []byte) {
				for _, word := range bytes.Fields(data[17:]) {
					at, ok := sent.LoadAndDelete(string(bytes.TrimFunc(word, func(r rune) bool { return r < '0' || r > '9' })))
					if !ok {
						continue
					}
					heard.Add(1)
					worst.Store(max(worst.Load(), int64(time.Since(at.(time.Time)))))
				}
			}, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			stops = append(stops, stop)
		}
		n := 0
		for range 100 { // steps of 10 ms
			for range rate / 100 {
				text := fmt.Sprint(1_000_000 + n)
				sent.Store(text, time.Now())
				if err := hub.SendTextToRoom(fmt.Sprint("/", n*7%rooms), " "+text+" "); err != nil {
					t.Fatal(err)
				}
				n++
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * trip)
		for _, stop := range stops {
			stop()
		}
		if heard.Load() != int64(n) || time.Duration(worst.Load()) > 2*trip {
			t.Errorf("%d of %d came, the latest after %v", heard.Load(), n, time.Duration(worst.Load()))
		}
	})
}
