package nodes_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Two nodes are replaced, one after the other, while clients are in their rooms and messages are sent all the time:
// each client has each message of its room once and in order.
func TestRollingRestartLosesNothing(t *testing.T) {
	for name, kind := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.start(t)
			testRollingRestart(t, func() *wsroom.Hub { return newHub(t, kind, s.addr) })
		})
	}
}

// newHub returns a node in this process.
func newHub(t *testing.T, kind brokerKind, addr string) *wsroom.Hub {
	t.Helper()
	broker, disconnect, err := kind.connect(addr)
	if err != nil {
		t.Fatal(err)
	}
	hub := wsroom.New(
		wsroom.WithBroker(broker),
		wsroom.WithResumeKey([]byte("a key of the nodes, 32 bytes long")),
		wsroom.WithHistory(2000, 4<<20, time.Minute),
		wsroom.WithDrain(300*time.Millisecond),
		wsroom.OnGap(func(room string, err error) { t.Errorf("a gap in %q: %v", room, err) }),
	)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		disconnect()
	})
	return hub
}

// visitor is a client that moves from node to node.
type visitor struct {
	t      *testing.T
	room   string
	node   int
	client *wsroomtest.Client
	cursor string
	have   int // messages of the room, from 1 on
}

// connect connects to a node. It takes up where the visitor was.
func (v *visitor) connect(hubs []*wsroom.Hub, node int) {
	v.t.Helper()
	v.node = node
	v.client = wsroomtest.Dial(v.t, hubs[node], v.room, wsroomtest.WithCursor(v.cursor), wsroomtest.WithTimeout(patience))
	v.client.ExpectRoom(v.room, v.cursor != "")
}

// take takes the messages up to this one.
func (v *visitor) take(last int) {
	v.t.Helper()
	for v.have < last {
		text := v.client.NextText()
		if want := strconv.Itoa(v.have + 1); text != want {
			v.t.Fatalf("in %s comes %s, want %s", v.room, text, want)
		}
		v.have++
	}
}

// say sends each room's next number through the node, until over is done. sent is what it has sent, of each room.
func say(t *testing.T, over context.Context, hub func() *wsroom.Hub, rooms []string, sent *int, mu *sync.Mutex) {
	for over.Err() == nil {
		mu.Lock()
		for _, room := range rooms {
			if err := hub().SendTextToRoom(room, strconv.Itoa(*sent+1)); err != nil {
				t.Error(err)
			}
		}
		*sent++
		mu.Unlock()
		time.Sleep(3 * time.Millisecond)
	}
}

func testRollingRestart(t *testing.T, newHub func() *wsroom.Hub) {
	rooms := []string{"/one", "/two", "/three"}
	hubs := []*wsroom.Hub{newHub(), newHub()}
	var visitors []*visitor
	for i := range 20 {
		v := &visitor{t: t, room: rooms[i%len(rooms)]}
		v.connect(hubs, i%2)
		visitors = append(visitors, v)
	}

	var mu sync.Mutex // guards sent and sender
	sent, sender := 0, hubs[1]
	over, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() { say(t, over, func() *wsroom.Hub { return sender }, rooms, &sent, &mu) })
	defer func() { stop(); sending.Wait() }()

	for _, v := range visitors { // before the first message of a room, its end may have no position yet
		v.take(1)
	}
	for old := range 2 {
		hubs = append(hubs, newHub())
		mu.Lock()
		now := sent
		for _, v := range visitors[:len(rooms)] { // two nodes have no order between them: the one is done before the other begins
			v.take(now)
		}
		sender = hubs[len(hubs)-1]
		mu.Unlock()
		for _, v := range visitors { // each has taken another part of what it was sent
			v.take(now - rand.IntN(min(now, 20)))
		}
		restart(t, hubs, old, visitors)
	}

	stop()
	sending.Wait()
	for _, v := range visitors {
		v.take(sent)
		v.client.Close(websocket.StatusNormalClosure, "")
	}
	if sent < 20 {
		t.Errorf("only %d messages in each room", sent)
	}
	t.Log(fmt.Sprint(sent, " messages in each of ", len(rooms), " rooms"))
}

// restart shuts a node down. Its visitors come back to one of those after it.
func restart(t *testing.T, hubs []*wsroom.Hub, old int, visitors []*visitor) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- hubs[old].Shutdown(context.Background()) }()
	for i, v := range visitors {
		if v.node != old {
			continue
		}
		v.client.ExpectClose(websocket.StatusServiceRestart)
		v.cursor = v.client.Cursor()
		v.connect(hubs, old+1+i%2)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
