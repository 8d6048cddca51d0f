package sends_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// latest sends the newest value of a key to a room.
func latest(t *testing.T, hub *wsroom.Hub, room, key, text string) {
	t.Helper()
	if err := hub.To(room).Latest(key).SendText(text); err != nil {
		t.Fatal(err)
	}
}

// stalled returns a client of /a that has stopped reading, and has a message before those that wait.
func stalled(t *testing.T, hub *wsroom.Hub) *wsroomtest.Client {
	t.Helper()
	c := wsroomtest.Dial(t, hub, "/a")
	c.Stall()
	hub.SendTextToRoom("/a", strings.Repeat("x", 100<<10)) // the line is full, and the writer waits
	synctest.Wait()
	return c
}

// texts resumes a client of stalled, and returns what has waited for it.
func texts(c *wsroomtest.Client) []string {
	c.Resume()
	return c.Drain()[1:]
}

// A newest value takes the place of the one of its key and room that waits, on one node and with a broker.
func TestLatestReplacesInPlace(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		c := stalled(t, hub)
		member, reader := kit.Member(t, hub, "/a"), wsroomtest.Dial(t, hub, "/a")
		for i := range 3 {
			latest(t, hub, "/a", "ann", fmt.Sprint("ann ", i))
			hub.SendTextToRoom("/a", fmt.Sprint("chat ", i))
			latest(t, hub, "/a", "bob", fmt.Sprint("bob ", i))
			synctest.Wait()
			reader.ExpectText(fmt.Sprint("ann ", i), fmt.Sprint("chat ", i), fmt.Sprint("bob ", i))
		}
		if n, _ := member.Queued(); n != 5 {
			t.Errorf("%d wait", n)
		}
		want := []string{"ann 2", "chat 0", "bob 2", "chat 1", "chat 2"}
		if got := texts(c); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		latest(t, hub, "/a", "ann", "ann 3") // none waits any more
		c.ExpectText("ann 3")
	})
}

// A key belongs to its room. A member of several rooms gets a value of several in the first.
func TestLatestIsOfItsRoom(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		c := stalled(t, hub)
		member := kit.Member(t, hub, "/a")
		if err := member.Join("/b"); err != nil {
			t.Fatal(err)
		}
		for i := range 2 {
			latest(t, hub, "/a", "k", fmt.Sprint("a ", i))
			latest(t, hub, "/b", "k", fmt.Sprint("b ", i))
			if err := hub.To("/c", "/b", "/a").Latest("both").SendText(fmt.Sprint("both ", i)); err != nil {
				t.Error(err)
			}
			if err := hub.To("/a").Except(member).Latest("k").SendText("not for it"); err != nil {
				t.Error(err)
			}
		}
		if err := hub.To("/b").Latest("both").SendText("b alone"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		got := texts(c)
		slices.Sort(got) // with a broker each room has an order of its own
		if want := []string{"a 1", "b 1", "b alone"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The keys of messages to all are their own.
func TestLatestToAll(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		c := stalled(t, hub)
		latest(t, hub, "/a", "k", "room")
		synctest.Wait()
		for i := range 3 {
			if err := hub.ToAll().Latest("k").SendText(fmt.Sprint("all ", i)); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		if got, want := texts(c), []string{"room", "all 2"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// A key has 1 to 255 bytes, of any kind.
func TestLatestChecksItsKey(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		c := wsroomtest.Dial(t, hub, "/a")
		for _, key := range []string{"", strings.Repeat("k", 256)} {
			target := hub.To("/a").Latest(key)
			for what, err := range map[string]error{
				"SendText": target.SendText("x"), "SendJSON": target.SendJSON("x"), "SendBinary": target.SendBinary(nil),
				"to nobody": hub.To().Latest(key).SendText("x"), "to all": hub.ToAll().Latest(key).SendText("x"),
			} {
				if err == nil {
					t.Errorf("%s with a key of %d bytes: no error", what, len(key))
				}
			}
		}
		c.ExpectNothing()
		for _, key := range []string{"k", "\xff\x00", strings.Repeat("k", 255)} {
			latest(t, hub, "/a", key, "x")
			c.ExpectText("x")
		}
		if err := hub.To("/a").Latest("k").Close(4000, ""); err != nil {
			t.Error(err)
		}
		c.ExpectClose(4000)
	})
}

// A replacement needs no further place: a queue of one message takes the newest values of a key for ever,
// whatever the policy is. A larger one that is too many bytes is treated as any message.
func TestReplacingDoesNotOverflow(t *testing.T) {
	for _, policy := range []wsroom.Overflow{wsroom.CloseSlow, wsroom.DropOldest, wsroom.DropNewest} {
		synctest.Test(t, func(t *testing.T) {
			dropped := 0
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithOverflow(policy), wsroom.WithSendQueue(2, 1000), wsroom.WithHeartbeat(0, 0),
				wsroom.OnDrop(func(_ *wsroom.Conn, n int) { dropped += n })))
			c := wsroomtest.Dial(t, hub, "/a")
			c.Stall()
			hub.SendTextToRoom("/a", strings.Repeat("x", 200<<10))
			synctest.Wait()
			latest(t, hub, "/a", "a", strings.Repeat("a", 400))
			latest(t, hub, "/a", "b", strings.Repeat("b", 400))
			for i := range 100 {
				latest(t, hub, "/a", "a", fmt.Sprint("a ", i))
				latest(t, hub, "/a", "b", fmt.Sprint("b ", i))
			}
			if n, bytes := kit.Member(t, hub, "/a").Queued(); n != 2 || bytes > 20 || dropped != 0 || hub.Len() != 1 {
				t.Errorf("policy %d: %d messages and %d bytes wait, %d were dropped, %d connections", policy, n, bytes, dropped, hub.Len())
			}
			latest(t, hub, "/a", "b", strings.Repeat("b", 995))
			if _, bytes := queued(hub); bytes > 1000 {
				t.Errorf("policy %d: %d bytes wait", policy, bytes)
			}
			synctest.Wait()
			if slow := hub.Len() == 0; slow != (policy == wsroom.CloseSlow) || !slow && dropped == 0 {
				t.Errorf("policy %d: too many bytes: ended: %t, dropped: %d", policy, slow, dropped)
			}
			if policy == wsroom.DropOldest {
				c.Resume()
				if got := c.Drain(); len(got[len(got)-1]) != 995 {
					t.Errorf("the last is %.20q", got[len(got)-1])
				}
			}
			c.CloseNow()
		})
	}
}

func queued(hub *wsroom.Hub) (messages int, bytes int64) {
	for _, c := range hub.Members("/a") {
		return c.Queued()
	}
	return 0, 0
}

// What was replaced is counted as such, and isn't reported as a drop.
func TestReplacedMessagesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := &kit.Observer{Sums: map[string]float64{}}
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithObserver(seen), wsroom.WithHeartbeat(0, 0),
			wsroom.OnDrop(func(*wsroom.Conn, int) { t.Error("OnDrop was called") })))
		c := stalled(t, hub)
		for i := range 10 {
			latest(t, hub, "/a", "k", fmt.Sprint(i))
		}
		if got, want := texts(c), []string{"9"}; !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if n := seen.Sum("dropped replaced"); n != 9 || hub.Stats().Dropped != 0 {
			t.Errorf("%v replaced, %d dropped", n, hub.Stats().Dropped)
		}
	})
}

