package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestSendsMeanTheSameOnManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hubs := kit.Nodes(t, kit.NewWire(), 3)
		var names []string
		clients, conns := map[string]*wsroomtest.Client{}, map[string]*wsroom.Conn{}
		for i, hub := range hubs {
			for _, room := range []string{"/a", "/b", "/c"} {
				name := fmt.Sprint(room, i)
				names = append(names, name)
				clients[name] = wsroomtest.Dial(t, hub, room, wsroomtest.WithName(name))
				conns[name] = kit.Member(t, hub, room)
			}
		}
		for i := range hubs { // /c's are in all
			for _, room := range []string{"/a", "/b"} {
				if err := conns[fmt.Sprint("/c", i)].Join(room); err != nil {
					t.Fatal(err)
				}
			}
		}
		a0, c1, hub := conns["/a0"], conns["/c1"], hubs[2]
		for _, tc := range []struct {
			name string
			send func(text string) error
			want string // rooms whose clients get it, and those who don't
		}{
			{"Conn.SendText", a0.SendText, "only /a0"},
			{"Conn.SendTextToThisRoom", a0.SendTextToThisRoom, "/a /c"},
			{"Conn.SendTextToRoom", func(s string) error { return a0.SendTextToRoom("/b", s) }, "/b /c"},
			{"Conn.SendTextToAll", a0.SendTextToAll, "/a /b /c"},
			{"Hub.SendTextToRoom", func(s string) error { return hub.SendTextToRoom("/a", s) }, "/a /c"},
			{"Hub.SendTextToAll", hub.SendTextToAll, "/a /b /c"},
			{"To several, once each", hub.To("/a", "/b", "/a").SendText, "/a /b /c"},
			{"To all", hub.ToAll().SendText, "/a /b /c"},
			{"Except", hubs[0].To("/a", "/b").Except(a0).SendText, "/a /b /c but /a0"},
			{"Except, to all", hubs[1].ToAll().Except(c1).SendText, "/a /b /c but /c1"},
			{"To nobody", hub.To([]string{}...).SendText, ""},
			{"An empty room", hub.To("/nobody").SendText, ""},
		} {
			if err := tc.send(tc.name); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			synctest.Wait()
			for _, name := range names {
				room, but, _ := strings.Cut(tc.want, " but ")
				want := strings.Contains(room, name[:2]) && but != name
				if only, ok := strings.CutPrefix(tc.want, "only "); ok {
					want = only == name
				}
				if want {
					clients[name].ExpectText(tc.name)
				}
				clients[name].ExpectNothing()
			}
		}
		if err := hub.To("/a").Close(4001, "kicked"); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if name[:2] == "/b" {
				clients[name].ExpectNothing()
			} else if reason := clients[name].ExpectClose(4001); reason != "kicked" {
				t.Errorf("%s: reason %q", name, reason)
			}
		}
	})
}

// All members on all nodes see one order, and each sender's messages in the order sent.
func TestOneOrderAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hubs := kit.Nodes(t, kit.NewWire(), 3, wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
		var clients []*wsroomtest.Client
		for _, hub := range hubs {
			clients = append(clients, wsroomtest.DialN(t, 3, hub, "/a")...)
		}
		const each = 100
		var senders sync.WaitGroup
		for i, c := range clients {
			senders.Go(func() {
				for n := range each {
					c.SendText(fmt.Sprintf("%d %03d", i, n))
				}
			})
		}
		senders.Wait()
		synctest.Wait()
		first := clients[0].Drain()
		if len(first) != each*len(clients) {
			t.Fatalf("%d messages, want %d", len(first), each*len(clients))
		}
		for i := range clients {
			var own []string
			for _, text := range first {
				if strings.HasPrefix(text, fmt.Sprint(i, " ")) {
					own = append(own, text)
				}
			}
			if !slices.IsSorted(own) || len(own) != each {
				t.Errorf("of sender %d: %d messages, sorted: %v", i, len(own), slices.IsSorted(own))
			}
		}
		for i, c := range clients[1:] {
			if !slices.Equal(c.Drain(), first) {
				t.Errorf("client %d has seen another order", i+1)
			}
		}
	})
}

func TestHubsOfDifferentNamesShareNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		names := []string{"", "x", "x:room:y", "x%3Aroom%3Ay"}
		var clients []*wsroomtest.Client
		var hubs []*wsroom.Hub
		for _, name := range names {
			hub := kit.Nodes(t, w, 1, wsroom.WithName(name), wsroom.WithRoom(wsroom.ByPathValue("room")))[0]
			mux := kit.MuxOf("/{room}", hub)
			clients = append(clients, wsroomtest.Dial(t, mux, "/y:room:z"), wsroomtest.Dial(t, mux, "/z"))
			hubs = append(hubs, hub)
		}
		for i, hub := range hubs {
			if err := errors.Join(hub.SendTextToRoom("z", fmt.Sprint(i)), hub.SendTextToAll(fmt.Sprint(i, " all"))); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		for i := range hubs {
			if got := clients[2*i].Drain(); !slices.Equal(got, []string{fmt.Sprint(i, " all")}) {
				t.Errorf("y:room:z of %q got %q", names[i], got)
			}
			got := clients[2*i+1].Drain()
			slices.Sort(got)
			if !slices.Equal(got, []string{fmt.Sprint(i), fmt.Sprint(i, " all")}) {
				t.Errorf("z of %q got %q", names[i], got)
			}
		}
	})
}

