package outbound

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/resume"
)

// newTold returns a queue whose client is told of rooms. The test is its writer.
func newTold(policy Policy, messages int, bytes int64) *Queue {
	q := new(Queue)
	q.Init(&Limits{Messages: messages, Bytes: bytes, Policy: policy}, nobody{}, false)
	q.Tell(resume.NewSession(resume.NewKey("", [][]byte{make([]byte, 32)}), "", nil, 0, new(history.Limits)))
	q.started = true
	return q
}

// taken returns what the writer would write next, in its order.
func taken(q *Queue) (list []*frame.Message) {
	b := newBatch()
	defer b.free()
	for q.take(b, true) {
		list = append(list, b.frames[:b.n]...)
	}
	q.writing = true
	return list
}

// place returns a message of a room, which has the room's number.
func place(room, number uint64, text string) *frame.Message {
	m := frame.NewMessage(frame.Text, text, false)
	m.Tag = &history.Place{Room: room, Number: number, At: history.Position{Stream: number}}
	return m
}

func skip(room, number uint64) *frame.Message {
	p := &history.Place{Room: room, Number: number, At: history.Position{Stream: number}}
	return &frame.Message{Tag: &resume.Skip{First: number, Place: p}}
}

// lossesOf returns in how many places messages of the room are missing, as a session would find.
func lossesOf(list []*frame.Message, room uint64) (n int) {
	last := uint64(0)
	for _, m := range list {
		if start, ok := m.Tag.(*resume.Start); ok && start.Room == room {
			last = start.Number
		}
		if p, first := resume.PlaceOf(m.Tag); p != nil && p.Room == room {
			if last != 0 && first > last+1 {
				n++
			}
			last = p.Number
		}
	}
	return n
}

// The counters of a queue are those of what waits in it, whatever is done with it, and the limits hold.
func TestToldCountsWhatWaits(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testToldCounts(t, seed) })
	}
}

func testToldCounts(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 5))
	q := newTold(Policy(seed%3), 1+rnd.IntN(20), int64(10+rnd.IntN(500)))
	const by = goroutine.ID(7)
	numbers, resentUpTo := []uint64{0, 1, 1, 1}, map[uint64]uint64{}
	for range 400 {
		room := uint64(len(numbers) - 1 - rnd.IntN(3))
		text := fmt.Sprintf("%0*d", 1+rnd.IntN(40), 0)
		numbers[room]++
		n := numbers[room]
		switch op := rnd.IntN(16); {
		case op < 5:
			q.Push(place(room, n, text))
		case op < 7:
			q.PushEmpty(skip(room, n))
		case op == 7:
			var again []*frame.Message
			room, n, numbers = uint64(len(numbers)), 2, append(numbers, 0) // a room is resumed once
			for range rnd.IntN(5) {
				again = append(again, place(room, n, text))
				n++
			}
			if numbers[room] = n; len(again) > 0 {
				resentUpTo[room] = n - 1
			}
			var start *resume.Start
			if rnd.IntN(2) == 0 {
				start = &resume.Start{Room: room, Number: n}
			}
			q.Enter(&resume.Enter{Room: room, Number: n}, again, start)
		case op == 8:
			q.Leave(&resume.Leave{Room: room})
		case op == 9:
			q.Hold(by)
		case op == 10:
			q.Release()
		case op == 11 && q.held:
			before := q.SetEntering(room)
			q.DropHeld()
			q.SetEntering(before)
		case op == 12:
			q.Forget(room)
		case op == 13:
			q.pushSnapshot(frame.NewMessage(frame.Text, text, false), by)
		case op == 14:
			if q.pushAnswer(resume.Beat); rnd.IntN(2) == 0 {
				q.PushBeat(resume.Beat)
			}
		case op == 15:
			b := newBatch()
			q.take(b, true)
			q.writing = true
			b.free()
		}
		checkCounts(t, q, resentUpTo)
	}

	q.Release()
	taken(q)
	checkCounts(t, q, nil)
	if messages, bytes := q.Waiting(); messages != 0 || bytes != 0 {
		t.Errorf("%d messages of %d bytes wait in an empty queue", messages, bytes)
	}
}

