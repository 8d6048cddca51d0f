package wsroom

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// fewIdle is up to how many connections a sender writes to by itself, where sockets take what
	// they are given at once, instead of starting goroutines for it.
	fewIdle = 8
	// quiet is how long a connection must not have been written to for that, unless it answers what
	// it has read since. In a burst a goroutine does it, for by the time it runs there is more to
	// write at once.
	quiet = 200 * time.Microsecond
)

// outcome is what became of a batch.
type outcome int

const (
	empty  outcome = iota // there was nothing, or the connection is broken: the writer has ended
	again                 // it is written; there may be more
	passed                // the socket is full: a goroutine waits for it, and is the writer now
)

// write is a writer that waits for the socket. It runs until the queue is empty.
func (c *Conn) write() {
	b := batches.Get().(*batch)
	for c.writeBatch(b) == again {
	}
	b.free()
}

// writeBatch writes what waits.
func (c *Conn) writeBatch(b *batch) outcome {
	data := c.wire.Lock()
	if !c.queue.take(b, data) {
		c.wire.Unlock()
		return empty
	}
	p := b.bytes(c.queue.deflate)
	return c.written(b, len(p), c.wire.Send(p))
}

// tryBatch writes what waits if nobody has to wait for it. Otherwise it passes the writer's part, and
// b with it, on to a goroutine.
func (c *Conn) tryBatch(b *batch) outcome {
	data, ok := c.wire.TryLock()
	if !ok {
		b.free()
		go c.writer()
		return passed
	}
	if !c.queue.take(b, data) {
		c.wire.Unlock()
		return empty
	}
	p := b.bytes(c.queue.deflate)
	n, err := c.wire.TrySend(p)
	if err == nil && n < len(p) {
		go c.writeRest(b, p, n)
		return passed
	}
	return c.written(b, len(p), err)
}

// writeRest goes on, holding the wire, where tryBatch stopped.
func (c *Conn) writeRest(b *batch, p []byte, n int) {
	for state := c.written(b, len(p), c.wire.Send(p[n:])); state == again; {
		state = c.writeBatch(b)
	}
	b.free()
}

// written gives the wire back after a batch and keeps the books.
func (c *Conn) written(b *batch, size int, err error) outcome {
	if b.farewell != nil {
		c.wire.Shut()
	}
	c.wire.Unlock()
	if err != nil {
		c.hub.countLost(c, b.n+b.lost+c.queue.fail())
		c.writeFailed(err)
		return empty
	}
	now := frame.Now()
	c.wroteAt.Store(now)
	if b.pinged {
		c.pingedAt.CompareAndSwap(0, c.wire.Listened(now)+1) // it is the first of these pings that is judged
	}
	c.hub.countOut(c, b, size)
	return again
}

// writeFailed ends the connection. Whoever closed the socket on purpose has ended it before.
func (c *Conn) writeFailed(err error) {
	e := endingLost("write", err)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.label = "write_timeout"
	}
	c.end(e)
}

// wake writes to a connection whose queue told the caller to, by itself or by a goroutine.
func (c *Conn) wake() {
	if wrote := c.wroteAt.Load(); !c.wire.CanTry() ||
		wrote >= c.wire.LastRead() && frame.Now()-wrote < int64(quiet) {
		go c.writer()
		return
	}
	b := batches.Get().(*batch)
	for range 2 { // the second time it finds the queue empty
		switch c.tryBatch(b) {
		case empty:
			b.free()
			return
		case passed:
			return
		}
	}
	b.free()
	go c.writer()
}

// crew writes to many connections with as many goroutines as there are processors. None of them ever
// waits for a socket.
type crew struct {
	conns   []*Conn
	next    atomic.Int32 // index of the connection to start with next
	workers atomic.Int32 // that still work; the last one gives the crew back
}

var crews = sync.Pool{New: func() any { return new(crew) }}

// wakeAll is wake for all of conns, which it copies.
func wakeAll(conns []*Conn) {
	if len(conns) <= fewIdle {
		for _, c := range conns {
			c.wake()
		}
		return
	}
	w := crews.Get().(*crew)
	w.conns = append(w.conns[:0], conns...)
	w.next.Store(0)
	n := min(runtime.GOMAXPROCS(0), (len(conns)+fewIdle-1)/fewIdle)
	w.workers.Store(int32(n))
	for range n {
		go w.work()
	}
}

// work writes a batch to one connection after the other, and comes back to those for which more has
// come in meanwhile.
func (w *crew) work() {
	b := batches.Get().(*batch)
	var busy []*Conn
	for i := w.next.Add(1) - 1; int(i) < len(w.conns); i = w.next.Add(1) - 1 {
		if c := w.conns[i]; c.step(&b) {
			busy = append(busy, c)
		}
	}
	for len(busy) > 0 {
		still := busy[:0]
		for _, c := range busy {
			if c.step(&b) {
				still = append(still, c)
			}
		}
		busy = still
	}
	b.free()
	if w.workers.Add(-1) == 0 {
		clear(w.conns)
		crews.Put(w)
	}
}

// step writes one batch and reports whether there may be more for the caller to write.
func (c *Conn) step(b **batch) bool {
	if !c.wire.CanTry() {
		go c.writer()
		return false
	}
	state := c.tryBatch(*b)
	if state == passed {
		*b = batches.Get().(*batch)
	}
	return state == again
}
