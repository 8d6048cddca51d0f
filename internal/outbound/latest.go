package outbound

import (
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/resume"
)

// fewWaiting is the largest number of waiting messages that are looked through for one of a key. Where more
// wait, their numbers are kept by key.
const fewWaiting = 16

// PushLatest is [Queue.Push] for the newest value of a key, which its tag, a *[resume.Latest], names. The
// message replaces the waiting one of the same tag, and takes its place. If it is larger than that, and the
// bytes are too many, it is pushed as any other. Messages that [Queue.Hold] has found waiting aren't
// replaced.
func (q *Queue) PushLatest(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}

	key := *m.Tag.(*resume.Latest)
	if i, ok := q.findValue(key); ok && q.replace(i, m) {
		return Pushed{Replaced: true} // there is a writer, or the queue is held
	}
	p := q.push(m)
	if p.Refused == Taken && q.rare != nil && q.rare.values != nil {
		q.rare.values[key] = q.ready.head + q.ready.len - 1
	}
	return p
}

// replace replaces the message with i older ones before it, unless m has more bytes and these are too many.
func (q *Queue) replace(i uint32, m *frame.Message) bool {
	place := q.ready.at(i)
	grows := q.sizeOf(m) - q.sizeOf(*place)
	if _, bytes := q.counted(); grows > 0 && q.ready.len > 1 && bytes+grows > q.limits.Bytes {
		return false
	}
	*place = m
	q.bytes += grows
	return true
}

// findValue returns how many older messages wait before the last one of that key. ok is false if none of the
// key waits.
func (q *Queue) findValue(key resume.Latest) (i uint32, ok bool) {
	if q.ready.len <= fewWaiting && (q.rare == nil || q.rare.values == nil) {
		for i = q.ready.len; i > 0; i-- {
			if value, ok := (*q.ready.at(i - 1)).Tag.(*resume.Latest); ok && *value == key {
				return i - 1, true
			}
		}
		return 0, false
	}

	r := q.seldom()
	if r.values == nil {
		r.values = map[resume.Latest]uint32{}
		for i := range q.ready.len {
			if value, ok := (*q.ready.at(i)).Tag.(*resume.Latest); ok {
				r.values[*value] = q.ready.head + i
			}
		}
	}
	number, ok := r.values[key]
	return number - q.ready.head, ok
}

// popped notes that m, the oldest message, was removed from ready. The queue has a rare.
func (q *Queue) popped(m *frame.Message) {
	switch values := q.rare.values; {
	case values == nil:
	case q.ready.len == 0:
		q.rare.values = nil
	default:
		if value, ok := m.Tag.(*resume.Latest); ok && values[*value] == q.ready.head-1 {
			delete(values, *value)
		}
	}
}

// forgetValues forgets the numbers of the messages that wait. They are found anew when they are needed.
func (q *Queue) forgetValues() {
	if q.rare != nil {
		q.rare.values = nil
	}
}
