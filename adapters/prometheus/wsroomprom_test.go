package wsroomprom_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/wsroom/wsroom"
	wsroomprom "github.com/wsroom/wsroom/adapters/prometheus"
	"github.com/wsroom/wsroom/wsroomtest"
)

var _ wsroom.Observer = (*wsroomprom.Observer)(nil)

func Example() {
	hub := wsroom.New(
		wsroom.WithObserver(wsroomprom.New(prometheus.DefaultRegisterer)),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("GET /metrics", promhttp.Handler())
	srv := httptest.NewServer(mux)
	defer srv.Close()

	res, err := http.Get(srv.URL + "/metrics")
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Status)
	// Output: 200 OK
}

// What happens to a hub is on the page, with the route's pattern, and its gauges go back to zero.
func TestHubIsCounted(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	hub := wsroom.New(wsroom.WithObserver(wsroomprom.New(reg)), wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	}))
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	for i := range 3 {
		c := wsroomtest.Dial(t, mux, fmt.Sprint("/chat/", i))
		c.SendText("hello")
		c.ExpectText("hello")
	}
	wsroomtest.Refused(t, mux, "/chat/%01", http.StatusBadRequest)
	want(t, reg, `
		wsroom_connections{route="/chat/{room}"} 3
		wsroom_rooms 3
		wsroom_joins_total{route="/chat/{room}"} 3
		wsroom_refused_total{cause="room",route="/chat/{room}"} 1
		wsroom_received_bytes_total{route="/chat/{room}"} 15
		wsroom_messages_received_total{route="/chat/{room}"} 3`)
	if err := hub.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(t, reg, `
		wsroom_connections{route="/chat/{room}"} 0
		wsroom_rooms 0
		wsroom_ended_total{cause="shutdown",route="/chat/{room}"} 3
		wsroom_messages_sent_total{route="/chat/{room}"} 3
		wsroom_fan_out_receivers_bucket{le="0"} 0
		wsroom_fan_out_receivers_bucket{le="1"} 3
		wsroom_queue_time_seconds_count{route="/chat/{room}"} 3`)
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// want checks that the page has these lines.
func want(t *testing.T, reg *prometheus.Registry, lines string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		if line = strings.TrimSpace(line); !strings.Contains(w.Body.String(), "\n"+line+"\n") {
			t.Errorf("%s isn't among\n%s", line, w.Body)
		}
	}
}

// Two hubs share an Observer; to tell them apart takes two and a label.
func TestSeveralHubs(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, hub := range []string{"chat", "docs"} {
		o := wsroomprom.New(prometheus.WrapRegistererWith(prometheus.Labels{"hub": hub}, reg))
		o.Add(wsroom.MetricConns, "/", "", 2)
		o.Add(wsroom.MetricConns, "/", "", -1)
		o.Add("what a later version counts", "/", "", 1)
	}
	want(t, reg, `
		wsroom_connections{hub="chat",route="/"} 1
		wsroom_connections{hub="docs",route="/"} 1`)
	defer func() {
		if recover() == nil {
			t.Error("the same metrics twice")
		}
	}()
	wsroomprom.New(prometheus.WrapRegistererWith(prometheus.Labels{"hub": "chat"}, reg))
}

// exported are the names that a registry has once each of wsroom's metrics was counted.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	o := wsroomprom.New(reg)
	for _, metric := range metricsOfWsroom(t) {
		before := names(t, reg)
		o.Add(metric, "/chat/{room}", "cause", 1)
		fromTheStart := strings.Contains(" rooms fan_out broker_queue history ", " "+metric+" ")
		if after := names(t, reg); len(after) == len(before) && !fromTheStart {
			t.Errorf("%s isn't exported", metric)
		}
	}
	return names(t, reg)
}

func names(t *testing.T, reg *prometheus.Registry) map[string]bool {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	return names
}

// metricsOfWsroom are the values of the constants Metric….
func metricsOfWsroom(t *testing.T) []string {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), "../../observer.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var metrics []string
	ast.Inspect(tree, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Metric") {
			metrics = append(metrics, strings.Trim(spec.Values[0].(*ast.BasicLit).Value, `"`))
		}
		return true
	})
	if len(metrics) < 15 {
		t.Errorf("metrics %q", metrics)
	}
	return metrics
}

// docs/metrics.md has the names of all metrics, and no others.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all := exported(t)
	documented := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `(wsroom_\\w+)` \\|").FindAllStringSubmatch(string(page), -1)
	for _, m := range documented {
		if !all[m[2]] {
			t.Errorf("documented, but not exported: %s", m[2])
		}
	}
	if len(documented) != len(all) || len(all) != len(metricsOfWsroom(t)) {
		t.Errorf("%d documented, %d exported", len(documented), len(all))
	}
}

// The dashboard's panels ask for metrics and labels that there are, and for all of them.
func TestDashboardShowsTheMetrics(t *testing.T) {
	source, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(source, &dashboard); err != nil {
		t.Fatal(err)
	}
	all, shown, places := exported(t), map[string]bool{}, map[[2]int]string{}
	ids := map[int]bool{}
	label := regexp.MustCompile(`\b(\w+)\s*(?:=~|=|\))`)
	for _, p := range dashboard.Panels {
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				place := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if places[place] != "" || place[0] >= 24 {
					t.Errorf("%q lies over %q, or outside", p.Title, places[place])
				}
				places[place] = p.Title
			}
		}
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%q: no number of its own, or no query", p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			for _, name := range regexp.MustCompile(`wsroom_\w+`).FindAllString(target.Expr, -1) {
				name = regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, "")
				if shown[name] = true; !all[name] {
					t.Errorf("%q asks for %s, which isn't there", p.Title, name)
				}
			}
			if strings.Count(target.Expr, "(") != strings.Count(target.Expr, ")") || !strings.Contains(target.Expr, "wsroom_") {
				t.Errorf("%q asks %s", p.Title, target.Expr)
			}
			for _, m := range label.FindAllStringSubmatch(target.Expr, -1) {
				if !strings.Contains(" route cause le job instance ", " "+m[1]+" ") && !strings.HasPrefix(m[1], "wsroom_") && m[1] != "__rate_interval" {
					t.Errorf("%q asks for the label %s", p.Title, m[1])
				}
			}
		}
	}
	for name := range all {
		if !shown[name] {
			t.Errorf("%s isn't shown", name)
		}
	}
}

// What a hub calls while messages flow allocates nothing.
func TestCountingAllocatesNothing(t *testing.T) {
	o := wsroomprom.New(prometheus.NewPedanticRegistry())
	count := func() {
		o.Add(wsroom.MetricMessagesOut, "/chat/{room}", "", 1)
		o.Record(wsroom.MetricQueueTime, "/chat/{room}", "", .001)
	}
	if n := testing.AllocsPerRun(1000, count); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	o := wsroomprom.New(prometheus.NewPedanticRegistry())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o.Add(wsroom.MetricMessagesOut, "/chat/{room}", "", 1)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	o := wsroomprom.New(prometheus.NewPedanticRegistry())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			o.Record(wsroom.MetricQueueTime, "/chat/{room}", "", time.Millisecond.Seconds())
		}
	})
}
