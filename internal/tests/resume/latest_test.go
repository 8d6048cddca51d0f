package resume_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A client that comes back isn't sent the newest values that it has missed, and is told of no gap. Those that
// it gets are of their room, and leave its position as it is.
func TestLatestIsNotKept(t *testing.T) {
	for name, opts := range map[string][]wsroom.Option{
		"one node": nil, "with a broker": {wsroom.WithBroker(brokertest.NewMemory().Open()), wsroom.WithResumeKey(key)},
	} {
		t.Run(name, func(t *testing.T) {
			hub := newHub(t, append(opts, wsroom.WithHistory(4, 1<<20, time.Minute))...)
			s := serve(t, hub)
			c := newV1(t, "/a")
			dial := func() {
				t.Helper()
				if err := c.dial(s, -1); err != nil {
					t.Fatal(err)
				}
				c.ask(1)
			}
			send := func(texts ...string) {
				t.Helper()
				for _, text := range texts {
					target := hub.To("/a")
					if strings.HasPrefix(text, "value") {
						target = target.Latest(text)
					}
					if err := target.SendText(text); err != nil {
						t.Fatal(err)
					}
				}
			}

			witness := wsroomtest.Dial(t, hub, "/a")
			dial()
			send("value 0", "1", "value 1", "value 2", "2", "3", "value 3")
			c.until("they come", func() bool { return len(c.got["/a"])+len(c.got[""]) == 7 })
			c.cut()
			send("4", "value 4", "value 5", "value 6", "value 7", "value 8", "5", "6", "7")
			for witness.NextText() != "7" { // by then all have been delivered
			}
			dial()
			send("value 9", "8")
			c.until("the last comes", func() bool { return slices.Contains(c.got["/a"], "8") })

			got := slices.DeleteFunc(slices.Clone(c.got["/a"]), func(text string) bool { return strings.HasPrefix(text, "value") })
			if want := []string{"1", "2", "3", "4", "5", "6", "7", "8"}; !slices.Equal(got, want) {
				t.Errorf("got %q", c.got)
			}
			values := slices.DeleteFunc(append(slices.Clone(c.got[""]), c.got["/a"]...), func(text string) bool { return !strings.HasPrefix(text, "value") })
			if want := []string{"value 0", "value 1", "value 2", "value 3", "value 9"}; !slices.Equal(values, want) || slices.Contains(c.got[""], "value 1") {
				t.Errorf("values %q, got %q", values, c.got)
			}
			if c.resumed != 1 || c.fresh["/a"] != 1 || len(c.gaps) > 0 {
				t.Errorf("resumed %d, fresh %v, gaps %v; log: %q", c.resumed, c.fresh, c.gaps, c.log)
			}
			c.cut()
		})
	}
}

// Newest values among the messages of a room, and a line that breaks at any byte: each message comes once, in
// order.
func TestAccountWithLatest(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			memory := brokertest.NewMemory()
			var servers []*server
			var hubs []*wsroom.Hub
			for range 2 {
				hub := newHub(t, wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key), wsroom.WithHistory(400, 1<<20, time.Minute))
				hubs, servers = append(hubs, hub), append(servers, serve(t, hub))
			}
			rnd := rand.New(rand.NewPCG(seed, 1))
			stop, sent := make(chan struct{}), 0
			var sending sync.WaitGroup
			sending.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 2))
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(rnd.IntN(300)) * time.Microsecond):
					}
					hub := hubs[0]
					if rnd.IntN(2) == 0 {
						_ = hub.To("/a").Latest(strconv.Itoa(rnd.IntN(3))).SendText("value")
						continue
					}
					sent++
					_ = hub.SendTextToRoom("/a", strconv.Itoa(sent))
				}
			})

			c := newV1(t, "/a")
			for i := range 40 {
				if err := c.dial(servers[i%2], rnd.IntN(2500)); err != nil {
					t.Fatal(err)
				}
				_ = c.run()
			}
			close(stop)
			sending.Wait()
			if err := c.dial(servers[0], -1); err != nil {
				t.Fatal(err)
			}
			c.until("the last one comes", func() bool { return slices.Contains(c.got["/a"], strconv.Itoa(sent)) })
			contiguous(t, c.log)
			values := len(slices.DeleteFunc(slices.Clone(c.got["/a"]), func(text string) bool { return text != "value" }))
			if c.resumed < 20 || len(c.gaps) > 0 || values < 10 {
				t.Errorf("resumed %d, fresh %v, gaps %v, %d values", c.resumed, c.fresh, c.gaps, values)
			}
			t.Logf("resumed %d, fresh %v, %d sent, %d values came", c.resumed, c.fresh, sent, values)
			c.cut()
		})
	}
}

// A ping behind messages says that a client of wsroom.v1 has read them, as it does for any client.
func TestDeliveredToV1(t *testing.T) {
	hub := newHub(t, wsroom.WithHistory(100, 1<<20, time.Minute), wsroom.WithFreshness(1024))
	s := serve(t, hub)
	c := newV1(t, "/a")
	if err := c.dial(s, -1); err != nil {
		t.Fatal(err)
	}
	delivered := make(chan error, 1)
	for i := range 300 {
		hub.SendTextToRoom("/a", fmt.Sprint(i))
	}
	hub.Members("/a")[0].Delivered(func(err error) { delivered <- err })
	c.until("all come", func() bool { return len(c.got["/a"]) == 300 })
	c.ask(1)
	if err := kit.Await(t, delivered, "the answer"); err != nil {
		t.Error(err)
	}
	contiguous(t, c.log)
	if len(c.gaps) > 0 {
		t.Errorf("gaps %v", c.gaps)
	}
	c.cut()
}