// A node hears a room while it has members there, and for a little longer.
func TestSubscribedWhileThereAreMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1)[0]
		const room, all = ":room:/a", ":all"
		want := func(when string, rooms, alls int) {
			t.Helper()
			synctest.Wait()
			if r, a := w.Subscribed(room), w.Subscribed(all); r != rooms || a != alls {
				t.Errorf("%s: %d subscriptions to the room, %d to all; want %d, %d", when, r, a, rooms, alls)
			}
		}
		want("before", 0, 0)
		c, d := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
		want("joined", 1, 1)
		conn := kit.Member(t, hub, "/b")
		for range 3 {
			conn.Join("/a")
		}
		conn.Leave("/a")
		conn.Leave("/a")
		want("another came and went", 1, 1)
		c.CloseNow()
		time.Sleep(time.Second)
		want("lingers", 1, 1)
		conn.Join("/a")
		time.Sleep(10 * time.Second)
		want("came back", 1, 1)
		conn.Leave("/a")
		time.Sleep(10 * time.Second)
		want("left", 0, 1)
		d.CloseNow()
		time.Sleep(10 * time.Second)
		want("nobody is there", 0, 0)
		e := wsroomtest.Dial(t, hub, "/a")
		want("again", 1, 1)
		hub.SendTextToRoom("/a", "hello")
		e.ExpectText("hello")
		kit.Shutdown(t, hub)
		want("after Shutdown", 0, 0)
	})
}

// Who isn't let in costs the broker nothing, and a subscription that comes too late isn't kept.
func TestSubscriptionsNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{Wire: kit.NewWire()}
		hub := kit.Nodes(t, w, 1, wsroom.WithMaxRooms(1), wsroom.WithHandshakeTimeout(time.Second))[0]
		wsroomtest.Dial(t, hub, "/a")
		for i := range 10 {
			wsroomtest.Refused(t, hub, fmt.Sprint("/b", i), 503)
		}
		if w.asked.Load() != 3 {
			t.Errorf("%d subscriptions, want those to all, to the node and to /a", w.asked.Load())
		}
		hub = kit.Nodes(t, w, 1, wsroom.WithHandshakeTimeout(time.Second))[0]
		wsroomtest.Refused(t, hub, "/late", 503)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if n := w.Subscribed(":room:/late"); n != 0 {
			t.Errorf("%d subscriptions to a room that nobody entered", n)
		}
	})
}

// What comes while the broker is busy goes out together, and nothing of it is lost.
func TestMessagesGatherWhileTheBrokerIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{Wire: kit.NewWire()}
		hub := kit.Nodes(t, w, 1)[0]
		c := wsroomtest.Dial(t, hub, "/a")
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint(i))
			if err := hub.SendTextToRoom("/a", want[i]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %d: %q", len(got), got)
		}
		if calls, _ := w.Traffic(); calls > 15 {
			t.Errorf("%d calls, in 100 ms of 10 ms each", calls)
		}
	})
}

func (limited) MaxData() int { return 1000 }

// A message that the broker never takes is an error of the send, where the broker says so before.
func TestMessageLargerThanTheBrokerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := make(chan string, 10)
		hub := kit.Nodes(t, limited{kit.NewWire()}, 1, noteGaps(gaps))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		target, taken := hub.To("/a", "/b", "/c").Except(kit.Member(t, hub, "/a")), 0
		for size := range 1100 {
			errs := []error{hub.SendTextToRoom("/a", strings.Repeat("x", size)), target.SendText(strings.Repeat("x", size))}
			if (errs[0] != nil) != (size > 923) || errs[1] != nil && size < 800 {
				t.Fatalf("%d bytes: %v", size, errs)
			}
			if errs[0] == nil {
				taken++
			}
			if size%10 == 0 { // in between they gather
				synctest.Wait()
			}
		}
		synctest.Wait()
		if got := c.Drain(); len(got) != taken {
			t.Errorf("%d of %d came", len(got), taken)
		}
		wantGaps(t, gaps)
	})
}

func (rejected) Rejected() bool { return true }

// Around a message the nodes add a few dozen bytes, and in a burst less.
func TestEnvelopesAreSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1)[0]
		for range 1000 {
			hub.SendTextToRoom("/a", "0123456789")
			synctest.Wait()
		}
		if calls, bytes := w.Traffic(); calls != 1000 || bytes/1000-10 > 32 {
			t.Errorf("%d calls, %d bytes for 1000 messages of 10", calls, bytes)
		}
		w.Set(kit.Down)
		for range 1000 {
			hub.SendTextToRoom("/a", "0123456789")
		}
		synctest.Wait()
		w.Set(nil)
		w.Traffic()
		time.Sleep(2 * time.Second)
		if calls, bytes := w.Traffic(); calls > 5 || bytes/1000-10 > 8 {
			t.Errorf("in a burst: %d calls, %d bytes for 1000 messages of 10", calls, bytes)
		}
	})
}
