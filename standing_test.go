//go:build unix

package wsroom_test

import (
	"syscall"
	"testing"
	"time"
)

// A process that stood still, as with its machine, doesn't cut clients whose answers came meanwhile: it
// reads before it judges.
func TestProcessThatStoodStillReadsBeforeItJudges(t *testing.T) {
	srv, _ := serveRemotely(t, heartbeatVariable+"=300ms,1s")
	var clients []*rawConn
	for range 20 {
		clients = append(clients, dialRaw(t, srv, "/a"))
	}
	for _, c := range clients {
		if first, _, err := c.next(); first != 0x89 || err != nil {
			t.Fatalf("want a ping, got %#x, %v", first, err)
		}
	}
	process := srv.Listener.(remote).process
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		c.frame(0x8a, "")
	}
	time.Sleep(2 * time.Second) // more than the timeout
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		c.frame(0x81, number(i))
	}
	for i, c := range clients {
		for heard := 0; heard <= i; { // all are in one room
			first, p, err := c.next()
			if err != nil {
				t.Fatalf("client %d, after %d messages: %v", i, heard, err)
			}
			if first == 0x89 {
				c.frame(0x8a, p)
			} else {
				heard++
			}
		}
	}
}
