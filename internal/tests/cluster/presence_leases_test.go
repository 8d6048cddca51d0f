package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// farStore is a store some way off that takes many entries at once, and fails with some.
type farStore struct {
	*brokertest.Memory
	delay time.Duration
	line  *severed // of the methods that every store has
	bad   string   // an identity that it can't take
	mu    sync.Mutex
	calls int
}

func newFarStore(m *brokertest.Memory, delay time.Duration) *farStore {
	s := &farStore{Memory: m, delay: delay, line: &severed{PresenceStore: m}}
	s.line.delay.Store(int64(delay))
	return s
}

var errBad = errors.New("the store doesn't take this one")

func (s *farStore) call(entries [][2]string, f func() error) error {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	time.Sleep(s.delay)
	if slices.ContainsFunc(entries, func(e [2]string) bool { return e[1] == s.bad }) {
		return errBad
	}
	return f()
}

func (s *farStore) EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error) {
	err = s.call(entries, func() (err error) { first, err = s.Memory.EnterAll(ctx, entries, node); return err })
	return first, err
}

func (s *farStore) ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error) {
	err = s.call(entries, func() (err error) { last, err = s.Memory.ExitAll(ctx, entries, node); return err })
	return last, err
}

func (s *farStore) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	if identity == s.bad {
		return false, errBad
	}
	return s.line.Enter(ctx, room, identity, node)
}

func (s *farStore) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	if identity == s.bad {
		return false, errBad
	}
	return s.line.Exit(ctx, room, identity, node)
}

func (s *farStore) Renew(ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
	return s.line.Renew(ctx, node, ttl)
}

// No time that the application takes, in a callback or a logger, costs a node its lease.
func TestSlowMemberCallbackCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		dying := &severed{PresenceStore: memory}
		dead := takeCensus(t, 1, wsroom.WithPresenceStore(dying))
		for i := range 200 {
			wsroomtest.Dial(t, dead.hubs[0], fmt.Sprint("/a?as=dead", i))
		}
		var mu sync.Mutex
		left := map[string]int{}
		told := func(joined string) func(string, wsroom.Member) {
			return func(_ string, m wsroom.Member) {
				time.Sleep(time.Second)
				mu.Lock()
				defer mu.Unlock()
				left[joined+strings.TrimRight(m.Identity, "0123456789")]++
			}
		}
		slow := func() *wsroom.Hub {
			return kit.Nodes(t, kit.NewWire(), 1, wsroom.WithPresenceStore(memory),
				wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Query().Get("as") }),
				wsroom.OnMemberJoin(told("+")), wsroom.OnMemberLeave(told("-")))[0]
		}
		for n, hub := range []*wsroom.Hub{slow(), slow()} {
			for i := range 10 {
				wsroomtest.Dial(t, hub, fmt.Sprintf("/a?as=%c%d", 'x'+n, i))
			}
		}
		time.Sleep(20 * time.Second)
		dying.cut.Store(true)
		time.Sleep(10 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if got := fmt.Sprint(left); got != "map[+x:10 +y:10 -dead:200]" {
			t.Errorf("callbacks said %s; want that each came once, and the 200 of the dead node have left", got)
		}
	})
}

// slowLogs takes its time.
type slowLogs struct{ slog.Handler }

func (slowLogs) Enabled(context.Context, slog.Level) bool { return true }

func (slowLogs) Handle(context.Context, slog.Record) error {
	time.Sleep(time.Minute)
	return nil
}

func TestSlowLoggerCostsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := &severed{PresenceStore: memory}
		c := takeCensus(t, 1, wsroom.WithPresenceStore(store), wsroom.WithLogger(slog.New(slowLogs{slog.DiscardHandler})))
		wsroomtest.Dial(t, c.hubs[0], "/a?as=ann")
		other := takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		time.Sleep(15 * time.Second)
		store.cut.Store(true)
		time.Sleep(6 * time.Second)
		store.cut.Store(false)
		time.Sleep(5 * time.Minute)
		c.want("came, once", "0 +ann /a")
		other.want("nobody has left")
	})
}

// While a callback runs, what waits is merged, in order: who comes and goes meanwhile is told of not at all.
func TestWaitingMemberEventsAreMerged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		news, hold := make(chan string, 1000), make(chan bool)
		hub := kit.Nodes(t, kit.NewWire(), 1, wsroom.WithPresenceGrace(0),
			wsroom.WithIdentity(func(r *http.Request) string { return r.URL.Query().Get("as") }),
			wsroom.OnMemberJoin(func(_ string, m wsroom.Member) { news <- "+" + m.Identity; <-hold }),
			wsroom.OnMemberLeave(func(_ string, m wsroom.Member) { news <- "-" + m.Identity; <-hold }))[0]
		dial := func(name string) *wsroomtest.Client {
			c := wsroomtest.Dial(t, hub, "/a?as="+name)
			synctest.Wait()
			return c
		}
		ann := dial("ann") // her callback holds up the rest
		bob := dial("bob")
		for i := range 100 {
			dial(fmt.Sprint("visitor", i)).CloseNow()
			synctest.Wait()
		}
		ann.CloseNow()
		synctest.Wait()
		cat := dial("cat")
		ann = dial("ann")
		synctest.Wait()
		bob.CloseNow()
		synctest.Wait()
		close(hold)
		synctest.Wait()
		cat.CloseNow()
		synctest.Wait()
		ann.CloseNow()
		synctest.Wait()
		close(news)
		var got []string
		for s := range news {
			got = append(got, s)
		}
		if want := []string{"+ann", "+cat", "-cat", "-ann"}; !slices.Equal(got, want) {
			t.Errorf("callbacks said %q, want %q", got, want)
		}
	})
}

