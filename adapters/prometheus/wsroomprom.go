// Package wsroomprom gives Prometheus the metrics of wsroom's hubs:
//
//	hub := wsroom.New(wsroom.WithObserver(wsroomprom.New(prometheus.DefaultRegisterer)))
//
// wsroom's docs/metrics.md lists the metrics, their labels and all causes. dashboard.json is a Grafana
// dashboard of them.
package wsroomprom

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Observer is a [wsroom.Observer] that counts for Prometheus. [New] makes it. All methods may be called
// concurrently. They allocate nothing for labels that they have seen before.
type Observer struct {
	metrics map[string]metric                        // by wsroom's name; doesn't change
	series  atomic.Pointer[map[labels]func(float64)] // copied to add one: there are few, and they stay
	mu      sync.Mutex                               // held to replace series
}

// labels identify one series.
type labels struct{ metric, route, cause string }

// metric has a series for each combination of its labels' values.
type metric struct {
	labels []string // of route and cause, those that the metric has
	vec    prometheus.Collector
}

const (
	byRoute = "route"
	byCause = "cause"
)

// New registers the metrics with reg and returns an [Observer] that counts them. It panics if reg has them
// already. Several hubs may share an Observer. To tell hubs apart, or for another prefix, give each hub an
// Observer of its own and wrap reg: prometheus.WrapRegistererWith(prometheus.Labels{"hub": "chat"}, reg).
func New(reg prometheus.Registerer) *Observer {
	o := &Observer{metrics: map[string]metric{
		"conns":        gauge("wsroom_connections", "Connections, until their last callback has returned.", byRoute),
		"rooms":        gauge("wsroom_rooms", "Rooms with a member."),
		"joins":        counter("wsroom_joins_total", "Rooms entered.", byRoute),
		"refused":      counter("wsroom_refused_total", "Requests that weren't upgraded.", byRoute, byCause),
		"ended":        counter("wsroom_ended_total", "Connections that ended.", byRoute, byCause),
		"messages_in":  counter("wsroom_messages_received_total", "Messages received.", byRoute),
		"messages_out": counter("wsroom_messages_sent_total", "Messages written to sockets.", byRoute),
		"bytes_in":     counter("wsroom_received_bytes_total", "Bytes of the messages received, decompressed.", byRoute),
		"bytes_out":    counter("wsroom_sent_bytes_total", "Bytes written to sockets.", byRoute),
		"dropped":      counter("wsroom_messages_dropped_total", "Messages for a connection that weren't written to it.", byRoute, byCause),
		"fan_out": histogram("wsroom_fan_out_receivers", "Receivers of a message to rooms or all, on this node.",
			[]float64{0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000}),
		"queue_time": histogram("wsroom_queue_time_seconds", "Time from a send to its write, of the oldest message in each write.",
			[]float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}, byRoute),
		"resumes":       counter("wsroom_resumes_total", "Positions that clients presented when they came back.", byRoute, byCause),
		"resent":        counter("wsroom_messages_resent_total", "Messages sent again to clients that came back.", byRoute),
		"history":       gauge("wsroom_history_bytes", "Bytes that the rooms' histories keep."),
		"broker_gaps":   counter("wsroom_broker_gaps_total", "Times that messages of other nodes may have been missed.", byCause),
		"broker_errors": counter("wsroom_broker_errors_total", "Failed calls of the broker.", byCause),
		"broker_queue":  gauge("wsroom_broker_queue_bytes", "Bytes accepted for the broker and not published yet."),
	}}
	o.series.Store(&map[labels]func(float64){})
	for _, m := range o.metrics {
		reg.MustRegister(m.vec)
	}
	for name, m := range o.metrics {
		if len(m.labels) == 0 {
			o.at(labels{metric: name}) // exists from the beginning, at zero
		}
	}
	return o
}

func gauge(name, help string, labels ...string) metric {
	return metric{labels, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)}
}

func counter(name, help string, labels ...string) metric {
	return metric{labels, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)}
}

func histogram(name, help string, buckets []float64, labels ...string) metric {
	return metric{labels, prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)}
}

// Add adds n to a counter or gauge. It ignores unknown metrics.
func (o *Observer) Add(metric, route, cause string, n int) {
	o.at(labels{metric, route, cause})(float64(n))
}

// Record takes one measurement for a histogram. It ignores unknown metrics.
func (o *Observer) Record(metric, route, cause string, value float64) {
	o.at(labels{metric, route, cause})(value)
}

// at returns the function that takes the values of a series.
func (o *Observer) at(l labels) func(float64) {
	if take := (*o.series.Load())[l]; take != nil {
		return take
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	series := maps.Clone(*o.series.Load())
	if series[l] == nil {
		series[l] = o.metrics[l.metric].of(l)
		o.series.Store(&series)
	}
	return series[l]
}

// of returns the function that takes the values of the series with those labels that the metric has.
func (m metric) of(l labels) func(float64) {
	all := map[string]string{byRoute: l.route, byCause: l.cause}
	var values []string
	for _, name := range m.labels {
		values = append(values, all[name])
	}
	switch vec := m.vec.(type) {
	case *prometheus.GaugeVec:
		if g, err := vec.GetMetricWithLabelValues(values...); err == nil {
			return g.Add
		}
	case *prometheus.CounterVec:
		if c, err := vec.GetMetricWithLabelValues(values...); err == nil {
			return c.Add
		}
	case *prometheus.HistogramVec:
		if h, err := vec.GetMetricWithLabelValues(values...); err == nil {
			return h.Observe
		}
	}
	return func(float64) {} // an unknown metric, or a pattern that isn't UTF-8
}
