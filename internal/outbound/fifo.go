package outbound

import (
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
)

// fifo is a queue of messages. A single message, which is all that most connections ever have waiting, is
// kept in one. Several are kept in a ring, whose size is a power of two and which is borrowed while it is
// needed. So a queue that fills and empties all the time allocates nothing.
//
// The message with i older ones before it has the number head+i. That doesn't change until it is removed.
type fifo struct {
	one  *frame.Message   // the only message if there is no ring
	ring []*frame.Message // places without a message are nil
	head uint32
	len  uint32
}

// lentRing is the size of the rings that are borrowed. Larger ones are allocated when they are needed.
const lentRing = 256

var rings = sync.Pool{New: func() any { return new([lentRing]*frame.Message) }}

func (f *fifo) push(m *frame.Message) {
	if f.len == 0 {
		f.one = m
		f.len = 1
		return
	}
	if int(f.len) >= len(f.ring) {
		f.grow()
	}
	f.len++
	*f.at(f.len - 1) = m
}

// pushFirst puts m before all others.
func (f *fifo) pushFirst(m *frame.Message) {
	if f.len == 0 {
		f.push(m)
		return
	}
	if int(f.len) >= len(f.ring) {
		f.grow()
	}
	f.head--
	f.len++
	*f.at(0) = m
}

// grow moves the messages to a ring, or to a ring of twice the size.
func (f *fifo) grow() {
	if f.ring == nil {
		f.ring = rings.Get().(*[lentRing]*frame.Message)[:]
		*f.at(0), f.one = f.one, nil
		return
	}
	grown := fifo{ring: make([]*frame.Message, 2*len(f.ring)), head: f.head, len: f.len}
	for i := range f.len {
		*grown.at(i) = *f.at(i)
	}
	clear(f.ring)
	f.giveBack()
	f.ring = grown.ring
}

// at returns the place of the message with i older messages before it.
func (f *fifo) at(i uint32) **frame.Message {
	if f.ring == nil {
		return &f.one
	}
	return &f.ring[int(f.head+i)&(len(f.ring)-1)]
}

// end returns the number of the next message that is pushed.
func (f *fifo) end() uint32 { return f.head + f.len }

// first returns the oldest message. There must be one.
func (f *fifo) first() *frame.Message { return *f.at(0) }

// pop removes and returns the oldest message. There must be one.
func (f *fifo) pop() *frame.Message {
	oldest := f.at(0)
	m := *oldest
	*oldest = nil
	f.head++
	if f.len--; f.len == 0 {
		f.giveBack()
	}
	return m
}

func (f *fifo) clear() {
	clear(f.ring)
	f.one, f.len = nil, 0
	f.giveBack()
}

// giveBack returns the ring, which holds no message any more.
func (f *fifo) giveBack() {
	if len(f.ring) == lentRing {
		rings.Put((*[lentRing]*frame.Message)(f.ring))
	}
	f.ring = nil
}