// Who was found to have left, before a renewal failed, is told of.
func TestWhoIsFoundByAFailingRenewalIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		dying, flaky := &severed{PresenceStore: memory}, &severed{PresenceStore: memory}
		dead, well := takeCensus(t, 1, wsroom.WithPresenceStore(dying)), takeCensus(t, 1, wsroom.WithPresenceStore(flaky))
		wsroomtest.Dial(t, dead.hubs[0], "/a?as=ann")
		time.Sleep(25 * time.Second)
		dying.cut.Store(true)
		flaky.deaf.Store(true) // it returns what it has found with an error
		time.Sleep(45 * time.Second)
		well.want("after 45 s", "0 -ann /a")
	})
}

// A deploy isn't seen in large rooms: 10,000 members of a node, 10 ms from the store, are by way of another one
// before the grace has passed.
func TestHandoverOfManyMembersIsNotSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const members = 10_000
		store := newFarStore(brokertest.NewMemory(), 10*time.Millisecond)
		var mu sync.Mutex
		var joins, leaves int
		node := func() *wsroom.Hub {
			return kit.Nodes(t, kit.NewWire(), 1, wsroom.WithPresenceStore(store),
				wsroom.WithIdentity(func(r *http.Request) string { return "ann" }),
				wsroom.OnMemberJoin(func(string, wsroom.Member) { mu.Lock(); joins++; mu.Unlock() }),
				wsroom.OnMemberLeave(func(string, wsroom.Member) { mu.Lock(); leaves++; mu.Unlock() }))[0]
		}
		come := func(hub *wsroom.Hub) { // one connection in many rooms is as many members
			wsroomtest.Dial(t, hub, "/a")
			c := kit.Member(t, hub, "/a")
			for i := range members - 1 {
				if err := c.Join(fmt.Sprint("/", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		first, second := node(), node()
		come(first)
		time.Sleep(time.Minute)
		kit.Shutdown(t, first)
		time.Sleep(time.Second)
		come(second)
		time.Sleep(2 * time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if joins != members || leaves != 0 {
			t.Errorf("%d have come and %d left; want %d and none", joins, leaves, members)
		}
		store.mu.Lock()
		defer store.mu.Unlock()
		if store.calls > 200 {
			t.Errorf("it took %d calls", store.calls)
		}
	})
}

// What a store can't take holds up nobody else.
func TestOneBadMemberHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := newFarStore(memory, 10*time.Millisecond)
		store.bad = "bad"
		c := takeCensus(t, 1, wsroom.WithPresenceStore(store))
		var want []string
		for i := range 100 {
			name := fmt.Sprint(100 + i)
			if i == 50 {
				name = "bad"
			} else {
				want = append(want, "0 +"+name+" /a")
			}
			wsroomtest.Dial(t, c.hubs[0], "/a?as="+name)
		}
		time.Sleep(30 * time.Second)
		c.want("all others", want...)
		wsroomtest.Dial(t, c.hubs[0], "/a?as=late")
		time.Sleep(5 * time.Second)
		c.want("one more", "0 +late /a")
	})
}

// A node mends what its store has lost, or has too much, and tells of neither.
func TestNodeMendsWhatTheStoreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		spy := &spyStore{Memory: memory}
		c := takeCensus(t, 1, wsroom.WithPresenceStore(spy))
		other := takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		wsroomtest.Dial(t, c.hubs[0], "/a?as=ann")
		wsroomtest.Dial(t, c.hubs[0], "/a?as=bob")
		c.want("came", "0 +ann /a", "0 +bob /a")
		other.present("before", "ann", "bob")
		node, room := spy.last()
		if _, err := memory.Exit(t.Context(), room, "ann", node); err != nil { // as by eviction, or a failover
			t.Fatal(err)
		}
		if _, err := memory.Enter(t.Context(), room, "ghost", node); err != nil {
			t.Fatal(err)
		}
		other.present("when that was lost", "bob", "ghost")
		time.Sleep(75 * time.Second)
		other.present("mended", "ann", "bob")
		c.want("nobody is told")
		other.want("nobody is told")
	})
}

// spyStore knows the node that has entered, and the room's name.
type spyStore struct {
	*brokertest.Memory
	mu         sync.Mutex
	node, room string
}

func (s *spyStore) last() (node, room string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.room
}

func (s *spyStore) EnterAll(ctx context.Context, entries [][2]string, node string) ([]bool, error) {
	s.mu.Lock()
	s.node, s.room = node, entries[0][0]
	s.mu.Unlock()
	return s.Memory.EnterAll(ctx, entries, node)
}

func (s *spyStore) Enter(ctx context.Context, room, identity, node string) (bool, error) {
	s.mu.Lock()
	s.node, s.room = node, room
	s.mu.Unlock()
	return s.Memory.Enter(ctx, room, identity, node)
}
