package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// showing are the options of hubs whose members show the query's "show", if there is one.
func showing(update func(room string, m wsroom.Member)) []wsroom.Option {
	return []wsroom.Option{
		wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Query().Get("as") }),
		wsroom.WithMemberInfo(func(r *http.Request) any {
			if !r.URL.Query().Has("show") {
				return nil
			}
			return r.URL.Query().Get("show")
		}),
		wsroom.OnMemberUpdate(update),
	}
}

// takeShow starts n hubs whose members show something. Its news has updates, too.
func takeShow(t *testing.T, n int, opts ...wsroom.Option) *census {
	c := &census{t: t, news: make(chan string, 1000)}
	for i := range n {
		note := func(sign string) func(string, wsroom.Member) {
			return func(room string, m wsroom.Member) {
				c.news <- strings.TrimSpace(fmt.Sprintf("%d %s%s %s %s", i, sign, m.Identity, room, m.Info))
			}
		}
		all := append(showing(note("=")), wsroom.OnMemberJoin(note("+")), wsroom.OnMemberLeave(note("-")))
		c.hubs = append(c.hubs, kit.Nodes(t, kit.NewWire(), 1, append(all, opts...)...)...)
	}
	return c
}

// shown checks what the room's members show, as every hub sees it.
func (c *census) shown(when, room, want string) {
	c.t.Helper()
	synctest.Wait()
	for i, hub := range c.hubs {
		members, err := hub.Presence(c.t.Context(), room)
		list, _ := json.Marshal(members)
		if got := strings.NewReplacer(`"identity":`, "", `"info":`, "", `"`, "").Replace(string(list)); got != want || err != nil {
			c.t.Errorf("%s: node %d sees %s, %v; want %s", when, i, got, err, want)
		}
	}
}

func set(t *testing.T, c *wsroom.Conn, v any) {
	t.Helper()
	if err := c.SetInfo(v); err != nil {
		t.Errorf("SetInfo: %v", err)
	}
}

// Members show what the newest connection brought or was told to show, on all nodes, until they have left.
func TestMembersShowTheNewestInfo(t *testing.T) {
	for _, nodes := range []int{0, 1, 2} { // 0: one node without a store
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opts []wsroom.Option
				if nodes > 0 {
					opts = append(opts, wsroom.WithPresenceStore(brokertest.NewMemory()))
				}
				c := takeShow(t, max(nodes, 1), opts...)
				here, there := c.hubs[0], c.hubs[len(c.hubs)-1]
				last := len(c.hubs) - 1
				c.shown("before", "/a", "[]")
				first := wsroomtest.Dial(t, here, "/a?as=ann&show=one")
				c.want("ann came", `0 +ann /a "one"`)
				wsroomtest.Dial(t, there, "/a?as=bob")
				c.want("bob came", fmt.Sprint(last, " +bob /a"))
				c.shown("two", "/a", "[{ann,one},{bob}]")

				members := here.Members("/a")
				one := members[slices.IndexFunc(members, func(c *wsroom.Conn) bool { return c.Identity() == "ann" })]
				set(t, one, "two")
				c.want("another info", `0 =ann /a "two"`)
				set(t, one, "two")
				c.want("the same again")
				wsroomtest.Dial(t, there, "/b?as=ann&show=elsewhere")
				c.want("ann in another room", fmt.Sprintf(`%d +ann /b "elsewhere"`, last))
				second := wsroomtest.Dial(t, there, "/a?as=ann&show=three")
				c.want("a second connection", fmt.Sprintf(`%d =ann /a "three"`, last))
				c.shown("a second connection", "/a", "[{ann,three},{bob}]")
				set(t, one, "two")
				c.want("the first one again", `0 =ann /a "two"`)
				c.shown("the first one again", "/a", "[{ann,two},{bob}]")
				c.shown("in the other room", "/b", "[{ann,elsewhere}]")
				wsroomtest.Dial(t, there, "/a?as=ann")
				c.want("a third one, with nothing to show")
				set(t, one, map[string]int{"x": 1})
				c.want("an object", `0 =ann /a {"x":1}`)

				if err := one.Join("/later"); err != nil {
					t.Fatal(err)
				}
				c.want("a room later", `0 +ann /later {"x":1}`)
				first.CloseNow()
				second.CloseNow()
				time.Sleep(time.Minute)
				c.want("two have left", "0 -ann /later")
				c.shown("what they have shown stays", "/a", "[{ann,{x:1}},{bob}]")
				for _, hub := range c.hubs {
					for _, conn := range hub.Members("/a") {
						if conn.Identity() == "ann" {
							conn.Close(4000, "")
						}
					}
				}
				time.Sleep(time.Minute)
				c.want("the third has left", fmt.Sprint(last, " -ann /a"))
				wsroomtest.Dial(t, here, "/a?as=ann")
				c.want("ann is back", "0 +ann /a")
				c.shown("with nothing", "/a", "[{ann},{bob}]")
			})
		})
	}
}

