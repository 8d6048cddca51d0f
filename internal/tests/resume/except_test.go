package resume_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A client whose line breaks after any number of bytes gets, of messages to several rooms and of those that leave
// somebody out, what it would have got without that: never one that left it out, never one twice, and everything
// else in order. So it does when it comes to another node each time.
func TestAccountOfTargets(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testAccountOfTargets(t, seed, 1+2*int(seed%2)) })
	}
}

func testAccountOfTargets(t *testing.T, seed uint64, nodes int) {
	var mu sync.Mutex // so that the client's connection is known while something is sent that leaves it out
	var current *wsroom.Conn
	attempt := 0 // the client's; OnConnect of an earlier one may run late
	onConnect := func(c *wsroom.Conn, r *http.Request) error {
		c.SendText("direct before")
		if err := c.Join("b"); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if r.URL.RawQuery == strconv.Itoa(attempt) {
			current = c
		}
		return c.SendText("direct after")
	}
	opts := []wsroom.Option{wsroom.OnConnect(onConnect), wsroom.WithHistory(400, 1<<20, time.Minute), wsroom.WithSendQueue(2000, 1<<20)}
	memory := brokertest.NewMemory()
	var hubs []*wsroom.Hub
	var servers []*server
	for range nodes {
		own := opts
		if nodes > 1 {
			own = append(slices.Clone(opts), wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key))
		}
		hub := wsroomtest.CheckHub(t, wsroom.New(own...))
		hubs, servers = append(hubs, hub), append(servers, serve(t, hub))
	}

	stop := make(chan struct{})
	var sending sync.WaitGroup
	last := map[string]int{}
	sending.Go(func() {
		rnd := rand.New(rand.NewPCG(seed, 2))
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(rnd.IntN(150)) * time.Microsecond):
			}
			hub := hubs[rnd.IntN(len(hubs))]
			if nodes > 1 {
				hub = hubs[0] // of several nodes' messages none is the first
			}
			kind := rnd.IntN(5)
			if nodes > 1 && 2 <= kind && kind < 4 {
				continue // another node may deliver it after the client has come back there
			}
			mu.Lock()
			send(t, hub, current, last, kind)
			mu.Unlock()
		}
	})

	rnd := rand.New(rand.NewPCG(seed, 1))
	c := newV1(t, "/a")
	for range 40 {
		bytes := rnd.IntN(400)
		if rnd.IntN(2) == 0 {
			bytes = rnd.IntN(4000)
		}
		mu.Lock()
		current = nil
		attempt++
		c.path = fmt.Sprint("/a?", attempt)
		mu.Unlock()
		if err := c.dial(servers[rnd.IntN(len(servers))], bytes); err != nil {
			t.Fatal(err)
		}
		_ = c.run()
	}
	close(stop)
	sending.Wait()

	if err := c.dial(servers[0], -1); err != nil {
		t.Fatal(err)
	}
	hubs[0].SendTextToRoom("/a", "end")
	hubs[0].SendTextToRoom("b", "end")
	c.until("all has come", func() bool {
		return slices.Contains(c.got["/a"], "end") && slices.Contains(c.got["b"], "end")
	})
	checkTargets(t, c, last, nodes > 1)
	t.Logf("resumed %d, fresh %v, gaps %v, sent %v", c.resumed, c.fresh, c.gaps, last)
	if c.resumed < 20 {
		t.Errorf("resumed only %d times", c.resumed)
	}
	c.cut()
}

// send sends a message of some kind. It has the room's next number if it is for the client, which is in both rooms.
func send(t *testing.T, hub *wsroom.Hub, c *wsroom.Conn, last map[string]int, kind int) {
	room := []string{"/a", "b", "/a", "b", "/a"}[kind]
	target, text := hub.To(room), ""
	switch {
	case kind < 2:
	case kind < 4 && c == nil:
		return
	case kind < 4:
		target, text = target.Except(c), "left out"
	default:
		target = hub.To("/a", "b")
	}
	if text == "" {
		last[room]++
		text = strconv.Itoa(last[room])
		if kind == 4 {
			text += " to both"
		}
	}
	if err := target.SendText(text); err != nil {
		t.Error(err)
	}
}

