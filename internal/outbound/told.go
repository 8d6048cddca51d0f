package outbound

import (
	"slices"
	"sync/atomic"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/resume"
)

// told is the part of a queue whose client is told of rooms and positions. Its queue's ready also holds
// messages without a frame, of which the client is told in their turn. They take no room.
type told struct {
	session *resume.Session // belongs to the writer
	spokeAt atomic.Int64    // when a message was last written, by frame.Now

	empty       int      // messages without a frame in ready
	emptyAll    int      // and in the snapshot
	resent      int      // messages in ready that are sent again; they take no room
	resentBytes int64    // of their frames
	missed      []missed // which messages are sent again; nil if there is none in ready
	beats       bool     // a beat waits
}

// missed are the messages of a room that were sent before a client came back to it: those up to a number.
type missed struct{ room, number uint64 }

// maxEmpty bounds the messages without a frame that wait, beyond the limit on the others. A client that has more
// of them waiting enters and leaves rooms without reading.
const maxEmpty = 4096

// Tell makes the queue tell its client of rooms and positions. It is called before the first push.
func (q *Queue) Tell(session *resume.Session) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = new(told)
	q.told.session = session
	q.told.spokeAt.Store(frame.Now())
}

// pushFirstOf appends m before everything that is held. mu is locked, and the client is told of rooms.
func (q *Queue) pushFirstOf(m *frame.Message) {
	if !q.held {
		q.pushReady(m)
		return
	}
	q.snapshot.messages.push(m)
	q.snapshot.bytes += q.sizeOf(m)
	if isEmpty(m) {
		q.told.emptyAll++
	}
}

// pushReady appends a message of any kind to ready.
func (q *Queue) pushReady(m *frame.Message) {
	q.ready.push(m)
	q.count(m, 1)
}

// count counts a message that comes to ready, or goes from there if n is -1.
func (q *Queue) count(m *frame.Message, n int) (resent bool) {
	size := int64(n) * q.sizeOf(m)
	q.bytes += size
	switch t := q.told; {
	case t == nil:
	case isEmpty(m):
		t.empty += n
		t.emptyAll += n
	case t.isResent(m):
		t.resent += n
		t.resentBytes += size
		if t.resent == 0 {
			t.missed = nil
		}
		return true
	}
	return false
}

// isResent reports whether a message in ready is sent again.
func (t *told) isResent(m *frame.Message) bool {
	if len(t.missed) == 0 {
		return false
	}
	place, ok := m.Tag.(*history.Place)
	return ok && slices.ContainsFunc(t.missed, func(r missed) bool {
		return r.room == place.Room && place.Number <= r.number
	})
}

// hasTooMany reports whether too many messages without a frame wait.
func (q *Queue) hasTooMany() bool { return q.told.emptyAll >= q.limits.Messages+maxEmpty }

// Session returns the session of a client that is told of rooms and positions. It is nil for others.
func (q *Queue) Session() *resume.Session {
	if q.told == nil {
		return nil
	}
	return q.told.session
}

// Own is the [frame.Message.Tag] of a message to this connection alone.
type Own struct{}

// SpokeAt returns when a message was last written, by frame.Now. told is false if the client isn't told of
// rooms and positions.
func (q *Queue) SpokeAt() (at int64, told bool) {
	if q.told == nil {
		return 0, false
	}
	return q.told.spokeAt.Load(), true
}

// isEmpty reports whether the message has no frame.
func isEmpty(m *frame.Message) bool { return m.Size() == 0 }

// isControl reports whether the message isn't one of the application.
func isControl(m *frame.Message) bool {
	_, control := m.Tag.(resume.Control)
	return control || isEmpty(m)
}

// PushEmpty appends a message without a frame. The queue's client is told of rooms and positions. If too many of
// them wait, the message is refused as Slow under each policy.
func (q *Queue) PushEmpty(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closing || q.broken:
		return Pushed{Refused: Closed}
	case q.mergeLast(m):
		return Pushed{Wake: q.wakeLocked()}
	case q.hasTooMany():
		return Pushed{Refused: Slow}
	}
	q.pushReady(m)
	return Pushed{Wake: q.wakeLocked()}
}

// Leave tells the client that it has left a room. What is held back of the room goes first.
func (q *Queue) Leave(l *resume.Leave) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closing || q.broken:
		return Pushed{Refused: Closed}
	case q.hasTooMany():
		return Pushed{Refused: Slow}
	case q.holds(l.Room):
		q.pushReady(&frame.Message{Tag: l})
	default:
		q.forget(l.Room)
		q.pushFirstOf(&frame.Message{Tag: l})
	}
	return Pushed{Wake: q.wakeLocked()}
}

