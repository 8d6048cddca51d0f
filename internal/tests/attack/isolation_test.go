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

// isolationModel is a hub, and the model of it: which connections are in which rooms, and what each of them
// must get. They must get nothing else.
type isolationModel struct {
	t     *testing.T
	hub   *wsroom.Hub
	srv   *httptest.Server
	rnd   *rand.Rand
	peers []*modelPeer
	sent  int

	entered chan *wsroom.Conn // whose OnConnect is over
}

// modelPeer is a connection in the model.
type modelPeer struct {
	conn     *wsroom.Conn
	client   *wsroomtest.Client
	rooms    map[string]bool
	expected []string // messages that it must get and that weren't checked yet
}

const modelRooms = 12

func (m *isolationModel) room() string { return fmt.Sprint("/", m.rnd.IntN(modelRooms)) }

func (m *isolationModel) randomPeer() *modelPeer { return m.peers[m.rnd.IntN(len(m.peers))] }

// enter connects one more peer.
func (m *isolationModel) enter() {
	m.t.Helper()
	c := &modelPeer{client: kit.Dial(m.t, m.srv, "/home"), rooms: map[string]bool{"/home": true}}
	c.conn = kit.Await(m.t, m.entered, "OnJoin")
	m.peers = append(m.peers, c)
}

// exit closes the i-th peer, which has got all that was sent to it before.
func (m *isolationModel) exit(i int) {
	m.t.Helper()
	c := m.peers[i]
	c.conn.Close(4000, "")
	c.check(m.t)
	c.client.ExpectClose(4000)
	m.peers = slices.Delete(m.peers, i, i+1)
}

// send sends a new message by f, and notes which peers must get it.
func (m *isolationModel) send(f func(text string) error, expected func(c *modelPeer) bool) {
	m.t.Helper()
	m.sent++
	text := fmt.Sprint(m.sent)
	if err := f(text); err != nil {
		m.t.Fatal(err)
	}
	for _, c := range m.peers {
		if expected(c) {
			c.expected = append(c.expected, text)
		}
	}
}

// step does one thing at random.
func (m *isolationModel) step() {
	m.t.Helper()
	c, room, other := m.randomPeer(), m.room(), m.room()
	switch n := m.rnd.IntN(1000); {
	case n < 1 && len(m.peers) > 10:
		m.exit(m.rnd.IntN(len(m.peers)))
	case n < 2 && len(m.peers) < 30:
		m.enter()
	case n < 300:
		c.conn.Join(room)
		c.rooms[room] = true
	case n < 550:
		c.conn.Leave(room)
		delete(c.rooms, room)
	case n < 560:
		m.send(m.hub.SendTextToAll, func(*modelPeer) bool { return true })
	case n < 600:
		m.send(c.conn.SendText, func(to *modelPeer) bool { return to == c })
	case n < 650:
		m.send(c.conn.SendTextToThisRoom, func(to *modelPeer) bool { return to.rooms["/home"] })
	case n < 700:
		m.send(m.hub.To(room, other).Except(c.conn).SendText, func(to *modelPeer) bool {
			return to != c && (to.rooms[room] || to.rooms[other])
		})
	default:
		m.send(func(text string) error { return m.hub.SendTextToRoom(room, text) }, func(to *modelPeer) bool { return to.rooms[room] })
	}
}

// check reads what a peer must have got.
func (c *modelPeer) check(t *testing.T) {
	t.Helper()
	c.client.ExpectText(c.expected...)
	c.expected = nil
}

// Whatever joins, leaves, closes and sends there are, members get all of a room's messages and others none:
// the hub does as the model does.
func TestHostileIsolation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &isolationModel{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), entered: make(chan *wsroom.Conn, 1)}
	m.hub = wsroom.New(wsroom.WithSendQueue(1<<20, 1<<30), wsroom.OnJoin(func(c *wsroom.Conn, room string) {
		if room == "/home" {
			m.entered <- c
		}
	}))
	m.srv = kit.Serve(t, m.hub)
	for range 20 {
		m.enter()
	}
	for i := range kit.Scale(20_000, 1_000_000) {
		if m.step(); i%1000 == 0 {
			m.compare()
		}
	}
	m.compare()
}

// compare checks that hub and model are alike.
func (m *isolationModel) compare() {
	m.t.Helper()
	members := map[string]int{}
	for _, c := range m.peers {
		c.check(m.t)
		if got, want := c.conn.Rooms(), slices.Sorted(maps.Keys(c.rooms)); !slices.Equal(got, want) {
			m.t.Fatalf("in the rooms %q, want %q", got, want)
		}
		for room := range c.rooms {
			members[room]++
		}
	}
	if got, want := m.hub.Rooms(), slices.Sorted(maps.Keys(members)); !slices.Equal(got, want) {
		m.t.Fatalf("rooms %q, want %q", got, want)
	}
	for room, n := range members {
		if got := len(m.hub.Members(room)); got != n {
			m.t.Fatalf("%d members of %s, want %d", got, room, n)
		}
	}
}

// A connection gets no message that is sent to a room after its Leave has returned, however many send.
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
