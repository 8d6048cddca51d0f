package resume_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Clients that are cut off again and again, and come back to another node, get each message once and in order, while
// members of both nodes send.
func TestNothingIsMissed(t *testing.T) {
	const messages, clients = 400, 4
	cloud := brokertest.NewMemory()
	var nodes []*wsroom.Hub
	for range 2 {
		nodes = append(nodes, wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithHistory(2*messages, 1<<20, time.Minute), wsroom.WithBroker(cloud.Open()), wsroom.WithResumeKey(key))))
	}
	all := wsroomtest.DialN(t, clients, nodes[0], "/a", wsroomtest.WithCursor(""))
	for _, c := range all {
		c.ExpectRoom("/a", false)
	}

	var sending sync.WaitGroup
	for i, node := range nodes {
		sending.Go(func() {
			for n := range messages {
				if err := node.SendTextToRoom("/a", fmt.Sprint(i, " ", n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	rnd, got := rand.New(rand.NewPCG(1, 2)), make([][]string, clients)
	for i, c := range all {
		for len(got[i]) < 2*messages {
			for range min(rnd.IntN(100), 2*messages-len(got[i])) {
				got[i] = append(got[i], c.NextText())
			}
			if rnd.IntN(2) == 0 {
				c.Cut() // the server doesn't notice
			} else {
				c.CloseNow()
			}
			c = wsroomtest.Dial(t, nodes[rnd.IntN(2)], "/a", wsroomtest.WithCursor(c.Cursor()))
			c.ExpectRoom("/a", true)
		}
		c.ExpectNothing()
	}
	sending.Wait()

	next := [2]int{}
	for _, text := range got[0] {
		var node, n int
		if _, err := fmt.Sscan(text, &node, &n); err != nil || n != next[node] {
			t.Fatalf("node %d's message %d comes, want %d; %v", node, n, next[node], err)
		}
		next[node]++
	}
	for i := range got {
		if !slices.Equal(got[i], got[0]) {
			t.Errorf("client %d got another order", i)
		}
	}
}

// A client that doesn't ask for wsroom.v1 gets the same bytes whether others speak it or not, with a history and
// without.
func TestPlainClientsGetPlainMessages(t *testing.T) {
	hear := func(others int, opts ...wsroom.Option) (frames []string) {
		newHub := func() *wsroom.Hub {
			return wsroom.New(append(opts, wsroom.WithSubprotocols("chat"),
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return c.SendText("welcome") }))...)
		}
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			for range others {
				wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(""), wsroomtest.WithSubprotocols("chat"))
			}
			plain := s.DialRaw("/a", "Sec-WebSocket-Protocol: chat, resume.x.1.2\r\n")
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					first, payload, err := plain.Next()
					if frames = append(frames, fmt.Sprintf("%x %q", first, payload)); err != nil || first == 0x88 {
						return
					}
				}
			}()

			synctest.Wait() // OnConnect's time is over
			me := hub.Members("/a")
			me = me[len(me)-1:]
			for i := range 200 {
				hub.SendTextToRoom("/a", fmt.Sprint(i))
				hub.To("/a").Except(me...).SendText("not for it")
				hub.SendTextToAll(strings.Repeat("x", i))
				hub.To("/a").SendBinary([]byte{byte(i)})
			}
			me[0].SendText("for it alone")
			hub.ToAll().Close(4000, "bye")
			<-done
		})
		return frames
	}

	want := hear(0)
	if len(want) != 1+3*200+1+1 {
		t.Fatalf("%d frames: %q", len(want), want)
	}
	history := wsroom.WithHistory(100, 1<<20, time.Minute)
	for name, got := range map[string][]string{
		"others": hear(3), "a history": hear(0, history), "others and a history": hear(3, history),
	} {
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %d frames\n%.2000q\nwant %d", name, len(got), got, len(want))
		}
	}
}
