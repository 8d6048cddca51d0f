package wsroom_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// census is nodes of hubs with members, and what their callbacks have said.
type census struct {
	t    *testing.T
	hubs []*wsroom.Hub
	news chan string
}

// takeCensus starts n hubs. Identities are the query's "as".
func takeCensus(t *testing.T, n int, opts ...wsroom.Option) *census {
	c := &census{t: t, news: make(chan string, 1000)}
	for i := range n {
		c.hubs = append(c.hubs, nodes(t, newWire(), 1, append(opts,
			wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Query().Get("as") }),
			wsroom.OnMemberJoin(func(room string, m wsroom.Member) { c.news <- fmt.Sprint(i, " +", m.Identity, " ", room) }),
			wsroom.OnMemberLeave(func(room string, m wsroom.Member) { c.news <- fmt.Sprint(i, " -", m.Identity, " ", room) }))...)...)
	}
	return c
}

// want checks what callbacks have said since it was called last.
func (c *census) want(when string, want ...string) {
	c.t.Helper()
	synctest.Wait()
	var got []string
	for len(c.news) > 0 {
		got = append(got, <-c.news)
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		c.t.Errorf("%s: callbacks said %q, want %q", when, got, want)
	}
}

// present checks who is in the room /a, as every hub sees it.
func (c *census) present(when string, want ...string) {
	c.t.Helper()
	for i, hub := range c.hubs {
		members, err := hub.Presence(c.t.Context(), "/a")
		if err != nil {
			c.t.Errorf("%s: %v", when, err)
		}
		var got []string
		for _, m := range members {
			got = append(got, m.Identity)
		}
		if !slices.Equal(got, want) {
			c.t.Errorf("%s: node %d sees %q, want %q", when, i, got, want)
		}
	}
}

// Presence counts identities, not sockets, and a reload makes no flicker.
func TestPresenceCountsIdentities(t *testing.T) {
	for name, store := range map[string]bool{"alone": false, "with a store": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opts []wsroom.Option
				if store {
					opts = append(opts, wsroom.WithPresenceStore(brokertest.NewMemory()))
				}
				c := takeCensus(t, 1, opts...)
				hub := c.hubs[0]
				c.present("before")
				ann := wsroomtest.Dial(t, hub, "/a?as=ann")
				c.present("at once", "ann")
				c.want("ann came", "0 +ann /a")
				second, bob, nobody := wsroomtest.Dial(t, hub, "/a?as=ann"), wsroomtest.Dial(t, hub, "/a?as=bob"), wsroomtest.Dial(t, hub, "/a")
				c.want("ann's second, bob and somebody without a name", "0 +bob /a")
				c.present("three", "ann", "bob")
				if id := hub.Members("/a"); len(id) != 4 {
					t.Errorf("%d members", len(id))
				}
				ann.CloseNow()
				nobody.CloseNow()
				time.Sleep(time.Minute)
				c.want("one of ann's has left")
				second.CloseNow()
				time.Sleep(4 * time.Second)
				c.present("within the grace", "ann", "bob")
				ann = wsroomtest.Dial(t, hub, "/a?as=ann")
				time.Sleep(time.Minute)
				c.want("ann has reloaded")
				ann.CloseNow()
				time.Sleep(6 * time.Second)
				c.want("ann has left", "0 -ann /a")
				c.present("only bob", "bob")
				conn := member(t, hub, "/a")
				conn.Join("/b")
				conn.Leave("/a")
				time.Sleep(6 * time.Second)
				c.want("bob has gone elsewhere", "0 +bob /b", "0 -bob /a")
				if conn.Identity() != "bob" {
					t.Errorf("identity %q", conn.Identity())
				}
				bob.CloseNow()
				shutdown(t, hub)
				if store {
					c.want("shut down: others would tell")
				} else {
					c.want("shut down", "0 -bob /b")
				}
			})
		})
	}
}

func TestPresenceAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := brokertest.NewMemory()
		c := takeCensus(t, 3, wsroom.WithPresenceStore(store))
		a0, a1 := wsroomtest.Dial(t, c.hubs[0], "/a?as=ann"), wsroomtest.Dial(t, c.hubs[1], "/a?as=ann")
		c.want("ann by way of two nodes", "0 +ann /a")
		wsroomtest.Dial(t, c.hubs[2], "/a?as=bob")
		c.want("bob", "2 +bob /a")
		c.present("both", "ann", "bob")
		a0.CloseNow()
		time.Sleep(time.Minute)
		c.want("one of ann's has left")
		a1.CloseNow()
		time.Sleep(6 * time.Second)
		c.want("ann has left", "1 -ann /a")
		c.present("bob", "bob")

		cat := wsroomtest.Dial(t, c.hubs[0], "/a?as=cat")
		dog := wsroomtest.Dial(t, c.hubs[0], "/a?as=dog")
		c.want("two more", "0 +cat /a", "0 +dog /a")
		shutdown(t, c.hubs[0])
		cat.ExpectClose(1001)
		dog.ExpectClose(1001)
		wsroomtest.Dial(t, c.hubs[1], "/a?as=cat")
		c.present("right after a shutdown", "bob", "cat", "dog")
		time.Sleep(16 * time.Second) // the grace, and until somebody renews
		synctest.Wait()
		var got []string
		for len(c.news) > 0 {
			got = append(got, <-c.news)
		}
		if len(got) != 1 || got[0][1:] != " -dog /a" {
			t.Errorf("after a shutdown: %q, want that dog has left, once", got)
		}
		c.present("in the end", "bob", "cat")
	})
}

