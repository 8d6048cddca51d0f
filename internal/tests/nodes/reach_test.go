package nodes_test

import (
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
