package wsroom

import (
	"errors"
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
)

const (
	// batchSize is what one write to the socket collects at most; batchSpace of it without the close frame.
	batchSize  = 32 << 10
	batchSpace = batchSize - frame.MaxControl - 2
	// batchFrames bounds what the writer takes out of the queue at a time.
	batchFrames = 128
	// maxControl bounds the control frames that wait; beyond it the peer doesn't read anyway.
	maxControl = 1 << 10
)

// queue is what waits to be written to one connection. Senders append to it; while it isn't empty a
// goroutine writes it to the socket, many frames at a time. An idle connection has none.
//
// What a push to an idle connection touches lies in the first 64 bytes.
type queue struct {
	mu    sync.Mutex // guards all that follows; held for no I/O
	ready fifo
	bytes int64 // in ready

	deflate bool // permessage-deflate is negotiated; never changes
	held    bool // OnConnect runs, or is yet to: what is ready waits for it to return
	writing bool // a writer runs, or will: whoever was told to wake one starts it; true before start
	closing bool // nothing is taken any more
	broken  bool // a write failed: nothing is taken any more
	pinged  bool // control ends with our ping
	settled bool // done is closed

	limit    *config
	opening  *opening // nil unless OnConnect runs, or is yet to, or what it sent isn't out yet
	control  []byte
	farewell []byte        // the close frame, which follows all messages; nil once it is out
	done     chan struct{} // closed when closing and no writer runs or will
}

// opening is what OnConnect sends to its connection: it goes before all that others send.
type opening struct {
	snapshot fifo
	bytes    int64         // in snapshot
	taken    int64         // bytes that the writer took last
	by       goroutine.ID  // OnConnect's
	space    chan struct{} // closed when the writer took something; nil if OnConnect doesn't wait for it
}

// pushed is what became of a message.
type pushed struct {
	err     error // nil if it was queued; ErrSlow: the caller is to end the connection
	dropped int32 // messages dropped
	wake    bool  // the caller is to start the writer
}

// errHeld says that a message to this connection alone may be OnConnect's, and wasn't queued.
var errHeld = errors.New("wsroom: OnConnect runs")

// open says that there is an OnConnect.
func (q *queue) open() { q.held, q.opening = true, new(opening) }

// push appends m. Where ask is set and OnConnect runs it doesn't, but says errHeld.
func (q *queue) push(m *frame.Message, ask bool) (p pushed) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return pushed{err: ErrClosed}
	}
	if ask && q.held {
		return pushed{err: errHeld}
	}
	size := q.sizeOf(m)
	if q.full(&q.ready, q.bytes, size) {
		if p = q.overflow(size); p.err != nil {
			return p
		}
	}
	q.ready.push(m)
	q.bytes += size
	p.wake = q.wakeLocked()
	return p
}

// opened notes the goroutine that runs OnConnect.
func (q *queue) opened(by goroutine.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held {
		q.opening.by = by
	}
}

// pushFirst appends m where it is OnConnect itself that sends it, and else says errHeld. Where there is no
// room for it, it isn't appended; space is closed when there may be, and before is how many bytes are to be
// written until there must be.
func (q *queue) pushFirst(m *frame.Message, by goroutine.ID) (p pushed, space <-chan struct{}, before int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return pushed{err: ErrClosed}, nil, 0
	}
	if !q.held || q.opening.by != by {
		return pushed{err: errHeld}, nil, 0
	}
	o, size := q.opening, q.sizeOf(m)
	if q.full(&o.snapshot, o.bytes, size) {
		if o.space == nil {
			o.space = make(chan struct{})
		}
		return pushed{}, o.space, o.taken + o.bytes
	}
	o.snapshot.push(m)
	o.bytes += size
	return pushed{wake: q.wakeLocked()}, nil, 0
}

// refuse is what becomes of a message that waited for room for too long.
func (q *queue) refuse() pushed {
	if q.limit.overflow == CloseSlow {
		return pushed{err: ErrSlow}
	}
	return pushed{err: ErrQueueFull, dropped: 1}
}

// waiting returns what isn't on its way to the socket yet.
func (q *queue) waiting() (messages int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return 0, 0
	}
	messages, bytes = int(q.ready.len), q.bytes
	if o := q.opening; o != nil {
		messages, bytes = messages+int(o.snapshot.len), bytes+o.bytes
	}
	return messages, bytes
}

// full reports whether f, which holds these bytes, has no room for a message of this size. What OnConnect
// sends and what others do have each a room of their own.
func (q *queue) full(f *fifo, bytes, size int64) bool {
	return f.len > 0 && (int(f.len) >= q.limit.queueMessages || bytes+size > q.limit.queueBytes)
}

// overflow makes room for a message or says why not.
func (q *queue) overflow(size int64) (p pushed) {
	if q.limit.overflow != DropOldest {
		return q.refuse()
	}
	for q.full(&q.ready, q.bytes, size) {
		q.bytes -= q.sizeOf(q.ready.pop())
		p.dropped++
	}
	return p
}

func (q *queue) sizeOf(m *frame.Message) int64 { return int64(len(m.Bytes(q.deflate))) }

// wakeLocked reports whether the caller is to start a writer, because there is something to write and none
// runs, and counts it as running.
func (q *queue) wakeLocked() bool {
	wake := !q.writing && q.due()
	q.writing = q.writing || wake
	return wake
}

// due reports whether there is something to write.
func (q *queue) due() bool {
	return q.ready.len > 0 && !q.held || len(q.control) > 0 || q.farewell != nil ||
		q.opening != nil && q.opening.snapshot.len > 0
}

