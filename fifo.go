package wsroom

import (
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
)

// fifo is a queue of messages in a ring, whose size is a power of two. It grows on demand. Run empty,
// it keeps only a small ring of its own; the next size is lent from a pool.
type fifo struct {
	ring []*frame.Message
	head uint32
	len  uint32
}

const (
	ownRing  = 16
	lentRing = 256
)

var rings = sync.Pool{New: func() any { return new([lentRing]*frame.Message) }}

func (f *fifo) push(m *frame.Message) {
	if int(f.len) == len(f.ring) {
		f.grow()
	}
	*f.at(f.len) = m
	f.len++
}

func (f *fifo) grow() {
	var ring []*frame.Message
	switch size := len(f.ring); {
	case size < ownRing:
		ring = make([]*frame.Message, max(1, 2*size))
	case size < lentRing:
		ring = rings.Get().(*[lentRing]*frame.Message)[:]
	default:
		ring = make([]*frame.Message, 2*size)
	}
	n := copy(ring, f.ring[f.head:])
	copy(ring[n:], f.ring[:f.head])
	f.giveBack()
	f.ring, f.head = ring, 0
}

// at returns the place of the message with i older ones before it.
func (f *fifo) at(i uint32) **frame.Message { return &f.ring[int(f.head+i)&(len(f.ring)-1)] }

// pop takes the oldest message; there must be one.
func (f *fifo) pop() *frame.Message {
	m := f.first()
	*f.at(0) = nil
	f.head = (f.head + 1) & uint32(len(f.ring)-1)
	if f.len--; f.len == 0 && len(f.ring) > ownRing {
		f.clear()
	}
	return m
}

// remove takes the message with i older ones before it.
func (f *fifo) remove(i uint32) *frame.Message {
	for ; i > 0; i-- { // the older ones move up
		*f.at(i), *f.at(i - 1) = *f.at(i - 1), *f.at(i)
	}
	return f.pop()
}

// first returns the oldest message; there must be one.
func (f *fifo) first() *frame.Message { return *f.at(0) }

func (f *fifo) clear() {
	f.giveBack()
	*f = fifo{}
}

func (f *fifo) giveBack() {
	if len(f.ring) == lentRing {
		clear(f.ring)
		rings.Put((*[lentRing]*frame.Message)(f.ring))
	}
}
