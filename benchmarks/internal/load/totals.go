package load

import "time"

// Totals are what all members together have seen.
type Totals struct {
	P50, P99, Max time.Duration // of messages received in the measured interval
	Own50, Own99  time.Duration // of those that came back to their sender
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
	var latency, own Histogram
	for _, r := range f.rooms {
		for _, m := range r.members {
			if m.stalled {
				continue
			}
			latency.Merge(&m.latency)
			own.Merge(&m.own)
			t.add(m, r.seq)
		}
	}
	t.Own50, t.Own99 = own.Quantile(0.5), own.Quantile(0.99)
	t.P50, t.P99, t.Max = latency.Quantile(0.5), latency.Quantile(0.99), latency.Max()
	return t
}

func (t *Totals) add(m *Member, sent uint64) {
	n := uint64(len(m.checkers))
	for i := range m.checkers {
		c := &m.checkers[i]
		t.Lost += c.Lost((sent - uint64(i)) / n)
		t.Doubled += c.Doubled
		t.Reordered += c.Reordered
	}
	t.Reordered += m.reordered
	t.Foreign += m.foreign
	if m.err != nil {
		t.Ended++
		if t.Err == nil {
			t.Err = m.err
		}
	}
}
