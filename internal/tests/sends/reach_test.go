package sends_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// as is the identity of a request.
func as(r *http.Request) string { return r.FormValue("as") }

// hereAndThere runs f with one hub, and with two that share a broker. The hubs know identities.
func hereAndThere(t *testing.T, f func(t *testing.T, here, there *wsroom.Hub), opts ...wsroom.Option) {
	t.Helper()
	for _, nodes := range []int{1, 2} {
		t.Run(fmt.Sprint(nodes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				memory := brokertest.NewMemory()
				hubs := make([]*wsroom.Hub, nodes)
				for i := range hubs {
					all := append([]wsroom.Option{wsroom.WithIdentity(as), wsroom.WithHeartbeat(0, 0)}, opts...)
					if nodes > 1 {
						all = append(all, wsroom.WithBroker(memory.Open()))
					}
					hubs[i] = wsroom.New(all...)
					t.Cleanup(func() { kit.Shutdown(t, hubs[i]) })
				}
				f(t, hubs[0], hubs[nodes-1])
			})
		})
	}
}

// connOf returns the only connection of the identity in a room.
func connOf(t *testing.T, hub *wsroom.Hub, room, identity string) *wsroom.Conn {
	t.Helper()
	members := slices.DeleteFunc(hub.Members(room), func(c *wsroom.Conn) bool { return c.Identity() != identity })
	if len(members) != 1 {
		t.Fatalf("%d members of %s are %s", len(members), room, identity)
	}
	return members[0]
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// What is for an identity reaches all of its connections on all nodes, and nobody else.
func TestToIdentity(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		anns := []*wsroomtest.Client{
			wsroomtest.Dial(t, here, "/a?as=ann"), wsroomtest.Dial(t, here, "/b?as=ann"), wsroomtest.Dial(t, there, "/c?as=ann"),
		}
		bob, nobody := wsroomtest.Dial(t, there, "/a?as=bob"), wsroomtest.Dial(t, here, "/ann")
		stranger := wsroomtest.Dial(t, there, "/user:ann?as=user:ann")

		wantNil(t, here.ToIdentity("ann").SendText("1"))
		synctest.Wait()
		wantNil(t, there.ToIdentity("ann", "ann").SendJSON(2))
		synctest.Wait()
		wantNil(t, here.ToIdentity("ann", "bob", "carol").SendBinary([]byte("3")))
		wantNil(t, here.ToIdentity("carol").SendText("to nobody"))
		wantNil(t, here.ToIdentity().SendText("to nobody"))
		synctest.Wait()
		for _, ann := range anns {
			ann.ExpectText("1", "2")
			ann.ExpectBinary([]byte("3"))
		}
		bob.ExpectBinary([]byte("3"))

		anns[0].CloseNow()
		synctest.Wait()
		wantNil(t, there.ToIdentity("ann").Except(connOf(t, here, "/b", "ann")).SendText("4"))
		synctest.Wait()
		anns[2].ExpectText("4")
		for _, c := range []*wsroomtest.Client{anns[1], anns[2], bob, nobody, stranger} {
			c.ExpectNothing()
		}
	})
}

// An identity's connections get its messages in one order, whatever node they come from.
func TestOneOrderForAnIdentity(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		anns := []*wsroomtest.Client{wsroomtest.Dial(t, here, "/a?as=ann"), wsroomtest.Dial(t, there, "/b?as=ann")}
		sent := make(chan bool)
		for from, hub := range []*wsroom.Hub{here, there} {
			go func() {
				for i := range 200 {
					wantNil(t, hub.ToIdentity("ann", "bob").SendText(fmt.Sprintf("%d:%03d", from, i)))
				}
				sent <- true
			}()
		}
		<-sent
		<-sent
		synctest.Wait()
		first, second := anns[0].Drain(), anns[1].Drain()
		if len(first) != 400 || !slices.Equal(first, second) {
			t.Errorf("%d and %d messages, or in different orders", len(first), len(second))
		}
		for from := range 2 {
			own := slices.DeleteFunc(slices.Clone(first), func(s string) bool { return s[0] != byte('0'+from) })
			if !slices.IsSorted(own) {
				t.Errorf("those of %d came as %q", from, own)
			}
		}
	})
}

