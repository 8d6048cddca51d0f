package conns_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
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

// journal is what callbacks have noted.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) note(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
}

// take returns what was noted since it was called last.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	all := strings.Join(j.lines, ", ")
	j.lines = nil
	return all
}

// rooms notes the lives of rooms.
func (j *journal) rooms() []wsroom.Option {
	return []wsroom.Option{
		wsroom.OnRoomOpen(func(room string) { j.note("open %s", room) }),
		wsroom.OnRoomClose(func(room string) { j.note("close %s", room) }),
		wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) { j.note("%s %v %s", room, typ, p) }),
	}
}

// A room opens before its first member is let in, once for all that come meanwhile. It closes when the last
// has left and its callbacks have returned.
func TestRoomOpensAndCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		opening, leaving := make(chan struct{}), make(chan struct{})
		hub := wsroomtest.CheckHub(t, wsroom.New(append(j.rooms(), wsroom.WithHeartbeat(0, 0),
			wsroom.OnRoomOpen(func(room string) { j.note("open %s", room); <-opening; j.note("is open") }),
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { j.note("connect"); return nil }),
			wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
				if err == nil {
					<-leaving
					j.note("text")
				}
			}),
			wsroom.OnLeave(func(_ *wsroom.Conn, room string) { j.note("leave %s", room) }),
			wsroom.OnClose(func(*wsroom.Conn, error) { time.Sleep(time.Second); j.note("closed") }))...))
		var dials sync.WaitGroup
		var clients [2]*wsroomtest.Client
		for i := range clients {
			dials.Go(func() { clients[i] = wsroomtest.Dial(t, hub, "/a") })
		}
		synctest.Wait()
		if got := j.take(); got != "open /a" || hub.Len() != 0 || len(hub.Rooms()) != 0 {
			t.Errorf("%s; %d connections, rooms %q", got, hub.Len(), hub.Rooms())
		}
		close(opening)
		dials.Wait()
		for _, client := range clients {
			client.Close(websocket.StatusNormalClosure, "")
		}
		time.Sleep(time.Minute)
		want := "is open, connect, connect, leave /a, leave /a, closed, closed, close /a"
		if got := j.take(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}

		wsroomtest.Dial(t, hub, "/a").SendText("x")
		synctest.Wait()
		hub.ToAll().Close(4000, "")
		synctest.Wait()
		if got, want := j.take(), "open /a, is open, connect"; got != want { // a callback still runs
			t.Errorf("got  %s\nwant %s", got, want)
		}
		close(leaving)
		time.Sleep(time.Minute)
		if got, want := j.take(), "text, leave /a, closed, close /a"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// A connection that leaves a room by itself still needs it until its callbacks of then, and OnLeave, have
