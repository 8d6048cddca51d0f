package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

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
		return kit.ErrDown
	}
	err := f()
	if s.deaf.Load() {
		return kit.ErrDown
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
		if members, err := cut.hubs[0].Presence(t.Context(), "/a"); !errors.Is(err, kit.ErrDown) || len(members) != 2 {
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

// The node that finds that another one has died reports it: a node that has just come, one that is about to go, and
// one without members. No presence is listed for longer than 45 s.
func TestWhoFindsADeadNodeTellsOfIt(t *testing.T) {
	for name, find := range map[string]func(t *testing.T, c *census){
		"coming": func(t *testing.T, c *census) { wsroomtest.Dial(t, c.hubs[0], "/b?as=cat") },
		"going":  func(t *testing.T, c *census) { kit.Shutdown(t, c.hubs[0]) },
		"idle": func(t *testing.T, c *census) {
			time.Sleep(12 * time.Second)
			c.present("45 s after the death")
		},
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
				want := []string{"0 -ann /a"}
				if name == "coming" {
					want = []string{"0 +cat /b", "0 -ann /a"}
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

// A call that had its effect though it failed leaves no ghost, hides nobody, and is told of once.
func TestCallsThatFailAndHaveEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := brokertest.NewMemory()
		store := &severed{PresenceStore: memory}
		c := takeCensus(t, 1, wsroom.WithPresenceStore(store), wsroom.WithPresenceGrace(0))
		well := takeCensus(t, 1, wsroom.WithPresenceStore(memory))
		hub := c.hubs[0]
		wsroomtest.Dial(t, hub, "/home?as=zoe")
		c.want("zoe", "0 +zoe /home")
		blind := func(f func()) { // the store's answers are lost
			store.deaf.Store(true)
			f()
			synctest.Wait()
		}
		heal := func() {
			store.deaf.Store(false)
			time.Sleep(5 * time.Second)
		}
		var ann *wsroomtest.Client
		come := func() { ann = wsroomtest.Dial(t, hub, "/a?as=ann") }
		leave := func() { ann.CloseNow() }

		blind(come)
		well.present("entered", "ann")
		heal()
		c.want("she is told of", "0 +ann /a")
		blind(leave)
		well.present("left")
		heal()
		c.want("she has left", "0 -ann /a")
		blind(come)
		leave()
		heal()
		well.present("no ghost")
		c.want("she came and went unseen")
		come()
		c.want("she is back", "0 +ann /a")
		blind(leave)
		come()
		heal()
		well.present("not hidden", "ann")
		c.want("she stayed")
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
		hub := kit.Nodes(t, kit.NewWire(), 1, wsroom.WithPresenceStore(store), wsroom.WithPresenceGrace(0),
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
