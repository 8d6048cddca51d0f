package wsroom

// Observer hears what a hub counts and measures, for metrics adapters. Its methods are called
// concurrently and from hot paths: they must return at once and must not call the hub. route is the
// pattern under which the request was routed ("" where there is none), cause a word from a fixed set;
// neither ever names a room, an address or a user.
type Observer interface {
	// Add adds n to a counter, or to a gauge, for which n may be negative.
	Add(metric, route, cause string, n int)
	// Record takes one measurement of a distribution.
	Record(metric, route, cause string, value float64)
}

// The metrics that an Observer hears of. How many rooms there are is in Stats.
const (
	MetricConns       = "conns"        // gauge: connections
	MetricJoins       = "joins"        // counter: rooms entered
	MetricRefused     = "refused"      // counter: requests refused, by cause
	MetricEnded       = "ended"        // counter: connections ended, by cause
	MetricMessagesIn  = "messages_in"  // counter
	MetricMessagesOut = "messages_out" // counter
	MetricBytesIn     = "bytes_in"     // counter: payload
	MetricBytesOut    = "bytes_out"    // counter: frames as written
	MetricDropped     = "dropped"      // counter: messages dropped on full queues
	MetricFanOut      = "fan_out"      // distribution: receivers of a message; no route
	MetricQueueTime   = "queue_time"   // distribution: seconds from a send to its write
)

// noObserver is used where there is none.
type noObserver struct{}

func (noObserver) Add(string, string, string, int)        {}
func (noObserver) Record(string, string, string, float64) {}
