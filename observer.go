package wsroom

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/route"
)

// Observer receives what a hub counts and measures, for metrics adapters. Its methods are called concurrently
// and from hot paths: they must return at once and must not call the hub. route is the pattern under which the
// request was routed, "" if there is none. cause is a word from a fixed set. Neither contains a room, an
// address or a user.
//
// An Observer that is also a [Tracer] receives upgrades and callbacks, too.
type Observer interface {
	// Add adds n to a counter, or to a gauge, for which n may be negative.
	Add(metric, route, cause string, n int)
	// Record adds one measurement to a distribution.
	Record(metric, route, cause string, value float64)
}

// The metrics that an [Observer] receives. Each has the route of the connection or request, and a cause where
// its comment says so. docs/metrics.md lists all causes.
const (
	MetricConns       = "conns"        // gauge: connections, until their last callback has returned
	MetricRooms       = "rooms"        // gauge: rooms with a member; no route
	MetricJoins       = "joins"        // counter: rooms entered
	MetricRefused     = "refused"      // counter: requests refused, by cause
	MetricEnded       = "ended"        // counter: connections ended, by cause
	MetricMessagesIn  = "messages_in"  // counter: messages received
	MetricMessagesOut = "messages_out" // counter: messages written
	MetricBytesIn     = "bytes_in"     // counter: payload bytes of the messages received
	MetricBytesOut    = "bytes_out"    // counter: bytes of the frames written
	MetricDropped     = "dropped"      // counter: messages that weren't written to a connection, by cause
	MetricFanOut      = "fan_out"      // distribution: receivers of a message on this node; no route
	MetricQueueTime   = "queue_time"   // distribution: seconds that each write's oldest message waited

	MetricResumes = "resumes" // counter: positions that clients presented when they came back, by cause
	MetricResent  = "resent"  // counter: messages sent again to clients that came back
	MetricHistory = "history" // gauge: bytes that the rooms' histories keep; no route

	MetricBrokerGaps   = "broker_gaps"   // counter: possible losses of other nodes' messages, by cause
	MetricBrokerErrors = "broker_errors" // counter: failed calls of the broker, by cause
	MetricBrokerQueue  = "broker_queue"  // gauge: bytes accepted for the broker and not yet published
)

// noObserver is the Observer of a hub without WithObserver.
type noObserver struct{}

func (noObserver) Add(string, string, string, int)        {}
func (noObserver) Record(string, string, string, float64) {}

// Stats are a hub's figures on this node. The counts begin at [New].
type Stats struct {
	Conns    int // connections now
	Rooms    int // rooms with a member now
	Opened   int // connections opened
	Closed   int // connections that have ended and whose callbacks have returned
	Received int // messages received
	Sent     int // messages written to sockets
	Dropped  int // messages dropped because a queue was full

	ReceivedBytes int64 // payload bytes of the messages received
	SentBytes     int64 // bytes of the frames written
}

type counters struct {
	opened, closed, received, sent, dropped, receivedBytes, sentBytes atomic.Int64
}

// Stats returns the hub's figures. Each figure is exact, but they aren't all read at the same moment.
func (h *Hub) Stats() Stats {
	n := &h.counters
	return Stats{
		Conns: h.Len(), Rooms: int(h.store.rooms.Load()),
		Opened: int(n.opened.Load()), Closed: int(n.closed.Load()),
		Received: int(n.received.Load()), Sent: int(n.sent.Load()), Dropped: int(n.dropped.Load()),
		ReceivedBytes: n.receivedBytes.Load(), SentBytes: n.sentBytes.Load(),
	}
}

// countIn counts a message received.
func (h *Hub) countIn(c *Conn, size int) {
	h.counters.received.Add(1)
	h.counters.receivedBytes.Add(int64(size))
	if h.cfg.observer != nil {
		h.observer.Add(MetricMessagesIn, c.route, "", 1)
		h.observer.Add(MetricBytesIn, c.route, "", size)
	}
}

// countOut counts what a write has sent and lost.
func (h *Hub) countOut(c *Conn, w outbound.Written) {
	h.counters.sent.Add(int64(w.Messages))
	h.counters.sentBytes.Add(int64(w.Bytes))
	h.countLost(c, w.Lost)

	if h.cfg.observer == nil {
		return
	}
	h.observer.Add(MetricBytesOut, c.route, "", w.Bytes)
	if w.Messages > 0 {
		h.observer.Add(MetricMessagesOut, c.route, "", w.Messages)
		if w.Oldest != 0 {
			h.observer.Record(MetricQueueTime, c.route, "", time.Duration(w.At-w.Oldest).Seconds())
		}
	}
}

// countDrops counts messages that were dropped because the queue was full: new ones or, under DropOldest, old
// ones.
func (h *Hub) countDrops(c *Conn, n int) {
	h.counters.dropped.Add(int64(n))
	cause := "newest"
	if h.cfg.outboundQueue.Policy == outbound.DropOldest {
		cause = "oldest"
	}
	h.observer.Add(MetricDropped, c.route, cause, n)
}

