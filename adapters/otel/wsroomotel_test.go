package wsroomotel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	wsroomotel "github.com/wsroom/wsroom/adapters/otel"
	"github.com/wsroom/wsroom/wsroomtest"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

var (
	_ wsroom.Observer   = (*wsroomotel.Observer)(nil)
	_ wsroom.Tracer     = (*wsroomotel.Observer)(nil)
	_ wsroom.Propagator = (*wsroomotel.Observer)(nil)
)

func Example() {
	observer, err := wsroomotel.New(otel.GetMeterProvider(), otel.GetTracerProvider())
	if err != nil {
		log.Fatal(err)
	}
	hub := wsroom.New(
		wsroom.WithObserver(observer),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	fmt.Println(hub.Len())
	// Output: 0
}

// telemetry is what an Observer has told OpenTelemetry.
type telemetry struct {
	*wsroomotel.Observer
	t      testing.TB
	reader *metric.ManualReader
	tracer *trace.TracerProvider
	spans  *tracetest.SpanRecorder
}

func newTelemetry(t testing.TB) *telemetry {
	t.Helper()
	o := &telemetry{t: t, reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	o.tracer = trace.NewTracerProvider(trace.WithSpanProcessor(o.spans))
	var err error
	o.Observer, err = wsroomotel.New(metric.NewMeterProvider(metric.WithReader(o.reader)), o.tracer)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// values returns the metrics' values by name and attributes: of histograms the count.
func (o *telemetry) values() map[string]int64 {
	o.t.Helper()
	values := map[string]int64{}
	for _, m := range o.collect() {
		key := func(set attribute.Set) string {
			return strings.TrimSpace(m.Name + " " + set.Encoded(attribute.DefaultEncoder()))
		}
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				values[key(p.Attributes)] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				values[key(p.Attributes)] = int64(p.Count)
			}
		default:
			o.t.Errorf("%s is a %T", m.Name, data)
		}
	}
	return values
}

func (o *telemetry) collect() []metricdata.Metrics {
	o.t.Helper()
	var all metricdata.ResourceMetrics
	if err := o.reader.Collect(context.Background(), &all); err != nil {
		o.t.Fatal(err)
	}
	var metrics []metricdata.Metrics
	for _, scope := range all.ScopeMetrics {
		metrics = append(metrics, scope.Metrics...)
	}
	return metrics
}

// serve serves the hub behind a middleware that traces each request.
func (o *telemetry) serve(hub *wsroom.Hub) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := o.tracer.Tracer("server").Start(r.Context(), "request")
		defer span.End()
		hub.ServeHTTP(w, r.WithContext(ctx))
	}))
	return mux
}

// What happens to a hub is counted, with the route's pattern, and its gauges go back to zero.
func TestHubIsCounted(t *testing.T) {
	o := newTelemetry(t)
	hub := wsroom.New(wsroom.WithObserver(o), wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	}))
	h := o.serve(hub)
	for i := range 3 {
		c := wsroomtest.Dial(t, h, fmt.Sprint("/chat/", i))
		c.SendText("hello")
		c.ExpectText("hello")
	}
	wsroomtest.Refused(t, h, "/chat/%01", http.StatusBadRequest)
	check := func(want map[string]int64) {
		t.Helper()
		got := o.values()
		for name, n := range want {
			if v, ok := got[name]; !ok || v != n {
				t.Errorf("%s: got %d (%t), want %d", name, v, ok, n)
			}
		}
	}
	const route = " route=/chat/{room}"
	check(map[string]int64{
		"wsroom.connections" + route: 3, "wsroom.rooms": 3, "wsroom.joins" + route: 3, "wsroom.received" + route: 15,
		"wsroom.messages.received" + route: 3, "wsroom.refused cause=room,route=/chat/{room}": 1,
	})
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	check(map[string]int64{
		"wsroom.connections" + route: 0, "wsroom.rooms": 0, "wsroom.ended cause=shutdown,route=/chat/{room}": 3,
		"wsroom.messages.sent" + route: 3, "wsroom.queue_time" + route: 3, "wsroom.fan_out.receivers": 3,
	})
}

