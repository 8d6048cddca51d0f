package outbound

import (
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

	empty       int   // messages without a frame in ready
	ahead       int   // messages in ready before those that are sent again
	resent      int   // messages in ready that are sent again; they take no room
	resentBytes int64 // of their frames
}

// Tell makes the queue tell its client of rooms and positions. It is called before the first push. first is
// the first message.
func (q *Queue) Tell(session *resume.Session, first *frame.Message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.told = new(told)
	q.told.session = session
	q.told.spokeAt.Store(frame.Now())
	q.pushFirstOf(first)
}

// pushFirstOf appends m before everything that is held. mu is locked.
func (q *Queue) pushFirstOf(m *frame.Message) {
	if q.held {
		q.snapshot.messages.push(m)
		q.snapshot.bytes += q.sizeOf(m)
		return
	}
	q.ready.push(m)
	if q.bytes += q.sizeOf(m); isEmpty(m) {
		q.told.empty++
	}
}

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

// popped notes that a message was removed from ready. It reports whether that was sent again.
func (t *told) popped(m *frame.Message, size int64) (resent bool) {
	switch {
	case isEmpty(m):
		t.empty--
	case t.ahead > 0:
		t.ahead--
	case t.resent > 0:
		t.resent--
		t.resentBytes -= size
		return true
	}
	return false
}

// PushEmpty appends a message without a frame. The queue's client is told of rooms and positions.
func (q *Queue) PushEmpty(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}
	if !q.merge(m) {
		q.ready.push(m)
		q.told.empty++
	}
	return Pushed{Wake: q.wakeLocked()}
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

// merge makes a Skip of the same room that waits among the last ones stand for m, too, if m is a Skip. So
// messages that aren't for a client don't pile up.
func (q *Queue) merge(m *frame.Message) bool {
	skip, ok := m.Tag.(*resume.Skip)
	if !ok {
		return false
	}
	for i := q.ready.len; i > 0; i-- {
		place := q.ready.at(i - 1)
		earlier, ok := (*place).Tag.(*resume.Skip)
		if !ok {
			return false
		}
		if earlier.Place.Room == skip.Place.Room {
			if earlier.Place.Number+1 != skip.First {
				return false
			}
			*place = &frame.Message{Tag: &resume.Skip{First: earlier.First, Place: skip.Place}}
			return true
		}
	}
	return false
}

// Enter tells the client that it has entered a room. What it has missed follows, and takes no room. Then
// comes start, unless it is nil.
func (q *Queue) Enter(e *resume.Enter, missed []*frame.Message, start *resume.Start) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}

	q.pushFirstOf(&frame.Message{Tag: e})
	t := q.told
	if t.resent == 0 {
		t.ahead = int(q.ready.len) - t.empty
	}
	for _, m := range missed {
		q.ready.push(m)
		if isEmpty(m) {
			t.empty++
			continue
		}
		t.resent++
		t.resentBytes += q.sizeOf(m)
		q.bytes += q.sizeOf(m)
	}
	if start != nil {
		q.ready.push(&frame.Message{Tag: start})
		t.empty++
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
	q.held, q.snapshot.by = true, by
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
		t.empty, t.ahead, t.resent, t.resentBytes = 0, 0, 0, 0
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
		q.ready.pushFirst(&frame.Message{Tag: starts[i]})
		q.told.empty++
	}
}

// Forget removes the room's messages that are held back.
func (q *Queue) Forget(room uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.held {
		return
	}
	q.filter(func(m *frame.Message) bool {
		switch t := m.Tag.(type) {
		case *history.Place:
			return t.Room != room
		case *resume.Latest:
			return t.Room != room
		case *resume.Skip:
			return t.Place.Room != room
		case *resume.Start:
			return t.Room != room
		}
		return true
	})
}

// filter removes the messages of ready that keep doesn't want.
func (q *Queue) filter(keep func(*frame.Message) bool) {
	defer q.forgetValues() // those that are left have other numbers
	defer q.moveMark()
	resent, resentBytes := 0, int64(0)
	if q.told != nil {
		resent, resentBytes = q.told.resent, q.told.resentBytes
	}

	for range q.ready.len {
		m := q.popReady()
		if !keep(m) {
			continue
		}
		q.ready.push(m)
		if q.bytes += q.sizeOf(m); isEmpty(m) {
			q.told.empty++
		}
	}

	if t := q.told; t != nil { // what is left may be sent again: then it takes no room
		t.resent = min(resent, int(q.ready.len)-t.empty)
		t.resentBytes = min(resentBytes, q.bytes)
	}
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
		if p, ok := (*q.ready.at(i)).Tag.(*history.Place); ok && p.Room == room {
			return p.Number, true
		}
	}
	return 0, false
}

// IsHeld reports whether messages of others are held back.
func (q *Queue) IsHeld() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held
}
