package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

const (
	missing       = "–"
	notApplicable = "n/a"
	// enough connections, that is, for memory to be theirs and not the process's.
	enough = 500
)

// resultTable is the Markdown table of all results.
func resultTable(results []result) string {
	rows := [][]string{{"scenario", "library", "a second", "CPU µs", "user", "system", "objects",
		"p50 ms", "p99 ms", "max ms", "KB a conn", "lost", "doubled", ""}}
	for _, r := range results {
		if r.figures.note == notApplicable && r.scenario.only != nil {
			continue
		}
		rows = append(rows, append([]string{r.scenario.name, r.library.Name}, r.cells()...))
	}
	return markdown(rows, 2)
}

// cells are the figures of one row, with a dash for what the scenario doesn't have.
func (r result) cells() []string {
	f := r.figures
	if f.note == notApplicable {
		return []string{missing, missing, missing, missing, missing, missing, missing, missing, missing, missing, missing, f.note}
	}
	cells := []string{thousands(f.rate), number(f.cpu()), number(f.user), number(f.system), number(f.objects),
		number(f.p50 * 1e3), number(f.p99 * 1e3), number(f.max * 1e3),
		number(f.memory / 1e3), strconv.Itoa(f.lost), strconv.Itoa(f.doubled + f.reordered), note(f)}
	if r.scenario.unit == perNothing || f.rate == 0 {
		blank(cells[:8])
	}
	if r.scenario.unit == perJoin {
		blank(cells[5:8])
	}
	if r.scenario.plan.Rooms*r.scenario.plan.Members < enough {
		blank(cells[8:9])
	}
	return cells
}

func blank(cells []string) {
	for i := range cells {
		cells[i] = missing
	}
}

func note(f figures) string {
	if f.ended > 0 {
		return strings.TrimSpace(fmt.Sprintf("%d readers cut off: %s", f.ended, f.note))
	}
	return f.note
}

// ratioTable shows processor time (memory, where that is all a scenario has) as multiples of
// the first library's.
func ratioTable(results []result, libraries []server.Library) string {
	head := []string{"× " + libraries[0].Name}
	for _, l := range libraries {
		head = append(head, l.Name)
	}
	rows := [][]string{head}
	for i := 0; i+len(libraries) <= len(results); i += len(libraries) {
		row := []string{results[i].scenario.name}
		for _, r := range results[i : i+len(libraries)] {
			row = append(row, ratio(r.cost(), results[i].cost()))
		}
		rows = append(rows, row)
	}
	return markdown(rows, 1)
}

// cost is what the ratios compare.
func (r result) cost() float64 {
	if r.scenario.unit == perNothing {
		return r.figures.memory
	}
	return r.figures.cpu()
}

func ratio(a, b float64) string {
	if a == 0 || b == 0 {
		return missing
	}
	return strconv.FormatFloat(a/b, 'f', 2, 64)
}

// number has three significant digits, never an exponent.
func number(v float64) string {
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	if v == 0 || digits > 3 {
		digits = 3
	}
	return strconv.FormatFloat(v, 'f', max(digits, 0), 64)
}

// thousands is a whole number with commas.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// markdown lays out rows, the first of which is the head; from column right on they align right.
func markdown(rows [][]string, right int) string {
	var b strings.Builder
	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	line(rows[0])
	rule := make([]string, len(rows[0]))
	for i := range rule {
		rule[i] = "---"
		if i >= right && rows[0][i] != "" {
			rule[i] = "---:"
		}
	}
	line(rule)
	for _, cells := range rows[1:] {
		line(cells)
	}
	return b.String()
}