// holds reports whether messages of the room are held back, or that the client has left it.
func (q *Queue) holds(room uint64) bool {
	if !q.held {
		return false
	}
	for i := range q.ready.len {
		m := *q.ready.at(i)
		if _, isStart := m.Tag.(*resume.Start); !isStart && roomOf(m) == room {
			return true
		}
	}
	return false
}

// roomOf returns the room that a message belongs to; 0: none.
func roomOf(m *frame.Message) uint64 {
	switch t := m.Tag.(type) {
	case *history.Place:
		return t.Room
	case *resume.Latest:
		return t.Room
	case *resume.Skip:
		return t.Place.Room
	case *resume.Start:
		return t.Room
	case *resume.Enter:
		return t.Room
	case *resume.Leave:
		return t.Room
	case *resume.Gap:
		return t.Room
	default:
		return 0
	}
}

// PushAnswer appends a message of the protocol, and wakes the queue itself. If the queue is full it drops the
// message, or refuses it as Slow under the policy Close.
func (q *Queue) PushAnswer(m *frame.Message) Pushed {
	return q.awake(q.pushAnswer(m))
}

func (q *Queue) pushAnswer(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.isReadyFull(q.sizeOf(m)) {
		return q.refuse()
	}
	return q.push(m)
}

// PushBeat appends a beat, unless one waits already, and wakes the queue itself. A beat isn't held back.
func (q *Queue) PushBeat(m *frame.Message) { q.awake(q.pushBeat(m)) }

func (q *Queue) pushBeat(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken || q.told.beats {
		return Pushed{}
	}
	q.told.beats = true
	q.pushFirstOf(m)
	return Pushed{Wake: q.wakeLocked()}
}

// mergeLast makes a Skip of the same room that waits among the last ones stand for m, too, if m is a Skip. So
// messages that aren't for a client don't pile up.
func (q *Queue) mergeLast(m *frame.Message) bool {
	return mergeSkip(int(q.ready.len), func(i int) **frame.Message { return q.ready.at(uint32(i)) }, m)
}

// mergeSkip makes a Skip of the same room stand for m, too, if m is a Skip. It looks for one among the last of n
// messages. What is missing between the two remains missing; then the earlier one isn't needed any more.
func mergeSkip(n int, at func(int) **frame.Message, m *frame.Message) bool {
	skip, ok := m.Tag.(*resume.Skip)
	if !ok {
		return false
	}
	for i := n - 1; i >= 0; i-- {
		place := at(i)
		earlier, ok := (*place).Tag.(*resume.Skip)
		if !ok {
			return false
		}
		if earlier.Place.Room != skip.Place.Room {
			continue
		}
		if *place = m; earlier.Place.Number+1 == skip.First {
			*place = &frame.Message{Tag: &resume.Skip{First: earlier.First, Place: skip.Place}}
		}
		return true
	}
	return false
}

// Enter tells the client that it has entered a room. What it has missed follows, and takes no room. Then
// comes start, unless it is nil. If too many messages without a frame wait, Enter is refused as Slow.
func (q *Queue) Enter(e *resume.Enter, again []*frame.Message, start *resume.Start) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}
	if q.hasTooMany() {
		return Pushed{Refused: Slow}
	}

	if entered := (&frame.Message{Tag: e}); q.holds(e.Room) { // it has left the room, but isn't told of that yet
		q.pushReady(entered)
	} else {
		q.pushFirstOf(entered)
	}
	if n := len(again); n > 0 {
		place, _ := resume.PlaceOf(again[n-1].Tag)
		q.told.missed = append(q.told.missed, missed{e.Room, place.Number})
	}
	for _, m := range again {
		q.pushReady(m)
	}
	if start != nil {
		q.pushReady(&frame.Message{Tag: start})
	}
	return Pushed{Wake: q.wakeLocked()}
}

// Hold makes messages of others wait until [Queue.Release], and those of this goroutine go first, as
// [Queue.SnapshotBy] says. What waits already goes before both. If the goroutine holds the queue already,
// nested is true. If another one does, busy is closed when it doesn't any more.
func (q *Queue) Hold(by goroutine.ID) (nested bool, busy <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held && q.snapshot.by == by {
		return true, nil
	}
	if q.held {
		if q.snapshot.released == nil {
			q.snapshot.released = make(chan struct{})
		}
		return false, q.snapshot.released
	}
	if q.closing {
		return false, nil
	}

	if q.snapshot == nil {
		q.snapshot = new(snapshot)
	}
	q.held, q.snapshot.by, q.snapshot.known = true, by, true
	q.moveReady()
	return false, nil
}

