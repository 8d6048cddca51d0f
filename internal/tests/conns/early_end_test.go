package conns_test

import (
	"io"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// closeAtJoin is an Observer that closes all connections when one has joined its room, before it has its socket.
type closeAtJoin struct{ hub **wsroom.Hub }

func (o closeAtJoin) Add(metric, _, _ string, _ int) {
	if metric == wsroom.MetricJoins {
		_ = (*o.hub).ToAll().Close(4000, "early")
	}
}

func (closeAtJoin) Record(string, string, string, float64) {}

// A connection that is closed before it has its socket ends like any other: its client gets the close frame, and
// is cut if it doesn't answer.
func TestEndBeforeTheSocketIsBounded(t *testing.T) {
	var hub *wsroom.Hub
	newHub := func() *wsroom.Hub {
		hub = wsroom.New(wsroom.WithObserver(closeAtJoin{&hub}), wsroom.OnText(kit.DiscardText))
		return hub
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, _ *wsroom.Hub) {
		begin := time.Now()
		c := s.DialRaw("/a")
		if code, reason := c.CloseCode(); code != 4000 || reason != "early" {
			t.Errorf("close code %d %q, want 4000", code, reason)
		}
		if n, err := io.Copy(io.Discard, c); n > 0 || err != nil {
			t.Errorf("%d bytes and %v after the close frame", n, err)
		}
		kit.WantBetween(t, "cut", time.Since(begin), 5*time.Second, 6*time.Second)
	})
}
