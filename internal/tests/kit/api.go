package kit

import (
	"strings"
	"sync"
	"testing"

	"github.com/wsroom/wsroom"
)

// Member returns the room's only member.
func Member(t testing.TB, hub *wsroom.Hub, room string) *wsroom.Conn {
	t.Helper()
	members := hub.Members(room)
	if len(members) != 1 {
		t.Fatalf("%s has %d members", room, len(members))
	}
	return members[0]
}

// Observer sums what a hub counts and records, by metric and cause.
type Observer struct {
	Mu   sync.Mutex
	Sums map[string]float64
}

func (o *Observer) Add(metric, _, cause string, n int) { o.Record(metric, "", cause, float64(n)) }

func (o *Observer) Record(metric, _, cause string, v float64) {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	o.Sums[strings.TrimSpace(metric+" "+cause)] += v
}

// Sum returns the sum of a metric, or of a metric and a cause with a space between them.
func (o *Observer) Sum(metric string) float64 {
	o.Mu.Lock()
	defer o.Mu.Unlock()
	return o.Sums[metric]
}
