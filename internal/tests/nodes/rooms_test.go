package nodes_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// hearing is what one hub's OnRoomMessage has got, and its rooms that are open.
type hearing struct {
	mu   sync.Mutex
	all  []string
	open []string
	news chan struct{} // has something when something was heard
}

func (h *hearing) options() []wsroom.Option {
	return []wsroom.Option{
		wsroom.OnRoomOpen(func(room string) { h.change(func() { h.open = append(h.open, room) }) }),
		wsroom.OnRoomClose(func(room string) {
			h.change(func() { h.open = slices.DeleteFunc(h.open, func(s string) bool { return s == room }) })
		}),
		wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) {
			h.change(func() { h.all = append(h.all, fmt.Sprintf("%s %v %s", room, typ, p)) })
		}),
	}
}

func (h *hearing) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// Over each broker every node with members hears its rooms, each message once and in the members' order, and
// many rooms are joined in one call.
func TestRoomsAreHeardOverEachBroker(t *testing.T) {
	for name, kind := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.start(t)
			var heard [2]hearing
			var hubs [2]*wsroom.Hub
			for i := range hubs {
				broker, disconnect, err := kind.connect(s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(disconnect)
				heard[i].news = make(chan struct{}, 1)
				hubs[i] = wsroomtest.CheckHub(t, wsroom.New(append(heard[i].options(), wsroom.WithBroker(broker))...))
			}
			ann, bob := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
			rooms := make([]string, 20)
			for i := range rooms {
				rooms[i] = fmt.Sprint("room ", i)
			}
			for _, hub := range hubs {
				if err := hub.Members("/a")[0].Join(rooms...); err != nil {
					t.Fatal(err)
				}
			}

			var senders sync.WaitGroup
			for i, hub := range hubs {
				senders.Go(func() {
					for n := range 100 {
						if err := hub.SendBinaryToRoom("/a", fmt.Append(nil, i, " ", n)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			senders.Wait()
			var want []string
			for range 200 {
				p := ann.NextBinary()
				bob.ExpectBinary(p)
				want = append(want, fmt.Sprintf("/a MessageBinary %s", p))
			}
			for i := range hubs {
				for len(heard[i].count()) < 200 {
					select {
					case <-heard[i].news:
					case <-time.After(patience):
						t.Fatalf("node %d has heard %d messages", i, len(heard[i].count()))
					}
				}
				if got := heard[i].count(); !slices.Equal(got, want) {
					t.Errorf("node %d has heard another order", i)
				}
				if n := heard[i].opened(); n != 1+len(rooms) {
					t.Errorf("node %d has %d rooms open", i, n)
				}
			}
			hubs[0].To(rooms...).SendText("once") // a member of all of them gets one copy
			ann.ExpectText("once")
			bob.ExpectText("once")
		})
	}
}

func (h *hearing) count() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *hearing) opened() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.open)
}
