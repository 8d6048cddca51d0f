package wsroom

import (
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// batchSize is what one write to the socket collects at most.
	batchSize = 32 << 10
	// batchFrames bounds what the writer takes out of the queue at a time.
	batchFrames = 128
	// maxControl bounds the control frames that wait; beyond it the peer doesn't read anyway.
	maxControl = 1 << 10
)

// queue is what waits to be written to one connection. Senders append to it; while it isn't empty a
// goroutine writes it to the socket, many frames at a time. An idle connection has none.
type queue struct {
	mu    sync.Mutex // guards all that follows; held for no I/O
	ready fifo
	bytes int64 // in ready and held, but for what OnConnect sent
	limit *config

	deflate bool // permessage-deflate is negotiated; never changes
	writing bool // a writer runs, or will: whoever was told to wake one starts it; true before start
	closing bool // nothing is taken any more
	broken  bool // a write failed
	pinged  bool // control ends with our ping
	settled bool // done is closed

	opening  *opening // of OnConnect's time; nil later
	control  []byte
	farewell []byte        // the close frame, which follows what is ready; nil once it is out
	done     chan struct{} // closed when closing and no writer runs or will
}

// opening is what a queue knows from before OnConnect, if there is one, runs until what it sent is out.
type opening struct {
	over  bool          // OnConnect has returned
	held  fifo          // room messages of the time before; they follow what OnConnect sent
	sent  uint32        // what OnConnect sent, at the front of ready
	bytes int64         // in what OnConnect sent
	space chan struct{} // closed when the writer took something; nil if nobody waits
}

// pushed is what became of a message.
type pushed struct {
	err     error // nil if it was queued
	wake    bool  // the caller is to start the writer
	slow    bool  // the caller is to end the connection
	dropped int   // messages dropped
}

// push appends m. own says that it was sent to this connection alone and so isn't held back.
func (q *queue) push(m *frame.Message, own bool) pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return pushed{err: ErrClosed}
	}
	size := q.sizeOf(m)
	if own && q.holding() {
		q.opening.sent++
		q.opening.bytes += size
		q.ready.push(m)
		return pushed{wake: q.wakeLocked()}
	}
	var p pushed
	if q.full(size) {
		if p = q.overflow(size); p.err != nil {
			return p
		}
	}
	q.bytes += size
	if q.holding() {
		q.opening.held.push(m)
		return p
	}
	q.ready.push(m)
	p.wake = q.wakeLocked()
	return p
}

// waiting returns what isn't on its way to the socket yet.
func (q *queue) waiting() (messages int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken { // the sums aren't kept any more
		return 0, 0
	}
	messages, bytes = int(q.ready.len), q.bytes
	if o := q.opening; o != nil {
		messages, bytes = messages+int(o.held.len), bytes+o.bytes
	}
	return messages, bytes
}

// holding reports whether OnConnect runs, or is yet to, and messages of rooms are held back.
func (q *queue) holding() bool { return q.opening != nil && !q.opening.over }

// full reports whether there is no room for a message of this size. What OnConnect sent doesn't count:
// it waited for room by itself.
func (q *queue) full(size int64) bool {
	n := q.ready.len
	if o := q.opening; o != nil {
		n += o.held.len - o.sent
	}
	return q.beyond(n, q.bytes, size)
}

func (q *queue) beyond(messages uint32, bytes, size int64) bool {
	return messages > 0 && (int(messages) >= q.limit.queueMessages || bytes+size > q.limit.queueBytes)
}

// overflow makes room for a message or says why not.
func (q *queue) overflow(size int64) pushed {
	switch q.limit.overflow {
	case DropNewest:
		return pushed{err: ErrQueueFull, dropped: 1}
	case DropOldest:
		n := 0
		for ; q.full(size); n++ {
			q.bytes -= q.sizeOf(q.removeOldest())
		}
		return pushed{dropped: n}
	default:
		return pushed{err: ErrSlow, slow: true}
	}
}

// removeOldest takes the oldest message that OnConnect didn't send; there must be one.
func (q *queue) removeOldest() *frame.Message {
	switch o := q.opening; {
	case o == nil:
		return q.ready.pop()
	case !o.over:
		return o.held.pop()
	default:
		return q.ready.remove(o.sent)
	}
}

func (q *queue) sizeOf(m *frame.Message) int64 { return int64(len(m.Bytes(q.deflate))) }