// countLost counts messages that were still queued when their connection ended.
func (h *Hub) countLost(c *Conn, n int) {
	if n > 0 {
		h.observer.Add(MetricDropped, c.route, "ended", n)
	}
}

// Causes are a hub's counts by cause on this node, since [New]. The causes are the words that an [Observer]
// receives with [MetricEnded] and [MetricRefused].
type Causes struct {
	Ended   map[string]int // connections that have ended and whose callbacks have returned
	Refused map[string]int // requests refused
}

// Causes returns the hub's counts by cause. The maps are copies that the caller may change.
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
	own := map[string]int{} // never nil, so that the caller can add to it
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(own, s.n)
	return own
}

func (h *Hub) countEnd(c *Conn) {
	label := c.line.Ending().Label
	h.ended.add(label)
	h.observer.Add(MetricEnded, c.route, label, 1)
}

func (h *Hub) countRefusal(r *http.Request, cause string) {
	h.refused.add(cause)
	pattern := route.Pattern(r)
	h.observer.Add(MetricRefused, pattern, cause, 1)

	if h.cfg.logger.Enabled(r.Context(), slog.LevelDebug) {
		h.cfg.logger.Debug("wsroom: request refused", "route", pattern, "cause", cause,
			"host", r.Host, "origin", r.Header.Get("Origin"), "option", h.cfg.site.Remedy(r))
	}
}

// Tracer is an optional interface of an [Observer], for tracing what a hub does. To use one Observer's metrics
// with another's tracing, pass [WithObserver] a struct{ Observer; Tracer; Propagator } that embeds them.
type Tracer interface {
	// Start is called when an upgrade or a callback begins. name is "upgrade", or the name of the option that
	// registered the callback, such as "OnConnect" or "OnJSON", or "deliver" for a message of
	// [Target.Context]. route is the same as for an [Observer]. Start must return at once and may be called
	// concurrently.
	//
	// end is called once, on the same goroutine, when the upgrade or callback is over. Its err is nil or one
	// of these: the refusal or failure of an upgrade, [ErrPanic], the error by which a callback ended the
	// connection, a [*DecodeError]. It is nil for a request that [Hub.Middleware] passes on because of
	// [ErrPass].
	//
	// ctx is the request's context for an upgrade, and [Conn.Context] for a connection's callback. The
	// functions of [WithRoom], [WithAuthorize] and [OnConnect] find the values that an upgrade's Start adds to
	// it in their request's context, and all code finds them in Conn.Context. So a callback can be linked to
	// its connection's upgrade. The context that Start returns for a callback isn't used.
	Start(ctx context.Context, name, route string) (traced context.Context, end func(err error))
}

// Propagator is an optional interface of a [Tracer], for traces that go on behind a message; see
// [Target.Context]. Its methods must return at once, must not call the hub, and may be called concurrently.
type Propagator interface {
	// Inject returns the trace in ctx as text of up to 255 bytes, such as a traceparent of W3C Trace Context,
	// or "" if there is none. A longer text counts as "".
	Inject(ctx context.Context) string
	// Extract returns ctx with the trace that Inject has returned, maybe on another node.
	Extract(ctx context.Context, trace string) context.Context
}

// extract returns a context with the trace of a message. There is a Propagator.
func (h *Hub) extract(trace string) context.Context {
	return h.propagator.Extract(context.Background(), trace)
}

// errAborted ends the trace of an upgrade in which something panicked.
var errAborted = errors.New("wsroom: upgrade aborted")

// tracedUpgrade calls upgrade between the Tracer's Start and end. If end panics, it still starts the
// connection's goroutine, so that the connection ends.
func (h *Hub) tracedUpgrade(w http.ResponseWriter, r *http.Request, mayPass bool) (c *Conn, _ *http.Request, err error) {
	ctx, end := h.tracer.Start(r.Context(), "upgrade", route.Pattern(r))
	err = errAborted
	defer func() {
		ended := false
		defer func() {
			if !ended && c != nil { // the Tracer panicked
				h.begin(c, nil)
			}
		}()
		failed := err
		if err == errPassed { // it is no failure
			failed = nil
		}
		end(failed)
		ended = true
	}()

	return h.upgrade(w, r.WithContext(ctx), mayPass)
}

// trace starts the trace of a callback and returns the function that ends it, nil without a Tracer.
func (c *Conn) trace(name string) (end func(error)) {
	if c.hub.tracer != nil {
		_, end = c.hub.tracer.Start(c.Context(), name, c.route)
	}
	return end
}

// trace starts the trace of a callback that belongs to no connection. message is the trace of its message, ""
// if there is none.
func (h *Hub) trace(name, message string) (end func(error)) {
	if h.tracer == nil {
		return nil
	}
	ctx := context.Background()
	if message != "" && h.propagator != nil {
		ctx = h.extract(message)
	}
	_, end = h.tracer.Start(ctx, name, "")
	return end
}