// A connection's ID leads to it from any node. One that nobody has is nobody.
func TestToConn(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		clients, ids := map[string]*wsroomtest.Client{}, map[string]string{}
		for i, hub := range []*wsroom.Hub{here, there, here, there} {
			room := fmt.Sprint("/", i)
			clients[room] = wsroomtest.Dial(t, hub, room)
			ids[room] = kit.Member(t, hub, room).ID()
		}
		for _, id := range ids {
			if strings.ContainsFunc(id, func(c rune) bool { return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", c) }) {
				t.Errorf("an ID of other characters: %q", id)
			}
		}
		for room, c := range clients {
			wantNil(t, here.ToConn(ids[room]).SendText("from here to "+room))
			synctest.Wait()
			c.ExpectText("from here to " + room)
			wantNil(t, there.ToConn(ids[room]).SendText("from there to "+room))
			synctest.Wait()
			c.ExpectText("from there to " + room)
		}
		known := ids["/0"]
		wantNil(t, here.ToConn(ids["/1"], known, known, ids["/2"]).SendText("to three"))
		for _, id := range []string{"", "x", "/0", known[1:], known + "A", strings.ToLower(known), strings.Repeat("A", len(known)), known[:8] + strings.Repeat("A", len(known)-8)} {
			wantNil(t, there.ToConn(id).SendText("to nobody"))
			wantNil(t, here.ToConn(id).Close(4000, "nobody"))
			wantNil(t, here.ToConn(id).Join("/0"))
		}
		wantNil(t, here.ToConn().SendText("to nobody"))
		synctest.Wait()
		for _, room := range []string{"/0", "/1", "/2"} {
			clients[room].ExpectText("to three")
		}

		late := wsroomtest.Dial(t, there, "/late") // after the index is made
		id := kit.Member(t, there, "/late").ID()
		wantNil(t, here.ToConn(id).SendText("late"))
		late.ExpectText("late")
		late.CloseNow()
		synctest.Wait()
		wantNil(t, here.ToConn(id).SendText("gone"))
		for _, c := range clients {
			c.ExpectNothing()
		}
	})
}

// "ann is typing" reaches all but ann's own tabs, on every node.
func TestExceptIdentity(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		anns := []*wsroomtest.Client{wsroomtest.Dial(t, here, "/a?as=ann"), wsroomtest.Dial(t, there, "/a?as=ann"), wsroomtest.Dial(t, there, "/b?as=ann")}
		others := []*wsroomtest.Client{wsroomtest.Dial(t, here, "/a?as=bob"), wsroomtest.Dial(t, there, "/a"), wsroomtest.Dial(t, there, "/a?as=carol")}
		carol := connOf(t, there, "/a", "carol").ID()
		for name, target := range map[string]wsroom.Target{
			"room":  here.To("/a").ExceptIdentity("ann"),
			"rooms": here.To("/b", "/a").ExceptIdentity("ann", "dora"),
			"all":   here.ToAll().ExceptIdentity("dora").ExceptIdentity("ann", ""),
			"users": there.ToIdentity("ann", "bob", "carol").ExceptIdentity("ann"),
		} {
			wantNil(t, target.SendText(name))
			synctest.Wait()
			others[0].ExpectText(name)
			if name != "users" {
				others[1].ExpectText(name)
			}
			others[2].ExpectText(name)
			wantNil(t, target.ExceptConn(carol, "nobody", "").SendText("but carol"))
			synctest.Wait()
			others[0].ExpectText("but carol")
			if name != "users" {
				others[1].ExpectText("but carol")
			}
			others[2].ExpectNothing()
		}
		wantNil(t, here.To("/a").ExceptIdentity(as(&http.Request{Form: map[string][]string{}})).ExceptConn().SendText("to all"))
		synctest.Wait()
		for _, c := range others {
			c.ExpectText("to all")
		}
		anns[0].ExpectText("to all")
		anns[1].ExpectText("to all")
		for _, c := range append(anns, others...) {
			c.ExpectNothing()
		}
	})
}

