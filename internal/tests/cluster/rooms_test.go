package cluster_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// heard is what a node's OnRoomMessage has got.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) option() wsroom.Option {
	return wsroom.OnRoomMessage(func(room string, _ websocket.MessageType, p []byte) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, fmt.Sprintf("%s %s", room, p))
	})
}

// take returns what was heard since it was called last.
func (h *heard) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.all
	h.all = nil
	return all
}

// Each node with members hears a room's messages of all nodes once, in the one order that the members see.
func TestRoomsAreHeardOnEachNodeWithMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		var logs [4]heard
		var hubs []*wsroom.Hub
		for i := range logs {
			hubs = append(hubs, kit.Nodes(t, server.Open(), 1, logs[i].option(), wsroom.OnText(kit.EchoRoom))...)
		}
		var clients []*wsroomtest.Client
		for i, hub := range hubs[:3] { // the fourth has no member
			clients = append(clients, wsroomtest.DialN(t, i, hub, "/a")...)
		}
		clients = append(clients, wsroomtest.Dial(t, hubs[0], "/a"))
		var senders sync.WaitGroup
		for i, c := range clients {
			senders.Go(func() {
				for n := range 50 {
					c.SendText(fmt.Sprint(i, " ", n))
				}
			})
		}
		senders.Wait()
		synctest.Wait()
		var want []string
		for _, text := range clients[0].Drain() {
			want = append(want, "/a "+text)
		}
		if len(want) != 200 {
			t.Fatalf("%d messages", len(want))
		}
		for i := range logs[:3] {
			if got := logs[i].take(); !slices.Equal(got, want) {
				t.Errorf("node %d heard %d messages, or in another order", i, len(got))
			}
		}
		if got := logs[3].take(); len(got) != 0 {
			t.Errorf("the node without members heard %q", got)
		}
	})
}

// OnRoomOpen is called on each node, once the node receives the room's messages: what others send meanwhile
// comes to OnRoomMessage after it. So nothing is missing between what it loads and what comes.
func TestNothingIsMissingBetweenOpenAndMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		var log heard
		other := kit.Nodes(t, server.Open(), 1)[0]
		hub := kit.Nodes(t, server.Open(), 1, log.option(), wsroom.OnRoomOpen(func(room string) {
			if err := other.SendTextToRoom(room, "during"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if got := log.take(); len(got) != 0 {
				t.Errorf("before it has returned, %q", got)
			}
		}), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			return other.SendTextToRoom(c.Room(), "after")
		}))[0]
		other.SendTextToRoom("/a", "before")
		wsroomtest.Dial(t, hub, "/a").ExpectText("after")
		synctest.Wait()
		if got := log.take(); !slices.Equal(got, []string{"/a during", "/a after"}) {
			t.Errorf("heard %q", got)
		}
	})
}

// While a callback of a room's last member runs, the room stays open, and hears what other nodes send.
func TestARoomInUseStaysSubscribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		var log heard
		var closed atomic.Int32
		var stays atomic.Bool
		stays.Store(true)
		other := kit.Nodes(t, server.Open(), 1)[0]
		hub := kit.Nodes(t, server.Open(), 1, log.option(),
			wsroom.OnRoomClose(func(string) { closed.Add(1) }),
			wsroom.OnClose(func(*wsroom.Conn, error) {
				if stays.Load() {
					time.Sleep(time.Minute)
				}
			}))[0]
		wsroomtest.Dial(t, hub, "/a")
		hub.ToAll().Close(4000, "")
		time.Sleep(30 * time.Second)
		other.SendTextToRoom("/a", "x")
		again := wsroomtest.Dial(t, hub, "/a")
		time.Sleep(time.Minute)
		if got := log.take(); !slices.Equal(got, []string{"/a x"}) || closed.Load() != 0 {
			t.Errorf("heard %q, closed %d times", got, closed.Load())
		}
		stays.Store(false)
		again.Close(websocket.StatusNormalClosure, "")
	})
}

// What the broker has kept of before the room opened here isn't heard: it is what OnRoomOpen loads.
func TestKeptMessagesAreNotHeardAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		kept := []wsroom.Option{wsroom.WithHistory(100, 1<<20, time.Hour), wsroom.WithResumeKey([]byte(strings.Repeat("k", 32)))}
		var log heard
		other := kit.Nodes(t, server.Open(), 1, kept...)[0]
		first := wsroomtest.Dial(t, other, "/a")
		other.SendTextToRoom("/a", "before")
		first.ExpectText("before")
		hub := kit.Nodes(t, server.Open(), 1, append(kept, log.option())...)[0]
		second := wsroomtest.Dial(t, hub, "/a")
		other.SendTextToRoom("/a", "after")
		second.ExpectText("after")
		synctest.Wait()
		if got := log.take(); !slices.Equal(got, []string{"/a after"}) {
			t.Errorf("heard %q", got)
		}
	})
}

// If the broker takes no subscription, the room doesn't open. If its opening is given up, the subscription
// ends.
func TestRoomsOpenOnceSubscribed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &distant{Wire: kit.NewWire()}
		var opened atomic.Int32
		block := make(chan struct{})
		hub := kit.Nodes(t, broker, 1, wsroom.OnRoomOpen(func(room string) {
			if opened.Add(1); room == "/slow" {
				<-block
			}
		}))[0]
		wsroomtest.Refused(t, hub, "/never", http.StatusServiceUnavailable)
		if opened.Load() != 0 {
			t.Error("a room opened that isn't subscribed to")
		}
		wsroomtest.Refused(t, hub, "/slow", http.StatusServiceUnavailable, wsroomtest.WithTimeout(time.Minute))
		if got := hub.Causes().Refused; got["broker"] != 1 || got["timeout"] != 1 {
			t.Errorf("refused: %v", got)
		}
		close(block)
		time.Sleep(time.Minute)
		if n := broker.Subscribed(":room:/slow"); n != 0 || opened.Load() != 1 {
			t.Errorf("%d subscriptions are left; opened %d times", n, opened.Load())
		}
	})
}
