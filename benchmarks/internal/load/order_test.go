package load

import "testing"

// crowd returns a room's members, who can hear messages as if a server had sent them.
func crowd(senders, members int) []*Member {
	r := newRoom(&Fleet{plan: Plan{Senders: senders, Size: 128}, clock: NewClock()}, 0)
	for i := range members {
		r.members = append(r.members, newMember(r, i))
	}
	return r.members
}

func hear(m *Member, seqs ...uint64) {
	for _, seq := range seqs {
		m.saw(stamp{seq: seq})
	}
	m.publish()
}

func TestAllMembersSeeOneOrderOfSeveralSenders(t *testing.T) {
	for _, c := range []struct {
		name                     string
		first, second            []uint64
		lost, doubled, reordered int
	}{
		{"the same", []uint64{2, 3, 5, 4, 6}, []uint64{2, 3, 5, 4, 6}, 0, 0, 0},
		{"two senders' messages swapped", []uint64{2, 3, 4, 5, 6}, []uint64{2, 4, 3, 5, 6}, 0, 0, 1},
		{"one sender's messages swapped", []uint64{2, 3, 4, 5, 6}, []uint64{2, 3, 6, 5, 4}, 0, 0, 3},
		{"one is missing", []uint64{2, 3, 4, 5, 6}, []uint64{2, 3, 5, 6}, 1, 0, 0},
		{"the last is missing", []uint64{2, 3, 4, 5, 6}, []uint64{2, 3, 4, 5}, 1, 0, 0},
		{"one came again", []uint64{2, 3, 4, 5, 6}, []uint64{2, 3, 3, 4, 5, 6}, 0, 1, 0},
		{"joined later", []uint64{2, 3, 4, 5, 6}, []uint64{4, 5, 6}, 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			members := crowd(2, 2)
			hear(members[0], c.first...)
			hear(members[1], c.second...)
			var got Totals
			for _, m := range members {
				got.add(m, 6)
			}
			if got.Lost != c.lost || got.Doubled != c.doubled || got.Reordered != c.reordered {
				t.Errorf("lost %d, doubled %d, reordered %d; want %d, %d and %d",
					got.Lost, got.Doubled, got.Reordered, c.lost, c.doubled, c.reordered)
			}
		})
	}
}

func TestMemberHasReachedWhatAllSendersSent(t *testing.T) {
	m := crowd(3, 1)[0]
	for _, step := range []struct{ heard, reached uint64 }{{3, 0}, {4, 0}, {5, 5}, {8, 5}, {6, 6}, {7, 8}, {9, 9}} {
		if hear(m, step.heard); m.last.Load() != step.reached {
			t.Errorf("after message %d: reached %d, want %d", step.heard, m.last.Load(), step.reached)
		}
	}
}

func TestRoomIsCaughtUp(t *testing.T) {
	for _, c := range []struct {
		sent, first, second uint64 // first and second: what these members have reached
		want                bool
	}{
		{1, 0, 0, true},  // nothing was sent
		{3, 0, 0, false}, // nobody has it yet
		{3, 3, 0, true},  // the second member is still on its way in
		{5, 5, 3, false},
		{5, 5, 5, true},
	} {
		members := crowd(2, 2)
		r := members[0].room
		r.seq = c.sent
		members[0].last.Store(c.first)
		members[1].last.Store(c.second)
		if got := r.caughtUp(); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