// While a callback runs, updates are merged: with each other, with the join before and the leave after.
func TestWaitingUpdatesAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news, hold := make(chan string, 1000), make(chan bool)
		note := func(sign string) func(string, wsroom.Member) {
			return func(_ string, m wsroom.Member) { news <- sign + m.Identity + string(m.Info); <-hold }
		}
		hub := kit.Nodes(t, kit.NewWire(), 1, append(showing(note("=")), wsroom.WithPresenceGrace(0),
			wsroom.OnMemberJoin(note("+")), wsroom.OnMemberLeave(note("-")))...)[0]
		dial := func(query string) (*wsroomtest.Client, *wsroom.Conn) {
			before := hub.Members("/a")
			c := wsroomtest.Dial(t, hub, "/a?as="+query)
			synctest.Wait()
			now := slices.DeleteFunc(hub.Members("/a"), func(c *wsroom.Conn) bool { return slices.Contains(before, c) })
			return c, now[0]
		}
		shows := func(c *wsroom.Conn, values ...string) {
			for _, v := range values {
				set(t, c, v)
				synctest.Wait()
			}
		}
		leaves := func(clients ...*wsroomtest.Client) {
			for _, c := range clients {
				c.CloseNow()
				synctest.Wait()
			}
		}
		_, ann := dial("ann&show=0") // its callback holds up the rest
		_, bob := dial("bob&show=0")
		cat, catConn := dial("cat&show=0")
		shows(ann, "1", "2", "3") // one update
		shows(bob, "1", "2")      // with the join
		shows(catConn, "1")       // not at all
		leaves(cat)
		close(hold)
		synctest.Wait()

		hold = make(chan bool)
		shows(ann, "4") // its callback holds up the rest
		_, dog := dial("dog&show=0")
		shows(bob, "3")
		bob.Close(4000, "") // a leave
		synctest.Wait()
		shows(dog, "1")
		close(hold)
		synctest.Wait()

		hold = make(chan bool)
		shows(ann, "5")
		dog.Close(4000, "")
		synctest.Wait()
		dial("dog&show=1") // as before
		_, eve := dial("eve&show=0")
		eve.Close(4000, "")
		synctest.Wait()
		ann.Close(4000, "") // goes, and comes back with another info
		synctest.Wait()
		dial("ann&show=6")
		close(hold)
		synctest.Wait()

		close(news)
		var got []string
		for s := range news {
			got = append(got, s)
		}
		want := []string{
			`+ann"0"`, `+bob"2"`, `=ann"3"`,
			`=ann"4"`, `+dog"1"`, `-bob`,
			`=ann"5"`, `=ann"6"`,
		}
		if !slices.Equal(got, want) {
			t.Errorf("callbacks said\n%q, want\n%q", got, want)
		}
		hub.ToAll().Close(4000, "")
	})
}

// What was set while the store was away is shown on all nodes when it is back.
func TestInfoOutlivesAnOutageOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		c := takeShow(t, 2, wsroom.WithPresenceStore(memory))
		wsroomtest.Dial(t, c.hubs[0], "/a?as=ann&show=one")
		c.want("ann came", `0 +ann /a "one"`)
		conn := kit.Member(t, c.hubs[0], "/a")
		memory.Down()
		for i := range 50 {
			set(t, conn, fmt.Sprint(i))
			time.Sleep(100 * time.Millisecond)
		}
		members, err := c.hubs[0].Presence(t.Context(), "/a")
		if err == nil || len(members) != 1 || string(members[0].Info) != `"49"` {
			t.Errorf("while the store is away: %s, %v", members, err)
		}
		memory.Up()
		time.Sleep(5 * time.Second)
		c.shown("it is back", "/a", "[{ann,49}]")
		c.want("one update", `0 =ann /a "49"`)

		memory.Down() // for longer than the lease
		time.Sleep(2 * time.Minute)
		memory.Up()
		time.Sleep(time.Minute)
		c.shown("entered again", "/a", "[{ann,49}]")
	})
}