// Whatever is sent, and however much waits: of each key the last one that waited is replaced, and nothing
// else changes.
func TestLatestAgainstAModel(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(1<<20, 1<<30)))
			for range 3 { // the queue fills and empties, and its ring grows
				c := stalled(t, hub)
				type entry struct{ key, text string }
				var want []entry
				for i := range r.IntN(1000) {
					key := fmt.Sprint(r.IntN(1 + r.IntN(50)))
					text := fmt.Sprint(key, " ", i)
					if r.IntN(3) == 0 {
						hub.SendTextToRoom("/a", text)
						want = append(want, entry{"", text})
						continue
					}
					latest(t, hub, "/a", key, text)
					if at := slices.IndexFunc(want, func(e entry) bool { return e.key == key }); at >= 0 {
						want[at].text = text
					} else {
						want = append(want, entry{key, text})
					}
				}
				got := texts(c)
				if len(got) != len(want) {
					t.Fatalf("seed %d: %d came, want %d", seed, len(got), len(want))
				}
				for i, e := range want {
					if got[i] != e.text {
						t.Fatalf("seed %d: message %d is %q, want %q", seed, i, got[i], e.text)
					}
				}
				c.CloseNow()
				synctest.Wait()
			}
		})
	}
}

// Many messages that wait for a client don't make a newest value dearer for the others.
func TestLatestIsNoScan(t *testing.T) {
	const waiting = 50_000
	took := map[int]time.Duration{}
	for _, n := range []int{1, waiting} {
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(2*waiting, 1<<30), wsroom.WithWriteTimeout(time.Minute)))
		c := wsroomtest.Dial(t, hub, "/a")
		c.Stall()
		hub.SendTextToRoom("/a", strings.Repeat("x", 1<<20))
		for i := range n {
			latest(t, hub, "/a", fmt.Sprint(i), "x")
		}
		latest(t, hub, "/a", "0", "x")
		took[n] = time.Hour
		for range 200 {
			begin := time.Now()
			latest(t, hub, "/a", "0", "x")
			took[n] = min(took[n], time.Since(begin))
		}
		c.CloseNow()
	}
	t.Logf("a send takes %v where 1 waits, %v where %d do", took[1], took[waiting], waiting)
	if took[waiting] > 20*took[1] {
		t.Errorf("a send takes %v where 1 waits, %v where %d do", took[1], took[waiting], waiting)
	}
}

// A server that hears its own room hears every value, in the room's order.
func TestRoomMessagesHaveEveryValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var heard []string
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnRoomMessage(func(room string, _ websocket.MessageType, p []byte) {
			heard = append(heard, room+" "+string(p))
		})))
		c := stalled(t, hub)
		for i := range 3 {
			latest(t, hub, "/a", "k", fmt.Sprint(i))
		}
		synctest.Wait()
		if got, want := heard[1:], []string{"/a 0", "/a 1", "/a 2"}; !slices.Equal(got, want) {
			t.Errorf("heard %q", got)
		}
		if got := texts(c); !slices.Equal(got, []string{"2"}) {
			t.Errorf("got %q", got)
		}
	})
}

// Values sent while OnConnect runs are replaced, too, and come after the snapshot.
func TestLatestDuringOnConnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub *wsroom.Hub
		hub = wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			for i := range 3 {
				if err := hub.To("/a").Latest("k").SendText(fmt.Sprint(i)); err != nil {
					return err
				}
			}
			return c.SendText("snapshot")
		})))
		c := wsroomtest.Dial(t, hub, "/a")
		c.ExpectText("snapshot", "2")
		c.ExpectNothing()
	})
}
