package outbound

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/resume"
)

// maxControl bounds the bytes of waiting control frames. A peer with more of them waiting doesn't read
// anyway.
const maxControl = 1 << 10

// Queue is what waits to be written to one connection. Senders append to it. While it isn't empty, some
// goroutine is its writer and writes many frames at a time to the wire. An idle queue has no writer.
//
// [Queue.Init] must be called first. All other methods may be called concurrently. A Push to an idle queue
// touches only the first 64 bytes.
type Queue struct {
	mu    sync.Mutex // guards the fields before wire; no I/O happens under it
	ready fifo
	bytes int64 // of the messages in ready

	// Deflate says that permessage-deflate was negotiated. It is set before the first push.
	Deflate bool

	held    bool // the messages in ready wait for Release
	writing bool // there is a writer, or the caller that must wake the queue becomes it; true before Start
	closing bool // nothing is taken any more
	broken  bool // a write failed: nothing is taken any more
	moved   bool // Hold has moved messages into the snapshot
	paused  bool // the messages in ready wait for an answer of the peer; see Limits.Unread
	started bool // Start was called

	settled bool // closed, and there is no writer and none can follow
	pinged  bool // control ends with one of our pings
	awaited bool // a ping of the application's own was taken, for whose answer a goroutine may wait

	limits   *Limits
	owner    Owner
	snapshot *snapshot // nil unless the queue is held, or a part of the snapshot isn't written yet
	told     *told     // nil unless the client is told of rooms and positions
	control  []byte
	rare     *rare // nil until it is needed

	wire    *frame.Conn  // set by Attach; read without mu where it is known to be set
	writer  func()       // q.write; starting a stored func doesn't allocate
	wroteAt atomic.Int64 // when something was last written, by frame.Now
}

// snapshot is what one goroutine sends to the connection while the queue is held. It is written before
// everything that other goroutines send, and has its own limit.
type snapshot struct {
	messages   fifo
	bytes      int64 // of messages
	taken      int64 // bytes that the writer took last
	moved      int   // messages that Hold has moved here; they count as if they were others'
	movedBytes int64
	by         goroutine.ID  // the goroutine that sends the snapshot
	known      bool          // by was set by Hold; otherwise the snapshot begins after Start
	room       uint64        // that the goroutine is entering; 0: none
	released   chan struct{} // closed when the queue isn't held any more; nil: nobody waits for that
	space      chan struct{} // closed when the writer has taken something; nil: the goroutine doesn't wait
}

// rare is what few queues need.
type rare struct {
	// values are the numbers in ready of the messages of newest values, if many messages wait. They are nil
	// as long as nobody has looked for one among many.
	values map[resume.Latest]uint32

	receipts *receipts     // nil until there is one
	drained  chan struct{} // closed when the writer takes something; nil: nobody waits

	closeFrame string        // follows the last message; "" once taken, or if there is none
	done       chan struct{} // closed once the queue is settled; nil until Done was called before that
}

// seldom returns the queue's rare, which it makes if there is none. mu is locked.
func (q *Queue) seldom() *rare {
	if q.rare == nil {
		q.rare = new(rare)
	}
	return q.rare
}

// Init prepares a queue. If held is set, messages wait for [Queue.Release], except those of
// [Queue.PushSnapshot].
func (q *Queue) Init(limits *Limits, owner Owner, held bool) {
	q.limits, q.owner, q.writer = limits, owner, q.write
	q.writing = true
	if held {
		q.held, q.snapshot = true, new(snapshot)
	}
	if limits.Unread > 0 {
		q.receipts()
	}
}

// Owner returns the owner that Init was given.
func (q *Queue) Owner() Owner { return q.owner }

// Attach gives the queue its wire. Nothing is written before [Queue.Start]. Attach reports whether the queue has
// been closed already.
func (q *Queue) Attach(wire *frame.Conn) (closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wire = wire
	return q.closing
}

// Attached returns the wire. It returns nil before [Queue.Attach].
func (q *Queue) Attached() *frame.Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.wire
}

// Wire is [Queue.Attached] for a caller that knows that [Queue.Attach] has returned. It takes no lock.
func (q *Queue) Wire() *frame.Conn { return q.wire }

// Start writes what waits, and from now on what is pushed. The wire is attached and can be written to.
func (q *Queue) Start() {
	q.mu.Lock()
	q.started, q.writing = true, false
	wake := q.wakeOrSettle()
	q.mu.Unlock()

	if wake {
		go q.writer()
	}
}

// Push appends a message that has many receivers. If the result says Wake, the caller must wake the queue
// once it holds no lock.
func (q *Queue) Push(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.push(m)
}