// Without a grace, those of a node that is shut down have left at once, and it says so.
func TestPresenceWithoutGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := takeCensus(t, 2, wsroom.WithPresenceStore(brokertest.NewMemory()), wsroom.WithPresenceGrace(0))
		ann := wsroomtest.Dial(t, c.hubs[0], "/a?as=ann")
		wsroomtest.Dial(t, c.hubs[0], "/a?as=bob")
		wsroomtest.Dial(t, c.hubs[1], "/a?as=bob")
		cat := wsroomtest.Dial(t, c.hubs[1], "/a?as=cat")
		c.want("came", "0 +ann /a", "0 +bob /a", "1 +cat /a")
		cat.CloseNow()
		c.want("cat has left", "1 -cat /a")
		shutdown(t, c.hubs[0])
		ann.ExpectClose(1001)
		c.want("shut down", "0 -ann /a")
		c.present("in the end", "bob")
	})
}

// severed is the store as a node sees it whose line is bad.
type severed struct {
	wsroom.PresenceStore
	cut   atomic.Bool  // calls don't arrive
	deaf  atomic.Bool  // answers don't
	delay atomic.Int64 // of a call, in ns
}

func (s *severed) call(ctx context.Context, f func() error) error {
	select {
	case <-time.After(time.Duration(s.delay.Load())):
	case <-ctx.Done():
		return ctx.Err()
	}
	if s.cut.Load() {
		return errDown
	}
	err := f()
	if s.deaf.Load() {
		return errDown
	}
	return err
}

func (s *severed) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	err = s.call(ctx, func() (err error) {
		first, err = s.PresenceStore.Enter(ctx, room, identity, node)
		return err
	})
	return first, err
}

func (s *severed) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	err = s.call(ctx, func() (err error) {
		last, err = s.PresenceStore.Exit(ctx, room, identity, node)
		return err
	})
	return last, err
}

func (s *severed) Identities(ctx context.Context, room string) (who []string, err error) {
	err = s.call(ctx, func() (err error) {
		who, err = s.PresenceStore.Identities(ctx, room)
		return err
	})
	return who, err
}

func (s *severed) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	err = s.call(ctx, func() (err error) {
		held, left, err = s.PresenceStore.Renew(ctx, node, ttl)
		return err
	})
	return held, left, err
}

// Those of a node that has died, or is cut off, lapse; if it comes back, so do they.
func TestPresenceLapsesWithItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := &severed{PresenceStore: memory}
		cut, well := takeCensus(t, 1, wsroom.WithPresenceStore(store)), takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		for _, name := range []string{"ann", "bob"} {
			wsroomtest.Dial(t, cut.hubs[0], "/a?as="+name)
		}
		synctest.Wait()
		wsroomtest.Dial(t, well.hubs[0], "/a?as=bob")
		cut.want("came", "0 +ann /a", "0 +bob /a")
		well.want("bob was there already")
		store.cut.Store(true)
		if members, err := cut.hubs[0].Presence(t.Context(), "/a"); !errors.Is(err, errDown) || len(members) != 2 {
			t.Errorf("cut off: %v, %v; want those of this node and an error", members, err)
		}
		cat := wsroomtest.Dial(t, cut.hubs[0], "/a?as=cat")
		time.Sleep(20 * time.Second)
		well.present("not yet", "ann", "bob")
		time.Sleep(25 * time.Second)
		well.want("lapsed", "0 -ann /a")
		well.present("lapsed", "bob")
		cat.CloseNow()
		time.Sleep(time.Minute)
		store.cut.Store(false)
		time.Sleep(time.Minute)
		cut.want("back", "0 +ann /a")
		well.want("back")
		well.present("back", "ann", "bob")
		cut.present("back", "ann", "bob")
	})
}

