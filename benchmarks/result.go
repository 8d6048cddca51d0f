package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// A result is what one library did in one scenario, over all rounds.
type result struct {
	scenario scenario
	library  server.Library
	figures  figures
}

// figures are one run's, or the medians of several. Times are per unit of the scenario.
type figures struct {
	rate          float64 // units a second
	user, system  float64 // µs of the server's processor time
	broker        float64 // µs of the broker's
	load          float64 // µs of the load's
	objects       float64 // allocated on the server's heap
	memory        float64 // bytes a connection
	p50, p99, max float64 // seconds
	own50, own99  float64 // of messages that came back to their sender
	lost, doubled int     // doubled counts also what came to the wrong room
	reordered     int
	ended         int    // connections that the server ended though they read
	note          string // why figures are missing or wrong
}

// cpu is the processor time of one unit in µs.
func (f figures) cpu() float64 { return f.user + f.system }

func (f *figures) measure(before, after mark) {
	units := float64(after.units - before.units)
	if units == 0 {
		return
	}
	f.rate = units / after.at.Sub(before.at).Seconds()
	f.user = micros(after.usage.User-before.usage.User) / units
	f.system = micros(after.usage.System-before.usage.System) / units
	f.broker = micros(after.broker-before.broker) / units
	f.load = micros(after.load-before.load) / units
	f.objects = float64(after.usage.Objects-before.usage.Objects) / units
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func (f *figures) add(t load.Totals) {
	f.p50, f.p99, f.max = t.P50.Seconds(), t.P99.Seconds(), t.Max.Seconds()
	f.own50, f.own99 = t.Own50.Seconds(), t.Own99.Seconds()
	f.lost, f.doubled, f.reordered, f.ended = t.Lost, t.Doubled+t.Foreign, t.Reordered, t.Ended
	if f.note == "" && t.Err != nil {
		f.note = t.Err.Error()
	}
}

func (f figures) summary() string {
	return fmt.Sprintf("%10.0f/s %7.3f µs (%.3f + %.3f; load %.3f, broker %.3f) %6.3f objects, p50 %.2f p99 %.2f max %.2f own %.2f %.2f ms, %6.0f B, lost %d doubled %d reordered %d ended %d %s",
		f.rate, f.cpu(), f.user, f.system, f.load, f.broker, f.objects, f.p50*1e3, f.p99*1e3, f.max*1e3, f.own50*1e3, f.own99*1e3, f.memory, f.lost, f.doubled, f.reordered, f.ended, f.note)
}

// medians takes the median of each figure by itself, and the sum of what went wrong.
func medians(rounds []figures) figures {
	of := func(field func(figures) float64) float64 {
		values := make([]float64, len(rounds))
		for i, f := range rounds {
			values[i] = field(f)
		}
		return median(values)
	}
	m := figures{
		rate:    of(func(f figures) float64 { return f.rate }),
		user:    of(func(f figures) float64 { return f.user }),
		system:  of(func(f figures) float64 { return f.system }),
		broker:  of(func(f figures) float64 { return f.broker }),
		objects: of(func(f figures) float64 { return f.objects }),
		memory:  of(func(f figures) float64 { return f.memory }),
		p50:     of(func(f figures) float64 { return f.p50 }),
		p99:     of(func(f figures) float64 { return f.p99 }),
		max:     of(func(f figures) float64 { return f.max }),
		own50:   of(func(f figures) float64 { return f.own50 }),
		own99:   of(func(f figures) float64 { return f.own99 }),
	}
	for _, f := range rounds {
		m.lost += f.lost
		m.doubled += f.doubled
		m.reordered += f.reordered
		m.ended += f.ended
		if m.note == "" {
			m.note = f.note
		}
	}
	return m
}

// median is the middle value, or the mean of the two in the middle; 0 for none.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	}
	return (sorted[n/2-1] + sorted[n/2]) / 2
}