// PushOwn appends a message for this connection alone, and wakes the queue itself. While the queue is held
// it refuses the message as [Held].
func (q *Queue) PushOwn(m *frame.Message) Pushed { return q.awake(q.pushOwn(m)) }

func (q *Queue) pushOwn(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held {
		return Pushed{Refused: Held}
	}
	return q.push(m)
}

// awake wakes the queue if p says so.
func (q *Queue) awake(p Pushed) Pushed {
	if p.Wake {
		p.Wake = false
		q.Wake()
	}
	return p
}

// push appends m. mu is locked.
func (q *Queue) push(m *frame.Message) (p Pushed) {
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}

	size := q.sizeOf(m)
	if q.isReadyFull(size) {
		if p = q.makeRoom(size); p.Refused != Taken {
			return p
		}
	}

	q.ready.push(m)
	q.bytes += size
	p.Wake = q.wakeLocked()
	return p
}

// isFull reports whether the snapshot has no room for a message of this size. The snapshot and the other
// messages each have their own room.
func (s *snapshot) isFull(l *Limits, size int64) bool {
	return s.messages.len > 0 && l.exceeded(int(s.messages.len), s.bytes, size)
}

// exceeded reports whether a message of this size is too much for a queue that isn't empty.
func (l *Limits) exceeded(messages int, bytes, size int64) bool {
	return messages >= l.Messages || bytes+size > l.Bytes
}

// isReadyFull is isFull for the messages of others. What is sent again doesn't count, what Hold has moved
// into the snapshot does.
func (q *Queue) isReadyFull(size int64) bool {
	if q.ready.len == 0 && !q.moved {
		return false
	}

	messages, bytes := q.counted()
	return messages > 0 && q.limits.exceeded(messages, bytes, size)
}

// counted returns what counts against the limits of the messages of others.
func (q *Queue) counted() (messages int, bytes int64) {
	messages, bytes = int(q.ready.len), q.bytes
	if t := q.told; t != nil {
		messages -= t.empty + t.resent
		bytes -= t.resentBytes
	}
	if q.moved && q.snapshot != nil {
		messages += q.snapshot.moved
		bytes += q.snapshot.movedBytes
	}
	return messages, bytes
}

// makeRoom makes room for a message, or refuses it.
func (q *Queue) makeRoom(size int64) (p Pushed) {
	if q.limits.Policy != DropOldest {
		return q.refuse()
	}
	var kept []*frame.Message // without a frame
	for q.ready.len > 0 && q.isReadyFull(size) {
		m := q.popReady()
		if isEmpty(m) {
			kept = keepEmpty(kept, m)
			continue
		}
		p.Dropped++
		kept = slices.DeleteFunc(kept, func(k *frame.Message) bool { // m's loss moves the position, too
			_, ok := k.Tag.(*resume.Skip)
			return ok && roomOf(k) == roomOf(m)
		})
	}
	for _, m := range slices.Backward(kept) {
		q.pushReadyFirst(m)
	}
	if q.isReadyFull(size) { // Hold has moved what fills it
		return Pushed{Refused: Full, Dropped: p.Dropped + 1}
	}
	return p
}

// keepEmpty appends a message without a frame.
func keepEmpty(kept []*frame.Message, m *frame.Message) []*frame.Message {
	if mergeSkip(len(kept), func(i int) **frame.Message { return &kept[i] }, m) {
		return kept
	}
	return append(kept, m)
}

// popReady removes the oldest message.
func (q *Queue) popReady() *frame.Message {
	m := q.ready.pop()
	if q.rare != nil {
		q.popped(m)
	}
	q.count(m, -1)
	return m
}

// refuse returns the outcome for a message that found no room.
func (q *Queue) refuse() Pushed {
	if q.limits.Policy == Close {
		return Pushed{Refused: Slow}
	}
	return Pushed{Refused: Full, Dropped: 1}
}

func (q *Queue) sizeOf(m *frame.Message) int64 { return int64(len(m.Bytes(q.Deflate))) }

// SnapshotBy sets the goroutine whose messages are the snapshot while the queue is held. The caller is that
// goroutine, or starts it. With the zero ID every goroutine's messages are.
func (q *Queue) SnapshotBy(by goroutine.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held {
		q.snapshot.by = by
	}
}

// PushSnapshot is [Queue.PushOwn] for a message that was refused as [Held]. A message of the goroutine set
// by [Queue.SnapshotBy] is written first. If there is no room, that goroutine waits for as long as the
// messages ahead may take to be written; then the message is refused. Messages of other goroutines wait for
// [Queue.Release].
func (q *Queue) PushSnapshot(m *frame.Message, by goroutine.ID) Pushed {
	p, space, ahead := q.pushSnapshot(m, by)
	if space != nil {
		timeout := time.NewTimer(q.wire.TimeToWrite(ahead))
		defer timeout.Stop()
		for space != nil {
			select {
			case <-space:
				p, space, _ = q.pushSnapshot(m, by)
			case <-timeout.C:
				return q.refuse()
			}
		}
	}

	if p.Refused == Held {
		p = q.Push(m)
	}
	return q.awake(p)
}

