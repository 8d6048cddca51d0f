package cluster_test

import (
	"slices"
	"strconv"
	"strings"
)

// check compares what all have received with what they must have.
func (f *fleet) check() {
	for _, s := range f.crew(nil) {
		f.ends(s)
	}
	for _, s := range f.sailors {
		s.received = s.client.Drain()
	}
	if f.t.Failed() {
		return
	}
	for _, s := range f.sailors {
		f.checkReceived(s)
		f.checkMissing(s)
	}
	for i := range fleetRooms {
		f.checkOrder("/" + strconv.Itoa(i))
	}
	f.checkOrder("")
}

// signal returns the one of a text that was received; nil: a mark.
func (f *fleet) signal(text string) *flare {
	n, err := strconv.Atoi(text)
	if err != nil {
		return nil
	}
	return f.signals[n]
}

// checkReceived looks for what shouldn't have come, or not there: twice, refused, left out, for rooms that it
// had left, or before what the same ship had sent before.
func (f *fleet) checkReceived(s *sailor) {
	seen, left, last := map[string]bool{}, map[string]bool{}, map[string]int{}
	for i := range fleetRooms {
		left["/"+strconv.Itoa(i)] = true
	}
	for _, text := range s.received {
		sig := f.signal(text)
		if sig == nil {
			doing, room, _ := strings.Cut(text, " ")
			left[room] = doing == "leave"
			continue
		}
		switch {
		case seen[text] && !s.moved(sig):
			f.t.Errorf("%s got %s for %q twice", s.name, text, sig.rooms)
		case sig.err != nil:
			f.t.Errorf("%s got %s, which was refused: %v", s.name, text, sig.err)
		case sig.except == s:
			f.t.Errorf("%s got %s, which it was left out of", s.name, text)
		case sig.rooms != nil && !slices.ContainsFunc(sig.rooms, func(room string) bool { return !left[room] }):
			f.t.Errorf("%s got %s for %q, which it had left", s.name, text, sig.rooms)
		}
		seen[text] = true
		if len(sig.rooms) > 1 {
			continue
		}
		n, _ := strconv.Atoi(text)
		key := strings.Join(append(sig.rooms, strconv.Itoa(slices.IndexFunc(f.signals, func(o *flare) bool { return o.ship == sig.ship }))), " ")
		if last[key] > n {
			f.t.Errorf("%s got %s after %d", s.name, text, last[key])
		}
		last[key] = n
	}
}

// stays reports whether a sailor was in the room, or there, all the time from a signal's sending.
func (s *sailor) stayed(sig *flare, room string) bool {
	return slices.ContainsFunc(s.stays, func(st stay) bool {
		return (st.room == room || room == "" && strings.HasPrefix(st.room, "/home")) && st.from <= sig.sent && st.to >= sig.settled
	})
}

// steady reports whether a sailor's place in a room's order is certain for a signal: where a node has missed
// some, what is published again comes to it as if for the first time.
func (f *fleet) steady(s *sailor, sig *flare, room string) bool {
	return s.stayed(sig, room) && !f.gapFor(s, sig, []string{room})
}

// moved reports whether a sailor entered or left one of several rooms while a signal to them was on its way:
// it may have come by each then, or by none.
func (s *sailor) moved(sig *flare) bool {
	return len(sig.rooms) > 1 && slices.ContainsFunc(s.stays, func(st stay) bool {
		return slices.Contains(sig.rooms, st.room) && (st.from > sig.sent && st.from <= sig.settled || st.to >= sig.sent && st.to < sig.settled)
	})
}

// checkMissing looks for what must have come.
func (f *fleet) checkMissing(s *sailor) {
	for _, sig := range f.signals {
		if sig.err != nil || sig.ship.sunk || sig.except == s || slices.Contains(s.received, sig.text) {
			continue
		}
		rooms := sig.rooms
		if rooms == nil {
			rooms = []string{""}
		}
		for _, room := range rooms {
			if s.stayed(sig, room) && !s.moved(sig) && !f.gapFor(s, sig, rooms) {
				f.t.Errorf("%s on ship %p didn't get %s, sent at %d by ship %p to %q; no gap was reported", s.name, s.ship, sig.text, sig.sent, sig.ship, rooms)
			}
		}
	}
}

// gapFor reports whether a sailor's node has said that a signal may be missing.
func (f *fleet) gapFor(s *sailor, sig *flare, rooms []string) bool {
	return slices.ContainsFunc(f.gaps, func(g gap) bool {
		return g.hub == s.ship.hub && slices.Contains(rooms, g.room) && g.at >= sig.sent && g.at <= sig.settled
	})
}

// checkOrder looks for two who were in the room when signals to it were sent and got them in different orders.
func (f *fleet) checkOrder(room string) {
	if f.local {
		return
	}
	for i, a := range f.sailors {
		at := map[string]int{}
		for i, text := range a.received {
			at[text] = i + 1
		}
		for _, b := range f.sailors[:i] {
			last := 0
			for _, text := range b.received {
				sig := f.signal(text)
				if sig == nil || strings.Join(sig.rooms, " ") != room || at[text] == 0 || !f.steady(a, sig, room) || !f.steady(b, sig, room) {
					continue
				}
				if at[text] < last {
					f.t.Errorf("in %q %s came to one before %s, and after it to another", room, text, a.received[last-1])
				}
				last = at[text]
			}
		}
	}
}

// checkPresence compares who is present, for all nodes, and what was told of it.
func (f *fleet) checkPresence() {
	want := map[string][]string{}
	for _, s := range f.crew(nil) {
		for room := range s.rooms {
			if !slices.Contains(want[room], s.name) {
				want[room] = append(want[room], s.name)
			}
		}
	}
	for i := range fleetRooms {
		room := "/" + strconv.Itoa(i)
		slices.Sort(want[room])
		for _, on := range f.ships {
			members, err := on.hub.Presence(f.t.Context(), room)
			var got []string
			for _, m := range members {
				got = append(got, m.Identity)
			}
			if err != nil || !slices.Equal(got, want[room]) {
				f.t.Errorf("in %s are %q, want %q; %v", room, got, want[room], err)
			}
		}
	}
	if f.faults { // what came of a call whose answer was lost isn't always told
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, n := range f.present {
		room, name, _ := strings.Cut(key, " ")
		if there := slices.Contains(want[room], name); n != 0 && n != 1 || (n == 1) != there {
			f.t.Errorf("%s is in %s: %v; was told to have come %d times more than to have gone", name, room, there, n)
		}
	}
}
