package presence

import (
	"container/list"
	"sync"

	"github.com/wsroom/wsroom/internal/serial"
)

// events are the joins and leaves that are still to be reported, in order, one at a time. They have a goroutine of
// their own, so that a slow report delays no call of the store.
//
// While a report runs, a member has at most one event waiting: an event takes back one of the opposite kind.
type events struct {
	report func(joined bool, room, identity string) // called with no lock held
	calls  serial.Queue

	mu      sync.Mutex               // guards the rest
	queue   list.List                // of *event
	waiting map[string]*list.Element // by room and identity
}

// event is a join or a leave.
type event struct {
	joined         bool
	room, identity string
	times          int // how often to report it: more than once only where a lease was lost
}

// add queues an event, merged with the member's waiting one.
func (e *events) add(joined bool, room, identity string) {
	e.mu.Lock()
	defer e.mu.Unlock()

	key := memberKey(room, identity)
	if place := e.waiting[key]; place != nil {
		waiting := place.Value.(*event)
		if waiting.joined == joined {
			waiting.times++
			return
		}
		e.takeOnce(place)
		return
	}

	if e.waiting == nil {
		e.waiting = map[string]*list.Element{}
	}
	e.waiting[key] = e.queue.PushBack(&event{joined, room, identity, 1})
	e.calls.Add("next", e.reportNext)
}

// takeOnce takes an event once from the queue; mu is locked.
func (e *events) takeOnce(place *list.Element) *event {
	next := place.Value.(*event)
	if next.times--; next.times == 0 {
		e.queue.Remove(place)
		delete(e.waiting, memberKey(next.room, next.identity))
	}
	return next
}

// reportNext reports the oldest event. It schedules the next one first, in case the report never returns.
func (e *events) reportNext() {
	e.mu.Lock()
	oldest := e.queue.Front()
	if oldest == nil { // taken back
		e.mu.Unlock()
		return
	}
	next := e.takeOnce(oldest)
	if e.queue.Len() > 0 {
		e.calls.Add("next", e.reportNext)
	}
	e.mu.Unlock()

	e.report(next.joined, next.room, next.identity)
}

// memberKey is different for each pair: no room has a NUL in its name.
func memberKey(room, identity string) string { return room + "\x00" + identity }