// returned.
func TestRoomClosesAfterOnLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		hub := wsroomtest.CheckHub(t, wsroom.New(append(j.rooms(), wsroom.WithHeartbeat(0, 0),
			wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
				if err == nil {
					time.Sleep(time.Second)
					j.note("text")
				}
			}),
			wsroom.OnLeave(func(_ *wsroom.Conn, room string) { time.Sleep(time.Second); j.note("leave %s", room) }))...))
		client := wsroomtest.Dial(t, hub, "/a")
		c := kit.Member(t, hub, "/a")
		if err := c.Join("b", "c"); err != nil {
			t.Fatal(err)
		}
		client.SendText("x")
		synctest.Wait()
		j.take()
		c.Leave("b")
		c.Leave("c")
		if err := c.Join("c"); err != nil { // it is still open
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got, want := j.take(), "text, leave b, close b, leave c"; got != want && got != "text, leave b, leave c, close b" {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// A client that doesn't answer the close holds no room open.
func TestRoomDoesNotWaitForTheCloseHandshake(t *testing.T) {
	var closed chan time.Duration
	var begin time.Time
	newHub := func() *wsroom.Hub {
		closed = make(chan time.Duration, 1)
		return wsroom.New(wsroom.OnRoomClose(func(string) { closed <- time.Since(begin) }))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		begin = time.Now()
		hub.ToAll().Close(4000, "")
		kit.WantBetween(t, "closed", <-closed, 0, 0)
		c.Close()
	})
}

// Somebody that comes while a room closes waits until it has closed and opened again.
func TestRoomOpensAgainAfterItsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		hub := wsroomtest.CheckHub(t, wsroom.New(append(j.rooms(), wsroom.WithHeartbeat(0, 0), wsroom.WithHandshakeTimeout(time.Hour),
			wsroom.OnRoomClose(func(room string) { j.note("close %s", room); time.Sleep(3 * time.Second); j.note("is closed") }))...))
		wsroomtest.Dial(t, hub, "/a").Close(websocket.StatusNormalClosure, "")
		synctest.Wait()
		wsroomtest.Dial(t, hub, "/b")
		b := kit.Member(t, hub, "/b")
		if got, want := j.take(), "open /a, close /a, open /b"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		begin := time.Now()
		if err := b.Join("/a"); err != nil {
			t.Error(err)
		}
		kit.WantBetween(t, "joined", time.Since(begin), 3*time.Second, 3*time.Second)
		if got, want := j.take(), "is closed, open /a"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// Whoever is refused, or gives up, after a room was opened for it has it closed again.
func TestRoomClosesAfterARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		slow := make(chan struct{})
		hub := wsroomtest.CheckHub(t, wsroom.New(append(j.rooms(), wsroom.WithHeartbeat(0, 0), wsroom.WithMaxMembers(1),
			wsroom.OnRoomOpen(func(room string) {
				j.note("open %s", room)
				if room == "/slow" {
					<-slow
				}
			}),
			wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
				if r.URL.Path == "/no" {
					c.Join("no more")
					c.Leave("no more")
					return websocket.CloseError{Code: 4000}
				}
				return nil
			}))...))
		wsroomtest.Dial(t, hub, "/a")
		wsroomtest.Refused(t, hub, "/a", http.StatusServiceUnavailable)
		if kit.Member(t, hub, "/a").Join("b", "/a", "b") != nil {
			t.Error("it is in /a already")
		}
		wsroomtest.Dial(t, hub, "/c")
		if kit.Member(t, hub, "/c").Join("d", "b") == nil {
			t.Error("b is full")
		}
		synctest.Wait()
		if got, want := j.take(), "open /a, open b, open /c, open d, close d"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		wsroomtest.Dial(t, hub, "/no").ExpectClose(4000)
		synctest.Wait()
		if got := j.take(); !strings.HasPrefix(got, "open /no, open no more") || strings.Count(got, "close") != 2 {
			t.Errorf("got  %s", got)
		}

		begin := time.Now()
		wsroomtest.Refused(t, hub, "/slow", http.StatusServiceUnavailable, wsroomtest.WithTimeout(time.Minute))
		kit.WantBetween(t, "refused", time.Since(begin), 10*time.Second, 10*time.Second)
		if n := hub.Causes().Refused["timeout"]; n != 1 {
			t.Errorf("refused: %v", hub.Causes().Refused)
		}
		joined := make(chan error, 1)
		go func() { joined <- kit.Member(t, hub, "/c").Join("/slow") }()
		synctest.Wait()
		hub.To("/c").Close(4000, "")
		if err := <-joined; err != wsroom.ErrClosed {
			t.Errorf("Join: %v", err)
		}
		synctest.Wait()
		j.take()
		close(slow)
		synctest.Wait()
		if got, want := j.take(), "close /slow"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// OnRoomMessage gets what is sent to rooms, whoever is left out, once for each room and in the order that
// members see.
func TestRoomsMessagesAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var longest atomic.Int32
		hub := wsroomtest.CheckHub(t, wsroom.New(append(j.rooms(), wsroom.WithHeartbeat(0, 0), wsroom.WithCompression(1),
			wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) {
				j.note("%s %v %s", room, typ, kit.Short(string(p)))
				clear(p) // it is its own
				longest.Store(max(longest.Load(), int32(len(p))))
			}))...))
		client := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCompression())
		c := kit.Member(t, hub, "/a")
		c.Join("b")
		j.take()
		long := strings.Repeat("x", 200)
		c.SendTextToThisRoom("1")
		hub.To("b").Except(c).SendText("2")
		hub.SendBinaryToRoom("/a", []byte("3"))
		hub.To("/a", "b", "nobody's").SendText("4")
		hub.SendTextToAll("to all")
		c.SendText("to one")
		hub.SendTextToRoom("nobody's", "x")
		hub.SendTextToRoom("/a", "")
		hub.SendTextToRoom("/a", long)
		hub.SendTextToRoom("/a", strings.Repeat(long, 1000))
		synctest.Wait()
		got := strings.Split(j.take(), ", ")
		inB := slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s[:2] != "b " })
		inA := slices.DeleteFunc(got, func(s string) bool { return s[:2] == "b " })
		if want := []string{"b MessageText 2", "b MessageText 4"}; !slices.Equal(inB, want) {
			t.Errorf("in b: %q", inB)
		}
		short := "/a MessageText " + kit.Short(long)
		if want := []string{"/a MessageText 1", "/a MessageBinary 3", "/a MessageText 4", "/a MessageText ", short, short}; !slices.Equal(inA, want) {
			t.Errorf("in /a: %q", inA)
		}
		if n := longest.Load(); n != 200_000 {
			t.Errorf("the longest has %d bytes", n)
		}
		client.ExpectText("1")
		client.ExpectBinary([]byte("3"))
		client.ExpectText("4", "to all", "to one", "", long)
	})
}

