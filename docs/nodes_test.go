package docs_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// newNode is the page's hub that has its members start again where messages are missing.
func newNode(broker wsroom.Broker) *wsroom.Hub {
	var hub *wsroom.Hub
	hub = wsroom.New(
		wsroom.WithBroker(broker),
		wsroom.OnGap(func(room string, err error) {
			rooms := []string{room}
			if room == "" { // of the messages to all
				rooms = hub.Rooms()
			}
			for _, room := range rooms {
				for _, c := range hub.Members(room) { // on this node, and not by way of the broker
					c.SendText("reload")
				}
			}
		}),
	)
	return hub
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
			c.ExpectText("first", "reload", "last")
			c.ExpectNothing()
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