// moveReady moves what waits into the snapshot.
func (q *Queue) moveReady() {
	s := q.snapshot
	moved, movedBytes := int(q.ready.len), q.bytes
	if t := q.told; t != nil {
		moved -= t.empty + t.resent
		movedBytes -= t.resentBytes
		t.empty, t.resent, t.resentBytes, t.missed = 0, 0, 0, nil
	}
	s.moved += moved
	s.movedBytes += movedBytes
	s.bytes += q.bytes
	q.bytes, q.moved = 0, s.moved > 0
	q.forgetValues()
	defer q.moveMark()

	if s.messages.len == 0 {
		s.messages, q.ready = q.ready, fifo{}
		return
	}
	for q.ready.len > 0 {
		s.messages.push(q.ready.pop())
	}
}

// SetEntering sets the room that the goroutine enters which holds the queue, and returns the one before; 0
// stands for none.
func (q *Queue) SetEntering(room uint64) (before uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.held {
		return 0
	}
	before, q.snapshot.room = q.snapshot.room, room
	return before
}

// DropHeld removes the messages that are held back, and moves the client's positions behind them: those to the
// room that is being entered or, if none is, those to all rooms and to all connections. It does nothing if the
// queue isn't held.
func (q *Queue) DropHeld() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.held {
		return
	}

	entering := q.snapshot.room
	others := func(room uint64) bool { return entering != 0 && room != entering }
	var starts []*resume.Start
	startOf := func(room uint64) *resume.Start {
		for _, s := range starts {
			if s.Room == room {
				return s
			}
		}
		starts = append(starts, &resume.Start{Room: room})
		return starts[len(starts)-1]
	}
	q.filter(func(m *frame.Message) bool {
		switch t := m.Tag.(type) {
		case nil:
			return entering != 0
		case *history.Place:
			if others(t.Room) {
				return true
			}
			if t.Number > 0 {
				s := startOf(t.Room)
				s.Number, s.At = t.Number, t.At
			}
			return false
		case *resume.Latest:
			return others(t.Room)
		case *resume.Skip:
			if others(t.Place.Room) {
				return true
			}
			s := startOf(t.Place.Room)
			s.Number, s.At = t.Place.Number, t.Place.At
			return false
		case *resume.Start:
			if others(t.Room) {
				return true
			}
			*startOf(t.Room) = *t
			return false
		}
		return true
	})

	if q.told == nil {
		return
	}
	for i := len(starts) - 1; i >= 0; i-- {
		q.pushReadyFirst(&frame.Message{Tag: starts[i]})
	}
}

// Forget removes the messages that are held back of a room that the client has left. Only that it has left is
// told.
func (q *Queue) Forget(room uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.forget(room) {
		q.pushFirstOf(m)
	}
}

// forget removes what is held back of the room. It returns those messages that say that the client has left it.
func (q *Queue) forget(room uint64) (left []*frame.Message) {
	if !q.held {
		return nil
	}
	q.filter(func(m *frame.Message) bool {
		if _, ok := m.Tag.(*resume.Leave); ok && roomOf(m) == room {
			left = append(left, m)
		}
		return roomOf(m) != room
	})
	return left
}

// filter removes the messages of ready that keep doesn't want.
func (q *Queue) filter(keep func(*frame.Message) bool) {
	defer q.forgetValues() // those that are left have other numbers
	defer q.moveMark()
	var known []missed
	if q.told != nil {
		known = q.told.missed
	}
	for range q.ready.len {
		m := q.popReady()
		if !keep(m) {
			continue
		}
		if q.told != nil {
			q.told.missed = known // it is gone if nothing else is sent again
		}
		q.pushReady(m)
	}
}

// pushReadyFirst puts a message before all others of ready.
func (q *Queue) pushReadyFirst(m *frame.Message) {
	q.ready.pushFirst(m)
	q.count(m, 1)
}

// FirstHeld returns the number of the first of the room's messages that are held back. ok is false if none
// is.
func (q *Queue) FirstHeld(room uint64) (number uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.held {
		return 0, false
	}
	for i := range q.ready.len {
		if p, first := resume.PlaceOf((*q.ready.at(i)).Tag); p != nil && p.Room == room {
			return first, true
		}
	}
	return 0, false
}

// IsHeldBy reports whether the goroutine has messages of others held back.
func (q *Queue) IsHeldBy(by goroutine.ID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held && q.snapshot.by == by
}

// IsHeld reports whether messages of others are held back.
func (q *Queue) IsHeld() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}
