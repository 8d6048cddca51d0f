package wsroomtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// CheckHub shuts the hub down at the test's end, after the clients that are dialed later have hung up. It
// returns the hub. Within 10 s each callback must return, the hub must become empty, and no goroutine that
// came from the test's clients may be left, of this hub or the test's other hubs. Otherwise the test fails.
func CheckHub(t testing.TB, hub *wsroom.Hub) *wsroom.Hub {
	t.Helper()
	checked.add(t.Name(), 1)
	t.Cleanup(func() {
		t.Helper()
		last := checked.add(t.Name(), -1) == 0
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Errorf("the hub's Shutdown: %v; is a callback stuck?\n%s", err, stacks(t.Name()))
			return
		}
		if n, rooms := hub.Len(), hub.Rooms(); n != 0 || len(rooms) != 0 {
			t.Errorf("after its Shutdown the hub has %d connections and the rooms %q", n, rooms)
		}
		if !last { // the last hub's check covers all
			return
		}
		if left := awaitEnd(t.Name()); left != "" {
			t.Errorf("goroutines of the hub are left after its Shutdown:\n%s", left)
		}
	})
	return hub
}

// checked counts, by test, the hubs that are still to be checked.
var checked tallies

type tallies struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

// add returns the new count.
func (c *tallies) add(test string, n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int{}
	}
	c.n[test] += n
	left := c.n[test]
	if left == 0 {
		delete(c.n, test)
	}
	return left
}

// Main runs the package's tests for TestMain and returns the exit code. The code isn't 0 either if a
// goroutine of wsroom is left at the end.
//
//	func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }
func Main(m *testing.M) (code int) {
	if code = m.Run(); code != 0 {
		return code
	}
	if left := awaitEnd(""); left != "" {
		fmt.Fprintf(os.Stderr, "goroutines of wsroom are left:\n%s", left)
		return 1
	}
	return 0
}

// awaitEnd gives goroutines time to end, and returns the stacks of those that are left.
func awaitEnd(test string) (left string) {
	for wait := time.Millisecond; wait < patience; wait *= 2 { // a goroutine's end can't be waited for
		if left = goroutines(test); left == "" {
			return ""
		}
		<-time.After(wait)
	}
	return left
}

// labelKey labels the goroutines that serve a test's clients, and the goroutines that those start.
const labelKey = "wsroomtest"

// stacks returns the stacks of the test's goroutines or, if a server dialed by URL runs them, of all.
func stacks(test string) string {
	if own := goroutines(test); own != "" {
		return own
	}
	return goroutines("")
}

// goroutines returns the stacks of wsroom's goroutines: those of a test and its subtests, or all.
func goroutines(test string) string {
	var profile bytes.Buffer
	_ = pprof.Lookup("goroutine").WriteTo(&profile, 1)
	label := fmt.Sprintf("%q:%q", labelKey, test)
	within := strings.TrimSuffix(label, `"`) + "/"
	var b strings.Builder
	_, all, _ := strings.Cut(profile.String(), "\n") // skip the total
	for g := range strings.SplitSeq(all, "\n\n") {
		ours := strings.Contains(g, "wsroom/wsroom.(*") || strings.Contains(g, "wsroom/internal/frame.(*")
		if ours && (test == "" || strings.Contains(g, label) || strings.Contains(g, within)) {
			b.WriteString(g + "\n\n")
		}
	}
	return b.String()
}
