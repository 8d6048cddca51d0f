package wsroomprom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/wsroom/wsroom"
	wsroomprom "github.com/wsroom/wsroom/adapters/prometheus"
	"github.com/wsroom/wsroom/wsroomtest"
)

const patience = 60 * time.Second

// program returns the path of a program of Debian's package prometheus.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatalf("%s isn't installed: apt-get install prometheus", name)
		}
		t.Skipf("%s isn't installed: apt-get install prometheus", name)
	}
	return path
}

// Each alert fires when it should, and not a little below that: promtool tries them on series of alerts_test.yml.
func TestAlerts(t *testing.T) {
	rules, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("alerts_test.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)- alert: (\w+)`).FindAllStringSubmatch(string(rules), -1) {
		if strings.Count(string(tests), m[1]) < 2 {
			t.Errorf("%s must be tried twice: firing and quiet", m[1])
		}
	}
	all := exported(t)
	for _, name := range regexp.MustCompile(`\bwsroom_\w+`).FindAllString(string(rules), -1) {
		if !all[strings.TrimSuffix(name, "_bucket")] {
			t.Errorf("an alert asks for %s, which isn't there", name)
		}
	}

	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		if out, err := exec.Command(program(t, "promtool"), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// A real Prometheus scrapes a hub, loads the alerts, and answers every query of the dashboard with data.
func TestPrometheusAnswersTheDashboard(t *testing.T) {
	binary := program(t, "prometheus")
	reg := prometheus.NewRegistry()
	o := wsroomprom.New(reg)
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithObserver(o), wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	})))
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	site := httptest.NewServer(mux)
	defer site.Close()

	api := startPrometheus(t, binary, strings.TrimPrefix(site.URL, "http://"))
	for _, metric := range metricsOfWsroom(t) { // what this hub has no reason to count
		o.Add(metric, "/chat/{room}", "test", 1)
	}
	c := wsroomtest.Dial(t, mux, "/chat/a", wsroomtest.WithTimeout(patience))
	queries := dashboardQueries(t)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		for _, metric := range metricsOfWsroom(t) {
			o.Add(metric, "/chat/{room}", "test", 1)
			o.Record(metric, "/chat/{room}", "test", 0.01)
		}
		c.SendText("hello")
		c.ExpectText("hello")
		if queries = api.withoutData(t, queries); len(queries) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no data for:\n%s", strings.Join(queries, "\n"))
		}
	}
	if n := api.rules(t); n < 9 {
		t.Errorf("%d alerts are loaded", n)
	}
}

// dashboardQueries are the dashboard's queries, as Grafana asks them.
func dashboardQueries(t *testing.T) (queries []string) {
	t.Helper()
	source, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(source, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries = append(queries, strings.NewReplacer("$job", "chat", "$instance", ".*", "$__rate_interval", "5s").Replace(target.Expr))
		}
	}
	if len(queries) < 15 {
		t.Fatalf("%d queries", len(queries))
	}
	return queries
}

// prometheusAPI is the URL of a Prometheus.
type prometheusAPI string

// startPrometheus starts a Prometheus that scrapes the address twice a second, with the alerts.
func startPrometheus(t *testing.T, binary, target string) prometheusAPI {
	t.Helper()
	rules, err := filepath.Abs("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "prometheus.yml")
	text := fmt.Sprintf(`
global: {scrape_interval: 500ms, evaluation_interval: 500ms}
rule_files: [%s]
scrape_configs:
  - job_name: chat
    static_configs: [{targets: [%q]}]
`, rules, target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()

	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, binary, "--config.file="+config, "--storage.tsdb.path="+t.TempDir(),
		"--web.listen-address="+addr, "--log.level=warn")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	log := new(strings.Builder)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && ctx.Err() == nil || t.Failed() {
			t.Logf("prometheus: %v\n%s", err, log)
		}
	})
	return prometheusAPI("http://" + addr)
}

// get asks the API until it answers.
func (a prometheusAPI) get(t *testing.T, path string, answer any) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		res, err := http.Get(string(a) + path)
		if err == nil {
			err = json.NewDecoder(res.Body).Decode(answer)
			res.Body.Close()
		}
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", path, err)
		}
	}
}

// withoutData returns the queries that have no data yet. It fails the test if Prometheus refuses one.
func (a prometheusAPI) withoutData(t *testing.T, queries []string) (without []string) {
	t.Helper()
	for _, query := range queries {
		var answer struct {
			Status, Error string
			Data          struct {
				Result []struct{ Value []any }
			}
		}
		a.get(t, "/api/v1/query?query="+url.QueryEscape(query), &answer)
		if answer.Status != "success" {
			t.Fatalf("%s: %s", query, answer.Error)
		}
		if len(answer.Data.Result) == 0 || fmt.Sprint(answer.Data.Result[0].Value[1]) == "NaN" {
			without = append(without, query)
		}
	}
	return without
}

// rules returns the number of alerts that are loaded and can be evaluated.
func (a prometheusAPI) rules(t *testing.T) (n int) {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, LastError string }
			}
		}
	}
	a.get(t, "/api/v1/rules", &answer)
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			n++
			if rule.LastError != "" {
				t.Errorf("%s: %s", rule.Name, rule.LastError)
			}
		}
	}
	return n
}
