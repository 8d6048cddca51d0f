package admission_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// under returns a RoomFunc that takes the paths with a prefix.
func under(prefix string) wsroom.Option {
	return wsroom.WithRoom(func(r *http.Request) (string, error) {
		if !strings.HasPrefix(r.URL.Path, prefix) {
			return "", fmt.Errorf("not below %s: %w", prefix, wsroom.ErrPass)
		}
		return r.URL.Path, nil
	})
}

// With ErrPass each of several hubs behind each other gets its own sockets, whatever the others' limits and
// origins.
func TestPassedRequestsReachTheNextHub(t *testing.T) {
	seen := &kit.Observer{Sums: map[string]float64{}}
	first := wsroomtest.CheckHub(t, wsroom.New(under("/a/"), wsroom.WithMaxConns(1), wsroom.WithObserver(seen),
		wsroom.WithSubprotocols("mine"), wsroom.WithCompression(1), wsroom.WithHosts("example.com")))
	second := wsroomtest.CheckHub(t, wsroom.New(under("/b/"), wsroom.WithOrigins("https://other.example"), wsroom.WithSubprotocols("yours")))
	third := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(w.Header()) > 0 {
			t.Errorf("the header has %v", w.Header())
		}
		w.WriteHeader(http.StatusTeapot)
	})
	chain := first.Middleware(second.Middleware(third))

	wsroomtest.Dial(t, chain, "/a/1")
	wsroomtest.Refused(t, chain, "/a/2", http.StatusServiceUnavailable)
	c := wsroomtest.Dial(t, chain, "/b/1", wsroomtest.WithOrigin("https://other.example"),
		wsroomtest.WithSubprotocols("mine", "yours"), wsroomtest.WithCompression(), wsroomtest.WithHost("other.example"))
	if p := c.Subprotocol(); p != "yours" {
		t.Errorf("the second hub's client got the subprotocol %q", p)
	}
	if first.Len() != 1 || second.Len() != 1 {
		t.Errorf("%d and %d connections", first.Len(), second.Len())
	}
	wsroomtest.Refused(t, chain, "/c", http.StatusTeapot, wsroomtest.WithSubprotocols("mine"), wsroomtest.WithCompression())
	if got := first.Causes().Refused; !maps.Equal(got, map[string]int{"max_conns": 1}) {
		t.Errorf("refused: %v", got)
	}
	if n := seen.Sum("refused room"); n != 0 {
		t.Errorf("%v were counted as refused", n)
	}
}

// Without Middleware a request that isn't for the hub gets 404.
func TestPassedRequestsAreNotFound(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(under("/a/")))
	wsroomtest.Refused(t, hub, "/b", http.StatusNotFound)
	if got := hub.Causes().Refused; !maps.Equal(got, map[string]int{"room": 1}) {
		t.Errorf("refused: %v", got)
	}
}

// The RoomFunc is asked once, and no trace fails for a request that is passed on.
func TestPassingAsksOnce(t *testing.T) {
	var calls atomic.Int32
	trace := new(traceEnds)
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithObserver(trace), wsroom.WithRoom(func(r *http.Request) (string, error) {
		calls.Add(1)
		if r.URL.Path == "/other" {
			return "", wsroom.ErrPass
		}
		return wsroom.ByPath(r)
	})))
	h := hub.Middleware(http.NotFoundHandler())
	wsroomtest.Dial(t, h, "/a")
	wsroomtest.Refused(t, h, "/other", http.StatusNotFound)
	if n := calls.Load(); n != 2 {
		t.Errorf("it was asked %d times for 2 requests", n)
	}
	kit.Until(t, "both traces have ended", func() bool { return len(trace.all()) == 2 })
	for _, err := range trace.all() {
		if err != nil {
			t.Errorf("a trace ended with %v", err)
		}
	}
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/other", nil))
	if calls.Load() != 2 {
		t.Error("it was asked for a request that isn't a WebSocket's")
	}
}

// traceEnds is a Tracer that collects what traces end with.
type traceEnds struct {
	mu   sync.Mutex
	errs []error
}

func (*traceEnds) Add(string, string, string, int)        {}
func (*traceEnds) Record(string, string, string, float64) {}

func (e *traceEnds) Start(ctx context.Context, _, _ string) (context.Context, func(error)) {
	return ctx, func(err error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.errs = append(e.errs, err)
	}
}

func (e *traceEnds) all() []error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.errs)
}
