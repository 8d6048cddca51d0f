package resume_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// connect connects the client and waits until it is in its room.
func (c *v1) connect(s *server) {
	c.t.Helper()
	if err := c.dial(s, -1); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(c.cut)
	before := c.resumed + c.fresh[c.path]
	c.until("it is in its room", func() bool { return c.resumed+c.fresh[c.path] > before })
}

// await reads until the client has so many messages of the room.
func (c *v1) await(room string, n int) {
	c.t.Helper()
	c.until(fmt.Sprint("it has ", n, " messages of ", room), func() bool { return len(c.got[room]) >= n })
}

// both runs a test with a hub that is alone and with one that has a broker.
func both(t *testing.T, test func(t *testing.T, opts ...wsroom.Option)) {
	t.Run("alone", func(t *testing.T) { test(t) })
	t.Run("broker", func(t *testing.T) {
		test(t, wsroom.WithBroker(brokertest.NewMemory().Open()), wsroom.WithResumeKey(key))
	})
}

// bubbles is both in bubbles of their own time.
func bubbles(t *testing.T, test func(t *testing.T, opts ...wsroom.Option)) {
	t.Run("alone", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t) })
	})
	t.Run("broker", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			test(t, wsroom.WithBroker(brokertest.NewMemory().Open()), wsroom.WithResumeKey(key))
		})
	})
}

// A client of a room in which something is said now and then is resumed, although what it had a position of has
// gone from the history.
func TestQuietRoomIsResumed(t *testing.T) {
	bubbles(t, func(t *testing.T, opts ...wsroom.Option) {
		hub := newHub(t, append(opts, wsroom.WithHistory(256, 256<<10, 2*time.Minute))...)
		s := serve(t, hub)
		c := newV1(t, "/a")
		c.connect(s)
		for i := range 60 {
			time.Sleep(10 * time.Second)
			hub.SendTextToRoom("/a", fmt.Sprint(i))
			c.await("/a", i+1)
			if i%20 == 19 {
				c.cut()
				c.connect(s)
			}
		}
		hub.SendTextToRoom("/a", "two at once")
		hub.SendTextToRoom("/a", "two at once")
		c.await("/a", 62)
		for range 36 { // nothing is said for long
			c.ask(1)
			time.Sleep(10 * time.Second)
		}
		c.ask(1)
		c.cut()
		hub.SendTextToRoom("/a", "last")
		c.connect(s)
		c.await("/a", 63)
		if c.fresh["/a"] != 1 || c.resumed != 4 {
			t.Errorf("resumed %d, fresh %v; log: …%q", c.resumed, c.fresh, c.log[max(0, len(c.log)-10):])
		}
		c.cut()
	})
}

// A client is resumed as long as what it has missed is kept, however little that is: of messages, or of bytes.
func TestSmallHistoryIsResumed(t *testing.T) {
	for name, history := range map[string]wsroom.Option{
		"eight messages": wsroom.WithHistory(8, 1<<20, time.Minute),
		"2,000 bytes":    wsroom.WithHistory(1000, 2000, time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, opts ...wsroom.Option) {
				hub := newHub(t, append(opts, history)...)
				s := serve(t, hub)
				c := newV1(t, "/a")
				sent := 0
				c.connect(s)
				send := func(n int) {
					for range n {
						hub.SendTextToRoom("/a", fmt.Sprintf("%d%s", sent, strings.Repeat(" ", 150)))
						sent++
					}
				}
				for round := range 40 {
					send(round + 1)
					c.await("/a", sent)
					c.cut()
					send(5)
					c.connect(s)
					c.await("/a", sent)
				}
				if c.resumed != 40 || c.fresh["/a"] != 1 || len(c.gaps) > 0 {
					t.Errorf("resumed %d of 40, fresh %v, gaps %v", c.resumed, c.fresh, c.gaps)
				}
				for i, text := range c.got["/a"] {
					if strings.TrimSpace(text) != fmt.Sprint(i) {
						t.Fatalf("%d is %q", i, text)
					}
				}
				c.cut()
			})
		})
	}
}

