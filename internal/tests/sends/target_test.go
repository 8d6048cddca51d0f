package sends_test

import (
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// alike runs f with a hub without a broker and with one that has a broker.
func alike(t *testing.T, f func(t *testing.T, hub *wsroom.Hub)) {
	t.Helper()
	for name, opts := range map[string][]wsroom.Option{"alone": nil, "with a broker": {wsroom.WithBroker(kit.NewWire())}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := wsroom.New(append(opts, wsroom.WithHeartbeat(0, 0))...)
				defer kit.Shutdown(t, hub)
				f(t, hub)
			})
		})
	}
}

// An empty list of rooms is nobody; everyone is asked for by name. What can't be sent is an error for nobody, too.
func TestAnEmptyListIsNobody(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		c := wsroomtest.Dial(t, hub, "/a")
		for _, rooms := range [][]string{nil, {}} {
			nobody := hub.To(rooms...)
			for _, target := range []wsroom.Target{nobody, nobody.Except(kit.Member(t, hub, "/a"))} {
				for what, err := range map[string]error{
					"SendText": target.SendText("private"), "SendJSON": target.SendJSON("private"),
					"SendBinary": target.SendBinary(nil), "Close": target.Close(4000, "kick"),
				} {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
				if target.SendText("\xff") == nil || target.SendJSON(func() {}) == nil || target.Close(999, "") == nil {
					t.Error("nonsense is taken where it is for nobody")
				}
			}
		}
		c.ExpectNothing()
		if err := hub.ToAll().SendText("to all"); err != nil {
			t.Error(err)
		}
		c.ExpectText("to all")
		if err := hub.ToAll().Close(4000, "bye"); err != nil {
			t.Error(err)
		}
		c.ExpectClose(4000)
	})
}

// Who isn't there can be left out: nobody, the connections of other hubs, and those that have ended.
func TestExceptTakesWhoIsNotThere(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		other := wsroom.New()
		defer kit.Shutdown(t, other)
		foreign, gone := wsroomtest.Dial(t, other, "/a"), wsroomtest.Dial(t, hub, "/gone")
		ended := kit.Member(t, hub, "/gone")
		ended.Close(4000, "")
		gone.ExpectClose(4000)
		here, out := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
		leftOut := kit.Member(t, hub, "/b")
		for name, target := range map[string]wsroom.Target{
			"nil":     hub.To("/a").Except(nil),
			"two nil": hub.ToAll().Except(nil, leftOut, nil),
			"foreign": hub.To("/a").Except(kit.Member(t, other, "/a")),
			"ended":   hub.ToAll().Except(ended, leftOut),
			"none":    hub.To("/a").Except(),
			"all":     hub.ToAll().Except(leftOut).Except(nil).Except(ended, kit.Member(t, other, "/a")),
		} {
			if err := target.SendText(name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			here.ExpectText(name)
		}
		out.ExpectNothing()
		foreign.ExpectNothing()
		if err := hub.ToAll().Except(nil, leftOut).Close(4001, ""); err != nil {
			t.Error(err)
		}
		here.ExpectClose(4001)
		out.ExpectNothing()
	})
}

// Each gets one copy, and who is left out none, however many rooms and exceptions there are.
func TestManyRoomsAndExceptions(t *testing.T) {
	for _, many := range []int{2, 8, 9, 30} {
		alike(t, func(t *testing.T, hub *wsroom.Hub) {
			var rooms []string
			for i := range many {
				rooms = append(rooms, fmt.Sprint("/", i))
			}
			var clients []*wsroomtest.Client
			var conns []*wsroom.Conn
			for _, room := range rooms {
				clients = append(clients, wsroomtest.Dial(t, hub, room))
				conns = append(conns, kit.Member(t, hub, room))
			}
			for i, c := range conns { // some are in one of the rooms, some in several, some in others, too
				for j := range i % 4 {
					c.Join(rooms[(i+j+1)%many])
				}
				for j := range i % 3 * 10 {
					c.Join(fmt.Sprint("/other", j))
				}
			}
			twice := slices.Concat(rooms, rooms)
			for n := range many + 1 {
				text := fmt.Sprint("but ", n)
				if err := hub.To(twice...).Except(conns[:n]...).SendText(text); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for i, c := range clients {
					if i >= n {
						c.ExpectText(text)
					}
				}
			}
			for _, c := range clients {
				c.ExpectNothing()
			}
		})
	}
}

// sinks puts members that take everything into a room of a hub.
func sinks(t *testing.T, members int) (*wsroom.Hub, *kit.SinkListener) {
	t.Helper()
	hub, ln := wsroom.New(wsroom.WithHeartbeat(0, 0)), kit.NewSinkListener()
	srv := &http.Server{Handler: hub}
	go srv.Serve(ln)
	t.Cleanup(func() {
		ln.Disconnect()
		kit.Shutdown(t, hub)
		srv.Close()
	})
	for range members {
		ln.Connect("/a")
	}
	kit.Until(t, "all are members", func() bool { return len(hub.Members("/a")) == members })
	return hub, ln
}

// racing reports whether the race detector is on, with which a sync.Pool drops some of what it is given.
func racing() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A send to several rooms keeps no books of the members.
func TestSeveralRoomsCostNoMemory(t *testing.T) {
	if racing() {
		t.Skip("with the race detector what is allocated is chance")
	}
	const members = 1000
	hub, ln := sinks(t, members)
	perSend := func(rooms ...string) uint64 {
		target := hub.To(rooms...)
		least := ^uint64(0)
		for range 20 {
			var before, after runtime.MemStats
			written := ln.Frames.Load()
			runtime.ReadMemStats(&before)
			if err := target.SendText("hello"); err != nil {
				t.Fatal(err)
			}
			for ln.Frames.Load() < written+members {
				runtime.Gosched()
			}
			runtime.ReadMemStats(&after)
			least = min(least, after.TotalAlloc-before.TotalAlloc)
		}
		return least
	}
	many := []string{"/a"}
	for i := range 99 {
		many = append(many, fmt.Sprint("/", i))
	}
	one := perSend("/a")
	for _, rooms := range [][]string{{"/a", "/a"}, {"/a", "/b"}, {"/b", "/a"}, many} {
		most := one + 2<<10
		if len(rooms) == len(many) {
			most = one + 20<<10 // a list of a hundred names to look into
		}
		if n := perSend(rooms...); n > most {
			t.Errorf("to %d rooms %d bytes are allocated, %d to one", len(rooms), n, one)
		}
	}
}

// Whoever leaves many out doesn't have them all looked through for each member.
func TestExceptManyIsNoScan(t *testing.T) {
	hub, _ := sinks(t, 2000)
	var out []*wsroom.Conn
	for range 20_000 {
		out = append(out, new(wsroom.Conn))
	}
	target, members := hub.To("/a").Except(out...), hub.Members("/a")
	fastest := func(f func()) time.Duration {
		least := time.Hour
		for range 5 {
			begin := time.Now()
			f()
			least = min(least, time.Since(begin))
		}
		return least
	}
	found := 0
	scans := fastest(func() {
		for _, c := range members {
			if slices.Contains(out, c) {
				found++
			}
		}
	})
	send := fastest(func() {
		if err := target.SendText("hello"); err != nil {
			t.Error(err)
		}
	})
	t.Logf("a send takes %v, scans for each member %v", send, scans)
	if send > scans/2 || found > 0 {
		t.Errorf("a send takes %v, scans for each member %v; %d found", send, scans, found)
	}
}
