package wsroom

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/route"
)

// Observer hears what a hub counts and measures, for metrics adapters. Its methods are called
// concurrently and from hot paths: they must return at once and must not call the hub. route is the
// pattern under which the request was routed ("" where there is none), cause a word from a fixed set;
// neither ever names a room, an address or a user.
//
// An Observer that is a Tracer, too, hears of upgrades and callbacks.
type Observer interface {
	// Add adds n to a counter, or to a gauge, for which n may be negative.
	Add(metric, route, cause string, n int)
	// Record takes one measurement of a distribution.
	Record(metric, route, cause string, value float64)
}

// The metrics that an Observer hears of, with the route of the connection or request and, where that is
// said, a cause. docs/metrics.md lists all causes.
const (
	MetricConns       = "conns"        // gauge: connections, until their last callback has returned
	MetricRooms       = "rooms"        // gauge: rooms with a member; no route
	MetricJoins       = "joins"        // counter: rooms entered
	MetricRefused     = "refused"      // counter: requests refused, by cause
	MetricEnded       = "ended"        // counter: connections ended, by cause
	MetricMessagesIn  = "messages_in"  // counter
	MetricMessagesOut = "messages_out" // counter
	MetricBytesIn     = "bytes_in"     // counter: payload
	MetricBytesOut    = "bytes_out"    // counter: frames as written
	MetricDropped     = "dropped"      // counter: messages for a connection that weren't written to it, by cause
	MetricFanOut      = "fan_out"      // distribution: receivers of a message on this node; no route
	MetricQueueTime   = "queue_time"   // distribution: seconds from a send to its write, of the oldest message in each write

	MetricBrokerGaps   = "broker_gaps"   // counter: times that messages of other nodes may have been missed, by cause
	MetricBrokerErrors = "broker_errors" // counter: failed calls of the broker, by cause
	MetricBrokerQueue  = "broker_queue"  // gauge: bytes accepted for the broker and not published yet
)

// noObserver is used where there is none.
type noObserver struct{}

func (noObserver) Add(string, string, string, int)        {}
func (noObserver) Record(string, string, string, float64) {}

// Stats are a hub's figures on this node.
type Stats struct {
	Conns    int // connections now
	Rooms    int // rooms with a member now
	Opened   int // connections since New
	Closed   int // connections that have ended, callbacks included
	Received int // messages
	Sent     int // messages written to sockets
	Dropped  int // messages dropped on full queues

	ReceivedBytes int64 // payload
	SentBytes     int64 // frames
}

type counters struct {
	opened, closed, received, sent, dropped, receivedBytes, sentBytes atomic.Int64
}

// Stats returns the hub's figures. They are each exact, but not of one moment.
func (h *Hub) Stats() Stats {
	n := &h.counters
	return Stats{
		Conns: h.Len(), Rooms: int(h.store.rooms.Load()),
		Opened: int(n.opened.Load()), Closed: int(n.closed.Load()),
		Received: int(n.received.Load()), Sent: int(n.sent.Load()), Dropped: int(n.dropped.Load()),
		ReceivedBytes: n.receivedBytes.Load(), SentBytes: n.sentBytes.Load(),
	}
}

func (h *Hub) countIn(c *Conn, size int) {
	h.counters.received.Add(1)
	h.counters.receivedBytes.Add(int64(size))
	if h.cfg.observer != nil {
		h.observer.Add(MetricMessagesIn, c.route, "", 1)
		h.observer.Add(MetricBytesIn, c.route, "", size)
	}
}

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
		h.observer.Record(MetricQueueTime, c.route, "", time.Since(w.Oldest).Seconds())
	}
}

// countDrops counts messages that found a full queue, or had to make room in it.
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

// Tracer is what an Observer may be besides, to trace what a hub does. To have the metrics of one Observer
// and the tracing of another, give WithObserver a struct{ Observer; Tracer } that embeds both.
type Tracer interface {
	// Start is told that something begins: an "upgrade", or a callback by the name of the option that
	// registered it, such as "OnConnect" or "OnJSON". route is that of Observer. Start must return at once
	// and may be called concurrently. end is called once, when that which began is over, on the same
	// goroutine, with the error of an upgrade that was refused, of a callback that panicked (ErrPanic) or
	// ended the connection by one, or of a message that didn't decode (*DecodeError).
	//
	// ctx is the request's for an upgrade, and Conn.Context for a callback. What an upgrade's Start adds to
	// it, the functions of WithRoom, WithAuthorize and OnConnect find in their request's context, and
	// everyone in Conn.Context: so a callback can be linked to its connection's upgrade. The context that
	// Start returns for a callback is used by nobody.
	Start(ctx context.Context, name, route string) (traced context.Context, end func(err error))
}

// errAborted ends the span of an upgrade in which something panicked.
var errAborted = errors.New("wsroom: upgrade aborted")

// tracedUpgrade is upgrade within the Tracer's bounds.
func (h *Hub) tracedUpgrade(w http.ResponseWriter, r *http.Request) (c *Conn, _ *http.Request) {
	if h.tracer == nil {
		c, r, _ = h.upgrade(w, r)
		return c, r
	}
	ctx, end := h.tracer.Start(r.Context(), "upgrade", route.Pattern(r))
	err := errAborted
	defer func() {
		ended := false
		defer func() {
			if !ended && c != nil { // the Tracer panicked
				h.begin(c, func() {})
			}
		}()
		end(err)
		ended = true
	}()
	c, r, err = h.upgrade(w, r.WithContext(ctx))
	return c, r
}

// trace tells the Tracer of a callback and returns what ends it; nil without a Tracer.
func (c *Conn) trace(name string) (end func(error)) {
	if c.hub.tracer != nil {
		_, end = c.hub.tracer.Start(c.Context(), name, c.route)
	}
	return end
}

// trace is for callbacks that belong to no connection.
func (h *Hub) trace(name string) (end func(error)) {
	if h.tracer != nil {
		_, end = h.tracer.Start(context.Background(), name, "")
	}
	return end
}