// checkTargets checks what the client got. On several nodes each room has an order of its own: a client that is new
// in one room, and resumed in the other, may get a message to both twice.
func checkTargets(t *testing.T, c *v1, sent map[string]int, several bool) {
	t.Helper()
	last, seen := map[string]int{}, map[string]int{}
	for i, event := range c.log {
		around := func() []string { return c.log[max(0, i-25):min(len(c.log), i+2)] }
		if room, ok := strings.CutPrefix(event, "in "); ok {
			if room, ok = strings.CutSuffix(room, " false"); ok {
				delete(last, room)
				clear(seen)
			}
			continue
		}
		room, text, ok := strings.Cut(event, ":")
		if !ok {
			continue
		}
		if text == "left out" {
			t.Errorf("got what it was left out of; log: …%q", around())
		}
		number, both := strings.CutSuffix(text, " to both")
		if both {
			key := text
			if several {
				key += room
			}
			if seen[key]++; seen[key] > 1 {
				t.Errorf("%q comes again in %q; log: …%q", text, room, around())
			}
		}
		n, err := strconv.Atoi(number)
		if err != nil || both && room == "b" { // it wasn't resumed in the first room
			continue
		}
		if before, known := last[room]; known && n != before+1 {
			t.Errorf("%q has %d when %d comes; log: …%q", room, before, n, around())
		}
		last[room] = n
	}
	for room, n := range sent {
		if got, known := last[room]; known && got != n {
			t.Errorf("%q ends with %d, want %d", room, got, n)
		}
	}
	if len(c.gaps) > 0 {
		t.Errorf("gaps: %v", c.gaps)
	}
}

// A sender isn't sent its own message again, however often its line breaks while it is sent what it has missed.
// Nor does it on another node.
func TestExceptSurvivesTwoCuts(t *testing.T) {
	for nodes := range 3 {
		t.Run(fmt.Sprint(nodes+1), func(t *testing.T) { testExcept(t, nodes+1) })
	}
}

func testExcept(t *testing.T, nodes int) {
	memory := brokertest.NewMemory()
	var hub *wsroom.Hub
	var servers []*server
	for range nodes {
		opts := []wsroom.Option{wsroom.WithHistory(100, 1<<20, time.Minute)}
		if nodes > 1 {
			opts = append(opts, wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key))
		}
		hub = newHub(t, opts...)
		servers = append(servers, serve(t, hub))
	}
	c, other := newV1(t, "/a"), newV1(t, "/a")
	other.connect(servers[nodes-1])
	c.connect(servers[0])
	hub.SendTextToRoom("/a", "one")
	c.await("/a", 1)
	other.await("/a", 1)

	c.say("others first own") // is sent to the others; then the line breaks before the client is told of that
	other.await("/a", 2)
	c.cut()
	hub.SendTextToRoom("/a", "two")
	hub.SendTextToRoom("/a", "three")
	other.await("/a", 4)

	if err := c.dial(servers[nodes-1], -1); err != nil {
		t.Fatal(err)
	}
	c.await("/a", 2) // the catch-up has begun
	c.say("others second own")
	other.await("/a", 5)
	c.cut() // before the rest of the catch-up comes
	c.connect(servers[nodes-1])
	hub.SendTextToRoom("/a", "four")
	c.until("the last comes", func() bool { return slices.Contains(c.got["/a"], "four") })
	if want := []string{"one", "two", "three", "four"}; !slices.Equal(c.got["/a"], want) || c.resumed != 2 {
		t.Errorf("got %q, want %q; resumed %d", c.got["/a"], want, c.resumed)
	}
	c.cut()
	other.cut()
}

