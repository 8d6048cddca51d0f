package outbound

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
)

// maxControl bounds the bytes of control frames that wait; beyond it the peer doesn't read anyway.
const maxControl = 1 << 10

// Queue is what waits to be written to one connection. Senders append to it. While it isn't empty a writer, which
// is some goroutine, writes it to the wire, many frames at a time. An idle queue has none.
//
// Init must be called first. All other methods may be called concurrently. What a Push to an idle queue touches
// lies in the first 64 bytes.
type Queue struct {
	mu    sync.Mutex // guards the fields to the next blank line but one; held for no I/O
	ready fifo
	bytes int64 // in ready

	// Deflate says that permessage-deflate was negotiated. It is set before the first push.
	Deflate bool

	held    bool // what is ready waits for Release
	writing bool // there is a writer, or the one that was told to wake the queue will be it; true before Attach
	closing bool // nothing is taken any more
	broken  bool // a write failed: nothing is taken any more
	pinged  bool // control ends with a ping of ours
	settled bool // done is closed

	limits     *Limits
	owner      Owner
	snapshot   *snapshot // nil unless the queue is held, or what goes first isn't out yet
	control    []byte
	closeFrame string        // follows all messages; "" once it is out; a string is smaller than a slice
	done       chan struct{} // made by CloseWith; closed when there is no writer and won't be one

	wire    *frame.Conn  // set by Attach, before there is a writer
	writer  func()       // q.write; starting a stored func allocates nothing
	wroteAt atomic.Int64 // when something was written last, by frame.Now
}

// snapshot is what one goroutine sends to the connection while its queue is held. It goes before all that others
// send, and has a limit of its own.
type snapshot struct {
	messages fifo
	bytes    int64         // in messages
	taken    int64         // bytes that the writer took last
	by       goroutine.ID  // the goroutine
	space    chan struct{} // closed when the writer took something; nil if the goroutine doesn't wait for it
}

// Init readies a queue. Where held is set, messages wait for Release, but for those of PushSnapshot.
func (q *Queue) Init(limits *Limits, owner Owner, held bool) {
	q.limits, q.owner, q.writer = limits, owner, q.write
	q.writing = true
	if held {
		q.held, q.snapshot = true, new(snapshot)
	}
}

// Attach gives the queue its wire, once that is ready to be written to, and writes what waits.
func (q *Queue) Attach(wire *frame.Conn) {
	q.mu.Lock()
	q.wire, q.writing = wire, false
	wake := q.wakeOrSettle()
	q.mu.Unlock()

	if wake {
		go q.writer()
	}
}

// Push appends a message of many receivers. Where it says so, the caller wakes the queue once it holds no lock.
func (q *Queue) Push(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.push(m)
}

// PushOwn appends a message for this connection alone, and wakes the queue by itself. It refuses the message as Held
// while the queue is held.
func (q *Queue) PushOwn(m *frame.Message) Pushed { return q.awake(q.pushOwn(m)) }

func (q *Queue) pushOwn(m *frame.Message) Pushed {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held {
		return Pushed{Refused: Held}
	}
	return q.push(m)
}

// awake wakes the queue if that is to be done.
func (q *Queue) awake(p Pushed) Pushed {
	if p.Wake {
		p.Wake = false
		q.Wake()
	}
	return p
}

// push appends m; mu is locked.
func (q *Queue) push(m *frame.Message) (p Pushed) {
	if q.closing || q.broken {
		return Pushed{Refused: Closed}
	}

	size := q.sizeOf(m)
	if q.isFull(&q.ready, q.bytes, size) {
		if p = q.makeRoom(size); p.Refused != Taken {
			return p
		}
	}

	q.ready.push(m)
	q.bytes += size
	p.Wake = q.wakeLocked()
	return p
}

// isFull reports whether f, which holds these bytes, has no room for a message of this size. The snapshot and what
// others send have each a room of their own.
func (q *Queue) isFull(f *fifo, bytes, size int64) bool {
	return f.len > 0 && (int(f.len) >= q.limits.Messages || bytes+size > q.limits.Bytes)
}