func checkCounts(t *testing.T, q *Queue, resentUpTo map[uint64]uint64) {
	t.Helper()
	empty, emptyAll, counted := 0, 0, 0
	var bytes, resentBytes, snapshotBytes int64
	resent := 0
	for i := range q.ready.len {
		m := *q.ready.at(i)
		bytes += q.sizeOf(m)
		p, ok := m.Tag.(*history.Place)
		switch {
		case isEmpty(m):
			empty++
		case ok && p.Number <= resentUpTo[p.Room]:
			resent++
			resentBytes += q.sizeOf(m)
		default:
			counted++
		}
	}
	emptyAll = empty
	if s := q.snapshot; s != nil {
		for i := range s.messages.len {
			m := *s.messages.at(i)
			snapshotBytes += q.sizeOf(m)
			if isEmpty(m) {
				emptyAll++
			}
		}
		if s.bytes != snapshotBytes || s.moved < 0 || s.movedBytes < 0 {
			t.Fatalf("the snapshot has %d bytes, it counts %d, and %d moved of %d", snapshotBytes, s.bytes, s.moved, s.movedBytes)
		}
	}
	if g := q.told; q.bytes != bytes || g.empty != empty || g.emptyAll != emptyAll || g.resent != resent || g.resentBytes != resentBytes {
		t.Fatalf("counted %d bytes, empty %d (all %d), again %d of %d; want %d, %d (%d), %d of %d",
			q.bytes, g.empty, g.emptyAll, g.resent, g.resentBytes, bytes, empty, emptyAll, resent, resentBytes)
	}
	if counted > q.limits.Messages+1 { // a beat takes no room
		t.Fatalf("%d messages wait, at most %d may", counted, q.limits.Messages)
	}
}

// What a client missed takes no room, and no room is left behind when it is written, whatever comes between.
func TestMissedTakesNoRoom(t *testing.T) {
	q := newTold(Close, 2, 1<<20)
	large, small := string(make([]byte, 1000)), "x"
	q.Enter(&resume.Enter{Room: 1}, []*frame.Message{place(1, 1, small), place(1, 2, small)}, nil)
	if p := q.Push(place(1, 3, large)); p.Refused != Taken {
		t.Fatalf("refused: %d", p.Refused)
	}
	q.Enter(&resume.Enter{Room: 2}, []*frame.Message{place(2, 1, small), place(2, 2, large)}, nil)
	if p := q.Push(place(2, 3, small)); p.Refused != Taken {
		t.Fatalf("refused: %d", p.Refused)
	}
	if p := q.Push(place(2, 4, small)); p.Refused != Slow {
		t.Fatalf("the third message: %d", p.Refused)
	}
	taken(q)
	if g := q.told; g.resent != 0 || g.resentBytes != 0 || g.missed != nil {
		t.Errorf("in an empty queue %d messages of %d bytes are sent again", g.resent, g.resentBytes)
	}
}

// Messages that aren't for a slow client don't pile up, whatever happens to the others. Each loss is one.
func TestSkipsDontPileUp(t *testing.T) {
	for policy, name := range map[Policy]string{DropOldest: "drop oldest", DropNewest: "drop newest"} {
		t.Run(name, func(t *testing.T) {
			q := newTold(policy, 8, 1<<20)
			q.Enter(&resume.Enter{Room: 1, Number: 1}, nil, nil)
			q.Enter(&resume.Enter{Room: 2, Number: 1}, nil, nil)
			for n := uint64(2); n < 5000; n += 2 {
				q.Push(place(1, n, "x"))
				q.PushEmpty(skip(1, n+1))
				q.PushEmpty(skip(2, n))
				q.PushEmpty(skip(2, n+1))
			}
			if n := q.ready.len; n > 40 {
				t.Errorf("%d messages wait", n)
			}
			q.Push(place(2, 5000, "x"))
			list := append([]*frame.Message{place(1, 1, "x"), place(2, 1, "x")}, taken(q)...)
			if n := lossesOf(list, 1); n != 1 {
				t.Errorf("%d losses, want one", n)
			}
			if n := lossesOf(list, 2); n != 0 {
				t.Errorf("%d losses of a room of which nothing was lost", n)
			}
		})
	}
}

