package resume_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// client is a client of either kind.
type client interface {
	say(text string)
	texts(room string) []string // what it got of the room, and of its own; a plain client doesn't tell them apart
	count(room string) int      // of the room
	until(what string, ok func() bool)
	cut()
}

func (c *v1) texts(room string) []string {
	var list []string
	for _, event := range c.log {
		if r, text, ok := strings.Cut(event, ":"); ok && (r == room || r == "") {
			list = append(list, text)
		}
	}
	return list
}

// plain is a client that speaks no protocol.
type plain struct {
	*v1
	list []string
}

func (c *v1) count(room string) int { return len(c.got[room]) }

func (p *plain) texts(string) []string { return p.list }

func (p *plain) count(string) int { return len(p.list) }

func (p *plain) until(what string, ok func() bool) {
	p.t.Helper()
	for !ok() {
		ctx, cancel := context.WithTimeout(context.Background(), kit.Patience)
		_, text, err := p.ws.Read(ctx)
		cancel()
		if err != nil {
			p.t.Fatalf("waited in vain until %s: %v; got %q", what, err, p.list)
		}
		p.list = append(p.list, string(text))
	}
}

// kinds runs a test with clients of both kinds, with and without a history.
func kinds(t *testing.T, test func(t *testing.T, dial func(s *server, path string) client, opts []wsroom.Option)) {
	for _, speaks := range []bool{true, false} {
		for _, history := range []bool{true, false} {
			t.Run(fmt.Sprintf("v1 %t history %t", speaks, history), func(t *testing.T) {
				var opts []wsroom.Option
				if history {
					opts = append(opts, wsroom.WithHistory(1000, 1<<20, time.Minute))
				}
				test(t, func(s *server, path string) client {
					c := newV1(t, path)
					offer := []string{"none"}
					if speaks {
						offer = nil
					}
					if err := c.dial(s, -1, offer...); err != nil {
						t.Fatal(err)
					}
					t.Cleanup(c.cut)
					if speaks {
						return c
					}
					return &plain{v1: c}
				}, opts)
			})
		}
	}
}

// While others send as fast as they can, a client that enters a room gets the snapshot first and then each message
// that follows it: none is missing, and none comes that the snapshot has. So it is in OnConnect, and for rooms that
// are entered later, or within each other.
func TestEnterAtFullSpeed(t *testing.T) {
	kinds(t, func(t *testing.T, dial func(*server, string) client, opts []wsroom.Option) {
		st := &state{last: map[string]int{}}
		enter := func(c *wsroom.Conn, room string) error {
			return c.Enter(room, func(bool) error { return st.snapshot(c, room) })
		}
		hub := wsroomtest.CheckHub(t, wsroom.New(append(opts, wsroom.WithSendQueue(100_000, 1<<30),
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				if err := st.snapshot(c, "/a"); err != nil {
					return err
				}
				if err := enter(c, "b"); err != nil {
					return err
				}
				return c.Enter("c", func(bool) error { // the room d is entered within c
					if err := enter(c, "d"); err != nil {
						return err
					}
					return st.snapshot(c, "c")
				})
			}),
			wsroom.OnText(func(c *wsroom.Conn, room string, err error) {
				if err != nil {
					return
				}
				if verb, rest, _ := strings.Cut(room, " "); verb == "leave" {
					_ = c.Leave(rest)
				} else {
					_ = enter(c, room)
				}
			}))...))
		s := serve(t, hub)

		stop := make(chan struct{})
		var sending sync.WaitGroup
		rooms := []string{"/a", "b", "c", "d", "e"}
		send := func(room, n string) error { return hub.SendTextToRoom(room, room+" "+n) }
		for i := range 2 {
			sending.Go(func() {
				for n := i; ; n++ {
					select {
					case <-stop:
						return
					default:
						for _, c := range hub.Members("/a") { // not more than its queue takes
							for waiting, _ := c.Queued(); waiting > 1000; waiting, _ = c.Queued() {
								runtime.Gosched()
							}
						}
						_ = st.send(send, rooms[n%5])
					}
				}
			})
		}

		c := dial(s, "/a")
		c.until("it has something of four rooms", func() bool { return c.count("/a") > 50 })
		for range 5 {
			c.say("e")
			n := c.count("e")
			c.until("it has something of the fifth", func() bool { return c.count("e") > n+200 })
			c.say("leave e")
		}
		close(stop)
		c.cut() // so that nobody waits for its queue
		sending.Wait()

		// In each room the snapshot says where it begins.
		last := map[string]int{}
		var events []string
		if v, ok := c.(*v1); ok {
			for _, event := range v.log {
				if _, text, ok := strings.Cut(event, ":"); ok {
					events = append(events, text)
				}
			}
		} else {
			events = c.texts("")
		}
		snapshots := 0
		for i, event := range events {
			fields := strings.Fields(event)
			n, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil {
				t.Fatalf("%q", event)
			}
			if fields[0] == "snapshot" {
				last[fields[1]] = n
				snapshots++
				continue
			}
			before, entered := last[fields[0]]
			if !entered || n != before+1 {
				t.Fatalf("%q comes at %d, entered %t; …%q", event, before, entered, events[max(0, i-10):i+1])
			}
			last[fields[0]] = n
		}
		if snapshots < 2 {
			t.Errorf("%d snapshots", snapshots)
		}
	})
}