// makeRoom makes room for a message or refuses it.
func (q *Queue) makeRoom(size int64) (p Pushed) {
	if q.limits.Policy != DropOldest {
		return q.refuse()
	}
	for q.isFull(&q.ready, q.bytes, size) {
		q.bytes -= q.sizeOf(q.ready.pop())
		p.Dropped++
	}
	return p
}

// refuse is what becomes of a message for which there is no room.
func (q *Queue) refuse() Pushed {
	if q.limits.Policy == Close {
		return Pushed{Refused: Slow}
	}
	return Pushed{Refused: Full, Dropped: 1}
}

func (q *Queue) sizeOf(m *frame.Message) int64 { return int64(len(m.Bytes(q.Deflate))) }

// SnapshotBy names the goroutine whose messages are the snapshot while the queue is held. The caller is that goroutine,
// or starts it. The zero ID is that of every goroutine.
func (q *Queue) SnapshotBy(by goroutine.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.held {
		q.snapshot.by = by
	}
}

// PushSnapshot is PushOwn for a message that was refused as Held. The goroutine that SnapshotBy named has it go first,
// and waits for room where there is none, for as long as what is ahead may take to be written; after that the
// message is refused. Other goroutines' messages wait for Release.
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

// pushSnapshot appends m to the snapshot if it is this goroutine's, and else refuses it as Held. Where there is no room
// for it, it isn't appended; space is closed when there may be, and ahead is how many bytes are to be written until
// there must be.
func (q *Queue) pushSnapshot(m *frame.Message, by goroutine.ID) (p Pushed, space <-chan struct{}, ahead int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing || q.broken {
		return Pushed{Refused: Closed}, nil, 0
	}
	if !q.held || q.snapshot.by != by {
		return Pushed{Refused: Held}, nil, 0
	}

	s, size := q.snapshot, q.sizeOf(m)
	if q.isFull(&s.messages, s.bytes, size) {
		if s.space == nil {
			s.space = make(chan struct{})
		}
		return Pushed{}, s.space, s.taken + s.bytes
	}

	s.messages.push(m)
	s.bytes += size
	return Pushed{Wake: q.wakeLocked()}, nil, 0
}

// Release lets what others sent follow the snapshot.
func (q *Queue) Release() {
	q.mu.Lock()
	q.held = false
	q.endSnapshot()
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		go q.writer()
	}
}

// endSnapshot forgets the snapshot once the queue is released and all of it is out.
func (q *Queue) endSnapshot() {
	if s := q.snapshot; s != nil && !q.held && s.messages.len == 0 {
		q.snapshot = nil
	}
}

// freeWaiter lets the goroutine that waits for room in the snapshot look again.
func (q *Queue) freeWaiter() {
	if s := q.snapshot; s != nil && s.space != nil {
		close(s.space)
		s.space = nil
	}
}

// PushControl appends a control frame, which goes ahead of all messages, and writes it. ours says that it is a ping whose
// writing the owner is to be told of. Where too many wait already it is dropped, unless it is ours.
func (q *Queue) PushControl(opcode byte, payload []byte, ours bool) {
	q.mu.Lock()
	if q.closing || q.broken || len(q.control) > maxControl && !ours {
		q.mu.Unlock()
		return
	}
	q.control = frame.AppendControl(q.control, opcode, payload)
	q.pinged = q.pinged || ours
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
}

// Resume writes what had to wait while the application wrote a message in several frames by itself.
func (q *Queue) Resume() {
	q.mu.Lock()
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
}