// A client that enters and leaves rooms, and doesn't read, is slow in the end, with and without a goroutine that
// holds messages back each time.
func TestEnteringIsBounded(t *testing.T) {
	for _, holds := range []bool{false, true} {
		for _, policy := range []Policy{Close, DropOldest, DropNewest} {
			q := newTold(policy, 10, 1<<20)
			var p Pushed
			rounds := 0
			for ; p.Refused == Taken && rounds < 10*maxEmpty; rounds++ {
				if holds {
					q.Hold(7)
				}
				q.Enter(&resume.Enter{Room: 1, Number: 1}, nil, &resume.Start{Room: 1, Number: 1})
				q.Push(place(1, uint64(2+rounds), "x"))
				if holds {
					q.Release()
				}
				p = q.Leave(&resume.Leave{Room: 1})
			}
			waiting := int(q.ready.len)
			if q.snapshot != nil {
				waiting += int(q.snapshot.messages.len)
			}
			if p.Refused != Slow || waiting > maxEmpty+30 {
				t.Errorf("policy %d, holds %t: after %d rounds %d messages wait; the last is refused: %d", policy, holds, rounds, waiting, p.Refused)
			}
		}
	}
}

// A beat waits only once, also while others' messages are held back, and then it isn't held.
func TestOneBeatWaits(t *testing.T) {
	q := newTold(Close, 5, 1<<20)
	for range 2 {
		for range 20 {
			q.PushBeat(resume.Beat)
		}
		q.Push(place(1, 1, "x"))
		if list := taken(q); len(list) != 2 || list[0] != resume.Beat {
			t.Fatalf("%d messages wait", len(list))
		}
	}
	q.Hold(7)
	q.Push(place(1, 1, "held"))
	q.PushBeat(resume.Beat)
	if list := taken(q); len(list) != 1 || list[0] != resume.Beat {
		t.Errorf("%d messages aren't held", len(list))
	}
}

// A client is told that it has left a room before it is told that it is in the room again, also while messages are
// held back.
func TestLeftBeforeEnteredAgain(t *testing.T) {
	for _, messages := range []int{0, 2} {
		for _, fails := range []bool{false, true} {
			q := newTold(Close, 20, 1<<20)
			q.Hold(7)
			q.Enter(&resume.Enter{Room: 1, Number: 1}, nil, &resume.Start{Room: 1, Number: 1})
			for i := range messages {
				q.Push(place(1, uint64(2+i), "x"))
			}
			q.Leave(&resume.Leave{Room: 1})
			if fails { // as for a welcome that fails
				q.Forget(1)
			}
			q.Enter(&resume.Enter{Room: 1, Number: 3}, nil, &resume.Start{Room: 1, Number: 3})
			if fails || messages == 0 {
				q.pushSnapshot(frame.NewMessage(frame.Text, "welcome", false), 7)
			}
			early := taken(q)
			q.Release()
			var kinds []string
			for _, m := range append(early, taken(q)...) {
				kinds = append(kinds, fmt.Sprintf("%T", m.Tag))
			}
			want := []string{"*resume.Enter", "*resume.Leave", "*resume.Enter", "<nil>", "*resume.Start"}
			if messages > 0 && !fails { // none is lost
				want = []string{"*resume.Enter", "*resume.Start", "*history.Place", "*history.Place", "*resume.Leave", "*resume.Enter", "*resume.Start"}
			}
			if !slices.Equal(kinds, want) {
				t.Errorf("%d messages, fails %t: %q, want %q", messages, fails, kinds, want)
			}
		}
	}
}

// What is lost with a connection is what the application sent.
func TestLostIsTheApplications(t *testing.T) {
	for _, drop := range []bool{true, false} {
		q := newTold(Close, 20, 1<<20)
		q.Hold(7)
		q.Enter(&resume.Enter{Room: 1, Number: 1}, []*frame.Message{place(1, 2, "missed")}, &resume.Start{Room: 1, Number: 1})
		q.pushAnswer(resume.Beat)
		q.PushBeat(resume.Beat)
		q.Push(place(1, 3, "x"))
		if n, _ := q.Waiting(); n != 2 {
			t.Errorf("%d messages wait, want 2", n)
		}
		if lost, _ := q.CloseWith("", drop); lost != 2 {
			t.Errorf("%d messages are lost, want 2", lost)
		}
	}
}