// A client that has left a room isn't kept from what goes to that room and to another one, where it is still.
func TestFormerRoomHidesNothing(t *testing.T) {
	both(t, func(t *testing.T, opts ...wsroom.Option) {
		hub := newHub(t, append(opts, wsroom.WithHistory(100, 1<<20, time.Minute))...)
		s := serve(t, hub)
		c := newV1(t, "/b")
		c.connect(s)
		c.say("join a")
		c.until("it is in both rooms", func() bool { return c.fresh["a"] == 1 })
		hub.SendTextToRoom("a", "a1")
		hub.SendTextToRoom("/b", "b1")
		c.until("it has positions", func() bool { return len(c.got["a"])+len(c.got["/b"]) == 2 })
		c.cut()
		c.connect(s) // and doesn't join a again
		c.ask(1)
		c.cut()
		hub.To("a", "/b").SendText("both")
		hub.SendTextToRoom("/b", "b2")
		before := c.resumed
		c.connect(s)
		resumed := c.resumed > before
		hub.SendTextToRoom("/b", "b3")
		c.until("the last comes", func() bool { return slices.Contains(c.got["/b"], "b3") })
		if resumed && !slices.Contains(c.got["/b"], "both") {
			t.Errorf("it was resumed without a message; log: %q", c.log)
		}
		c.cut()
	})
}

// direct messages and what is written through Conn.WebSocket come in order between a room's, and aren't sent again.
func TestDirectMessagesArentSentAgain(t *testing.T) {
	hub := newHub(t, wsroom.WithHistory(100, 1<<20, time.Minute))
	s := serve(t, hub)
	c := newV1(t, "/a")
	c.connect(s)
	conn := hub.Members("/a")[0]
	for i := range 10 {
		hub.SendTextToRoom("/a", fmt.Sprint(i))
		conn.SendText(fmt.Sprint("own ", i))
		c.ask(1) // what was queued is written
		go conn.WebSocket().Write(context.Background(), websocket.MessageText, []byte(fmt.Sprint("through ", i)))
		c.until("it comes", func() bool { return len(c.got[""]) == 2*(i+1) })
	}
	c.cut()
	c.connect(s)
	c.ask(1)
	var want []string
	for i := range 10 {
		want = append(want, fmt.Sprint("own ", i), fmt.Sprint("through ", i))
	}
	if !slices.Equal(c.got[""], want) || len(c.got["/a"]) != 10 {
		t.Errorf("got %q", c.got)
	}
	c.cut()
}

// A client that comes back to two rooms gets what was sent to both once, in whichever order it comes to them.
func TestToBothRoomsIsSentOnce(t *testing.T) {
	both(t, func(t *testing.T, opts ...wsroom.Option) {
		orders := [][]string{{"a", "b"}, {"b", "a"}}
		for _, order := range orders {
			for _, atOnce := range []bool{true, false} {
				onConnect := func(c *wsroom.Conn, _ *http.Request) error {
					if atOnce {
						return c.Join(order...)
					}
					if err := c.Join(order[0]); err != nil {
						return err
					}
					return c.Join(order[1])
				}
				name := fmt.Sprint(order, atOnce)
				own := append(slices.Clone(opts), wsroom.WithName(name), wsroom.OnConnect(onConnect), wsroom.WithHistory(100, 1<<20, time.Minute))
				hub := wsroomtest.CheckHub(t, wsroom.New(own...))
				s := serve(t, hub)
				c := newV1(t, "/x")
				c.connect(s)
				c.until("it is in both", func() bool { return c.fresh["a"] == 1 && c.fresh["b"] == 1 })
				hub.To("a", "b").SendText("first")
				hub.SendTextToRoom("b", "b1")
				hub.SendTextToRoom("a", "a1")
				c.until("it has positions", func() bool { return len(c.got["a"]) == 2 && len(c.got["b"]) == 1 })
				c.cut()
				hub.To("a", "b").SendText("missed")
				c.connect(s)
				hub.SendTextToRoom("a", "end")
				hub.SendTextToRoom("b", "end")
				c.until("the end comes", func() bool { return slices.Contains(c.got["a"], "end") && slices.Contains(c.got["b"], "end") })
				if !slices.Equal(c.got["a"][2:], []string{"missed", "end"}) || !slices.Equal(c.got["b"][1:], []string{"end"}) {
					t.Errorf("%s: got %q", name, c.got)
				}
				c.cut()
			}
		}
	})
}
