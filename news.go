package wsroom

import (
	"container/list"
	"sync"

	"github.com/wsroom/wsroom/internal/serial"
)

// memberNews is what OnMemberJoin and OnMemberLeave are still to be told, in order, one call at a time. It has a
// goroutine of its own, so that the time that they take delays no call of the store.
//
// While f is slow, a member has one event there at the most: the opposite of what waits takes that back.
type memberNews struct {
	tell  func(joined bool, room, identity string)
	calls serial.Queue

	mu      sync.Mutex               // guards the rest
	queue   list.List                // of *memberEvent
	waiting map[string]*list.Element // by room and identity
}

type memberEvent struct {
	joined         bool
	room, identity string
	times          int // that it is to be told: more than once only where a lease was lost
}

func (n *memberNews) add(joined bool, room, identity string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := memberKey(room, identity)
	if at := n.waiting[key]; at != nil {
		e := at.Value.(*memberEvent)
		if e.joined == joined {
			e.times++
		} else if e.times--; e.times == 0 {
			n.queue.Remove(at)
			delete(n.waiting, key)
		}
		return
	}
	if n.waiting == nil {
		n.waiting = map[string]*list.Element{}
	}
	n.waiting[key] = n.queue.PushBack(&memberEvent{joined, room, identity, 1})
	n.calls.Add("next", n.next)
}

// next tells what has waited for longest. What follows is next even if that doesn't return.
func (n *memberNews) next() {
	n.mu.Lock()
	at := n.queue.Front()
	if at == nil { // taken back
		n.mu.Unlock()
		return
	}
	e := at.Value.(*memberEvent)
	if e.times--; e.times == 0 {
		n.queue.Remove(at)
		delete(n.waiting, memberKey(e.room, e.identity))
	}
	if n.queue.Len() > 0 {
		n.calls.Add("next", n.next)
	}
	n.mu.Unlock()
	n.tell(e.joined, e.room, e.identity)
}

// memberKey is one for each pair: no room has a NUL in its name.
func memberKey(room, identity string) string { return room + "\x00" + identity }