// A slow OnRoomMessage holds nobody up. What waits for it is bounded, and it is told where messages are
// missing.
func TestSlowListenerIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		proceed := make(chan struct{})
		seen := &kit.Observer{Sums: map[string]float64{}}
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(6, 1<<20), wsroom.WithObserver(seen),
			wsroom.OnRoomClose(func(room string) { j.note("close") }),
			wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) {
				<-proceed
				if typ == 0 && p == nil {
					j.note("gap")
				} else {
					j.note("%s", p)
				}
			})))
		client := wsroomtest.Dial(t, hub, "/a")
		send := func(from, to int) {
			for i := from; i <= to; i++ {
				hub.SendTextToRoom("/a", fmt.Sprint(i))
				client.ExpectText(fmt.Sprint(i))
				synctest.Wait()
			}
		}
		send(1, 11) // 1 is being handled, 2 to 7 wait
		for range 2 {
			proceed <- struct{}{}
		}
		synctest.Wait()
		send(12, 12) // there is space, but more than half still wait
		for range 3 {
			proceed <- struct{}{}
		}
		synctest.Wait()
		send(13, 14)
		if n := hub.Stats().Dropped; n != 0 {
			t.Errorf("%d dropped before it was told", n)
		}
		client.Close(websocket.StatusNormalClosure, "")
		close(proceed)
		synctest.Wait()
		if got, want := j.take(), "1, 2, 3, 4, 5, 6, 7, gap, 13, 14, close"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if n, m := hub.Stats().Dropped, seen.Sum("dropped room"); n != 5 || m != 5 {
			t.Errorf("%d were dropped, %v counted; want 5", n, m)
		}
	})
}

// The bytes that wait are bounded, too; a message of any size is taken when nothing waits.
func TestListenersBytesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		proceed := make(chan struct{})
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(100, 1000),
			wsroom.OnRoomMessage(func(_ string, _ websocket.MessageType, p []byte) { <-proceed; sizes = append(sizes, len(p)) })))
		client := wsroomtest.Dial(t, hub, "/a")
		for _, n := range []int{1, 5000, 100, 2} {
			hub.SendTextToRoom("/a", strings.Repeat("x", n))
			client.NextText()
			synctest.Wait()
		}
		for range 3 {
			proceed <- struct{}{}
		}
		synctest.Wait()
		for range 4 { // nothing waits any more
			hub.SendTextToRoom("/a", strings.Repeat("x", 400))
			client.NextText()
			synctest.Wait()
		}
		close(proceed)
		synctest.Wait()
		if !slices.Equal(sizes, []int{1, 5000, 0, 400, 400, 400, 0}) {
			t.Errorf("got %v bytes", sizes)
		}
	})
}

// A callback of a room that panics, or ends its goroutine, is logged, and the room goes on.
func TestPanicsOfRoomsEndNothing(t *testing.T) {
	for what, fault := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		synctest.Test(t, func(t *testing.T) {
			var j journal
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0),
				wsroom.OnRoomOpen(func(room string) { j.note("open %s", room); fault() }),
				wsroom.OnRoomClose(func(room string) { j.note("close %s", room); fault() }),
				wsroom.OnRoomMessage(func(_ string, _ websocket.MessageType, p []byte) { j.note("%s", p); fault() })))
			for range 2 {
				client := wsroomtest.Dial(t, hub, "/a")
				for _, text := range []string{"1", "2"} {
					hub.SendTextToRoom("/a", text)
					client.ExpectText(text)
				}
				synctest.Wait()
				client.Close(websocket.StatusNormalClosure, "")
				synctest.Wait()
				if got, want := j.take(), "open /a, 1, 2, close /a"; got != want {
					t.Errorf("%s: got %s", what, got)
				}
			}
		})
	}
}

// Without OnRoomClose, too, a room's messages are given one at a time, whoever comes and goes meanwhile.
func TestRoomsMessagesComeOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0),
			wsroom.OnRoomMessage(func(_ string, _ websocket.MessageType, p []byte) {
				j.note("begin %s", p)
				time.Sleep(time.Second)
				j.note("end %s", p)
			})))
		for i := range 3 {
			client := wsroomtest.Dial(t, hub, "/a")
			hub.SendTextToRoom("/a", fmt.Sprint(i))
			client.ExpectText(fmt.Sprint(i))
			client.Close(websocket.StatusNormalClosure, "")
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		if got, want := j.take(), "begin 0, end 0, begin 1, end 1, begin 2, end 2"; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	})
}

