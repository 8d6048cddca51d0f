package cluster_test

import (
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
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
		c.hubs = append(c.hubs, kit.Nodes(t, kit.NewWire(), 1, append(opts,
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
				conn := kit.Member(t, hub, "/a")
				conn.Join("/b")
				conn.Leave("/a")
				time.Sleep(6 * time.Second)
				c.want("bob has gone elsewhere", "0 +bob /b", "0 -bob /a")
				if conn.Identity() != "bob" {
					t.Errorf("identity %q", conn.Identity())
				}
				bob.CloseNow()
				kit.Shutdown(t, hub)
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
		a0 := wsroomtest.Dial(t, c.hubs[0], "/a?as=ann")
		c.want("ann by way of a node", "0 +ann /a")
		a1 := wsroomtest.Dial(t, c.hubs[1], "/a?as=ann")
		c.want("ann by way of another one, too")
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
		kit.Shutdown(t, c.hubs[0])
		cat.ExpectClose(1012)
		dog.ExpectClose(1012)
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
		synctest.Wait() // node 0 is first
		wsroomtest.Dial(t, c.hubs[1], "/a?as=bob")
		cat := wsroomtest.Dial(t, c.hubs[1], "/a?as=cat")
		c.want("came", "0 +ann /a", "0 +bob /a", "1 +cat /a")
		cat.CloseNow()
		c.want("cat has left", "1 -cat /a")
		kit.Shutdown(t, c.hubs[0])
		ann.ExpectClose(1012)
		c.want("shut down", "0 -ann /a")
		c.present("in the end", "bob")
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
		defer kit.Shutdown(t, hub)
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
