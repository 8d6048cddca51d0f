package wsroomtest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// newBoard is the hub to be tested: newcomers get a welcome, and those that come back what they have missed.
func newBoard() *wsroom.Hub {
	return wsroom.New(
		wsroom.WithHistory(100, 1<<20, time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if c.Resumed() {
				return nil
			}
			return c.SendText("welcome")
		}),
	)
}

// testReturn would be TestReturn.
func testReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, newBoard())
		ann := wsroomtest.Dial(t, hub, "/board", wsroomtest.WithCursor(""))
		ann.ExpectText("welcome")
		hub.SendTextToRoom("/board", "one")
		ann.ExpectText("one")

		ann.Cut() // a phone in a tunnel
		hub.SendTextToRoom("/board", "two")
		ann = wsroomtest.Dial(t, hub, "/board", wsroomtest.WithCursor(ann.Cursor()))
		ann.ExpectRoom("/board", true)
		ann.ExpectText("two")

		cursor := ann.Cursor()
		ann.CloseNow()
		time.Sleep(time.Hour)
		ann = wsroomtest.Dial(t, hub, "/board", wsroomtest.WithCursor(cursor))
		ann.ExpectRoom("/board", false)
		ann.ExpectText("welcome")
		ann.ExpectNothing()
	})
}

// A client that comes back is sent what it has missed; one that comes back after an hour is a newcomer.
func ExampleWithCursor() {
	run(testReturn)
	// Output: PASS
}
