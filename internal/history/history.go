// Package history keeps the last messages of each room for clients that come back. A [Log] is one room's,
// bounded in messages, bytes and age. A [Store] has the logs of all rooms, and bounds them together. The
// messages are those that the queues of the members share.
//
// It knows messages as frames and where each stands in its room. It doesn't know who is in a room, what a
// client has been sent, or how a position is written for a client.
package history

import (
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

// Position names a message of a room. On all nodes that share a broker, the same message has the same
// position. A room's positions rise, and none is used twice. The zero Position names no message.
type Position struct {
	Stream uint64 // of the broker's data that the message came in; without a broker, the message's number
	Letter uint32 // of the message within that data
}

// Before reports whether p is lower than q.
func (p Position) Before(q Position) bool {
	return p.Stream < q.Stream || p.Stream == q.Stream && p.Letter < q.Letter
}

// Place is where a message stands: its room and, with a history, its place there. It is a message's
// [frame.Message.Tag]. A Place doesn't change once the message has been sent.
type Place struct {
	Room   uint64   // identifies the room in this process
	Number uint64   // counts the room's messages in this process; a missing message counts, too; 0: no history
	At     Position // the message's
	Prev   Position // of the message before; zero: it isn't known
	Made   int64    // when the message was kept, by frame.Now
	Hidden *Hidden  // nil: the message is for all members
}

// Hidden says for whom a message isn't, although they are in its room.
type Hidden struct {
	Conns []uint64 // connections that the sender has left out, by their tags
	Rooms []string // their members got the message there

	Identities []string // that the sender has left out
}

// IsFrom reports whether the sender has left out the identity. h may be nil, and the identity "".
func (h *Hidden) IsFrom(identity string) bool {
	return h != nil && identity != "" && slices.Contains(h.Identities, identity)
}

// from reports whether the sender has left out the connection with this tag. h may be nil.
func (h *Hidden) from(conn uint64) bool { return h != nil && slices.Contains(h.Conns, conn) }

// Limits bound each log.
type Limits struct {
	Messages int
	Bytes    int64         // of the messages' frames
	Age      time.Duration // of a message
}

// Log is the history of one room. Its methods may be called concurrently. To call several of them for one
// state of the log, and to append in an order, its users have the lock of the room.
type Log struct {
	limits *Limits
	room   uint64
	birth  uint64 // see Birth
	store  *Store // nil if it belongs to none

	mu     sync.Mutex       // guards the rest; under it only what f of After locks
	over   bool             // the store has ended it
	ring   []*frame.Message // its size is a power of two
	head   int              // of the oldest message, in ring
	len    int
	bytes  int64
	last   uint64   // the number of the newest message
	lastAt Position // of the newest message that is known, kept or not
	base   Position // right before the oldest message that is kept; zero: it isn't known
	marked int64    // see Mark
	told   int      // see AddTold
	idle   int64    // since when the room has had no member, by frame.Now; 0: it has members
}

// New returns an empty log of the room with this id. What comes before the first message is named start; it
// may be zero. birth distinguishes the log from others of the same room. It is 0 for a log whose messages come
// with their positions. Otherwise the log numbers its messages itself: their positions follow each other.
func New(limits *Limits, room, birth uint64, start Position) *Log {
	return &Log{limits: limits, room: room, birth: birth, last: 1, lastAt: start, base: start}
}

// Birth returns the number by which this log was distinguished from others of its room.
func (l *Log) Birth() uint64 { return l.birth }

// Room returns the id of the log's room.
func (l *Log) Room() uint64 { return l.room }

// Bytes returns how much the log keeps: the bytes of the messages' frames.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Len returns how many messages the log keeps.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.len
}

// AddTold counts the members of the room that are told of positions.
func (l *Log) AddTold(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told += n
}

// SetIdle says that the room has no member from now on, which is by frame.Now.
func (l *Log) SetIdle(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.idle = now
}

// End is where the log ends: the number of its newest message, and its position. The position is zero if it
// isn't known.
func (l *Log) End() (number uint64, at Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, l.endLocked()
}

func (l *Log) endLocked() Position {
	if l.len == 0 {
		return l.base
	}
	return l.lastAt
}

// Mark reports whether the log's end needs a new position at that time, by frame.Now: it has none, or the
// newest message is older than age. Then it doesn't report so again for a second.
func (l *Log) Mark(now int64, age time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.markLocked(now, age)
}

func (l *Log) markLocked(now int64, age time.Duration) bool {
	named := l.endLocked() != Position{} && l.len > 0 && now-l.newest() <= int64(age)
	if named || l.marked != 0 && now-l.marked < int64(time.Second) {
		return false
	}
	l.marked = now
	return true
}

// newest returns when the newest message was kept. There must be one.
func (l *Log) newest() int64 { return placeOf(l.at(l.len - 1)).Made }

// Append adds a message, which becomes one of the room. at is its position. A zero at stands for the one
// after the last, which is how a process without a broker numbers messages.
func (l *Log) Append(m *frame.Message, at Position, hidden *Hidden, now int64) *Place {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.used()
	prev := l.endLocked()
	if at == (Position{}) {
		at.Stream = l.lastAt.Stream + 1
	}
	l.last++
	place := &Place{Room: l.room, Number: l.last, At: at, Prev: prev, Made: now, Hidden: hidden}
	l.lastAt = at
	m.Tag = place

	l.push(m)
	for l.len > l.limits.Messages || l.bytes > l.limits.Bytes {
		l.drop()
	}
	l.count(l.used() - before)
	l.expire(now)
	return place
}