// CloseWith lets nothing more in. What waits still goes out unless drop is set, then the close frame, unless it is "".
// But while the queue is held, only the snapshot does: nobody else's messages are for a connection that wasn't
// accepted. CloseWith returns how many messages are lost. It is called once, before or after Attach.
func (q *Queue) CloseWith(closeFrame string, drop bool) (lost int) {
	q.mu.Lock()
	q.closing, q.closeFrame = true, closeFrame
	q.done = make(chan struct{})

	switch {
	case drop:
		lost = q.dropAll()
	case q.held:
		lost = q.dropReady()
	}

	q.held = false
	q.freeWaiter()
	q.endSnapshot()
	wake := q.wakeOrSettle()
	q.mu.Unlock()

	if wake {
		go q.writer()
	}
	return lost
}

func (q *Queue) dropReady() (lost int) {
	lost = int(q.ready.len)
	q.ready.clear()
	q.bytes = 0
	return lost
}

// dropAll drops the snapshot, too.
func (q *Queue) dropAll() (lost int) {
	lost = q.dropReady()
	if s := q.snapshot; s != nil {
		lost += int(s.messages.len)
		s.messages.clear()
		s.bytes = 0
		q.freeWaiter()
		q.endSnapshot()
	}
	return lost
}

// Done returns a channel that is closed when the queue is closed, attached, and nothing is written any more. It is nil
// before CloseWith.
func (q *Queue) Done() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.done
}

// IsDone reports whether Done is closed.
func (q *Queue) IsDone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.settled
}

// Waiting returns what isn't on its way to the wire yet: messages, and bytes of their frames. Of a closed queue it is
// nothing.
func (q *Queue) Waiting() (messages int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return 0, 0
	}
	messages, bytes = int(q.ready.len), q.bytes
	if s := q.snapshot; s != nil {
		messages, bytes = messages+int(s.messages.len), bytes+s.bytes
	}
	return messages, bytes
}

// wakeLocked reports whether the caller is to wake a writer, because there is something to write and no writer, and
// counts it as there.
func (q *Queue) wakeLocked() bool {
	wake := !q.writing && q.hasWork()
	q.writing = q.writing || wake
	return wake
}

// hasWork reports whether there is something to write.
func (q *Queue) hasWork() bool {
	return q.ready.len > 0 && !q.held || len(q.control) > 0 || q.closeFrame != "" ||
		q.snapshot != nil && q.snapshot.messages.len > 0
}

// wakeOrSettle is wakeLocked for a queue that may be closed: where nothing is left to be written, that is all.
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
		close(q.done)
	}
}

// take moves what goes out next into b. Where it reports false there is nothing, and the writer has ended. data says
// whether the wire lets messages pass, or just control frames.
func (q *Queue) take(b *batch, data bool) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	b.n, b.closeFrame, b.lost = 0, "", 0
	b.control, b.pinged = q.control, q.pinged
	b.size = int64(len(b.control))
	q.control, q.pinged = nil, false

	if data {
		q.takeMessages(b)
	}

	if q.closing && b.size <= batchSpace && (!data || q.ready.len == 0 && q.snapshot == nil) {
		b.closeFrame, q.closeFrame = q.closeFrame, ""
		b.lost = q.dropAll()
	}

	if b.n == 0 && len(b.control) == 0 && len(b.closeFrame) == 0 {
		q.endWriter()
		return false
	}
	return true
}

// takeMessages takes the snapshot and, once the queue is released, what follows.
func (q *Queue) takeMessages(b *batch) {
	if s := q.snapshot; s != nil {
		b.fill(&s.messages, &s.bytes, q.Deflate)
		s.taken = b.size
		q.freeWaiter()
		q.endSnapshot()
	}
	if !q.held && q.snapshot == nil {
		b.fill(&q.ready, &q.bytes, q.Deflate)
	}
	b.used = max(b.used, b.n)
}

// fail drops everything after a failed write, and returns how many messages; the writer has ended.
func (q *Queue) fail() (lost int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.broken = true
	lost = q.dropAll()
	q.control, q.closeFrame = nil, ""
	q.endWriter()
	return lost
}

func (q *Queue) endWriter() {
	q.writing = false
	if q.closing {
		q.settle()
	}
}