// An identity is banned on all nodes at once, and can be kept in place.
func TestCloseByIdentityAndByConn(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		anns := []*wsroomtest.Client{wsroomtest.Dial(t, here, "/a?as=ann"), wsroomtest.Dial(t, there, "/b?as=ann")}
		tab := wsroomtest.Dial(t, there, "/tab?as=ann")
		bob := wsroomtest.Dial(t, there, "/a?as=bob")
		kept := kit.Member(t, there, "/tab").ID()
		wantNil(t, here.ToIdentity("ann").ExceptConn(kept).Close(4403, "banned"))
		for _, ann := range anns {
			if reason := ann.ExpectClose(4403); reason != "banned" {
				t.Errorf("closed with %q", reason)
			}
		}
		tab.ExpectNothing()
		wantNil(t, here.ToConn(kept).Close(4001, ""))
		tab.ExpectClose(4001)
		bob.ExpectNothing()
		for _, hub := range []*wsroom.Hub{here, there} {
			wantNil(t, hub.ToIdentity("ann").SendText("nobody"))
			if err := hub.ToIdentity("ann").Close(1005, ""); err == nil {
				t.Error("a code that can't be sent is taken")
			}
		}
		bob.ExpectNothing()
	})
}

// Who has ended is found by no name any more: a message has no receivers, and none is counted.
func TestNobodyIsLeftInTheIndexes(t *testing.T) {
	observer := &kit.Observer{Sums: map[string]float64{}}
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		c := wsroomtest.Dial(t, there, "/a?as=ann")
		id := kit.Member(t, there, "/a").ID()
		targets := []wsroom.Target{here.ToIdentity("ann"), here.ToConn(id), here.ToConn(id, "x")}
		count := func() float64 {
			before := observer.Sum(wsroom.MetricFanOut)
			for _, target := range targets {
				wantNil(t, target.SendText("x"))
			}
			synctest.Wait()
			return observer.Sum(wsroom.MetricFanOut) - before
		}
		if n := count(); n != 3 {
			t.Errorf("%v receivers of 3 messages", n)
		}
		c.CloseNow()
		synctest.Wait()
		if n := count(); n != 0 {
			t.Errorf("%v receivers when nobody is left", n)
		}
	}, wsroom.WithObserver(observer))
}

// What can't be a connection's ID isn't published.
func TestNonsenseIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1)[0]
		wsroomtest.Dial(t, hub, "/a")
		id := kit.Member(t, hub, "/a").ID()
		for _, bad := range []string{"x", id[1:], id + "A", strings.ToLower(id), "/" + id[1:], "\x00" + id[1:]} {
			wantNil(t, hub.ToConn(bad).SendText("x"))
		}
		synctest.Wait()
		if calls, _ := w.Traffic(); calls != 0 {
			t.Errorf("%d calls", calls)
		}
		wantNil(t, hub.ToConn(strings.Repeat("A", len(id))).SendText("x")) // another node may have it
		synctest.Wait()
		if calls, _ := w.Traffic(); calls != 1 {
			t.Errorf("%d calls for an ID", calls)
		}
	})
}

// Connections enter and leave rooms by what they are, wherever they are, in the order of the calls.
func TestTargetsJoinAndLeave(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		ann, tab := wsroomtest.Dial(t, here, "/a?as=ann"), wsroomtest.Dial(t, there, "/b?as=ann")
		bob := wsroomtest.Dial(t, there, "/c?as=bob")
		conns := []*wsroom.Conn{kit.Member(t, here, "/a"), kit.Member(t, there, "/b"), kit.Member(t, there, "/c")}
		want := func(rooms ...string) {
			t.Helper()
			synctest.Wait()
			for i, c := range conns {
				if got := strings.Join(c.Rooms(), " "); got != rooms[i] {
					t.Errorf("%s is in %s, want %s", c.Identity(), got, rooms[i])
				}
			}
		}
		wantNil(t, here.ToIdentity("ann", "nobody").Join("lobby", "vip", "lobby"))
		want("/a lobby vip", "/b lobby vip", "/c")
		wantNil(t, there.To("vip").SendText("hello"))
		synctest.Wait()
		ann.ExpectText("hello")
		tab.ExpectText("hello")

		wantNil(t, here.To("vip", "/c").ExceptConn(conns[0].ID()).Join("more"))
		want("/a lobby vip", "/b lobby more vip", "/c more")
		wantNil(t, here.ToConn(conns[1].ID()).Leave("vip", "/b", "elsewhere"))
		want("/a lobby vip", "lobby more", "/c more")
		wantNil(t, there.ToAll().ExceptIdentity("bob").Leave("lobby"))
		want("/a vip", "more", "/c more")
		for range 20 { // each Leave follows its Join
			wantNil(t, here.ToIdentity("ann").Join("x"))
			wantNil(t, here.ToIdentity("ann").Leave("x"))
		}
		want("/a vip", "more", "/c more")
		wantNil(t, here.ToIdentity("ann").Join())
		wantNil(t, here.ToIdentity().Join("x"))
		want("/a vip", "more", "/c more")
		bob.ExpectNothing()
	})
}