// start lets writers run, once the socket is there.
func (q *queue) start() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = false
	return q.wakeLocked()
}

// release ends OnConnect's time: what others sent may follow.
func (q *queue) release() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.held = false
	q.forgetOpening()
	return q.wakeLocked()
}

// forgetOpening ends the opening once OnConnect has returned and what it sent is out.
func (q *queue) forgetOpening() {
	if o := q.opening; o != nil && !q.held && o.snapshot.len == 0 {
		q.opening = nil
	}
}

// pushControl queues a control frame, which goes ahead of all messages.
func (q *queue) pushControl(opcode byte, payload []byte, ping bool) (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken || len(q.control) > maxControl && !ping {
		return false
	}
	q.control = frame.AppendControl(q.control, opcode, payload)
	q.pinged = q.pinged || ping
	return q.wakeLocked()
}

// close lets nothing more in. What waits still goes out unless drop is set, then the close frame, if there
// is one. But where OnConnect hasn't returned, only what it sent does: nobody else's messages are for a
// connection that it may have refused. close returns how many messages are lost. It is called once.
func (q *queue) close(farewell []byte, drop bool) (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing, q.farewell = true, farewell
	q.done = make(chan struct{})
	switch {
	case drop:
		lost = q.dropAll()
	case q.held:
		lost = q.dropReady()
	}
	q.held = false
	q.freeWaiter()
	q.forgetOpening()
	return lost
}

func (q *queue) dropReady() (lost int) {
	lost = int(q.ready.len)
	q.ready.clear()
	q.bytes = 0
	return lost
}

// dropAll drops what OnConnect sent, too.
func (q *queue) dropAll() (lost int) {
	lost = q.dropReady()
	if o := q.opening; o != nil {
		lost += int(o.snapshot.len)
		o.snapshot.clear()
		o.bytes = 0
		q.freeWaiter()
		q.forgetOpening()
	}
	return lost
}

// finish starts the writer of what close left to send. The socket must be there by now.
func (q *queue) finish() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writing {
		return false
	}
	wake = q.wakeLocked()
	if !wake {
		q.settle()
	}
	return wake
}

// kick starts a writer for what had to wait for a message in several frames to end.
func (q *queue) kick() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wakeLocked()
}

// isDone reports whether nothing is written any more.
func (q *queue) isDone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.settled
}

func (q *queue) settle() {
	if !q.settled {
		q.settled = true
		close(q.done)
	}
}

func (q *queue) freeWaiter() {
	if o := q.opening; o != nil && o.space != nil {
		close(o.space)
		o.space = nil
	}
}

// batch is what the writer takes at a time, and writes at once: either what fits into buf, or one message
// that doesn't, by itself, so that it is never copied.
type batch struct {
	frames   [batchFrames]*frame.Message
	n        int   // of frames
	used     int   // of frames, since free
	size     int64 // of control and frames
	control  []byte
	pinged   bool
	farewell []byte
	lost     int // messages that the close frame leaves behind
	buf      []byte
}

var batches = sync.Pool{New: func() any { return &batch{buf: make([]byte, 0, batchSize)} }}

// bytes returns the batch in the order of the wire: control frames, messages, close frame.
func (b *batch) bytes(deflate bool) []byte {
	if b.n == 1 && len(b.control)+len(b.farewell) == 0 {
		return b.frames[0].Bytes(deflate)
	}
	p := append(b.buf[:0], b.control...)
	for _, m := range b.frames[:b.n] {
		p = append(p, m.Bytes(deflate)...)
	}
	return append(p, b.farewell...)
}

// fill takes what fits out of f, which holds these bytes.
func (b *batch) fill(f *fifo, bytes *int64, deflate bool) {
	for b.n < batchFrames && f.len > 0 {
		next := int64(len(f.first().Bytes(deflate)))
		if b.size > 0 && b.size+next > batchSpace {
			return
		}
		b.frames[b.n] = f.pop()
		b.n++
		b.size += next
		*bytes -= next
	}
}

func (b *batch) free() {
	clear(b.frames[:b.used])
	b.used, b.control, b.farewell = 0, nil, nil
	batches.Put(b)
}

// take moves what goes out next into b. Where it reports false there is nothing, and the writer must
// end. data says whether the wire lets messages pass, or just control frames.
func (q *queue) take(b *batch, data bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.n, b.farewell, b.lost = 0, nil, 0
	b.control, b.pinged = q.control, q.pinged
	b.size = int64(len(b.control))
	q.control, q.pinged = nil, false
	if data {
		q.takeMessages(b)
	}
	if q.closing && b.size <= batchSpace && (!data || q.ready.len == 0 && q.opening == nil) {
		b.farewell, q.farewell = q.farewell, nil
		b.lost = q.dropAll()
	}
	if b.n == 0 && len(b.control) == 0 && len(b.farewell) == 0 {
		q.endWriter()
		return false
	}
	return true
}

// takeMessages takes what OnConnect sent and, once it has returned, what follows.
func (q *queue) takeMessages(b *batch) {
	if o := q.opening; o != nil {
		b.fill(&o.snapshot, &o.bytes, q.deflate)
		o.taken = b.size
		q.freeWaiter()
		q.forgetOpening()
	}
	if !q.held && q.opening == nil {
		b.fill(&q.ready, &q.bytes, q.deflate)
	}
	b.used = max(b.used, b.n)
}

// fail drops everything after a failed write, and returns how many messages; the writer ends.
func (q *queue) fail() (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = true
	lost = q.dropAll()
	q.control, q.farewell = nil, nil
	q.endWriter()
	return lost
}

func (q *queue) endWriter() {
	q.writing = false
	if q.closing {
		q.settle()
	}
}
