package wsroomtest_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// testSlowClient would be TestSlowClient.
func testSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithSendQueue(10, 1<<20),
			wsroom.OnClose(func(c *wsroom.Conn, err error) { ends <- err })))
		fast, slow := wsroomtest.Dial(t, hub, "/"), wsroomtest.Dial(t, hub, "/")

		slow.Stall()
		text := strings.Repeat("x", 1000)
		for hub.Len() == 2 {
			hub.SendTextToAll(text)
			fast.ExpectText(text)
		}
		if err := <-ends; !errors.Is(err, wsroom.ErrSlow) {
			t.Errorf("ended by %v", err)
		}
		slow.Resume()
		slow.ExpectClose(websocket.StatusTryAgainLater)
	})
}

// A client that doesn't read is ended once its queue is full, and costs the others nothing.
func ExampleClient_Stall() {
	run(testSlowClient)
	// Output: PASS
}