// wakeLocked reports whether the caller is to start a writer, and counts it as running.
func (q *queue) wakeLocked() bool {
	wake := !q.writing && !q.broken
	q.writing = q.writing || wake
	return wake
}

// start lets writers run, once the socket is there.
func (q *queue) start() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = false
	return q.ready.len > 0 && q.wakeLocked()
}

// spaceFor returns a channel that is closed when a message of OnConnect may fit, or nil if it does now.
// Only before OnConnect returned does anyone wait.
func (q *queue) spaceFor(size int64) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.opening
	if !q.holding() || q.closing || !q.beyond(o.sent, o.bytes, size) {
		return nil
	}
	if o.space == nil {
		o.space = make(chan struct{})
	}
	return o.space
}

// release ends the time of holding back: what is held follows what is ready.
func (q *queue) release() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.holding() {
		return false
	}
	o := q.opening
	for o.held.len > 0 {
		q.ready.push(o.held.pop())
	}
	o.over = true
	q.forgetOpening()
	return q.ready.len > 0 && !q.closing && q.wakeLocked()
}

// forgetOpening ends the opening once OnConnect has returned and what it sent is out.
func (q *queue) forgetOpening() {
	if q.opening.over && q.opening.sent == 0 {
		q.opening = nil
	}
}

// pushControl queues a control frame, which goes ahead of all messages.
func (q *queue) pushControl(opcode byte, payload []byte, ping bool) (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || len(q.control) > maxControl && !ping {
		return false
	}
	q.control = frame.AppendControl(q.control, opcode, payload)
	q.pinged = q.pinged || ping
	return q.wakeLocked()
}

// close lets nothing more in. What is ready still goes out unless drop is set, then the close frame,
// if there is one. It returns how many messages are lost by that. It is called once.
func (q *queue) close(farewell []byte, drop bool) (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closing, q.farewell = true, farewell
	q.done = make(chan struct{})
	if drop {
		lost = q.dropReady()
	}
	q.freeWaiters()
	if o := q.opening; o != nil {
		lost += int(o.held.len) // it reaches nobody
		q.opening = nil
	}
	return lost
}

func (q *queue) dropReady() (lost int) {
	lost = int(q.ready.len)
	q.ready.clear()
	return lost
}

// finish starts the writer of what close left to send. The socket must be there by now.
func (q *queue) finish() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.writing {
		return false
	}
	if q.broken || q.farewell == nil && q.ready.len == 0 {
		q.settle()
		return false
	}
	return q.wakeLocked()
}

// kick starts a writer for what had to wait for a message in several frames to end.
func (q *queue) kick() (wake bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ready.len > 0 && !q.closing && q.wakeLocked()
}

func (q *queue) settle() {
	if !q.settled {
		q.settled = true
		close(q.done)
	}
}

func (q *queue) freeWaiters() {
	if o := q.opening; o != nil && o.space != nil {
		close(o.space)
		o.space = nil
	}
}

// batch is what the writer takes at a time, and writes at once.
type batch struct {
	frames   [batchFrames]*frame.Message
	n        int // of frames
	used     int // of frames, since free
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
	q.control, q.pinged = nil, false
	if data {
		q.takeReady(b)
	}
	if q.closing && (q.ready.len == 0 || !data) {
		b.farewell, q.farewell = q.farewell, nil
		b.lost = q.dropReady()
	}
	if b.n == 0 && len(b.control) == 0 && len(b.farewell) == 0 {
		q.endWriter()
		return false
	}
	return true
}

func (q *queue) takeReady(b *batch) {
	size := int64(0)
	for b.n < batchFrames && q.ready.len > 0 {
		next := q.sizeOf(q.ready.first())
		if b.n > 0 && size+next > batchSize {
			break
		}
		b.frames[b.n] = q.ready.pop()
		b.n++
		size += next
		if o := q.opening; o != nil && o.sent > 0 {
			o.sent--
			o.bytes -= next
		} else {
			q.bytes -= next
		}
	}
	b.used = max(b.used, b.n)
	if b.n > 0 && q.opening != nil {
		q.freeWaiters()
		q.forgetOpening()
	}
}

// fail drops everything after a failed write, and returns how many messages; the writer ends.
func (q *queue) fail() (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = true
	lost = q.dropReady()
	if o := q.opening; o != nil {
		o.sent, o.bytes = 0, 0
	}
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