// gated is a store whose calls wait while it is shut, and fail as told.
type gated struct {
	*brokertest.Memory
	mu            sync.Mutex
	shut          chan struct{} // closed when it opens; nil: it is open
	enters, exits error         // what the next EnterInfo returns, though it takes effect; what the next Exit returns, and has no effect
}

func (g *gated) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

// open lets all calls go on. The next ones fail with these errors.
func (g *gated) open(enters, exits error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enters, g.exits = enters, exits
	close(g.shut)
	g.shut = nil
}

func (g *gated) wait(fault *error) error {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	err := *fault
	*fault = nil
	return err
}

func (g *gated) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	fault := g.wait(&g.enters)
	first, changed, err = g.Memory.EnterInfo(ctx, entries, node)
	return first, changed, errors.Join(err, fault)
}

func (g *gated) Exit(ctx context.Context, room, identity, node string) (bool, error) {
	if err := g.wait(&g.exits); err != nil {
		return false, err
	}
	return g.Memory.Exit(ctx, room, identity, node)
}

// What was set on a node is listed there at once, while the store is slow. It isn't lost when another call fails
// before it, and it is reported when its own call has taken effect and failed.
func TestInfoSurvivesFaultsOfTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &gated{Memory: brokertest.NewMemory()}
		c := takeShow(t, 2, wsroom.WithPresenceStore(store), wsroom.WithPresenceGrace(0))
		wsroomtest.Dial(t, c.hubs[0], "/a?as=ann&show=1")
		ann := kit.Member(t, c.hubs[0], "/a")
		bob := wsroomtest.Dial(t, c.hubs[0], "/b?as=bob")
		c.want("they came", `0 +ann /a "1"`, "0 +bob /b")
		listed := func(when, want string) {
			t.Helper()
			if members, err := c.hubs[0].Presence(t.Context(), "/a"); err != nil || len(members) != 1 || string(members[0].Info) != want {
				t.Errorf("%s: %s, %v", when, members, err)
			}
		}

		store.close()
		set(t, ann, 2)
		synctest.Wait()
		listed("at once", "2")
		store.open(nil, nil)
		c.want("stored", "0 =ann /a 2")

		store.close()
		set(t, ann, 3)
		synctest.Wait() // this call waits; the next one has what follows
		bob.CloseNow()
		time.Sleep(time.Millisecond)
		set(t, ann, 4)
		store.open(nil, kit.ErrDown)
		c.want("an exit failed", "0 =ann /a 3")
		time.Sleep(5 * time.Second)
		c.shown("a call before its own failed", "/a", "[{ann,4}]")
		c.want("an update later", "0 -bob /b", "0 =ann /a 4")

		store.close()
		set(t, ann, 5)
		synctest.Wait()
		store.open(kit.ErrDown, nil)
		time.Sleep(5 * time.Second)
		c.shown("its own call failed", "/a", "[{ann,5}]")
		c.want("an update", "0 =ann /a 5")
	})
}

// Many members enter with what they show in few calls.
func TestManyMembersShowInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := takeShow(t, 2, wsroom.WithPresenceStore(brokertest.NewMemory()))
		for i := range 500 {
			wsroomtest.Dial(t, c.hubs[0], fmt.Sprintf("/a?as=%d&show=%d", i, i))
		}
		time.Sleep(time.Second)
		members, err := c.hubs[1].Presence(t.Context(), "/a")
		if err != nil || len(members) != 500 {
			t.Errorf("%d members, %v", len(members), err)
		}
		for _, m := range members {
			if string(m.Info) != fmt.Sprintf("%q", m.Identity) {
				t.Errorf("%s shows %s", m.Identity, m.Info)
			}
		}
	})
}