// pushSnapshot appends m to the snapshot if the goroutine is the one that sends it; otherwise it refuses m
// as Held. If there is no room, m isn't appended. Then space is closed when there may be room, and ahead is
// the number of bytes to be written until there must be room.
func (q *Queue) pushSnapshot(m *frame.Message, by goroutine.ID) (p Pushed, space <-chan struct{}, ahead int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}, nil, 0
	}
	if !q.held || q.snapshot.by != by || !q.started && !q.snapshot.known {
		return Pushed{Refused: Held}, nil, 0
	}

	s, size := q.snapshot, q.sizeOf(m)
	if s.isFull(q.limits, size) {
		if s.space == nil {
			s.space = make(chan struct{})
		}
		return Pushed{}, s.space, s.taken + s.bytes
	}

	s.messages.push(m)
	s.bytes += size
	return Pushed{Wake: q.wakeLocked()}, nil, 0
}

// Release lets the messages that others sent follow the snapshot.
func (q *Queue) Release() {
	q.mu.Lock()
	q.unhold()
	q.endSnapshot()
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		go q.writer()
	}
}

// unhold ends the holding, and lets those in that wait to hold the queue next.
func (q *Queue) unhold() {
	q.held = false
	if s := q.snapshot; s != nil && s.released != nil {
		close(s.released)
		s.released = nil
	}
}

// popped notes that a message of this size was taken from the snapshot. t is nil if the client isn't told of rooms.
func (s *snapshot) popped(m *frame.Message, size int64, t *told) {
	s.bytes -= size
	if s.moved > 0 {
		s.moved--
		s.movedBytes = max(0, s.movedBytes-size)
	}
	if t != nil && isEmpty(m) {
		t.emptyAll--
	}
}

// endSnapshot removes the snapshot once the queue is released and all of it has been taken.
func (q *Queue) endSnapshot() {
	if s := q.snapshot; s != nil && !q.held && s.messages.len == 0 {
		q.snapshot, q.moved = nil, false
	}
}

// freeWaiter lets the goroutine that waits for room in the snapshot try again.
func (q *Queue) freeWaiter() {
	if s := q.snapshot; s != nil && s.space != nil {
		close(s.space)
		s.space = nil
	}
}

// PushControl appends a control frame and writes it ahead of all messages. ours says that it is a ping
// whose writing is reported to the owner. If too many control frames wait already, the frame is dropped
// unless it is ours. PushControl reports false once the queue is closed.
func (q *Queue) PushControl(opcode byte, payload []byte, ours bool) (taken bool) {
	q.mu.Lock()
	if q.closing || q.broken || len(q.control) > maxControl && !ours {
		defer q.mu.Unlock()
		return !q.closing
	}
	q.control = frame.AppendControl(q.control, opcode, payload)
	q.pinged = q.pinged || ours
	q.awaited = q.awaited || opcode == frame.Ping && !ours
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
	return true
}

// Awaits reports whether a goroutine of the application may wait for the answer to a ping of its own.
func (q *Queue) Awaits() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.awaited
}

// Resume writes what had to wait while the application itself wrote a message in several frames.
func (q *Queue) Resume() {
	q.mu.Lock()
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
}

// CloseWith stops the queue from taking anything more. What waits is still written, unless drop is set, and
// then the close frame, unless it is "". While the queue is held only the snapshot is written: other
// messages aren't for a connection that wasn't accepted. CloseWith itself writes what the socket takes at once,
// as [Queue.Wake] does, and never waits. It returns the number of lost messages, and whether [Queue.Attach] was
// called before. It is called once.
func (q *Queue) CloseWith(closeFrame string, drop bool) (lost int, attached bool) {
	q.mu.Lock()
	q.closing = true
	q.seldom().closeFrame = closeFrame

	switch {
	case drop:
		lost = q.dropAll()
	case q.held:
		lost = q.dropReady()
	}

	q.unhold()
	q.freeWaiter()
	q.endSnapshot()
	q.askLast(lost)
	attached = q.wire != nil
	wake := q.wakeOrSettle()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
	return lost, attached
}

func (q *Queue) dropReady() (lost int) {
	lost = q.applications(&q.ready)
	if t := q.told; t != nil {
		t.emptyAll -= t.empty
		t.empty, t.resent, t.resentBytes, t.missed = 0, 0, 0, nil
	}
	q.ready.clear()
	q.moveMark()
	q.bytes = 0
	return lost
}

