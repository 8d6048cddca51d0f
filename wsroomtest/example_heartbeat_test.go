package wsroomtest_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// testHeartbeat would be TestHeartbeat.
func testHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithHeartbeat(20*time.Second, 5*time.Second),
			wsroom.OnClose(func(c *wsroom.Conn, err error) { ends <- err })))
		c := wsroomtest.Dial(t, hub, "/")
		time.Sleep(time.Hour) // the client answers pings, as a browser does
		c.ExpectNothing()

		c.Cut()
		begin := time.Now()
		if err := <-ends; !errors.Is(err, wsroom.ErrHeartbeat) {
			t.Errorf("ended by %v", err)
		}
		if d := time.Since(begin); d > 27*time.Second {
			t.Errorf("found after %v", d)
		}
	})
}

// A line that goes dead is found by the heartbeat: half a minute of fake time.
func ExampleClient_Cut() {
	run(testHeartbeat)
	// Output: PASS
}
