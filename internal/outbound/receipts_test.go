package outbound

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
)

// Whatever becomes of the messages that waited, a ping is written behind all of them, and is written once there is
// nothing before it any more.
func TestPingsStandBehindWhatWaited(t *testing.T) {
	const self = goroutine.ID(1)
	waiting := func(q *Queue, own bool) (all []*frame.Message) {
		if q.snapshot != nil {
			for i := range q.snapshot.messages.len {
				all = append(all, *q.snapshot.messages.at(i))
			}
		}
		if !own {
			for i := range q.ready.len {
				all = append(all, *q.ready.at(i))
			}
		}
		return all
	}

	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q Queue
		q.Init(&Limits{Messages: 100, Bytes: 1 << 20, Policy: DropOldest}, nobody{}, false)
		q.started = true // and writing: the test is the writer
		b := newBatch()
		var before []*frame.Message // what the next ping stands behind
		pings, calls, confirmed := 0, 0, 0

		for step := range 2000 {
			text := func() *frame.Message {
				m := frame.NewMessage(frame.Text, "x", false)
				if r.IntN(2) == 0 {
					m.Tag = Own{} // DropHeld leaves it
				}
				return m
			}
			switch r.IntN(12) {
			case 0:
				q.Hold(self)
			case 1:
				q.Release()
			case 2:
				if r.IntN(3) == 0 {
					q.DropHeld()
				}
			case 3, 4:
				by := self + goroutine.ID(r.IntN(2))
				own := q.held && by == self
				before = append(before, waiting(&q, own)...)
				q.Confirm(func(error) { confirmed++ }, by)
				calls++
			case 5, 6:
				if q.held {
					q.pushSnapshot(text(), self)
				}
			case 7:
				q.take(b, true)
				q.writing = true
				rc := q.receipts()
				if len(waiting(&q, false)) == 0 && len(rc.next) > 0 {
					t.Fatalf("seed %d, step %d: nothing waits, and no ping is written", seed, step)
				}
				if b.ping != "" {
					pings++
					left := waiting(&q, false)
					for _, m := range before {
						if slices.Contains(left, m) {
							t.Fatalf("seed %d, step %d: a ping is written before a message that waited", seed, step)
						}
					}
					before, rc.at = nil, 0 // no pause
				}
			default:
				for range r.IntN(40) {
					q.Push(text())
				}
			}
		}

		q.Release()
		for range 100 {
			q.take(b, true)
			q.writing = true
			q.receipts().at = 0
		}
		q.answer(q.receipts().number)
		if confirmed != calls || pings == 0 {
			t.Errorf("seed %d: %d of %d are confirmed, by %d pings", seed, confirmed, calls, pings)
		}
		b.free()
	}
}
