package outbound

import (
	"encoding/binary"
	"os"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
)

// receipts are the pings that a queue writes behind messages, and what waits for their answers. A ping isn't
// in ready: it is written at the end of the batch with which its turn has come. So it takes no room and isn't
// dropped.
type receipts struct {
	next    []func(error) // wait for the answer to the next ping that stands behind the mark
	behind  mark
	wanted  bool   // that ping is written as soon as its turn comes
	pausing bool   // a timer has that ping wanted: the last one wasn't long ago
	asked   []ping // those that aren't answered, the oldest first
	number  uint64 // of the last ping
	at      int64  // when the last ping for which a function waits was written, by frame.Now
	lag     time.Duration

	// With Limits.Unread, in bytes of batches since the beginning:
	sent     int64       // all
	pinged   int64       // of it up to the last ping
	read     int64       // of it up to the last ping that was answered
	timeout  *time.Timer // ends the wait for an answer; nil until the queue was paused
	listened int64       // how long the wire had listened when the queue was paused
}

// ping is one that isn't answered.
type ping struct {
	number uint64
	at     int64 // when it was written, by frame.Now
	sent   int64
	calls  []func(error)
}

// mark is a place in a queue: behind the messages of snapshot and ready with lower numbers.
type mark struct{ snapshot, ready uint32 }

// receiptPause is the shortest time between two pings for which functions wait.
const receiptPause = time.Second / 5

const (
	receiptLetter = 'w' // payloads of other pings begin with another letter, or are empty
	receiptSize   = 1 + 8
	// receiptSpace is the size of a ping's frame.
	receiptSpace = 2 + receiptSize
)

// receipts returns the queue's receipts, which it makes if there are none. mu is locked.
func (q *Queue) receipts() *receipts {
	r := q.seldom()
	if r.receipts == nil {
		r.receipts = new(receipts)
	}
	return r.receipts
}

// Confirm has f called with nil once the peer has answered a ping that is written behind everything that
// waits now. For the goroutine that sends the snapshot, that is what it has sent. Messages that are dropped
// meanwhile don't count. Calls within a fifth of a second share a ping. After [Queue.Abandon] f is called
// with its error. f is called with the queue's lock held: it must not wait or call the queue. Confirm reports
// false if the queue takes nothing any more; then f isn't called.
func (q *Queue) Confirm(f func(error), by goroutine.ID) bool {
	q.mu.Lock()
	if q.closing || q.broken {
		q.mu.Unlock()
		return false
	}
	r := q.receipts()
	r.next = append(r.next, f)
	before := r.behind
	r.behind = q.end()
	if q.held && q.snapshot.by == by { // the ping may be for others, too
		if r.behind.ready = q.ready.head; len(r.next) > 1 {
			r.behind.ready = before.ready
		}
	}
	if !r.wanted && !r.pausing {
		q.ask(r)
	}
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
	return true
}

// end returns the place behind everything that waits. mu is locked.
func (q *Queue) end() (m mark) {
	if q.snapshot != nil {
		m.snapshot = q.snapshot.messages.end()
	}
	m.ready = q.ready.end()
	return m
}

// reached reports whether everything before the place has been taken, or dropped.
func (q *Queue) reached(m mark) bool {
	return int32(q.ready.head-m.ready) >= 0 &&
		(q.snapshot == nil || int32(q.snapshot.messages.head-m.snapshot) >= 0)
}

// moveMark puts the next ping behind everything that waits, because messages have got other numbers.
func (q *Queue) moveMark() {
	if q.rare != nil && q.rare.receipts != nil {
		q.rare.receipts.behind = q.end()
	}
}

// ask has the next ping written, now or when enough time has passed.
func (q *Queue) ask(r *receipts) {
	if wait := receiptPause - time.Duration(frame.Now()-r.at); r.at != 0 && wait > 0 {
		r.pausing = true
		time.AfterFunc(wait, q.askAgain)
		return
	}
	r.wanted = true
}

// askAgain is called when the pause of ask is over.
func (q *Queue) askAgain() {
	q.mu.Lock()
	r := q.rare.receipts
	r.pausing = false
	if !q.closing && !q.broken {
		r.wanted = len(r.next) > 0
	}
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake {
		q.Wake()
	}
}

// askLast is called when the queue is closed. What is lost can't be confirmed.
func (q *Queue) askLast(lost int) {
	if q.rare.receipts == nil {
		return
	}
	r := q.rare.receipts
	r.wanted = len(r.next) > 0 && lost == 0
	q.paused = false
	if r.timeout != nil {
		r.timeout.Stop()
	}
}

// isAsking reports whether a ping is to be written now.
func (q *Queue) isAsking() bool {
	if q.rare == nil || q.rare.receipts == nil || q.broken {
		return false
	}
	r := q.rare.receipts
	return r.wanted && q.reached(r.behind) || q.limits.Unread > 0 && r.sent-r.pinged >= max(1, q.limits.Unread/2) && !q.closing
}