// Where welcome fails, in whichever way, the client isn't in the room, and gets none of its messages. OnJoin and
// OnLeave are called in turn, and nobody is present.
func TestWelcomeThatFails(t *testing.T) {
	for _, how := range []string{"error", "panic", "goexit"} {
		t.Run(how, func(t *testing.T) {
			kinds(t, func(t *testing.T, dial func(*server, string) client, opts []wsroom.Option) {
				refused := errors.New("not today")
				var mu sync.Mutex
				var events []string
				note := func(event string) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, event)
				}
				results := make(chan error, 10)
				var hub *wsroom.Hub
				enter := func(c *wsroom.Conn, how string) error {
					return c.Enter("b", func(bool) error {
						hub.SendTextToRoom("b", "secret")
						hub.To("b", "/a").SendText("secret, too")
						hub.To("/a", "b").SendText("to both")
						c.SendText("welcome")
						switch how {
						case "panic":
							panic("in welcome")
						case "goexit":
							runtime.Goexit()
						case "error":
							return refused
						}
						return nil
					})
				}
				hub = wsroomtest.CheckHub(t, wsroom.New(append(opts, wsroom.WithIdentity(func(*http.Request) string { return "me" }),
					wsroom.WithPresenceGrace(0),
					wsroom.OnJoin(func(_ *wsroom.Conn, room string) { note("join " + room) }),
					wsroom.OnLeave(func(_ *wsroom.Conn, room string) { note("leave " + room) }),
					wsroom.OnText(func(c *wsroom.Conn, how string, err error) {
						if err != nil {
							return
						}
						go func() { // so that a panic ends no callback
							err := errors.New("it didn't return")
							defer func() { _ = recover(); results <- err }()
							err = enter(c, how)
						}()
					}))...))
				s := serve(t, hub)
				c := dial(s, "/a")
				c.say(how)
				err := kit.Await(t, results, "Enter")
				if how == "error" && !errors.Is(err, refused) {
					t.Errorf("it returns %v", err)
				}
				if conn := kit.Member(t, hub, "/a"); len(conn.Rooms()) != 1 {
					t.Errorf("it is in %q", conn.Rooms())
				}
				hub.SendTextToRoom("b", "later")
				hub.SendTextToRoom("/a", "end")
				c.until("the end comes", func() bool { return slices.Contains(c.texts("/a"), "end") })
				if want := []string{"welcome", "to both", "end"}; !slices.Equal(c.texts("/a"), want) {
					t.Errorf("got %q, want %q", c.texts("/a"), want)
				}
				kit.Until(t, "nobody is present", func() bool {
					present, _ := hub.Presence(context.Background(), "b")
					return len(present) == 0
				})

				c.say("fine") // it may enter then
				if err := kit.Await(t, results, "Enter"); err != nil {
					t.Error(err)
				}
				hub.SendTextToRoom("b", "b's")
				hub.SendTextToRoom("/a", "end 2")
				c.until("the end comes", func() bool { return slices.Contains(c.texts("/a"), "end 2") })
				kit.Until(t, "the events are reported", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return len(events) == 4
				})
				if want := []string{"join /a", "join b", "leave b", "join b"}; !slices.Equal(events, want) {
					t.Errorf("events %q, want %q", events, want)
				}
			})
		})
	}
}