// applications returns how many of the messages are the application's.
func (q *Queue) applications(f *fifo) int {
	n := int(f.len)
	if q.told == nil {
		return n
	}
	for i := range f.len {
		if isControl(*f.at(i)) {
			n--
		}
	}
	return n
}

// dropAll drops everything, including the snapshot.
func (q *Queue) dropAll() (lost int) {
	lost = q.dropReady()
	if s := q.snapshot; s != nil {
		lost += q.applications(&s.messages)
		s.messages.clear()
		s.bytes = 0
		if q.told != nil {
			q.told.emptyAll = 0
		}
		q.freeWaiter()
		q.endSnapshot()
	}
	return lost
}

// Done returns a channel that is closed once the queue is closed and started, and nothing is being written
// any more.
func (q *Queue) Done() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.settled {
		return settled
	}
	r := q.seldom()
	if r.done == nil {
		r.done = make(chan struct{})
	}
	return r.done
}

// settled is the channel of all queues that are done before somebody asks.
var settled = func() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}()

// IsDone reports whether the channel of [Queue.Done] is closed.
func (q *Queue) IsDone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.settled
}

// Waiting returns the number of messages that the writer hasn't taken yet, and the bytes of their frames.
// For a closed queue both are 0.
func (q *Queue) Waiting() (messages int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return 0, 0
	}
	messages, bytes = q.applications(&q.ready), q.bytes
	if s := q.snapshot; s != nil {
		messages, bytes = messages+q.applications(&s.messages), bytes+s.bytes
	}
	return messages, bytes
}

// wakeLocked reports whether the caller must wake a writer, because there is something to write and no
// writer. It then counts the writer as present.
func (q *Queue) wakeLocked() bool {
	wake := !q.writing && q.hasWork()
	q.writing = q.writing || wake
	return wake
}

// hasWork reports whether there is something to write.
func (q *Queue) hasWork() bool {
	return q.ready.len > 0 && !q.held && !q.paused || len(q.control) > 0 || q.closing && q.rare.closeFrame != "" ||
		q.snapshot != nil && q.snapshot.messages.len > 0 || q.isAsking()
}

// wakeOrSettle is wakeLocked for a queue that may be closed. If nothing is left to be written, the queue is
// done.
func (q *Queue) wakeOrSettle() (wake bool) {
	wake = q.wakeLocked()
	if !q.writing && q.closing {
		q.settle()
	}
	return wake
}

func (q *Queue) settle() {
	if !q.settled {
		q.settled = true
		if q.rare.done != nil {
			close(q.rare.done)
		}
	}
}

// take moves what is written next into b. It reports false if there is nothing; then the writer has ended.
// data says whether the wire lets messages pass, or only control frames.
func (q *Queue) take(b *batch, data bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.n, b.messages, b.resent, b.ping, b.closeFrame, b.lost = 0, 0, false, "", "", 0
	b.control, b.pinged = q.control, q.pinged
	b.size = int64(len(b.control))
	q.control, q.pinged = nil, false

	if data {
		q.takeMessages(b)
	}
	if b.size <= batchSpace && q.isAsking() {
		b.ping = q.takePing()
	}

	if q.closing && b.size <= batchSpace && (!data || q.ready.len == 0 && q.snapshot == nil) {
		b.closeFrame, q.rare.closeFrame = q.rare.closeFrame, ""
		b.lost = q.dropAll()
	}

	if b.n == 0 && len(b.control)+len(b.ping)+len(b.closeFrame) == 0 {
		q.endWriter()
		return false
	}
	return true
}

// takeMessages takes the snapshot and, once the queue is released, the messages that follow.
func (q *Queue) takeMessages(b *batch) {
	if s := q.snapshot; s != nil {
		b.fill(&s.messages, q, batchSpace)
		s.taken = b.size
		q.freeWaiter()
		q.endSnapshot()
	}
	if !q.held && q.snapshot == nil && !q.paused {
		b.fill(&q.ready, q, q.space(b))
	}
	if b.used = max(b.used, b.n); b.n > 0 && q.told != nil {
		q.told.beats = false
	}
	if q.limits.Unread > 0 && b.n > 0 {
		q.rare.receipts.sent += b.size
		q.pace()
	}
	if q.rare != nil {
		q.signalDrained()
	}
}

// fail drops everything after a failed write and returns the number of lost messages. The writer has ended.
func (q *Queue) fail() (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = true
	lost = q.dropAll()
	if q.control = nil; q.closing {
		q.rare.closeFrame = ""
	}
	q.endWriter()
	return lost
}

func (q *Queue) endWriter() {
	q.writing = false
	if q.closing {
		q.settle()
	}
}
