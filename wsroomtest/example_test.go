package wsroomtest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

type message struct{ From, Text string }

// newChat is the hub to be tested.
func newChat() *wsroom.Hub {
	return wsroom.New(wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
		if err == nil {
			c.SendJSONToThisRoom(m)
		}
	}))
}

// testChat would be TestChat.
func testChat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, newChat()) // shut down at the test's end
		ann := wsroomtest.Dial(t, hub, "/chat/general", wsroomtest.WithName("ann"))
		bob := wsroomtest.Dial(t, hub, "/chat/general", wsroomtest.WithName("bob"))
		eve := wsroomtest.Dial(t, hub, "/chat/other", wsroomtest.WithName("eve"))

		ann.SendJSON(message{"ann", "hello"})
		bob.ExpectJSON(message{"ann", "hello"})
		eve.ExpectNothing()

		bob.Cut() // a phone in a tunnel
		time.Sleep(time.Minute)
		if n := len(hub.Members("/chat/general")); n != 1 {
			t.Errorf("%d members, want ann alone", n)
		}
	})
}

// A test of a chat: who hears whom, and who is still there a minute after a line went dead. It takes no
// time, for in a bubble of testing/synctest hub, line and clients run on fake time.
func Example() {
	run(testChat)
	// Output: PASS
}
