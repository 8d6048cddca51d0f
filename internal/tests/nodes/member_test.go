package nodes_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = 30 * time.Second

// member is in a room by way of a node. It says numbered messages and writes down what it hears.
type member struct {
	name string
	room string
	node *node
	conn *websocket.Conn

	mu      sync.Mutex // guards the rest
	said    []string
	heard   []string
	refused map[string]bool
	news    chan struct{} // closed when something is heard
	ended   bool
}

func newMember(t *testing.T, n *node, room, name string) *member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "http://"+n.addr+room, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	m := &member{name: name, room: room, node: n, conn: conn, refused: map[string]bool{}, news: make(chan struct{})}
	go m.listen() // ends with the connection
	return m
}

func (m *member) listen() {
	for {
		_, p, err := m.conn.Read(context.Background())
		m.mu.Lock()
		switch text := string(p); {
		case err != nil:
			m.ended = true
		case strings.HasPrefix(text, "refused "):
			m.refused[strings.TrimPrefix(text, "refused ")] = true
		default:
			m.heard = append(m.heard, text)
		}
		close(m.news)
		m.news = make(chan struct{})
		m.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// say sends the next message. That a killed node doesn't take it is no error.
func (m *member) say() {
	m.mu.Lock()
	text := fmt.Sprint(m.name, " ", len(m.said))
	m.said = append(m.said, text)
	m.mu.Unlock()
	m.send(text)
}

func (m *member) send(text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = m.conn.Write(ctx, websocket.MessageText, []byte(text)) // what it means shows in what is heard
}

// await waits until the member has heard the text, and reports whether it did.
func (m *member) await(text string) bool {
	deadline := time.After(patience)
	for {
		m.mu.Lock()
		ok, news := slices.Contains(m.heard, text), m.news
		m.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-news:
		case <-deadline:
			return false
		}
	}
}

// crowd is everyone in the rooms of some nodes.
type crowd struct {
	t       *testing.T
	members []*member
	rooms   []string
}

// gather has two members enter each of two rooms by way of each node.
func gather(t *testing.T, nodes []*node) *crowd {
	t.Helper()
	c := &crowd{t: t, rooms: []string{"/one", "/two"}}
	for i, n := range nodes {
		for _, room := range c.rooms {
			for j := range 2 {
				c.members = append(c.members, newMember(t, n, room, fmt.Sprintf("%d.%d%s", i, j, room)))
			}
		}
	}
	return c
}

// talk has everyone say something every 10 ms until stop is called, which waits.
func (c *crowd) talk() (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	for _, m := range c.members {
		wg.Go(func() {
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-over:
					return
				case <-tick.C:
					m.say()
				}
			}
		})
	}
	return func() { close(over); wg.Wait() }
}

// settle waits until everyone who is still there has heard a last word of everyone. The broker is there.
func (c *crowd) settle() {
	c.t.Helper()
	for _, m := range c.members {
		if !m.isGone() {
			m.send("last word of " + m.name)
		}
	}
	for _, m := range c.members {
		for _, other := range c.members {
			if m.room == other.room && !m.isGone() && !other.isGone() && !m.await("last word of "+other.name) {
				c.t.Fatalf("%s waited in vain for the last word of %s", m.name, other.name)
			}
		}
	}
}

func (m *member) isGone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ended
}

// audit accounts for every message: none is doubled, all have heard them in one order, and of what a
// hub took nothing is missing, or comes late, but where the node has reported a gap in the room.
func (c *crowd) audit() {
	c.t.Helper()
	for _, room := range c.rooms {
		c.auditRoom(room)
	}
}

func (c *crowd) auditRoom(room string) {
	c.t.Helper()
	var all []*member
	for _, m := range c.members {
		if m.room == room {
			all = append(all, m)
		}
	}
	total, missing := 0, 0
	for i, m := range all {
		places := c.places(m)
		for _, other := range all[:i] {
			c.compare(places, m, other)
		}
		if m.isGone() {
			continue
		}
		for _, other := range all {
			if other.isGone() {
				continue // what its node took with it can't be known
			}
			for _, text := range other.said {
				total++
				if _, ok := places[text]; !ok && !other.refused[text] {
					missing++
					if m.node.gapsIn(room) == 0 {
						c.t.Fatalf("%s is missing %q, and its node has reported no gap", m.name, text)
					}
				}
			}
		}
	}
	if total == 0 {
		c.t.Fatalf("nobody said anything in %s", room)
	}
	c.t.Logf("%s: %d deliveries, %d missing where gaps were reported", room, total, missing)
}

// places returns at which place a member heard what.
func (c *crowd) places(m *member) map[string]int {
	c.t.Helper()
	places := map[string]int{}
	for i, text := range m.heard {
		if _, ok := places[text]; ok {
			c.t.Fatalf("%s heard %q twice", m.name, text)
		}
		places[text] = i
	}
	return places
}

// underWay is how many messages at most were about to be published when a node lost the broker.
const underWay = 20

// compare checks that two heard what both did in one order. Where there was a gap, what was under way then
// may have come later than to others.
func (c *crowd) compare(places map[string]int, m, other *member) {
	c.t.Helper()
	shared, tails := 0, []int{} // tails: the least last place of a run of so many in order
	for _, text := range other.heard {
		if at, ok := places[text]; ok {
			shared++
			if i, _ := slices.BinarySearch(tails, at); i < len(tails) {
				tails[i] = at
			} else {
				tails = append(tails, at)
			}
		}
	}
	late := shared - len(tails)
	if late > 0 && m.node.gapsIn(m.room)+other.node.gapsIn(m.room) == 0 {
		c.t.Errorf("%s and %s heard %d messages in another order, without a gap", m.name, other.name, late)
	}
	if late > underWay {
		c.t.Errorf("%s and %s heard %d messages in another order", m.name, other.name, late)
	}
}

// wantGaps fails the test where a node has reported a gap that it shouldn't have.
func (c *crowd) wantNoGaps(nodes ...*node) {
	c.t.Helper()
	for i, n := range nodes {
		for _, room := range c.rooms {
			if gaps := n.gapsIn(room); gaps > 0 {
				c.t.Errorf("node %d of %d reported %d gaps in %s", i, len(nodes), gaps, room)
			}
		}
	}
}
