//go:build unix

package attack_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// pause stops a server process for 3 s.
func pause(t *testing.T, process *os.Process, meanwhile func()) {
	t.Helper()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	meanwhile()
	time.Sleep(3 * time.Second) // longer than the process's timeouts
	if err := process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// A process that was paused reads what came in time, and writes what the client takes, although its timeouts
// have passed meanwhile.
func TestPausedProcessCutsNoMessage(t *testing.T) {
	srv, _ := serveRemotely(t, "")
	message := kit.RawFrame(0x81, strings.Repeat("x", 1000))
	var clients []*kit.RawConn
	for i := range 20 {
		c := kit.DialRaw(t, srv, fmt.Sprint("/", i))
		c.Write(kit.RawFrame(0x81, "there?"))
		c.Next()
		c.Write(message[:500])
		clients = append(clients, c)
	}
	time.Sleep(100 * time.Millisecond) // it waits for the rest, 2 s at the most
	pause(t, srv.Listener.(remote).process, func() {
		for _, c := range clients {
			c.Write(message[500:])
		}
	})
	for i, c := range clients {
		if first, p, err := c.Next(); first != 0x81 || len(p) != 1000 {
			t.Errorf("client %d: got %#x %q, %v", i, first, kit.Short(p), err)
		}
	}
}

// A process that was paused, as with its machine, doesn't cut clients whose answers came meanwhile: it reads
// before it judges.
func TestPausedProcessReadsBeforeItJudges(t *testing.T) {
	srv, _ := serveRemotely(t, heartbeatVariable+"=300ms,1s")
	var clients []*kit.RawConn
	for range 20 {
		clients = append(clients, kit.DialRaw(t, srv, "/a"))
	}
	for _, c := range clients {
		if first, _, err := c.Next(); first != 0x89 || err != nil {
			t.Fatalf("want a ping, got %#x, %v", first, err)
		}
	}
	pause(t, srv.Listener.(remote).process, func() {
		for _, c := range clients {
			c.Frame(0x8a, "")
		}
	})
	for i, c := range clients {
		c.Frame(0x81, kit.Number(i))
	}
	for i, c := range clients {
		for received := 0; received <= i; { // all are in one room
			first, p, err := c.Next()
			if err != nil {
				t.Fatalf("client %d, after %d messages: %v", i, received, err)
			}
			if first == 0x89 {
				c.Frame(0x8a, p)
			} else {
				received++
			}
		}
	}
}
