package brokertest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
)

// notes follows a topic on a node. It returns what the follower was told so far.
func notes(t *testing.T, node *brokertest.Node) func(want ...string) {
	t.Helper()
	var heard []string
	note := func(s string) { heard = append(heard, s) }
	stop, err := node.Follow(t.Context(), "topic", 10,
		func(_ uint64, data []byte) { note(string(data)) }, func() { note("live") }, func(error) { note("lost") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return func(want ...string) {
		t.Helper()
		synctest.Wait()
		if !slices.Equal(heard, want) {
			t.Errorf("the follower was told %q, want %q", heard, want)
		}
	}
}

func keepAll(t *testing.T, node *brokertest.Node, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := node.Keep(t.Context(), "topic", []byte(m), 10, time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// What a node missed is told to its followers: nothing at all if nothing was, and lost only where something
// is gone.
func TestMemoryTellsWhatIsGone(t *testing.T) {
	for _, c := range []struct {
		name      string
		meanwhile func(t *testing.T, server *brokertest.Memory, other *brokertest.Node)
		want      []string
	}{
		{"nothing missed", func(*testing.T, *brokertest.Memory, *brokertest.Node) {}, nil},
		{"all kept", func(t *testing.T, _ *brokertest.Memory, n *brokertest.Node) { keepAll(t, n, "2", "3") }, []string{"2", "3"}},
		{"nothing missed, wiped", func(t *testing.T, s *brokertest.Memory, n *brokertest.Node) {
			s.Wipe()
			keepAll(t, n, "2")
		}, []string{"2"}},
		{"missed, wiped", func(t *testing.T, s *brokertest.Memory, n *brokertest.Node) {
			keepAll(t, n, "2")
			s.Wipe()
			keepAll(t, n, "3")
		}, []string{"lost", "3"}},
		{"nothing missed, trimmed", func(t *testing.T, s *brokertest.Memory, n *brokertest.Node) {
			s.Trim(0)
			keepAll(t, n, "2")
		}, []string{"2"}},
		{"missed, trimmed", func(t *testing.T, s *brokertest.Memory, n *brokertest.Node) {
			keepAll(t, n, "2", "3")
			s.Trim(1)
		}, []string{"lost", "3"}},
		{"missed, lapsed", func(t *testing.T, _ *brokertest.Memory, n *brokertest.Node) {
			keepAll(t, n, "2")
			time.Sleep(time.Minute)
			keepAll(t, n, "3")
		}, []string{"lost", "3"}},
		{"missed, lost", func(t *testing.T, s *brokertest.Memory, n *brokertest.Node) {
			s.Lose(1)
			keepAll(t, n, "2", "3")
		}, []string{"lost", "3"}},
		{"more than n", func(t *testing.T, _ *brokertest.Memory, n *brokertest.Node) {
			for i := range 12 {
				keepAll(t, n, fmt.Sprint(i))
			}
		}, []string{"lost", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := brokertest.NewMemory()
				node, other := server.Open(), server.Open()
				keepAll(t, other, "1")
				told := notes(t, node)
				node.Down()
				c.meanwhile(t, server, other)
				told("1", "live")
				node.Up()
				told(append([]string{"1", "live"}, c.want...)...)
			})
		})
	}
}

// A message that is lost on purpose is missed by followers that are connected, too, and with it goes what was
// kept before.
func TestMemoryLosesWhatIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		node := server.Open()
		told := notes(t, node)
		keepAll(t, node, "1")
		server.Lose(1)
		keepAll(t, node, "2", "3")
		told("live", "1", "lost", "3")
		notes(t, node)("3", "live")
	})
}

// What was kept outlasts an outage of the server, in which Keep fails.
func TestMemoryKeepsThroughAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		node := server.Open()
		keepAll(t, node, "1")
		server.Down()
		if err := node.Keep(t.Context(), "topic", nil, 10, time.Minute); !errors.Is(err, brokertest.ErrAway) {
			t.Errorf("Keep returns %v", err)
		}
		server.Up()
		keepAll(t, node, "2")
		notes(t, node)("1", "2", "live")
		time.Sleep(time.Minute)
		notes(t, node)("live")
	})
}
