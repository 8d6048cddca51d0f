package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// TestMain lets the test binary be a server process, as main does.
func TestMain(m *testing.M) {
	if os.Getenv(serverEnv) == "" {
		os.Exit(m.Run())
	}
	if err := server.Main(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func TestEveryLibraryDeliversEveryMessage(t *testing.T) {
	for _, plan := range []load.Plan{{Members: 10, Size: 128}, {Members: 10, Size: 1024, Prose: true, Deflate: true}} {
		sc := flood("short", plan)
		sc.warm, sc.measure = 50*time.Millisecond, 150*time.Millisecond
		for _, lib := range server.Libraries {
			t.Run(fmt.Sprintf("%s/deflate=%t", lib.Name, plan.Deflate), func(t *testing.T) {
				t.Parallel()
				f := runOnce(t.Context(), sc, lib, "")
				if plan.Deflate && !lib.Deflates {
					return
				}
				if f.note != "" || f.rate == 0 || f.cpu() == 0 || f.lost+f.doubled+f.reordered+f.ended > 0 {
					t.Error(f.summary())
				}
			})
		}
	}
}

func TestEveryScenarioRuns(t *testing.T) {
	for _, sc := range scenarios(true) {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.warm, sc.measure = 20*time.Millisecond, 150*time.Millisecond
			sc.plan.Members = min(sc.plan.Members, 20)
			sc.plan.Rooms = min(sc.plan.Rooms, 50)
			f := runOnce(t.Context(), sc, server.Libraries[0], "")
			if f.note != "" || f.lost+f.doubled+f.reordered+f.ended > 0 {
				t.Error(f.summary())
			}
		})
	}
}

func TestServerProcessEndsWithItsInput(t *testing.T) {
	p, err := startServer(t.Context(), "-lib", "bare loop")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ask("free"); err != nil {
		t.Error(err)
	}
	p.stop()
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if _, err := startServer(t.Context(), "-lib", "nobody's"); err == nil {
		t.Error("a library that isn't there was started")
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 4}, 4}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.in, got, c.want)
		}
	}
}

func TestMediansKeepWhatWentWrong(t *testing.T) {
	m := medians([]figures{{user: 3, rate: 10}, {user: 1, rate: 30, lost: 2, note: "cut"}, {user: 2, rate: 20, lost: 1, doubled: 5}})
	if m.user != 2 || m.rate != 20 || m.lost != 3 || m.doubled != 5 || m.note != "cut" {
		t.Errorf("%+v", m)
	}
}

func TestFiguresArePerUnit(t *testing.T) {
	var f figures
	start := time.Now()
	f.measure(
		mark{start, server.Usage{User: time.Second, System: time.Second, Objects: 10}, 100, 0, 0},
		mark{start.Add(2 * time.Second), server.Usage{User: 2 * time.Second, System: 4 * time.Second, Objects: 1010}, 1100, time.Second, time.Millisecond},
	)
	if f.rate != 500 || f.user != 1000 || f.system != 3000 || f.load != 1000 || f.broker != 1 || f.objects != 1 {
		t.Errorf("%+v", f)
	}
	f = figures{}
	if f.measure(mark{}, mark{}); f != (figures{}) {
		t.Errorf("nothing delivered gives %+v", f)
	}
}

// twoLibraries are results of two scenarios.
func twoLibraries() ([]result, []server.Library) {
	libs := server.Libraries[:2]
	fast := figures{rate: 1234567, user: 0.2, system: 0.1, p50: 0.0012, p99: 0.01, max: 1.5, memory: 7512}
	slow := figures{rate: 9876, user: 0.5, system: 0.7, memory: 25000, lost: 3, doubled: 1, ended: 2, note: "slow"}
	return []result{
		{flood("echo", load.Plan{Members: 500}), libs[0], fast}, {flood("echo", load.Plan{Members: 500}), libs[1], slow},
		{idle(500), libs[0], fast}, {idle(500), libs[1], figures{note: "n/a"}},
	}, libs
}

func TestResultTable(t *testing.T) {
	results, libs := twoLibraries()
	table := resultTable(results)
	for _, want := range []string{
		"| echo | wsroom | 1,234,567 | 0.300 | 0.200 | 0.100 | 0.000 | 1.20 | 10.0 | 1500 | 7.51 | 0 | 0 |  |\n",
		"| echo | centrifuge | 9,876 | 1.20 | 0.500 | 0.700 | 0.000 | 0.000 | 0.000 | 0.000 | 25.0 | 3 | 1 | 2 readers cut off: slow |\n",
		"| idle | wsroom | – | – | – | – | – | – | – | – | 7.51 | 0 | 0 |  |\n",
		"| idle | centrifuge | – | – | – | – | – | – | – | – | – | – | – | n/a |\n",
	} {
		if !strings.Contains(table, want) {
			t.Errorf("no row %s in\n%s", want, table)
		}
	}
	want := "| echo | 1.00 | 4.00 |\n| idle | 1.00 | – |\n"
	if got := ratioTable(results, libs); !strings.HasSuffix(got, want) {
		t.Errorf("ratios\n%s", got)
	}
	for line := range strings.Lines(table) {
		if strings.Count(line, "|") != 15 {
			t.Errorf("a row of another width: %s", line)
		}
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0.000", 0.00012: "0.000", 0.3217: "0.322", 4.423: "4.42", 42.42: "42.4", 12345.6: "12346"} {
		if got := number(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567.8: "1,234,568"} {
		if got := thousands(v); got != want {
			t.Errorf("%v is %s, want %s", v, got, want)
		}
	}
}

func TestChartIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(string(chart(twoLibraries()))))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 2 {
		t.Errorf("%d bars, want 2", bars)
	}
}

func TestFlagsSelect(t *testing.T) {
	s, err := parseFlags([]string{"-quick", "-scenario", "growth, echo", "-lib", "gws,bare"})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.alone.libraries) != 2 || s.rounds != 1 || len(s.alone.scenarios) != 3 || !s.clusters.empty() {
		t.Errorf("%d libraries, %d rounds, %d scenarios", len(s.alone.libraries), s.rounds, len(s.alone.scenarios))
	}
	if _, err := parseFlags([]string{"-lib", "nobody's"}); err == nil {
		t.Error("nothing selected, and no error")
	}
}