// A client whose missed messages aren't all kept isn't resumed: they were too many, too large, too old, or the rooms
// keep too much in all. It gets none of them.
func TestTrimmedIsNotResumed(t *testing.T) {
	const age = time.Minute
	for name, test := range map[string]struct {
		opts []wsroom.Option
		miss func(hub *wsroom.Hub)
		want bool
	}{
		"as many as are kept": {miss: func(hub *wsroom.Hub) { many(hub, "/a", 10, 10) }, want: true},
		"one too many":        {miss: func(hub *wsroom.Hub) { many(hub, "/a", 11, 10) }},
		"too many bytes":      {miss: func(hub *wsroom.Hub) { many(hub, "/a", 6, 2000) }},
		"too old":             {miss: func(hub *wsroom.Hub) { many(hub, "/a", 1, 10); time.Sleep(age + time.Millisecond) }},
		"old enough":          {miss: func(hub *wsroom.Hub) { many(hub, "/a", 1, 10); time.Sleep(age - time.Millisecond) }, want: true},
		"all rooms": {
			opts: []wsroom.Option{wsroom.WithHistoryTotal(3000)},
			miss: func(hub *wsroom.Hub) { many(hub, "/a", 1, 1000); time.Sleep(time.Second); many(hub, "/b", 3, 1000) },
		},
		"another room is older": {
			opts: []wsroom.Option{wsroom.WithHistoryTotal(3000)},
			miss: func(hub *wsroom.Hub) { many(hub, "/b", 2, 1000); time.Sleep(time.Second); many(hub, "/a", 2, 1000) }, want: true,
		},
		"nothing": {
			opts: []wsroom.Option{wsroom.WithHistoryTotal(3000)},
			miss: func(hub *wsroom.Hub) { many(hub, "/b", 10, 1000) }, want: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := newHub(t, append(test.opts, wsroom.WithHistory(10, 10_000, age))...)
				s := serve(t, hub)
				other := newV1(t, "/b") // so that the rooms have a history
				other.connect(s)
				stays := newV1(t, "/a")
				stays.connect(s)
				c := newV1(t, "/a")
				c.connect(s)
				hub.SendTextToRoom("/a", "had")
				c.await("/a", 1)
				c.cut()
				test.miss(hub)
				stays.cut()
				c.connect(s)
				c.ask(1)
				missed := len(c.got["/a"]) - 1
				if resumed := c.resumed == 1; resumed != test.want || missed > 0 && !resumed || len(c.gaps) > 0 {
					t.Errorf("resumed %t, want %t; %d messages missed, gaps %v", resumed, test.want, missed, c.gaps)
				}
				c.cut()
				other.cut()
			})
		})
	}
}

func many(hub *wsroom.Hub, room string, n, size int) {
	for range n {
		hub.SendTextToRoom(room, strings.Repeat("x", size))
	}
}

// A client that comes back after its room was empty, for less than the age, is sent what came meanwhile. After that
// the room has no history, and the positions of its old one are worth nothing in a new one.
func TestEmptyRoomIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := newHub(t, wsroom.WithHistory(10, 10_000, time.Minute))
		s := serve(t, hub)
		c := newV1(t, "/a")
		c.connect(s)
		c.cut()
		synctest.Wait()
		hub.SendTextToRoom("/a", "missed")
		time.Sleep(30 * time.Second)
		c.connect(s)
		c.await("/a", 1)
		c.cut()
		time.Sleep(3 * time.Minute)
		hub.SendTextToRoom("/a", "nobody will get it")
		other := newV1(t, "/a")
		other.connect(s)
		hub.SendTextToRoom("/a", "the new history's")
		c.connect(s)
		c.ask(1)
		if want := []string{"missed"}; !slices.Equal(c.got["/a"], want) || c.resumed != 1 || c.fresh["/a"] != 2 {
			t.Errorf("got %q, resumed %d, fresh %v", c.got, c.resumed, c.fresh)
		}
		c.cut()
		other.cut()
	})
}