// Shutdown waits for the rooms' callbacks.
func TestShutdownWaitsForRooms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		hub := wsroom.New(wsroom.WithHeartbeat(0, 0),
			wsroom.OnRoomClose(func(string) { time.Sleep(time.Second); j.note("closed") }),
			wsroom.OnRoomMessage(func(string, websocket.MessageType, []byte) { time.Sleep(time.Second); j.note("heard") }))
		client := wsroomtest.Dial(t, hub, "/a")
		hub.SendTextToRoom("/a", "x")
		client.ExpectText("x")
		kit.Shutdown(t, hub)
		if got, want := j.take(), "heard, closed"; got != want {
			t.Errorf("got %q", got)
		}
		client.ExpectClose(websocket.StatusServiceRestart)
	})
}

// Under a crowd that comes and goes, no two calls for a room run side by side, messages come only while it is
// open, and each open has its close. With a broker that holds for each node, whatever another one asks for.
func TestRoomsCallbacksAreNeverSideBySide(t *testing.T) {
	t.Run("one node", func(t *testing.T) { crowdRooms(t, nil) })
	t.Run("two nodes", func(t *testing.T) {
		server := brokertest.NewMemory()
		crowdRooms(t, wsroomtest.CheckHub(t, wsroom.New(wsroom.WithBroker(server.Open()))), wsroom.WithBroker(server.Open()))
	})
}

// crowdRooms has a crowd come and go at a hub. other is another node; nil: there is none.
func crowdRooms(t *testing.T, other *wsroom.Hub, opts ...wsroom.Option) {
	type state struct {
		called, open   atomic.Bool
		opened, closed atomic.Int32
	}
	names := []string{"r0", "r1", "r2", "/home"}
	rooms := map[string]*state{}
	for _, name := range names {
		rooms[name] = new(state)
	}
	var hub *wsroom.Hub
	within := func(room string, wantOpen bool) (done func()) {
		s := rooms[room]
		if !s.called.CompareAndSwap(false, true) {
			t.Errorf("%s: two calls side by side", room)
		}
		if s.open.Load() != wantOpen {
			t.Errorf("%s: open is %v", room, !wantOpen)
		}
		runtime.Gosched()
		return func() { s.called.Store(false) }
	}
	member := func(_ *wsroom.Conn, room string) {
		if !rooms[room].open.Load() {
			t.Errorf("%s: OnJoin or OnLeave in a room that isn't open", room)
		}
	}
	hub = wsroom.New(append(opts,
		wsroom.OnRoomOpen(func(room string) {
			defer within(room, false)()
			if len(hub.Members(room)) > 0 {
				t.Errorf("%s has members before it opens", room)
			}
			rooms[room].open.Store(true)
			rooms[room].opened.Add(1)
		}),
		wsroom.OnRoomClose(func(room string) {
			defer within(room, true)()
			rooms[room].open.Store(false)
			rooms[room].closed.Add(1)
		}),
		wsroom.OnRoomMessage(func(room string, _ websocket.MessageType, _ []byte) { within(room, true)() }),
		wsroom.OnJoin(member), wsroom.OnLeave(member))...)
	if other == nil {
		other = hub
	}
	var crowd sync.WaitGroup
	for i := range 8 {
		crowd.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for range 20 {
				client := wsroomtest.Dial(t, hub, "/home")
				for range 20 {
					c := hub.Members("/home")
					if len(c) == 0 {
						continue
					}
					room, one := names[rnd.IntN(3)], c[rnd.IntN(len(c))]
					switch rnd.IntN(7) {
					case 0:
						one.Join(names[:3]...)
					case 1:
						one.Join(room)
					case 2:
						one.Leave(room)
					case 3:
						other.ToConn(one.ID()).Join(room)
					case 4:
						other.ToConn(one.ID()).Leave(room)
					case 5:
						other.SendTextToRoom(room, "y")
					default:
						one.SendTextToRoom(room, "x")
					}
				}
				client.CloseNow()
			}
		})
	}
	crowd.Wait()
	kit.Shutdown(t, hub)
	for name, s := range rooms {
		if opened, closed := s.opened.Load(), s.closed.Load(); s.open.Load() || opened == 0 || opened != closed {
			t.Errorf("%s: %d opened, %d closed", name, opened, closed)
		}
	}
}
