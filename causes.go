package wsroom

import (
	"maps"
	"net/http"
	"sync"

	"github.com/wsroom/wsroom/internal/route"
)

// Causes are a hub's sums by cause on this node, since New. The causes are the words that an Observer
// hears with MetricEnded and MetricRefused.
type Causes struct {
	Ended   map[string]int // connections, callbacks included
	Refused map[string]int // requests
}

// Causes returns the hub's sums by cause. The maps are the caller's.
func (h *Hub) Causes() Causes {
	return Causes{Ended: h.ended.snapshot(), Refused: h.refused.snapshot()}
}

// sums are counters by cause. The zero value is ready for use.
type sums struct {
	mu sync.Mutex // guards n
	n  map[string]int
}

func (s *sums) add(cause string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[string]int{}
	}
	s.n[cause]++
}

func (s *sums) snapshot() map[string]int {
	own := map[string]int{} // never nil, for the caller to add to
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(own, s.n)
	return own
}

func (h *Hub) countEnd(c *Conn) {
	h.ended.add(c.ending.label)
	h.observer.Add(MetricEnded, c.route, c.ending.label, 1)
}

func (h *Hub) countRefusal(r *http.Request, cause string) {
	h.refused.add(cause)
	h.observer.Add(MetricRefused, route.Pattern(r), cause, 1)
}