// A connection that can't enter a room stays out of it, and the log says so.
func TestTargetJoinThatIsRefused(t *testing.T) {
	var log bytes.Buffer
	logger := wsroom.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		log.Reset()
		var anns []*wsroomtest.Client
		for i := range 3 {
			anns = append(anns, wsroomtest.Dial(t, there, fmt.Sprintf("/%d?as=ann", i)))
		}
		wantNil(t, here.ToIdentity("ann").Join("full"))
		synctest.Wait()
		wantNil(t, here.To("full").SendText("x"))
		synctest.Wait()
		n := 0
		for _, c := range anns {
			n += len(c.Drain())
		}
		if n != 2 || !strings.Contains(log.String(), `msg="wsroom: connections don't enter a room" room=full conns=1`) {
			t.Errorf("%d of 2 are in the room; log: %s", n, log.String())
		}
	}, wsroom.WithMaxMembers(2), logger)
}

// Users and connections cost the broker nothing: a node subscribes to what is for all, to its own topic and to its
// rooms. What is for an identity is published once, and what is for connections once for each of their nodes.
func TestManyIdentitiesAreThreeSubscriptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hubs := kit.Nodes(t, w, 2, wsroom.WithIdentity(as))
		for i := range 300 {
			wsroomtest.Dial(t, hubs[0], fmt.Sprintf("/a?as=%d", i))
		}
		w.Mu.Lock()
		n := 0
		for _, subscriptions := range w.Subs {
			n += subscriptions
		}
		w.Mu.Unlock()
		if n != 3 {
			t.Errorf("%d subscriptions", n)
		}

		wsroomtest.Dial(t, hubs[1], "/a?as=7")
		w.Traffic()
		wantNil(t, hubs[1].ToIdentity("7", "8").SendText("x"))
		synctest.Wait()
		if calls, _ := w.Traffic(); calls != 1 {
			t.Errorf("%d calls for a message to two identities", calls)
		}
		var ids []string
		for _, c := range append(hubs[0].Members("/a")[:10], hubs[1].Members("/a")...) {
			ids = append(ids, c.ID())
		}
		wantNil(t, hubs[1].ToConn(ids...).SendText("x"))
		synctest.Wait()
		if calls, _ := w.Traffic(); calls != 2 {
			t.Errorf("%d calls for a message to 11 connections of two nodes", calls)
		}
	})
}

// A Join of a target keeps no subscription beyond the members' own, whether they can enter or not.
func TestTargetJoinKeepsNoSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1, wsroom.WithIdentity(as), wsroom.WithMaxRooms(2))[0]
		c := wsroomtest.Dial(t, hub, "/a?as=ann")
		want := func(when string, x, y int) {
			t.Helper()
			if gotX, gotY := w.Subscribed(":room:x"), w.Subscribed(":room:y"); gotX != x || gotY != y {
				t.Errorf("%s: %d and %d subscriptions, want %d and %d", when, gotX, gotY, x, y)
			}
		}
		wantNil(t, hub.ToIdentity("ann").Join("x", "y")) // y is one too many
		time.Sleep(10 * time.Second)
		want("joined", 1, 0)
		wantNil(t, hub.ToIdentity("ann").Leave("x"))
		time.Sleep(10 * time.Second)
		want("left", 0, 0)
		c.CloseNow()
	})
}

// vague is a broker that lets nobody subscribe to the room x.
type vague struct{ *kit.Wire }