// A welcome that fails in OnConnect, and succeeds when it is tried again there, leaves the client in the room.
func TestWelcomeIsTriedAgain(t *testing.T) {
	kinds(t, func(t *testing.T, dial func(*server, string) client, opts []wsroom.Option) {
		var hub *wsroom.Hub
		hub = wsroomtest.CheckHub(t, wsroom.New(append(opts, wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			for try := range 3 {
				err := c.Enter("b", func(bool) error {
					c.SendText(fmt.Sprint("try ", try))
					hub.SendTextToRoom("b", fmt.Sprint("message ", try))
					if try < 2 {
						return errors.New("not yet")
					}
					return nil
				})
				if (err == nil) != (try == 2) {
					t.Errorf("try %d: %v", try, err)
				}
			}
			return nil
		}))...))
		c := dial(serve(t, hub), "/a")
		c.until("it has all", func() bool { return slices.Contains(c.texts("b"), "message 2") })
		if want := []string{"try 0", "try 1", "try 2", "message 2"}; !slices.Equal(c.texts("b"), want) {
			t.Errorf("got %q, want %q", c.texts("b"), want)
		}
		hub.SendTextToRoom("b", "live")
		c.until("it is in the room", func() bool { return slices.Contains(c.texts("b"), "live") })
	})
}

// A room that is joined, left and joined again in OnConnect is one that the client is in.
func TestJoinedAgainInOnConnect(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHistory(10, 1<<20, time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			for i := range 3 {
				c.Join("b")
				c.SendTextToRoom("b", fmt.Sprint(i))
				c.Leave("b")
			}
			return c.Join("b")
		})))
	s := serve(t, hub)
	c := newV1(t, "/a")
	c.connect(s)
	hub.SendTextToRoom("b", "live")
	c.until("it is in the room", func() bool { return slices.Contains(c.got["b"], "live") })
	if want := []string{"0", "1", "2", "live"}; !slices.Equal(c.got["b"], want) || len(c.gaps) > 0 {
		t.Errorf("got %q, want %q, gaps %v", c.got["b"], want, c.gaps)
	}
	c.cut()
	hub.SendTextToRoom("b", "missed")
	c.connect(s)
	c.until("it has what it missed", func() bool { return slices.Contains(c.got["b"], "missed") })
	c.cut()
}

