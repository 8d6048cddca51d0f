package resume_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

var key = []byte("0123456789abcdef0123456789abcdef")

// contiguous checks that each room's numbers follow each other from the first one after an entry that isn't resumed.
func contiguous(t *testing.T, log []string) (last map[string]int) {
	t.Helper()
	last = map[string]int{}
	for i, event := range log {
		if room, ok := strings.CutPrefix(event, "in "); ok {
			if room, ok = strings.CutSuffix(room, " false"); ok {
				delete(last, room)
			}
			continue
		}
		if room, ok := strings.CutPrefix(event, "gap "); ok {
			delete(last, room)
			continue
		}
		room, number, _ := strings.Cut(event, ":")
		n, err := strconv.Atoi(number)
		if err != nil {
			continue
		}
		if before, known := last[room]; known && n != before+1 {
			t.Errorf("%q has %d when %d comes; log: …%q", room, before, n, log[max(0, i-20):i+1])
		}
		last[room] = n
	}
	return last
}

// A client that comes back to any of three nodes, one of which dies, gets what it has missed.
func TestAccountOfNodes(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testAccountOfNodes(t, seed) })
	}
}

func testAccountOfNodes(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	memory := brokertest.NewMemory()
	var hubs []*wsroom.Hub
	var servers []*server
	for range 3 {
		hub := newHub(t, wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key),
			wsroom.WithHistory(400, 1<<20, time.Minute))
		hubs, servers = append(hubs, hub), append(servers, serve(t, hub))
	}

	stop := make(chan struct{})
	var sending sync.WaitGroup
	sent := map[string]int{}
	sending.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 2))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rnd.IntN(100)) * time.Microsecond):
			}
			i := rnd.IntN(3)
			room := []string{"/a", "b", "c"}[i]
			sent[room]++
			if err := hubs[i%2].SendTextToRoom(room, strconv.Itoa(sent[room])); err != nil {
				t.Error(err)
			}
		}
	})

	c := newV1(t, "/a")
	for i := range 25 {
		node := rnd.IntN(len(servers))
		if err := c.dial(servers[node], rnd.IntN(2000)); err != nil {
			t.Fatal(err)
		}
		c.say("join b")
		c.say("join c")
		_ = c.run()
		if i == 12 { // the third node dies
			servers = servers[:2]
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = hubs[2].Shutdown(ctx)
		}
	}
	close(stop)
	sending.Wait()

	if err := c.dial(servers[0], -1); err != nil {
		t.Fatal(err)
	}
	c.say("join b")
	c.say("join c")
	c.ask(1)
	last := contiguous(t, c.log)
	for len(last) < 3 || last["/a"] != sent["/a"] || last["b"] != sent["b"] || last["c"] != sent["c"] {
		if err := c.next(); err != nil {
			t.Fatalf("ends with %v, want %v", last, sent)
		}
		last = contiguous(t, c.log)
	}
	t.Logf("resumed %d, fresh %v, gaps %v, sent %v", c.resumed, c.fresh, c.gaps, sent)
	c.cut()
}