func (v vague) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if strings.HasSuffix(topic, ":room:x") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return v.Wire.Subscribe(ctx, topic, deliver, lost)
}

// What waits for the broker is bounded. What is too much, or waits for too long, is logged, and others go on.
func TestJoinsThatWaitAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log kit.LockedBuffer
		hub := kit.Nodes(t, vague{kit.NewWire()}, 1, wsroom.WithIdentity(as), wsroom.WithBrokerBuffer(time.Second, 64<<20),
			wsroom.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))[0]
		wsroomtest.Dial(t, hub, "/a?as=ann")
		conn := kit.Member(t, hub, "/a")
		for i := range 5000 {
			wantNil(t, hub.ToIdentity("ann").Join("x"))
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(5 * time.Second)
		sum, lines := 0, regexp.MustCompile(`msg="wsroom: connections don't enter a room" room=x conns=(\d+) err="wsroom: `).FindAllStringSubmatch(log.String(), -1)
		for _, line := range lines {
			n, _ := strconv.Atoi(line[1])
			sum += n
		}
		if sum != 5000 || len(lines) > 5 || !strings.Contains(log.String(), "more than 4096 calls of Join and Leave wait") {
			t.Errorf("%d lines for %d connections; log: %s", len(lines), sum, kit.Short(log.String()))
		}
		wantNil(t, hub.ToIdentity("ann").Join("y"))
		synctest.Wait()
		if rooms := conn.Rooms(); !slices.Equal(rooms, []string{"/a", "y"}) {
			t.Errorf("it is in %q", rooms)
		}
	})
}

// What can't be an identity's name is an error of each call, and reaches nobody.
func TestBadIdentities(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		c := wsroomtest.Dial(t, there, "/a?as=ann")
		for _, bad := range []string{"", "\xff", "a\nb", "\x7f", "\u0085", strings.Repeat("x", 256)} {
			targets := []wsroom.Target{here.ToIdentity("ann", bad)}
			if bad != "" {
				targets = append(targets, here.ToAll().ExceptIdentity(bad), here.To("/a").ExceptIdentity("bob", bad))
			}
			for _, target := range targets {
				for what, err := range map[string]error{
					"SendText": target.SendText("x"), "SendBinary": target.SendBinary(nil), "Close": target.Close(4000, ""),
					"Join": target.Join("/b"), "Leave": target.Leave("/a"),
				} {
					if err == nil || !strings.Contains(err.Error(), "bad identity: it must have 1 to 255 bytes") {
						t.Errorf("%s with %.20q: %v", what, bad, err)
					}
				}
			}
		}
		for what, err := range map[string]error{
			"Join": here.ToIdentity("ann").Join("/b", "\x00"), "Leave": here.ToIdentity("ann").Leave(""), "To": here.To("").Join("/b"),
		} {
			if err == nil {
				t.Errorf("%s takes a bad room", what)
			}
		}
		long := strings.Repeat("é", 127)
		d := wsroomtest.Dial(t, there, "/a?as="+long)
		wantNil(t, here.ToIdentity(long).SendText("long"))
		d.ExpectText("long")
		c.ExpectNothing()
	})
}

// The index of identities and the rooms of those that end are empty in the end, whoever comes and goes meanwhile.
func TestIdentitiesComeAndGo(t *testing.T) {
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		stop := make(chan bool)
		go func() {
			defer close(stop)
			for i := range 300 {
				wantNil(t, here.ToIdentity("ann").SendText("x"))
				wantNil(t, here.ToIdentity("ann").Join(fmt.Sprint("room", i%5)))
				if i%10 == 0 {
					wantNil(t, there.ToIdentity("ann").Close(4000, ""))
				}
				time.Sleep(time.Millisecond)
			}
		}()
		for i := range 60 {
			c := wsroomtest.Dial(t, there, fmt.Sprintf("/%d?as=ann", i))
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			if i%2 == 0 {
				c.CloseNow()
			}
		}
		<-stop
		wantNil(t, there.ToIdentity("ann").Close(4000, ""))
		time.Sleep(10 * time.Second)
		if n := there.Len() + len(there.Rooms()); n != 0 {
			t.Errorf("%d connections, rooms %q", there.Len(), there.Rooms())
		}
		c := wsroomtest.Dial(t, there, "/a?as=ann")
		wantNil(t, here.ToIdentity("ann").SendText("once"))
		synctest.Wait()
		c.ExpectText("once")
		c.ExpectNothing()
	})
}