// Lose notes that messages are missing after the newest one. What came before can't be continued, so the
// log drops it. Lose returns the number of the last one that is missing.
func (l *Log) Lose() (number uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
	l.last++
	l.base = Position{}
	if l.birth != 0 {
		l.lastAt.Stream++
	}
	return l.last
}

// Clear drops all messages. A client that has the newest one has missed nothing.
func (l *Log) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clear()
}

func (l *Log) clear() {
	before := l.used()
	for l.len > 0 {
		l.drop()
	}
	l.ring = nil
	l.count(-before)
}

// Expire drops the messages that are too old.
func (l *Log) Expire(now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
}

func (l *Log) expire(now int64) {
	before := l.used()
	for l.len > 0 && now-placeOf(l.at(0)).Made > int64(l.limits.Age) {
		l.drop()
	}
	l.count(l.used() - before)
}

// Find returns the number of the message that stands n after the one at that position. ok reports that all
// messages after it are kept.
func (l *Log) Find(at Position, n uint64) (number uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at == (Position{}) || n > l.last {
		return 0, false
	}
	number, ok = l.numberOf(at)
	number += n
	first := l.oldest()
	if l.base != (Position{}) {
		first--
	}
	return number, ok && first <= number && number <= l.last
}

// numberOf returns the number of the message at that position. A log that numbers its messages itself knows
// that of messages that it doesn't keep, too. Another one knows only the one right before the oldest.
func (l *Log) numberOf(at Position) (number uint64, ok bool) {
	if l.birth != 0 {
		behind := l.lastAt.Stream - at.Stream
		return l.last - behind, at.Letter == 0 && at.Stream <= l.lastAt.Stream && behind < l.last
	}
	if i, found := l.search(at); found {
		return l.oldest() + uint64(i), true
	}
	return l.oldest() - 1, at == l.base
}

// oldest returns the number of the oldest message that is kept.
func (l *Log) oldest() uint64 { return l.last - uint64(l.len) + 1 }

// PositionOf returns the position of the message with that number, which is kept or right before the oldest.
func (l *Log) PositionOf(number uint64) Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	if number >= l.oldest() {
		return placeOf(l.at(int(number - l.oldest()))).At
	}
	return l.base
}

// Floor returns a position before which nothing is shown to a client that enters now.
func (l *Log) Floor() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastAt
}

// search finds the kept message at that position.
func (l *Log) search(at Position) (i int, found bool) {
	low, high := 0, l.len
	for low < high {
		mid := int(uint(low+high) >> 1)
		if placeOf(l.at(mid)).At.Before(at) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low, low < l.len && placeOf(l.at(low)).At == at
}

// After calls f for each kept message whose number is higher, the oldest first. f must not call the log.
func (l *Log) After(number uint64, f func(*frame.Message, *Place)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := 0
	if number >= l.oldest() {
		first = int(min(number-l.oldest()+1, uint64(l.len)))
	}
	for i := first; i < l.len; i++ {
		m := l.at(i)
		f(m, placeOf(m))
	}
}

// Tail returns the last n kept messages whose number is at most last, the oldest first. It leaves out those that
// are empty, and those that aren't for the connection with this tag or for the identity.
func (l *Log) Tail(n int, last, conn uint64, identity string) []*frame.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	var tail []*frame.Message
	for i := l.len - 1; i >= 0 && len(tail) < n; i-- {
		m := l.at(i)
		place := placeOf(m)
		hidden := place.Hidden.from(conn) || place.Hidden.IsFrom(identity)
		if place.Number <= last && m.Size() > 0 && !hidden {
			tail = append(tail, m)
		}
	}
	slices.Reverse(tail)
	return tail
}

// overhead is what a kept message takes besides its frames: itself, its Place, and its share of the ring.
const overhead = 160

// used returns how much memory the kept messages take.
func (l *Log) used() int64 { return l.bytes + overhead*int64(l.len) }

// count tells the store by how many bytes the log has grown.
func (l *Log) count(bytes int64) {
	if l.store != nil && !l.over && bytes != 0 {
		l.store.count(bytes)
	}
}

func (l *Log) push(m *frame.Message) {
	if l.len == len(l.ring) {
		ring := make([]*frame.Message, max(4, 2*len(l.ring)))
		for i := range l.len {
			ring[i] = l.at(i)
		}
		l.ring, l.head = ring, 0
	}
	l.len++
	l.ring[(l.head+l.len-1)&(len(l.ring)-1)] = m
	l.bytes += m.Size()
}

// drop drops the oldest message.
func (l *Log) drop() {
	m := l.at(0)
	l.base = placeOf(m).At
	l.bytes -= m.Size()
	l.ring[l.head] = nil
	l.head = (l.head + 1) & (len(l.ring) - 1)
	l.len--
}

// at returns the kept message with i older ones before it.
func (l *Log) at(i int) *frame.Message { return l.ring[(l.head+i)&(len(l.ring)-1)] }

func placeOf(m *frame.Message) *Place { return m.Tag.(*Place) }
