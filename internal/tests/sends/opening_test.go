package sends_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// What OnConnect itself sends comes first, however deep in it. What others send meanwhile follows in the
// order in which they sent it, be it to the connection or to its room.
func TestOnlyOnConnectsOwnSendsGoFirst(t *testing.T) {
	others := func(t *testing.T, c *wsroom.Conn) {
		for i, send := range []func(string) error{c.SendTextToThisRoom, c.SendText, c.SendTextToThisRoom, c.SendText} {
			if err := send([]string{"room 1", "direct 1", "room 2", "direct 2"}[i]); err != nil {
				t.Error(err)
			}
		}
	}
	var deep func(n int, f func() error) error
	deep = func(n int, f func() error) error { // so that the stack grows, and moves
		var space [1 << 10]byte
		if space[n%len(space)] = 1; n == 0 {
			return f()
		}
		return deep(n-1, f)
	}
	hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		err := c.SendText("snapshot 1")
		var wg sync.WaitGroup
		wg.Go(func() { others(t, c) })
		wg.Wait()
		if n, _ := c.Queued(); n < 4 {
			t.Errorf("%d messages wait, want 4 at least", n)
		}
		return errors.Join(err, deep(100, func() error { return c.SendText("snapshot 2") }), c.SendText("snapshot 3"))
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.ExpectText("snapshot 1", "snapshot 2", "snapshot 3", "room 1", "direct 1", "room 2", "direct 2")
	others(t, kit.Member(t, hub, "/a"))
	c.ExpectText("room 1", "direct 1", "room 2", "direct 2")
}

// Nobody waits for a stranger's OnConnect, which waits for its client: a send to the newcomer is queued, or
// refused as WithOverflow says, at once.
func TestNobodyWaitsForAStrangersOnConnect(t *testing.T) {
	for policy, want := range map[wsroom.Overflow]error{
		wsroom.CloseSlow: wsroom.ErrSlow, wsroom.DropOldest: nil, wsroom.DropNewest: wsroom.ErrQueueFull,
	} {
		newHub := func() *wsroom.Hub {
			return wsroom.New(wsroom.WithOverflow(policy), wsroom.WithSendQueue(4, 64<<10), wsroom.WithWriteTimeout(time.Second),
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) (err error) {
					for err == nil {
						err = c.SendText("snapshot")
					}
					return err
				}))
		}
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			raw := s.DialRaw("/a")
			defer raw.Close()
			c := kit.Member(t, hub, "/a")
			synctest.Wait() // until the snapshot waits for the client
			begin := time.Now()
			large := strings.Repeat("x", 40<<10)
			if err := c.SendText(large); err != nil {
				t.Errorf("policy %d: %v", policy, err)
			}
			if err := c.SendText(large); !errors.Is(err, want) {
				t.Errorf("policy %d: the second of two that are too much together: %v, want %v", policy, err, want)
			}
			kit.WantBetween(t, "SendText", time.Since(begin), 0, 0)
		})
	}
}

// What OnConnect sends to a client that reads, but less than the write timeout asks for, waits no longer for
// room than the bytes before it may take.
func TestOnConnectWaitsForRoomWithinTheWriteTimeout(t *testing.T) {
	for policy, want := range map[wsroom.Overflow]error{
		wsroom.CloseSlow: wsroom.ErrSlow, wsroom.DropOldest: wsroom.ErrQueueFull, wsroom.DropNewest: wsroom.ErrQueueFull,
	} {
		var got error
		var waited time.Duration
		done := make(chan struct{})
		newHub := func() *wsroom.Hub {
			done = make(chan struct{})
			return wsroom.New(wsroom.WithOverflow(policy), wsroom.WithSendQueue(100, 128<<10), wsroom.WithWriteTimeout(time.Second),
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
					defer close(done)
					for range 8 {
						if err := c.SendText(strings.Repeat("x", 16<<10)); err != nil {
							t.Error(err)
						}
					}
					begin := time.Now()
					got = c.SendText(strings.Repeat("x", 120<<10))
					waited = time.Since(begin)
					return nil
				}))
		}
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			raw := s.DialRaw("/a")
			var reader sync.WaitGroup
			defer reader.Wait()
			defer raw.Close()
			reader.Go(func() {
				for {
					time.Sleep(900 * time.Millisecond)
					if _, _, err := raw.Next(); err != nil {
						return
					}
				}
			})
			<-done
		})
		if !errors.Is(got, want) {
			t.Errorf("policy %d: SendText: %v, want %v", policy, got, want)
		}
		kit.WantBetween(t, "SendText", waited, time.Second, time.Second)
	}
}

// Connections that end while OnConnect runs get what it sent, and nothing that others did: it may be about
// to refuse them.
func TestWhoIsRefusedGetsNothingOfOthers(t *testing.T) {
	hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		var wg sync.WaitGroup
		wg.Go(func() { c.SendTextToThisRoom("secret"); c.SendText("secret") })
		wg.Wait()
		c.SendText("no")
		return errors.New("refused")
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.ExpectText("no")
	c.ExpectClose(1011)
}

// Newcomers that don't read their snapshot cost a room that drops for them no more than others that don't read.
func TestDroppingDoesNotPayForTheSnapshot(t *testing.T) {
	const parts, size = 20_000, 40 << 10
	took := map[int]time.Duration{}
	for _, n := range []int{0, parts} {
		stalled, sent := make(chan struct{}), make(chan struct{})
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithOverflow(wsroom.DropOldest), wsroom.WithSendQueue(parts+1, size),
			wsroom.WithWriteTimeout(time.Minute), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				defer close(sent)
				<-stalled
				c.SendText(strings.Repeat("x", 4*size)) // the line is full
				for range n {
					if err := c.SendText(""); err != nil {
						t.Error(err)
						break
					}
				}
				return nil
			})))
		c := wsroomtest.Dial(t, hub, "/a")
		c.Stall()
		close(stalled)
		kit.Await(t, sent, "the snapshot")
		text := strings.Repeat("x", size-100)
		var times []time.Duration
		for range 500 {
			begin := time.Now()
			if err := hub.SendTextToRoom("/a", text); err != nil {
				t.Error(err)
			}
			times = append(times, time.Since(begin))
		}
		if dropped := hub.Stats().Dropped; dropped < 400 {
			t.Errorf("%d messages were dropped, of 500", dropped)
		}
		slices.Sort(times)
		took[n] = times[0] // the least: other programs only add
		c.CloseNow()
	}
	t.Logf("a send takes %v with no snapshot, %v with one", took[0], took[parts])
	if took[parts] > 4*took[0] {
		t.Errorf("a send takes %v with no snapshot, %v with one", took[0], took[parts])
	}
}