// Two goroutines that enter rooms for one client do so one after the other. The end of the connection lets both go.
func TestTwoEnterAtOnce(t *testing.T) {
	kinds(t, func(t *testing.T, dial func(*server, string) client, opts []wsroom.Option) {
		hub := wsroomtest.CheckHub(t, wsroom.New(opts...))
		c := dial(serve(t, hub), "/a")
		kit.Until(t, "it is there", func() bool { return len(hub.Members("/a")) == 1 })
		conn := hub.Members("/a")[0]
		var inside, most atomic.Int32
		var entering sync.WaitGroup
		for i := range 8 {
			entering.Go(func() {
				for j := range 20 {
					room := fmt.Sprint("room ", i, " ", j)
					err := conn.Enter(room, func(bool) error {
						most.Store(max(most.Load(), inside.Add(1)))
						defer inside.Add(-1)
						conn.SendText("welcome to " + room)
						hub.SendTextToRoom(room, "in "+room)
						runtime.Gosched()
						return conn.SendText("that was " + room)
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		all := []string{}
		c.until("all has come", func() bool {
			if v, ok := c.(*v1); ok {
				all = all[:0]
				for _, event := range v.log {
					if _, text, ok := strings.Cut(event, ":"); ok {
						all = append(all, text)
					}
				}
			} else {
				all = c.texts("")
			}
			return len(all) == 3*8*20
		})
		entering.Wait()
		for i := 0; i < len(all); i += 3 {
			room := strings.TrimPrefix(all[i], "welcome to ")
			if !slices.Equal(all[i+1:i+3], []string{"that was " + room, "in " + room}) {
				t.Fatalf("%q", all[i:i+3])
			}
		}
		if most.Load() != 1 {
			t.Errorf("%d at once", most.Load())
		}

		begun, results := make(chan struct{}), make(chan error, 2)
		go func() {
			results <- conn.Enter("x", func(bool) error { close(begun); <-conn.Context().Done(); return conn.SendText("late") })
		}()
		<-begun
		go func() { results <- conn.Enter("y", func(bool) error { t.Error("welcome is called"); return nil }) }()
		c.cut()
		for range 2 {
			if err := kit.Await(t, results, "Enter"); !errors.Is(err, wsroom.ErrClosed) {
				t.Errorf("it returns %v", err)
			}
		}
		kit.NothingLeft(t, hub)
	})
}

// Enter of a room that the connection is in does nothing. With a broker that is away it returns ErrOutage, and the
// connection isn't in the room.
func TestEnterThatIsnt(t *testing.T) {
	memory := brokertest.NewMemory()
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key), wsroom.WithHistory(10, 1<<20, time.Minute),
		wsroom.WithBrokerBuffer(50*time.Millisecond, 1<<20)))
	c := newV1(t, "/a")
	c.connect(serve(t, hub))
	conn := kit.Member(t, hub, "/a")
	fails := func(bool) error { t.Error("welcome is called"); return errors.New("no") }
	if err := conn.Enter("/a", fails); err != nil {
		t.Errorf("the room that it is in: %v", err)
	}
	if err := conn.Enter("", fails); err == nil {
		t.Error("a room can't be called that")
	}
	memory.Down()
	if err := conn.Enter("b", fails); !errors.Is(err, wsroom.ErrOutage) {
		t.Errorf("the broker is away: %v", err)
	}
	memory.Up()
	if rooms := conn.Rooms(); len(rooms) != 1 {
		t.Errorf("it is in %q", rooms)
	}
	conn.DropHeld()
	if n := conn.Rewind("/a", 10); n != 0 {
		t.Errorf("Rewind outside: %d", n)
	}
	kit.Until(t, "the broker takes a message", func() bool { return hub.SendTextToRoom("/a", "goes on") == nil })
	c.until("it goes on", func() bool { return slices.Contains(c.got["/a"], "goes on") })
	c.cut()
}

// Rewind sends the last messages of a room, as many as are kept, before those that are held back. Only the goroutine
// of OnConnect or welcome can.
func TestRewind(t *testing.T) {
	kinds(t, func(t *testing.T, dial func(*server, string) client, opts []wsroom.Option) {
		var hub *wsroom.Hub
		counts := make(chan int, 10)
		hub = wsroomtest.CheckHub(t, wsroom.New(append(opts, wsroom.WithSendQueue(20, 1<<20),
			wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
				if r.URL.RawQuery == "" {
					return nil
				}
				hub.SendTextToRoom("/a", "held "+r.URL.RawQuery)
				hub.To("/a").Except(c).SendText("left out")
				n, _ := strconv.Atoi(r.URL.RawQuery)
				counts <- c.Rewind("/a", n)
				done := make(chan struct{})
				go func() { defer close(done); counts <- c.Rewind("/a", n) }()
				<-done
				counts <- c.Rewind("elsewhere", n)
				return nil
			}))...))
		s := serve(t, hub)
		history := len(opts) > 0
		stays := dial(s, "/a")
		var all []string
		for i := range 50 {
			all = append(all, fmt.Sprint(i))
			hub.SendTextToRoom("/a", all[i])
			stays.until("it comes", func() bool { return len(stays.texts("/a")) == i+1 })
		}
		for _, n := range []int{0, -1, 3, 50, 1000} {
			c := dial(s, fmt.Sprint("/a?", n))
			var want []string
			if history {
				want = slices.Clone(all[len(all)-min(len(all), max(n, 0)):])
			}
			held, live := fmt.Sprint("held ", n), fmt.Sprint("live ", n)
			c.until("it has all", func() bool { return slices.Contains(c.texts("/a"), held) })
			hub.SendTextToRoom("/a", live)
			c.until("it has all", func() bool { return slices.Contains(c.texts("/a"), live) })
			if got := c.texts("/a"); !slices.Equal(got, append(want, held, live)) {
				t.Errorf("%d: got %q", n, got)
			}
			for i, want := range []int{len(want), 0, 0} {
				if got := kit.Await(t, counts, "Rewind"); got != want {
					t.Errorf("%d: Rewind %d returns %d, want %d", n, i, got, want)
				}
			}
			all = append(all, held, "left out", live)
			c.cut()
		}
	})
}

// In a history with marks Rewind sends messages only.
func TestRewindSendsNoMarks(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithBroker(brokertest.NewMemory().Open()), wsroom.WithResumeKey(key),
		wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if n := c.Rewind("/a", 10); n > 0 && n != 1 {
				t.Errorf("%d messages", n)
			}
			return nil
		})))
	s := serve(t, hub)
	first := newV1(t, "/a")
	first.connect(s) // the end of the room has no position, and gets a mark
	first.until("it has a position", func() bool { return first.rooms["/a"].at != "" })
	hub.SendTextToRoom("/a", "one")
	first.await("/a", 1)
	c := newV1(t, "/a")
	c.connect(s)
	hub.SendTextToRoom("/a", "two")
	c.await("/a", 1)
	if !slices.Equal(c.got[""], []string{"one"}) || !slices.Equal(c.got["/a"], []string{"two"}) {
		t.Errorf("got %q", c.got)
	}
	first.cut()
	c.cut()
}