// Whoever finds that a node has died tells of it: a node that has just come, and one that is about to go.
func TestWhoFindsADeadNodeTellsOfIt(t *testing.T) {
	for name, find := range map[string]func(t *testing.T, c *census){
		"coming": func(t *testing.T, c *census) { wsroomtest.Dial(t, c.hubs[0], "/b?as=cat") },
		"going":  func(t *testing.T, c *census) { shutdown(t, c.hubs[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				store := &severed{PresenceStore: memory}
				dead := takeCensus(t, 1, wsroom.WithPresenceStore(store))
				well := takeCensus(t, 1, wsroom.WithPresenceStore(memory))
				wsroomtest.Dial(t, dead.hubs[0], "/a?as=ann")
				synctest.Wait()
				store.cut.Store(true)
				if time.Sleep(25 * time.Second); name == "going" {
					wsroomtest.Dial(t, well.hubs[0], "/b?as=cat")
					well.want("cat", "0 +cat /b")
				}
				time.Sleep(8 * time.Second)
				find(t, well)
				want := []string{"0 +cat /b", "0 -ann /a"}
				if name == "going" {
					want = want[1:]
				}
				well.want(name, want...)
			})
		})
	}
}

// A lease doesn't lapse because there is much to do.
func TestLeaseHoldsWhileTheStoreIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := &severed{PresenceStore: memory}
		busy, idle := takeCensus(t, 1, wsroom.WithPresenceStore(store)), takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		wsroomtest.Dial(t, idle.hubs[0], "/b?as=zoe")
		idle.want("zoe", "0 +zoe /b")
		store.delay.Store(int64(time.Second))
		var want []string
		for i := range 100 {
			wsroomtest.Dial(t, busy.hubs[0], fmt.Sprint("/a?as=", 100+i))
			want = append(want, fmt.Sprint("0 +", 100+i, " /a"))
		}
		time.Sleep(3 * time.Minute)
		busy.want("all, once", want...)
		idle.want("nobody has left")
	})
}

// Who has lapsed is entered again even if the answer that said so was lost.
func TestLostAnswerOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := &severed{PresenceStore: memory}
		cut, well := takeCensus(t, 1, wsroom.WithPresenceStore(store)), takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		wsroomtest.Dial(t, cut.hubs[0], "/a?as=ann")
		synctest.Wait()
		store.cut.Store(true)
		time.Sleep(45 * time.Second)
		store.cut.Store(false)
		store.deaf.Store(true)
		time.Sleep(10 * time.Second)
		store.deaf.Store(false)
		time.Sleep(20 * time.Second)
		well.present("in the end", "ann")
	})
}

// What a store that hangs isn't told doesn't hold up Shutdown.
func TestHangingStoreDoesNotHoldUpShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &severed{PresenceStore: brokertest.NewMemory()}
		c := takeCensus(t, 1, wsroom.WithPresenceStore(store), wsroom.WithPresenceGrace(0))
		for i := range 100 {
			wsroomtest.Dial(t, c.hubs[0], fmt.Sprint("/a?as=", i))
		}
		synctest.Wait()
		store.delay.Store(int64(time.Hour))
		if err := c.hubs[0].To("/a").Close(4000, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		begin := time.Now()
		if err := c.hubs[0].Shutdown(t.Context()); err != nil || time.Since(begin) > 15*time.Second {
			t.Errorf("Shutdown took %v: %v", time.Since(begin), err)
		}
	})
}

// Who came and went while the store was away leaves nothing behind.
func TestVisitorsOfAnOutageAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &severed{PresenceStore: brokertest.NewMemory()}
		store.cut.Store(true)
		hub := nodes(t, newWire(), 1, wsroom.WithPresenceStore(store), wsroom.WithPresenceGrace(0),
			wsroom.WithIdentity(func(r *http.Request) string { return strings.Repeat(r.URL.RawQuery, 1<<19) }))[0]
		heap := func() uint64 {
			var mem runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&mem)
			return mem.HeapAlloc
		}
		before := heap()
		for i := range 90 {
			wsroomtest.Dial(t, hub, "/a?"+fmt.Sprint(10+i)).CloseNow()
		}
		store.cut.Store(false)
		time.Sleep(time.Minute)
		if after := heap(); after > before+40<<20 {
			t.Errorf("%d MiB are kept for visitors who said 90", (after-before)>>20)
		}
	})
}

func TestPanickingMemberCallbackHurtsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joined := make(chan string, 10)
		hub := wsroom.New(wsroom.WithHeartbeat(0, 0),
			wsroom.WithIdentity(func(r *http.Request) string { return r.URL.RawQuery }),
			wsroom.OnMemberJoin(func(_ string, m wsroom.Member) {
				joined <- m.Identity
				if m.Identity == "ann" {
					panic("no")
				}
				runtime.Goexit()
			}))
		defer shutdown(t, hub)
		for _, name := range []string{"ann", "bob", "cat"} {
			c := wsroomtest.Dial(t, hub, "/a?"+name)
			synctest.Wait()
			if got := <-joined; got != name {
				t.Errorf("%q joined, want %q", got, name)
			}
			c.ExpectNothing()
		}
	})
}
