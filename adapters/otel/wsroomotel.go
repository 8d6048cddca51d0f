// Package wsroomotel gives OpenTelemetry the metrics of wsroom's hubs, and a span for each upgrade and each
// callback:
//
//	observer, err := wsroomotel.New(otel.GetMeterProvider(), otel.GetTracerProvider())
//	…
//	hub := wsroom.New(wsroom.WithObserver(observer))
//
// wsroom's docs/metrics.md lists the metrics, their attributes and all causes. Exported to Prometheus, the
// metrics have the names and labels given there.
package wsroomotel

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/wsroom/wsroom/adapters/otel"

// Observer is a [wsroom.Observer] and a [wsroom.Tracer]. [New] makes it. All methods may be called
// concurrently. Several hubs may share one Observer.
type Observer struct {
	tracer  trace.Tracer
	metrics map[string]instrument                          // by wsroom's name; doesn't change
	series  atomic.Pointer[map[labels]func(value float64)] // copied to add one: there are few, and they stay
	mu      sync.Mutex                                     // held to replace series
}

// labels identify one series.
type labels struct{ metric, route, cause string }

// instrument returns the function that takes the values of one series.
type instrument func(metric.MeasurementOption) func(value float64)

// New returns an [Observer] that counts with a meter of mp and traces with a tracer of tp. For metrics
// alone, or traces alone, take the other provider from OpenTelemetry's noop packages. The error says which
// instruments can't be made.
func New(mp metric.MeterProvider, tp trace.TracerProvider) (*Observer, error) {
	o := &Observer{tracer: tp.Tracer(scope)}
	o.series.Store(&map[labels]func(float64){})
	m := maker{meter: mp.Meter(scope)}
	o.metrics = map[string]instrument{
		"conns":        m.gauge("wsroom.connections", "{connection}", "Connections, until their last callback has returned."),
		"rooms":        m.gauge("wsroom.rooms", "{room}", "Rooms with a member."),
		"joins":        m.counter("wsroom.joins", "{join}", "Rooms entered."),
		"refused":      m.counter("wsroom.refused", "{request}", "Requests that weren't upgraded."),
		"ended":        m.counter("wsroom.ended", "{connection}", "Connections that ended."),
		"messages_in":  m.counter("wsroom.messages.received", "{message}", "Messages received."),
		"messages_out": m.counter("wsroom.messages.sent", "{message}", "Messages written to sockets."),
		"bytes_in":     m.counter("wsroom.received", "By", "Bytes of the messages received, decompressed."),
		"bytes_out":    m.counter("wsroom.sent", "By", "Bytes written to sockets."),
		"dropped":      m.counter("wsroom.messages.dropped", "{message}", "Messages for a connection that weren't written to it."),
		"fan_out": m.histogram("wsroom.fan_out.receivers", "{connection}", "Receivers of a message to rooms or all, on this node.",
			0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000),
		"queue_time": m.histogram("wsroom.queue_time", "s", "Time from a send to its write, of the oldest message in each write.",
			.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10),
		"resumes":       m.counter("wsroom.resumes", "{position}", "Positions that clients presented when they came back."),
		"resent":        m.counter("wsroom.messages.resent", "{message}", "Messages sent again to clients that came back."),
		"history":       m.gauge("wsroom.history", "By", "Bytes that the rooms' histories keep."),
		"broker_gaps":   m.counter("wsroom.broker.gaps", "{gap}", "Times that messages of other nodes may have been missed."),
		"broker_errors": m.counter("wsroom.broker.errors", "{error}", "Failed calls of the broker."),
		"broker_queue":  m.gauge("wsroom.broker.queue", "By", "Bytes accepted for the broker and not published yet."),
	}
	if m.err != nil {
		return nil, m.err
	}
	return o, nil
}

// maker makes instruments and joins their errors.
type maker struct {
	meter metric.Meter
	err   error
}

func (m *maker) counter(name, unit, what string) instrument {
	c, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.err = errors.Join(m.err, err)
	return adds(c)
}

func (m *maker) gauge(name, unit, what string) instrument {
	c, err := m.meter.Int64UpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
	m.err = errors.Join(m.err, err)
	return adds(c)
}

func adds(c interface {
	Add(context.Context, int64, ...metric.AddOption)
}) instrument {
	return func(set metric.MeasurementOption) func(float64) {
		opts := []metric.AddOption{set}
		return func(v float64) { c.Add(context.Background(), int64(v), opts...) }
	}
}

func (m *maker) histogram(name, unit, what string, buckets ...float64) instrument {
	h, err := m.meter.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(what),
		metric.WithExplicitBucketBoundaries(buckets...))
	m.err = errors.Join(m.err, err)
	return func(set metric.MeasurementOption) func(float64) {
		opts := []metric.RecordOption{set}
		return func(v float64) { h.Record(context.Background(), v, opts...) }
	}
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
		series[l] = func(float64) {}
		if of := o.metrics[l.metric]; of != nil {
			series[l] = of(metric.WithAttributeSet(l.attributes()))
		}
		o.series.Store(&series)
	}
	return series[l]
}

// attributes leaves out the labels that the series doesn't have.
func (l labels) attributes() attribute.Set {
	var all []attribute.KeyValue
	if l.route != "" {
		all = append(all, attribute.String("route", l.route))
	}
	if l.cause != "" {
		all = append(all, attribute.String("cause", l.cause))
	}
	return attribute.NewSet(all...)
}

// upgradeKey is a context's key for its connection's upgrade.
type upgradeKey struct{}

// Start begins a span. The span of an upgrade is a child of the request's. The span of a callback begins a
// trace of its own, because a connection may last for days, and is linked to the upgrade's span. The spans
// behind a message of Target.Context, "wsroom deliver" and "wsroom OnRoomMessage", are children of the
// message's.
func (o *Observer) Start(ctx context.Context, name, route string) (context.Context, func(error)) {
	var opts []trace.SpanStartOption
	if route != "" {
		opts = append(opts, trace.WithAttributes(attribute.String("http.route", route)))
	}
	if name != "upgrade" && !trace.SpanContextFromContext(ctx).IsRemote() {
		opts = append(opts, trace.WithNewRoot())
		if upgrade, ok := ctx.Value(upgradeKey{}).(trace.SpanContext); ok {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: upgrade}))
		}
	}
	ctx, span := o.tracer.Start(ctx, "wsroom "+name, opts...)
	if name == "upgrade" {
		ctx = context.WithValue(ctx, upgradeKey{}, span.SpanContext())
	}
	return ctx, func(err error) {
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// Inject returns the traceparent of the span in ctx, for messages of Target.Context.
func (o *Observer) Inject(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceparent]
}

// Extract returns ctx with the remote span of the traceparent.
func (o *Observer) Extract(ctx context.Context, trace string) context.Context {
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceparent: trace})
}

// traceparent is the header of W3C Trace Context.
const traceparent = "traceparent"
