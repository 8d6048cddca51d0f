package main

import (
	"flag"
	"strings"
	"testing"
	"time"
)

var length = flag.Duration("for", 4*time.Second, "how long the soak test runs")

// Everything that is sent is accounted for. The command runs more, for longer.
func TestEveryMessageIsAccountedFor(t *testing.T) {
	s := run(t.Context(), plan{members: 150, length: *length})
	var report strings.Builder
	s.report(&report)
	if s.sums.delivered == 0 || s.sums.due != s.sums.delivered+s.sums.dropped+sumOf(s.sums.ended) || s.sums.wrong > 0 {
		t.Error(report.String())
	}
}

func sumOf(counts map[string]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

// An account that doesn't add up is found.
func TestAccountsThatDontAddUp(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *account)
		want   string
	}{
		"nothing wrong": {func(*account) {}, ""},
		"one lost":      {func(a *account) { a.rooms["r"].came = []span{{1, 5}, {7, 10}} }, "1 of them before others that came"},
		"its last one lost, though it stayed in another room": {func(a *account) { a.rooms["r"].came = []span{{1, 9}}; a.knows("r", 10) }, "1 of them before"},
		"one lost, and reported":                              {func(a *account) { a.rooms["r"].came = []span{{1, 5}, {7, 10}}; a.drops = 1 }, ""},
		"one reported, none lost":                             {func(a *account) { a.drops = 1 }, "1 were reported"},
		"one doubled":                                         {func(a *account) { a.got("r", 10) }, "came after"},
		"an older one":                                        {func(a *account) { a.got("r", 3) }, "came after"},
		"one after it left":                                   {func(a *account) { a.got("r", 11) }, "wasn't due"},
		"the last lost with the line":                         {func(a *account) { a.rooms["r"].came = []span{{1, 9}}; a.rooms["r"].known = 9 }, ""},
		"the last lost, but a close frame came":               {func(a *account) { a.rooms["r"].came = []span{{1, 9}}; a.rooms["r"].known, a.code = 9, 1001 }, "close frame"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAccount()
			a.welcome()
			a.enter("r", 0)
			for n := range 10 {
				a.got("r", n+1)
			}
			a.leave("r", 10)
			c.change(a)
			total := sums{ended: map[string]int{}, ends: map[string]int{}}
			a.audit(&total)
			if got := strings.Join(total.faults, "; "); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
