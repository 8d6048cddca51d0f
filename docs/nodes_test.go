package docs_test

import (
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// restart has clients start again where they may have missed messages.
type restart struct{}

// newNode is the page's hub that has its members start again where messages are missing.
func newNode(broker wsroom.Broker) *wsroom.Hub {
	var hub *wsroom.Hub
	hub = wsroom.New(
		wsroom.WithBroker(broker),
		wsroom.OnGap(func(room string, err error) {
			rooms := []string{room}
			if room == "" { // the gap is in what doesn't go to rooms
				rooms = hub.Rooms()
			}
			for _, room := range rooms {
				for _, c := range hub.Members(room) { // only those on this node
					reload(c)
				}
			}
		}),
	)
	return hub
}

// reload tells a client to start again, once, at a moment within 5 seconds. Calls of OnGap come one at a time.
func reload(c *wsroom.Conn) {
	if waits, _ := c.Get(restart{}); waits == true {
		return
	}
	c.Set(restart{}, true)
	time.AfterFunc(rand.N(5*time.Second), func() {
		c.Set(restart{}, false)
		if err := c.SendText("reload"); err != nil && !errors.Is(err, wsroom.ErrClosed) {
			log.Print("reload: ", err)
		}
	})
}

// A message that the broker lost on the way has both nodes' members reload, once.
func TestMembersReloadAfterAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := brokertest.NewMemory()
		one := wsroomtest.CheckHub(t, newNode(cloud.Open()))
		two := wsroomtest.CheckHub(t, newNode(cloud.Open()))
		ann := wsroomtest.Dial(t, one, "/docs/plan")
		bob := wsroomtest.Dial(t, two, "/docs/plan")
		send := func(text string) {
			if err := one.SendTextToRoom("/docs/plan", text); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}
		send("first")
		cloud.Lose(1)
		send("lost")
		send("last")
		for _, c := range []*wsroomtest.Client{ann, bob} {
			c.ExpectText("first", "last", "reload")
			c.ExpectNothing()
		}
	})
}

// An outage has each member reload once, whatever rooms it is in, and not all at the same moment.
func TestReloadsAreSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := brokertest.NewMemory().Open()
		hub := wsroomtest.CheckHub(t, newNode(node))
		clients := wsroomtest.DialN(t, 40, hub, "/docs/plan")
		for _, c := range hub.Members("/docs/plan") {
			for i := range 5 {
				if err := c.Join(fmt.Sprint("/docs/", i)); err != nil {
					t.Fatal(err)
				}
			}
		}
		node.Down()
		node.Up()
		time.Sleep(2500 * time.Millisecond)
		early := 0
		for _, c := range clients {
			early += len(c.Drain())
		}
		time.Sleep(10 * time.Second)
		all := early
		for _, c := range clients {
			all += len(c.Drain())
		}
		if all != len(clients) || early < 5 || early > 35 {
			t.Errorf("%d of %d reloads came in the first half of the time", early, all)
		}
	})
}

// The page's words on To with several rooms: one copy, whatever the node.
func TestSeveralRoomsAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := brokertest.NewMemory()
		one := wsroomtest.CheckHub(t, newNode(cloud.Open()))
		two := wsroomtest.CheckHub(t, newNode(cloud.Open()))
		ann := wsroomtest.Dial(t, two, "/a")
		for _, c := range two.Members("/a") {
			if err := c.Join("/b"); err != nil {
				t.Fatal(err)
			}
		}
		bob := wsroomtest.Dial(t, one, "/b")
		if err := one.To("/a", "/b").SendText("hello"); err != nil {
			t.Error(err)
		}
		for _, c := range []*wsroomtest.Client{ann, bob} {
			c.ExpectText("hello")
			c.ExpectNothing()
		}
	})
}

// A node that shuts down leaves the grace to come back by way of another, in which nobody is seen to leave.
func TestRollingRestartIsNotSeenInPresence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := brokertest.NewMemory()
		var seen []string
		node := func() *wsroom.Hub {
			return wsroom.New(
				wsroom.WithBroker(cloud.Open()), wsroom.WithPresenceStore(cloud), wsroom.WithIdentity(userOf),
				wsroom.OnMemberJoin(func(_ string, m wsroom.Member) { seen = append(seen, "+"+m.Identity) }),
				wsroom.OnMemberLeave(func(_ string, m wsroom.Member) { seen = append(seen, "-"+m.Identity) }),
			)
		}
		one, two := node(), wsroomtest.CheckHub(t, node())
		wsroomtest.Dial(t, one, "/a", wsroomtest.WithHeader("X-User", "ann"))
		synctest.Wait()
		if err := one.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Second) // of 5
		wsroomtest.Dial(t, two, "/a", wsroomtest.WithHeader("X-User", "ann"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(seen) != 1 || seen[0] != "+ann" {
			t.Errorf("seen: %q", seen)
		}
		members, err := two.Presence(t.Context(), "/a")
		if err != nil || len(members) != 1 {
			t.Errorf("present: %v, %v", members, err)
		}
	})
}

func userOf(r *http.Request) string { return r.Header.Get("X-User") }
