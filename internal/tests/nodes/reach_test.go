package nodes_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/natsbroker"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/wsroomtest"
)

// openPresence returns a store over a real server, with a connection of its own.
func openPresence(t *testing.T, kind, addr string) wsroom.PresenceStore {
	t.Helper()
	switch kind {
	case "postgres":
		b, pool, err := openPostgres(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return b.Presence()
	case "nats":
		nc, err := nats.Connect("nats://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		return natsbroker.NewPresence(nc)
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return redisbroker.NewPresence(client)
}

// overTwo runs a test over each broker, with two hubs that share it and a presence store.
func overTwo(t *testing.T, f func(t *testing.T, hubs []*wsroom.Hub), opts ...wsroom.Option) {
	for name, kind := range brokers {
		t.Run(name, func(t *testing.T) {
			s := kind.start(t)
			var hubs []*wsroom.Hub
			for range 2 {
				broker, disconnect, err := kind.connect(s.addr)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(disconnect)
				all := append([]wsroom.Option{wsroom.WithBroker(broker), wsroom.WithPresenceStore(openPresence(t, name, s.addr)),
					wsroom.WithIdentity(func(r *http.Request) string { return r.FormValue("as") })}, opts...)
				hubs = append(hubs, wsroomtest.CheckHub(t, wsroom.New(all...)))
			}
			f(t, hubs)
		})
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// Identities and connections are reached on the other node, which has them enter and leave rooms, and ends them.
func TestReachOverRealBrokers(t *testing.T) {
	overTwo(t, func(t *testing.T, hubs []*wsroom.Hub) {
		ann := wsroomtest.Dial(t, hubs[0], "/a?as=ann")
		tab := wsroomtest.Dial(t, hubs[1], "/b?as=ann")
		bob := wsroomtest.Dial(t, hubs[1], "/b?as=bob")
		for i := range 200 {
			ok(t, hubs[i/100].ToIdentity("ann").SendText(fmt.Sprint(i)))
			if i == 99 {
				ann.NextText()
			}
		}
		for i := range 200 {
			if i > 0 {
				ann.NextText()
			}
			tab.NextText()
		}

		for _, c := range hubs[1].Members("/b") {
			ok(t, hubs[0].ToConn(c.ID()).SendText("to "+c.Identity()))
		}
		tab.ExpectText("to ann")
		bob.ExpectText("to bob")
		ok(t, hubs[0].To("/b").ExceptIdentity("ann").SendText("ann is typing"))
		bob.ExpectText("ann is typing")

		ok(t, hubs[1].ToIdentity("ann").Join("both"))
		eventually(t, "both are in the room", func() bool { return len(hubs[0].Members("both")) == 1 && len(hubs[1].Members("both")) == 1 })
		ok(t, hubs[1].To("both").SendText("hello"))
		ann.ExpectText("hello")
		tab.ExpectText("hello")
		ok(t, hubs[0].ToIdentity("ann").Leave("both"))
		eventually(t, "both have left", func() bool { return len(hubs[0].Members("both"))+len(hubs[1].Members("both")) == 0 })

		ok(t, hubs[0].ToIdentity("ann").Close(4403, "banned"))
		ann.ExpectClose(4403)
		tab.ExpectClose(4403)
		ok(t, hubs[0].ToIdentity("bob").SendText("bye"))
		bob.ExpectText("bye")
	})
}

// Each kind of target reaches over to the other node, and leaves out whom it is told to, there and here.
func TestExceptionsOverRealBrokers(t *testing.T) {
	overTwo(t, func(t *testing.T, hubs []*wsroom.Hub) {
		type tab struct {
			*wsroomtest.Client
			id string
		}
		var anns, bobs [2]tab // one of each on each node
		for i, hub := range hubs {
			for _, who := range []struct {
				name string
				tabs *[2]tab
			}{{"ann", &anns}, {"bob", &bobs}} {
				room := fmt.Sprintf("/%s-%d", who.name, i)
				client := wsroomtest.Dial(t, hub, room+"?as="+who.name)
				c := hub.Members(room)[0]
				ok(t, c.Join("lobby"))
				who.tabs[i] = tab{client, c.ID()}
			}
		}
		for name, target := range map[string]wsroom.Target{
			"room": hubs[0].To("lobby").ExceptIdentity("ann"), "rooms": hubs[1].To("lobby", "/bob-0").ExceptIdentity("ann"),
			"all": hubs[0].ToAll().ExceptIdentity("ann"), "identities": hubs[1].ToIdentity("ann", "bob").ExceptIdentity("ann"),
			"conns": hubs[0].ToConn(anns[0].id, anns[1].id, bobs[0].id, bobs[1].id).ExceptIdentity("ann"),
		} {
			for i := range bobs { // each node's bob is left out once
				ok(t, target.ExceptConn(bobs[i].id).SendText(name))
				bobs[1-i].ExpectText(name)
			}
		}
		for i, tab := range anns { // nothing has come before these
			ok(t, hubs[1-i].ToConn(tab.id).SendText("first"))
			tab.ExpectText("first")
		}

		ok(t, hubs[0].ToConn(bobs[0].id, bobs[1].id).Join("few"))
		eventually(t, "both have entered", func() bool { return len(hubs[0].Members("few"))+len(hubs[1].Members("few")) == 2 })
		ok(t, hubs[1].To("few").ExceptConn(bobs[0].id).Leave("few"))
		eventually(t, "one has left", func() bool { return len(hubs[0].Members("few")) == 1 && len(hubs[1].Members("few")) == 0 })
		ok(t, hubs[1].ToIdentity("ann", "bob").ExceptConn(anns[0].id).ExceptIdentity("bob").Close(4403, ""))
		anns[1].ExpectClose(4403)
		ok(t, hubs[1].ToConn(anns[0].id).Close(4001, ""))
		anns[0].ExpectClose(4001)
		for i, tab := range bobs {
			ok(t, hubs[1-i].ToConn(tab.id).SendText("last"))
			tab.ExpectText("last")
		}
	})
}

// traced is an Observer, Tracer and Propagator that notes in which trace messages are delivered.
type traced struct{ delivered chan string }

type traceKey struct{}

func (traced) Add(string, string, string, int)        {}
func (traced) Record(string, string, string, float64) {}

func (o traced) Start(ctx context.Context, name, _ string) (context.Context, func(error)) {
	if trace, ok := ctx.Value(traceKey{}).(string); ok && name != "upgrade" {
		o.delivered <- name + " in " + trace
	}
	return ctx, func(error) {}
}

func (traced) Inject(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return trace
}

func (traced) Extract(ctx context.Context, trace string) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// A trace goes on behind a message on the other node, also beside a key and an exception.
func TestTracesOverRealBrokers(t *testing.T) {
	o := traced{make(chan string, 100)}
	overTwo(t, func(t *testing.T, hubs []*wsroom.Hub) {
		ann := wsroomtest.Dial(t, hubs[1], "/a?as=ann")
		ctx := context.WithValue(t.Context(), traceKey{}, "one")
		for name, target := range map[string]wsroom.Target{
			"room": hubs[0].To("/a"), "key": hubs[0].To("/a").Latest("key").ExceptIdentity("bob"), "all": hubs[0].ToAll(),
			"identity": hubs[0].ToIdentity("ann"), "conn": hubs[0].ToConn(hubs[1].Members("/a")[0].ID()),
		} {
			ok(t, target.Context(ctx).SendText(name))
			ann.ExpectText(name)
			select {
			case got := <-o.delivered:
				if got != "deliver in one" {
					t.Errorf("%s: %s", name, got)
				}
			case <-time.After(patience):
				t.Fatalf("%s: no trace", name)
			}
		}
	}, wsroom.WithObserver(o))
}

// What a member shows on one node is seen on the other.
func TestInfoOverRealStores(t *testing.T) {
	updates := make(chan string, 100)
	overTwo(t, func(t *testing.T, hubs []*wsroom.Hub) {
		shows := func(want string) {
			t.Helper()
			eventually(t, "both see "+want, func() bool {
				for _, hub := range hubs {
					members, err := hub.Presence(t.Context(), "/a")
					if err != nil || len(members) != 1 || string(members[0].Info) != want {
						return false
					}
				}
				return true
			})
		}
		wsroomtest.Dial(t, hubs[0], "/a?as=ann&show=one")
		shows(`"one"`)
		ok(t, hubs[0].Members("/a")[0].SetInfo("two"))
		shows(`"two"`)
		if u := <-updates; u != `/a ann "two"` {
			t.Errorf("the update is %s", u)
		}
		wsroomtest.Dial(t, hubs[1], "/a?as=ann&show=three")
		shows(`"three"`)
		ok(t, hubs[0].Members("/a")[0].SetInfo("two"))
		shows(`"two"`)
		for _, want := range []string{`/a ann "three"`, `/a ann "two"`} {
			if u := <-updates; u != want {
				t.Errorf("the update is %s, want %s", u, want)
			}
		}
	}, wsroom.WithMemberInfo(func(r *http.Request) any { return r.FormValue("show") }),
		wsroom.OnMemberUpdate(func(room string, m wsroom.Member) {
			updates <- fmt.Sprintf("%s %s %s", room, m.Identity, m.Info)
		}))
}