// With a history, what was hidden from an identity stays hidden when it comes back, and what is for identities or
// connections isn't kept.
func TestReachWithHistory(t *testing.T) {
	key := []byte("0123456789abcdef0123456789abcdef")
	hereAndThere(t, func(t *testing.T, here, there *wsroom.Hub) {
		ann := wsroomtest.Dial(t, there, "/a?as=ann", wsroomtest.WithCursor(""))
		bob := wsroomtest.Dial(t, there, "/a?as=bob", wsroomtest.WithCursor(""))
		wantNil(t, here.To("/a").SendText("1"))
		ann.ExpectText("1")
		bob.ExpectText("1")
		wantNil(t, here.To("/a").ExceptIdentity("ann").SendText("live"))
		bob.ExpectText("live")
		ann.ExpectNothing()

		id := connOf(t, there, "/a", "ann").ID()
		ann.Cut()
		bob.Cut()
		wantNil(t, here.To("/a").ExceptIdentity("ann").SendText("2"))
		wantNil(t, here.To("/a").SendText("3"))
		wantNil(t, here.To("/a").ExceptConn(id).SendText("4"))
		wantNil(t, here.To("/b", "/a").ExceptIdentity("ann").SendText("5"))
		wantNil(t, here.To("/a").Join("/b"))
		wantNil(t, here.To("/a").SendText("6"))
		wantNil(t, here.ToIdentity("ann", "bob").SendText("to identities"))
		wantNil(t, here.ToConn(id).SendText("to a connection"))
		synctest.Wait()
		ann = wsroomtest.Dial(t, here, "/a?as=ann", wsroomtest.WithCursor(ann.Cursor()))
		bob = wsroomtest.Dial(t, here, "/a?as=bob", wsroomtest.WithCursor(bob.Cursor()))
		ann.ExpectRoom("/a", true)
		ann.ExpectText("3", "6")
		bob.ExpectRoom("/a", true)
		bob.ExpectText("2", "3", "4", "5", "6")

		ann.Cut() // it has all now, and comes back again
		ann = wsroomtest.Dial(t, there, "/a?as=ann", wsroomtest.WithCursor(ann.Cursor()))
		wantNil(t, here.To("/a").SendText("7"))
		ann.ExpectText("7")
		ann.ExpectNothing()

		tab := wsroomtest.Dial(t, here, "/rewind?as=ann") // a newcomer isn't sent it either
		tab.ExpectText("1", "3", "4", "6", "7")
		tab.ExpectNothing()
		bob.ExpectText("7")
		bob.ExpectNothing()
	}, wsroom.WithHistory(100, 1<<20, time.Minute), wsroom.WithResumeKey(key), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		if c.Room() != "/rewind" {
			return nil
		}
		return c.Enter("/a", func(bool) error { c.Rewind("/a", 100); return nil })
	}))
}

// Without a broker a Target's Join has taken effect when it returns, also from a callback.
func TestTargetJoinTakesEffectAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		joined := make(chan string, 10)
		var hub *wsroom.Hub
		hub = wsroom.New(wsroom.WithIdentity(as),
			wsroom.OnJoin(func(c *wsroom.Conn, room string) { joined <- room }),
			wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
				if err == nil {
					wantNil(t, hub.ToIdentity("ann").Join(text))
					wantNil(t, hub.To(text).SendText("welcome"))
				}
			}))
		defer kit.Shutdown(t, hub)
		c := wsroomtest.Dial(t, hub, "/a?as=ann")
		c.SendText("lobby")
		c.ExpectText("welcome")
		synctest.Wait()
		if a, b := <-joined, <-joined; a != "/a" || b != "lobby" {
			t.Errorf("joined %s, %s", a, b)
		}
		wantNil(t, hub.ToIdentity("ann").Close(websocket.StatusNormalClosure, ""))
		c.ExpectClose(websocket.StatusNormalClosure)
	})
}
