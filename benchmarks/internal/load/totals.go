package load

import "time"

// Totals are what all members together have seen.
type Totals struct {
	P50, P99, Max time.Duration // of messages received in the measured interval
	Lost          int           // sent while the member was in, never received
	Doubled       int
	Reordered     int
	Foreign       int   // messages of another room
	Ended         int   // connections of reading members that the server ended
	Err           error // the first reason of such an end
}

// Totals adds up the members. It is called after Close.
func (f *Fleet) Totals() Totals {
	var t Totals
	var latency Histogram
	for _, r := range f.rooms {
		for _, m := range r.members {
			if m.stalled {
				continue
			}
			latency.Merge(&m.latency)
			t.add(m, r.seq)
		}
	}
	t.P50, t.P99, t.Max = latency.Quantile(0.5), latency.Quantile(0.99), latency.Max()
	return t
}

func (t *Totals) add(m *Member, sent uint64) {
	t.Lost += m.checker.Lost(sent)
	t.Doubled += m.checker.Doubled
	t.Reordered += m.checker.Reordered
	t.Foreign += m.foreign
	if m.err != nil {
		t.Ended++
		if t.Err == nil {
			t.Err = m.err
		}
	}
}