// What can't be shown is an error, and changes nothing.
func TestBadInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := takeShow(t, 1)
		hub := c.hubs[0]
		client := wsroomtest.Dial(t, hub, "/a?as=ann&show=fine")
		ann := kit.Member(t, hub, "/a")
		for _, v := range []any{func() {}, strings.Repeat("x", 4095), json.RawMessage("{"), "\xff"} {
			if err := ann.SetInfo(v); err == nil && v != "\xff" { // encoding/json replaces it
				t.Errorf("%.10v is taken", v)
			}
		}
		set(t, ann, strings.Repeat("x", 4094))
		set(t, ann, "fine")
		c.shown("after that", "/a", "[{ann,fine}]")
		wsroomtest.Dial(t, hub, "/b")
		if err := kit.Member(t, hub, "/b").SetInfo("x"); err == nil || !strings.Contains(err.Error(), "no identity") {
			t.Errorf("without an identity: %v", err)
		}
		client.CloseNow()
		synctest.Wait()
		if err := ann.SetInfo("x"); !errors.Is(err, wsroom.ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
		wsroomtest.Refused(t, hub, "/a?as=bob&show="+strings.Repeat("x", 5000), 500)
		time.Sleep(time.Minute)
		c.shown("refused", "/a", "[]")

		odd := kit.Nodes(t, kit.NewWire(), 1, append(showing(func(string, wsroom.Member) {}),
			wsroom.WithJSON(func(any) ([]byte, error) { return []byte("not JSON"), nil }, json.Unmarshal))...)[0]
		wsroomtest.Dial(t, odd, "/a?as=ann")
		if err := kit.Member(t, odd, "/a").SetInfo("x"); err == nil {
			t.Error("what isn't JSON is taken")
		}
	})
}

// A store without EnterInfo and Infos is refused where info is wanted, and serves as ever otherwise.
func TestStoreWithoutInfos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := struct{ wsroom.PresenceStore }{brokertest.NewMemory()}
		for name, opts := range map[string][]wsroom.Option{
			"need a PresenceStore that has EnterInfo and Infos": append(showing(func(string, wsroom.Member) {}), wsroom.WithPresenceStore(store)),
			"no effect without WithIdentity":                    {wsroom.OnMemberUpdate(func(string, wsroom.Member) {})},
		} {
			func() {
				defer func() {
					if p := fmt.Sprint(recover()); !strings.Contains(p, name) {
						t.Errorf("New panics with %s, want %s", p, name)
					}
				}()
				wsroom.New(opts...)
			}()
		}
		hub := kit.Nodes(t, kit.NewWire(), 1, wsroom.WithPresenceStore(store),
			wsroom.WithIdentity(func(*http.Request) string { return "ann" }))[0]
		wsroomtest.Dial(t, hub, "/a")
		if err := kit.Member(t, hub, "/a").SetInfo("x"); err == nil || !strings.Contains(err.Error(), "EnterInfo") {
			t.Errorf("SetInfo: %v", err)
		}
		if members, err := hub.Presence(t.Context(), "/a"); err != nil || len(members) != 1 || members[0].Info != nil {
			t.Errorf("%v, %v", members, err)
		}
	})
}

// A connection that enters a room while its info is set shows the new one there.
func TestInfoIsSetWhileRoomsAreEntered(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(showing(func(string, wsroom.Member) {})...))
	wsroomtest.Dial(t, hub, "/a?as=ann&show=old")
	conn := kit.Member(t, hub, "/a")
	wrong := 0
	for i := range 3000 {
		room := fmt.Sprint("room", i)
		joined := make(chan error)
		go func() { joined <- conn.Join(room) }()
		set(t, conn, i)
		if err := <-joined; err != nil {
			t.Fatal(err)
		}
		members, _ := hub.Presence(t.Context(), room)
		if len(members) != 1 || string(members[0].Info) != fmt.Sprint(i) {
			wrong++
		}
		if err := conn.Leave(room); err != nil {
			t.Fatal(err)
		}
	}
	if wrong > 0 {
		t.Errorf("%d rooms show what was there before", wrong)
	}
}
