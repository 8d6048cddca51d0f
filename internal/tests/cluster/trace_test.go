package cluster_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// propagating is an Observer whose traces are one text.
type propagating string

func (propagating) Add(string, string, string, int)                       {}
func (propagating) Record(string, string, string, float64)                {}
func (p propagating) Inject(context.Context) string                       { return string(p) }
func (propagating) Extract(ctx context.Context, _ string) context.Context { return ctx }
func (propagating) Start(ctx context.Context, _, _ string) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// The trace of a message counts towards what the broker takes: what is accepted comes.
func TestTraceCountsTowardsWhatTheBrokerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := make(chan string, 10)
		o := propagating(strings.Repeat("t", 255))
		hub := kit.Nodes(t, limited{kit.NewWire()}, 1, noteGaps(gaps), wsroom.WithObserver(o))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		target, taken := hub.To("/a").Context(t.Context()), 0
		for size := range 1000 {
			err := target.SendText(strings.Repeat("x", size))
			if (err != nil) != (size > 658) {
				t.Fatalf("%d bytes: %v", size, err)
			}
			if err == nil {
				taken++
			}
			synctest.Wait()
		}
		if got := c.Drain(); len(got) != taken {
			t.Errorf("%d of %d came", len(got), taken)
		}
		wantGaps(t, gaps)
	})
}

// A message with a trace and a key has both on its way.
func TestTraceAndKeyTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := kit.Nodes(t, kit.NewWire(), 1, wsroom.WithObserver(propagating("trace")))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		c.Stall()
		hub.SendTextToRoom("/a", strings.Repeat("x", 1000)) // is being written
		synctest.Wait()
		for i := range 3 {
			if err := hub.To("/a").Latest(strings.Repeat("k", 255)).Context(t.Context()).SendText(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		c.Resume()
		if got := c.Drain(); len(got) != 2 || got[1] != "2" {
			t.Errorf("%d come", len(got))
		}
	})
}
