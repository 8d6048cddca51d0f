package outbound

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// fewIdle is the largest number of queues that a sender writes itself, as far as their sockets take the
	// bytes at once, instead of starting goroutines.
	fewIdle = 8
	// quiet is how long nothing must have been written to a connection before a sender writes to it itself,
	// unless something has been read from it since. In a burst a goroutine writes instead: by the time it
	// runs there is more to write at once.
	quiet = 200 * time.Microsecond
)

// A queue has at most one writer, the goroutine that wakes the queue. It stays the writer until the queue
// is empty or a write fails. If it would have to wait it hands off: another goroutine becomes the writer
// and continues with the batch that the first has taken, if any.

// write is a writer that may wait for the socket.
func (q *Queue) write() {
	b := newBatch()
	for q.writeBatch(b) {
	}
	b.free()
}

// writeBatch writes one batch and reports whether there may be more. If not, the writer has ended.
func (q *Queue) writeBatch(b *batch) (more bool) {
	data := q.wire.Lock()
	if !q.takeBatch(b, data) {
		return false
	}
	p := b.bytes(q)
	return q.finishBatch(b, len(p), q.send(b, p))
}

// tryBatch is writeBatch for a writer that must not wait. If the wire is taken or the socket is full, it
// hands off to a goroutine. It returns the batch that the caller may use again: b, or nil if the goroutine
// continues with b.
func (q *Queue) tryBatch(b *batch) (left *batch, more bool) {
	data, ok := q.wire.TryLock()
	if !ok {
		go q.writer()
		return b, false
	}
	if !q.takeBatch(b, data) {
		return b, false
	}

	p := b.bytes(q)
	if len(b.head) > 0 {
		go q.writeRest(b, p, 0)
		return nil, false
	}
	n, err := q.wire.TrySend(p)
	if err == nil && n < len(p) {
		go q.writeRest(b, p, n)
		return nil, false
	}
	return b, q.finishBatch(b, len(p), err)
}

// takeBatch takes what goes out next. If nothing does, it gives the wire back and reports false.
func (q *Queue) takeBatch(b *batch, data bool) bool {
	if q.take(b, data) {
		return true
	}
	q.wire.Unlock()

	if b.lost > 0 { // there is no close frame, and a message of the application's own is half written
		q.owner.Wrote(Written{Lost: b.lost})
	}
	return false
}

// writeRest continues where tryBatch stopped. It holds the wire, and n bytes of the batch have been
// written.
func (q *Queue) writeRest(b *batch, p []byte, n int) {
	for more := q.finishBatch(b, len(p), q.send(b, p[n:])); more; {
		more = q.writeBatch(b)
	}
	b.free()
}

// send writes p, and before it the batch's head.
func (q *Queue) send(b *batch, p []byte) error {
	if len(b.head) > 0 {
		if err := q.wire.Send(b.head); err != nil {
			return err
		}
	}
	return q.wire.Send(p)
}

// finishBatch gives the wire back and reports the outcome of a batch to the owner. It returns whether there
// may be more.
func (q *Queue) finishBatch(b *batch, size int, err error) (more bool) {
	if b.closeFrame != "" {
		q.wire.Shut() // nothing follows a close frame (RFC 6455, section 5.5.1)
	}
	q.wire.Unlock()

	if err != nil {
		q.owner.WriteFailed(err, b.messages+b.lost+q.fail())
		return false
	}

	now := frame.Now()
	q.wroteAt.Store(now)
	if q.told != nil && b.n > 0 {
		q.told.spokeAt.Store(now)
	}
	q.owner.Wrote(b.written(size, now))
	return true
}

// Wake writes what waits. The caller's goroutine writes as much as it can without waiting; another
// goroutine writes the rest. The caller holds no lock, and calls Wake once for each [Pushed] that says so.
func (q *Queue) Wake() {
	if !q.wire.CanTry() || q.wroteLately() {
		go q.writer()
		return
	}

	left, more := q.tryBatch(newBatch())
	if more { // mostly it finds the queue empty
		left, more = q.tryBatch(left)
	}
	if left != nil {
		left.free()
	}
	if more {
		go q.writer()
	}
}

// wroteLately reports whether this may be a burst: something was written just now, and nothing has been
// read since.
func (q *Queue) wroteLately() bool {
	wrote := q.wroteAt.Load()
	return wrote >= q.wire.LastRead() && frame.Now()-wrote < int64(quiet)
}

// WakeAll wakes all these queues. It doesn't keep the slice.
func WakeAll(queues []*Queue) {
	if len(queues) <= fewIdle {
		for _, q := range queues {
			q.Wake()
		}
		return
	}

	w := crews.Get().(*crew)
	w.queues = append(w.queues[:0], queues...)
	w.next.Store(0)
	n := min(runtime.GOMAXPROCS(0), (len(queues)+fewIdle-1)/fewIdle)
	w.workers.Store(int32(n))
	for range n {
		go w.work()
	}
}

// crew writes many queues with as many goroutines as there are processors. None of them ever waits for a socket.
type crew struct {
	queues  []*Queue
	next    atomic.Int32 // index of the queue to start with next
	workers atomic.Int32 // that still work; the last one gives the crew back
}

var crews = sync.Pool{New: func() any { return new(crew) }}

// work writes one batch of each queue in turn, and returns to the queues that have more to write.
func (w *crew) work() {
	b := newBatch()
	var busy []*Queue
	for i := w.next.Add(1) - 1; int(i) < len(w.queues); i = w.next.Add(1) - 1 {
		q := w.queues[i]
		var more bool
		if b, more = q.step(b); more {
			busy = append(busy, q)
		}
	}

	for len(busy) > 0 {
		still := busy[:0]
		for _, q := range busy {
			var more bool
			if b, more = q.step(b); more {
				still = append(still, q)
			}
		}
		busy = still
	}

	b.free()
	if w.workers.Add(-1) == 0 {
		clear(w.queues)
		crews.Put(w)
	}
}

// step writes one batch, in b, and reports whether the caller may have more to write. It returns the batch
// for the caller's next step.
func (q *Queue) step(b *batch) (next *batch, more bool) {
	if !q.wire.CanTry() {
		go q.writer()
		return b, false
	}
	next, more = q.tryBatch(b)
	if next == nil {
		next = newBatch()
	}
	return next, more
}
