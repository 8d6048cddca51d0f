package presence

import (
	"container/list"
	"sync"

	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/serial"
)

// events are what is still to be reported, in order, one at a time. They have a goroutine of their own, so
// that a slow report delays no call of the store.
//
// While a report runs, a member has at most one event waiting: a further one is merged with it.
type events struct {
	report func(kind, Member) // called with no lock held
	calls  serial.Queue

	mu      sync.Mutex               // guards the rest
	queue   list.List                // of *event
	waiting map[string]*list.Element // by room and identity
	most    int                      // see lookup.Delete
}

// kind is what an event reports.
type kind uint8

const (
	joined kind = iota
	left
	updated
)

// event is a join, a leave or an update.
type event struct {
	kind
	Member
	times int // how often to report it: more than once only where a lease was lost
}

// add queues an event, merged with the member's waiting one.
func (e *events) add(k kind, m Member) {
	e.mu.Lock()
	defer e.mu.Unlock()

	place := e.waiting[memberKey(m.Room, m.Identity)]
	if place == nil {
		e.push(k, m)
		return
	}

	waiting := place.Value.(*event)
	before := waiting.Info
	if k != left {
		waiting.Info = m.Info
	}
	switch {
	case waiting.kind == updated:
		waiting.kind = k
	case k == updated && waiting.kind == joined: // it joins with the newest info
	case waiting.kind == k:
		waiting.times++
	default: // a join and a leave cancel each other
		e.takeOnce(place)
		if waiting.times == 0 && waiting.kind == left && before != m.Info && m.Info != "" {
			e.push(updated, m)
		}
	}
}

func (e *events) push(k kind, m Member) {
	if e.waiting == nil {
		e.waiting = map[string]*list.Element{}
	}
	e.waiting[memberKey(m.Room, m.Identity)] = e.queue.PushBack(&event{k, m, 1})
	e.calls.Add("next", e.reportNext)
}

// takeOnce takes an event once from the queue; mu is locked.
func (e *events) takeOnce(place *list.Element) *event {
	next := place.Value.(*event)
	if next.times--; next.times == 0 {
		e.queue.Remove(place)
		e.waiting = lookup.Delete(e.waiting, memberKey(next.Room, next.Identity), &e.most)
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
	k, m := next.kind, next.Member
	if e.queue.Len() > 0 {
		e.calls.Add("next", e.reportNext)
	}
	e.mu.Unlock()

	if k == left {
		m.Info = ""
	}
	e.report(k, m)
}

// memberKey is different for each pair: no room has a NUL in its name.
func memberKey(room, identity string) string { return room + "\x00" + identity }