// A client that has the hub enter and leave a room all the time, and doesn't read, is too slow in the end.
func TestEnteringWithoutReadingIsTooSlow(t *testing.T) {
	for _, policy := range []wsroom.Overflow{wsroom.CloseSlow, wsroom.DropOldest, wsroom.DropNewest} {
		causes := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.WithOverflow(policy),
			wsroom.WithSendQueue(100, 1<<20), wsroom.WithWriteTimeout(time.Minute),
			wsroom.OnClose(func(_ *wsroom.Conn, err error) { causes <- err })))
		c := newV1(t, "/a")
		c.connect(serve(t, hub))
		conn := kit.Member(t, hub, "/a")
		rounds := 0
		for ; rounds < 100_000; rounds++ {
			var err error
			if rounds%2 == 0 {
				err = conn.Join("b")
			} else {
				err = conn.Enter("b", func(bool) error { return nil })
			}
			if err != nil || conn.Leave("b") != nil {
				break
			}
		}
		if rounds > 20_000 {
			t.Errorf("policy %d: %d rounds", policy, rounds)
		}
		if err := kit.Await(t, causes, "the end"); !errors.Is(err, wsroom.ErrSlow) {
			t.Errorf("policy %d: it ends with %v", policy, err)
		}
		c.cut()
	}
}