// takePing notes a ping, and returns its frame.
func (q *Queue) takePing() string {
	r := q.rare.receipts
	r.number++
	p := ping{number: r.number, at: frame.Now(), sent: r.sent}
	if len(r.next) > 0 && q.reached(r.behind) {
		p.calls, r.next, r.wanted, r.at = r.next, nil, false, p.at
	}
	r.asked = append(r.asked, p)
	r.pinged = r.sent

	payload := binary.BigEndian.AppendUint64([]byte{receiptLetter}, p.number)
	return string(frame.AppendControl(make([]byte, 0, receiptSpace), frame.Ping, payload))
}

// Answer takes the payload of a pong. It reports whether the pong answers a ping of [Queue.Confirm] or
// [Limits].Unread. An answer counts for the pings before it, too (RFC 6455, section 5.5.3). Answer wakes the
// queue itself.
func (q *Queue) Answer(payload []byte) (ours bool) {
	if len(payload) != receiptSize || payload[0] != receiptLetter {
		return false
	}
	q.mu.Lock()
	ours = q.answer(binary.BigEndian.Uint64(payload[1:]))
	wake := q.wakeLocked()
	q.mu.Unlock()

	if wake { // on a goroutine of its own, because the caller may hold the reader's lock
		go q.writer()
	}
	return ours
}

func (q *Queue) answer(number uint64) (ours bool) {
	if q.rare == nil || q.rare.receipts == nil {
		return false
	}
	r := q.rare.receipts
	for len(r.asked) > 0 && r.asked[0].number <= number && number <= r.number {
		p := r.asked[0]
		r.asked = r.asked[1:]
		ours, r.read, r.lag = true, p.sent, time.Duration(frame.Now()-p.at)
		for _, f := range p.calls {
			f(nil)
		}
	}
	if len(r.asked) == 0 {
		r.asked = nil
	}
	if ours {
		q.pace()
	}
	return ours
}

// Abandon calls the functions that still wait for an answer with this error. The queue is closed.
func (q *Queue) Abandon(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rare == nil || q.rare.receipts == nil {
		return
	}
	r := q.rare.receipts
	for _, p := range r.asked {
		for _, f := range p.calls {
			f(err)
		}
	}
	for _, f := range r.next {
		f(err)
	}
	r.asked, r.next, r.wanted = nil, nil, false
}

// Lag returns how long the answer to the last ping took that was answered. It is 0 if there is none.
func (q *Queue) Lag() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.rare == nil || q.rare.receipts == nil {
		return 0
	}
	return q.rare.receipts.lag
}

// space returns how many bytes the writer may take of ready, with those that it has taken in this batch.
func (q *Queue) space(b *batch) int64 {
	if q.limits.Unread == 0 || q.closing {
		return batchSpace
	}
	r := q.receipts()
	return min(batchSpace, b.size+q.limits.Unread-(r.sent+b.size-r.read))
}

// pace pauses the queue when as much as [Limits].Unread allows has been written and not answered, and lets it
// go on when it has been answered. mu is locked.
func (q *Queue) pace() {
	if q.limits.Unread == 0 || q.closing || q.broken {
		return
	}
	r, was := q.receipts(), q.paused
	q.paused = r.sent-r.read >= q.limits.Unread
	switch {
	case q.paused && !was:
		q.await(r)
	case was && !q.paused && r.timeout != nil:
		r.timeout.Stop()
	}
}

// await sets the timer that ends a wait for an answer. It is the time that a write may take.
func (q *Queue) await(r *receipts) {
	r.listened = q.wire.Listened(frame.Now())
	if d := q.wire.TimeToWrite(q.limits.Unread); r.timeout == nil {
		r.timeout = time.AfterFunc(d, q.unanswered)
	} else {
		r.timeout.Reset(d)
	}
}

// unanswered is called when an answer hasn't come in time. Time in which nobody reads doesn't count.
func (q *Queue) unanswered() {
	q.mu.Lock()
	r := q.rare.receipts
	over := q.paused && !q.closing
	if over {
		if left := q.wire.TimeToWrite(q.limits.Unread) - time.Duration(q.wire.Listened(frame.Now())-r.listened); left > 0 {
			r.timeout.Reset(max(left, 10*time.Millisecond))
			over = false
		}
	}
	q.mu.Unlock()

	if over {
		q.owner.WriteFailed(os.ErrDeadlineExceeded, 0)
	}
}

// Drained returns a channel that is closed when the writer has taken something, unless at most so many bytes
// wait already: then it is nil. closed says that the queue takes nothing any more.
func (q *Queue) Drained(bytes int64) (drained <-chan struct{}, closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting := q.bytes
	if q.snapshot != nil {
		waiting += q.snapshot.bytes
	}
	switch {
	case q.closing || q.broken:
		return nil, true
	case waiting <= bytes:
		return nil, false
	}
	r := q.seldom()
	if r.drained == nil {
		r.drained = make(chan struct{})
	}
	return r.drained, false
}

// signalDrained closes the channel of [Queue.Drained].
func (q *Queue) signalDrained() {
	if q.rare != nil && q.rare.drained != nil {
		close(q.rare.drained)
		q.rare.drained = nil
	}
}
