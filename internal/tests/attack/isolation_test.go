package attack_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// world is a hub and what it should be like: which connections are in which rooms, and what each of
// them must get, and nothing else.
type world struct {
	t     *testing.T
	hub   *wsroom.Hub
	srv   *httptest.Server
	rnd   *rand.Rand
	peers []*citizen
	said  int

	entered chan *wsroom.Conn // whose OnConnect is over
}

// citizen is a connection, as the model sees it.
type citizen struct {
	conn   *wsroom.Conn
	client *wsroomtest.Client
	rooms  map[string]bool
	due    []string // what it hasn't been checked to have got
}

const worldRooms = 12

func (w *world) room() string { return fmt.Sprint("/", w.rnd.IntN(worldRooms)) }

func (w *world) citizen() *citizen { return w.peers[w.rnd.IntN(len(w.peers))] }

// enter connects one more.
func (w *world) enter() {
	w.t.Helper()
	c := &citizen{client: kit.Dial(w.t, w.srv, "/home"), rooms: map[string]bool{"/home": true}}
	c.conn = kit.Await(w.t, w.entered, "OnJoin")
	w.peers = append(w.peers, c)
}

// exit closes one, which has got all that was sent to it before.
func (w *world) exit(i int) {
	w.t.Helper()
	c := w.peers[i]
	c.conn.Close(4000, "")
	c.check(w.t)
	c.client.ExpectClose(4000)
	w.peers = slices.Delete(w.peers, i, i+1)
}

// say sends a new message by f, and notes for whom it is.
func (w *world) say(f func(text string) error, due func(c *citizen) bool) {
	w.t.Helper()
	w.said++
	text := fmt.Sprint(w.said)
	if err := f(text); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range w.peers {
		if due(c) {
			c.due = append(c.due, text)
		}
	}
}

// step does one thing at random.
func (w *world) step() {
	w.t.Helper()
	c, room, other := w.citizen(), w.room(), w.room()
	switch n := w.rnd.IntN(1000); {
	case n < 1 && len(w.peers) > 10:
		w.exit(w.rnd.IntN(len(w.peers)))
	case n < 2 && len(w.peers) < 30:
		w.enter()
	case n < 300:
		c.conn.Join(room)
		c.rooms[room] = true
	case n < 550:
		c.conn.Leave(room)
		delete(c.rooms, room)
	case n < 560:
		w.say(w.hub.SendTextToAll, func(*citizen) bool { return true })
	case n < 600:
		w.say(c.conn.SendText, func(to *citizen) bool { return to == c })
	case n < 650:
		w.say(c.conn.SendTextToThisRoom, func(to *citizen) bool { return to.rooms["/home"] })
	case n < 700:
		w.say(w.hub.To(room, other).Except(c.conn).SendText, func(to *citizen) bool {
			return to != c && (to.rooms[room] || to.rooms[other])
		})
	default:
		w.say(func(text string) error { return w.hub.SendTextToRoom(room, text) }, func(to *citizen) bool { return to.rooms[room] })
	}
}

// check reads what a citizen must have got.
func (c *citizen) check(t *testing.T) {
	t.Helper()
	c.client.ExpectText(c.due...)
	c.due = nil
}

// Nothing reaches who isn't a member, all reaches who is, whatever joins, leaves, closes and sends
// there are: the hub does as the model does.
func TestHostileIsolation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), entered: make(chan *wsroom.Conn, 1)}
	w.hub = wsroom.New(wsroom.WithSendQueue(1<<20, 1<<30), wsroom.OnJoin(func(c *wsroom.Conn, room string) {
		if room == "/home" {
			w.entered <- c
		}
	}))
	w.srv = kit.Serve(t, w.hub)
	for range 20 {
		w.enter()
	}
	for i := range kit.Scale(20_000, 1_000_000) {
		if w.step(); i%1000 == 0 {
			w.compare()
		}
	}
	w.compare()
}

// compare checks that hub and model are alike.
func (w *world) compare() {
	w.t.Helper()
	members := map[string]int{}
	for _, c := range w.peers {
		c.check(w.t)
		if got, want := c.conn.Rooms(), slices.Sorted(maps.Keys(c.rooms)); !slices.Equal(got, want) {
			w.t.Fatalf("in the rooms %q, want %q", got, want)
		}
		for room := range c.rooms {
			members[room]++
		}
	}
	if got, want := w.hub.Rooms(), slices.Sorted(maps.Keys(members)); !slices.Equal(got, want) {
		w.t.Fatalf("rooms %q, want %q", got, want)
	}
	for room, n := range members {
		if got := len(w.hub.Members(room)); got != n {
			w.t.Fatalf("%d members of %s, want %d", got, room, n)
		}
	}
}

// Nothing that is sent to a room after Leave has returned reaches who left, however many send.
func TestNothingComesAfterLeave(t *testing.T) {
	hub := wsroom.New(wsroom.WithSendQueue(1<<20, 1<<30))
	srv := kit.Serve(t, hub)
	var wg sync.WaitGroup
	var done atomic.Bool
	var senders sync.WaitGroup
	for range 2 {
		senders.Go(func() {
			for !done.Load() {
				hub.SendTextToRoom("/busy", "busy")
			}
		})
	}
	for range 4 {
		c := kit.Dial(t, srv, "/a")
		wg.Go(func() {
			inside := false
			for {
				switch text := c.NextText(); {
				case text == "end":
					return
				case text == "busy" && !inside:
					t.Error("a message after Leave")
					return
				case strings.HasPrefix(text, "in"):
					inside = true
				case text == "out":
					inside = false
				}
			}
		})
	}
	for range kit.Scale(300, 10_000) {
		for _, c := range hub.Members("/a") {
			c.SendText("in")
			c.Join("/busy")
			c.Leave("/busy")
			c.SendText("out")
		}
	}
	for _, c := range hub.Members("/a") {
		c.SendText("end")
	}
	done.Store(true)
	senders.Wait()
	wg.Wait()
}