// An upgrade's span is a child of the request's; each callback has a span in a trace of its own, which is
// linked to the upgrade's.
func TestUpgradesAndCallbacksAreSpans(t *testing.T) {
	o := newTelemetry(t)
	closed := make(chan struct{})
	hub := wsroom.New(wsroom.WithObserver(o),
		wsroom.WithAuthorize(func(r *http.Request, _ string) error {
			ctx, span := o.tracer.Tracer("app").Start(r.Context(), "look up")
			defer span.End()
			*r = *r.WithContext(ctx) // a span of its own doesn't come in between
			return nil
		}),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return nil }),
		wsroom.OnText(func(*wsroom.Conn, string, error) { panic("boom") }),
		wsroom.OnClose(func(*wsroom.Conn, error) { close(closed) }))
	h := o.serve(hub)
	wsroomtest.Dial(t, h, "/chat/general").SendText("x")
	<-closed
	wsroomtest.Refused(t, h, "/chat/%01", http.StatusBadRequest)
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	spans := map[string]trace.ReadOnlySpan{}
	for _, s := range slices.Backward(o.spans.Started()) { // the first of each name stays
		spans[s.Name()] = s
		if strings.HasPrefix(s.Name(), "wsroom ") && s.EndTime().IsZero() {
			t.Errorf("%s doesn't end", s.Name())
		}
	}
	upgrade, request := spans["wsroom upgrade"], spans["request"]
	if upgrade.Parent().SpanID() != request.SpanContext().SpanID() || upgrade.Status().Code != codes.Unset {
		t.Errorf("the upgrade: parent %v, status %v", upgrade.Parent(), upgrade.Status())
	}
	if spans["look up"].Parent().SpanID() != upgrade.SpanContext().SpanID() {
		t.Error("what WithAuthorize does isn't part of the upgrade")
	}
	for name, status := range map[string]string{"wsroom OnConnect": "", "wsroom OnText": "boom", "wsroom OnClose": ""} {
		s := spans[name]
		if s == nil {
			t.Errorf("no span of %s", name)
			continue
		}
		if s.Parent().IsValid() || s.SpanContext().TraceID() == upgrade.SpanContext().TraceID() ||
			len(s.Links()) != 1 || !s.Links()[0].SpanContext.Equal(upgrade.SpanContext()) {
			t.Errorf("%s: parent %v, links %v", name, s.Parent(), s.Links())
		}
		if failed := s.Status().Code == codes.Error; failed != (status != "") || !strings.Contains(s.Status().Description, status) {
			t.Errorf("%s: status %v", name, s.Status())
		}
		if !slices.Contains(s.Attributes(), attribute.String("http.route", "/chat/{room}")) {
			t.Errorf("%s: attributes %v", name, s.Attributes())
		}
	}
	if !slices.ContainsFunc(o.spans.Ended(), func(s trace.ReadOnlySpan) bool {
		return s.Name() == "wsroom upgrade" && s.Status().Code == codes.Error
	}) {
		t.Error("the refused upgrade's span has no error")
	}
}

// Behind a message of Target.Context the trace goes on, on another node: its spans are children of the
// message's.
func TestTraceGoesOnBehindAMessage(t *testing.T) {
	server := brokertest.NewMemory()
	here, there := newTelemetry(t), newTelemetry(t)
	heard := make(chan struct{}, 1)
	sender := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithBroker(server.Open()), wsroom.WithObserver(here)))
	receiver := wsroom.New(wsroom.WithBroker(server.Open()), wsroom.WithObserver(there),
		wsroom.OnRoomMessage(func(string, websocket.MessageType, []byte) { heard <- struct{}{} }))
	client := wsroomtest.Dial(t, receiver, "/a")

	ctx, span := here.tracer.Tracer("app").Start(t.Context(), "publish")
	if err := sender.To("/a").Context(ctx).SendText("x"); err != nil {
		t.Fatal(err)
	}
	span.End()
	client.ExpectText("x")
	<-heard
	if err := receiver.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, s := range there.spans.Ended() {
		if s.Name() != "wsroom deliver" && s.Name() != "wsroom OnRoomMessage" {
			continue
		}
		found++
		if s.Parent().SpanID() != span.SpanContext().SpanID() || s.SpanContext().TraceID() != span.SpanContext().TraceID() {
			t.Errorf("%s: parent %v, want %v", s.Name(), s.Parent(), span.SpanContext())
		}
	}
	if found != 2 {
		t.Errorf("%d spans behind the message", found)
	}
	if got := here.Inject(t.Context()); got != "" {
		t.Errorf("without a span: %q", got)
	}
}

// Exported to Prometheus, the metrics have the names that docs/metrics.md gives them.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `(wsroom_\\w+)` \\|")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		o := newTelemetry(t)
		o.Add(m[1], "/", "", 1)
		o.Add("what a later version counts", "/", "", 1)
		metrics := o.collect()
		if len(metrics) != 1 || inPrometheus(metrics[0]) != m[2] {
			t.Errorf("%s: got %v, want %s", m[1], metrics, m[2])
		}
	}
}

// inPrometheus is the name that OpenTelemetry's specification of the compatibility with Prometheus gives a
// metric.
func inPrometheus(m metricdata.Metrics) string {
	name := strings.ReplaceAll(m.Name, ".", "_") + map[string]string{"By": "_bytes", "s": "_seconds"}[m.Unit]
	if sum, ok := m.Data.(metricdata.Sum[int64]); ok && sum.IsMonotonic {
		name += "_total"
	}
	return name
}

// What a hub calls while messages flow allocates nothing of the adapter's.
func TestCountingAllocatesNothing(t *testing.T) {
	o := newTelemetry(t)
	count := func() {
		o.Add(wsroom.MetricMessagesOut, "/chat/{room}", "", 1)
		o.Record(wsroom.MetricQueueTime, "/chat/{room}", "", .001)
	}
	if n := testing.AllocsPerRun(1000, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	o := newTelemetry(b)
	b.ReportAllocs()
	for b.Loop() {
		o.Add(wsroom.MetricMessagesOut, "/chat/{room}", "", 1)
	}
}

func BenchmarkRecord(b *testing.B) {
	o := newTelemetry(b)
	b.ReportAllocs()
	for b.Loop() {
		o.Record(wsroom.MetricQueueTime, "/chat/{room}", "", .001)
	}
}
