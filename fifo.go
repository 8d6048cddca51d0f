package wsroom

import "github.com/wsroom/wsroom/internal/frame"

// fifo is a queue of messages. It grows on demand and gives its memory back when it has run empty.
type fifo struct {
	items []*frame.Message
	head  int
	len   int
}

// keepItems is the capacity that an empty fifo keeps.
const keepItems = 16

func (f *fifo) push(m *frame.Message) {
	if f.head > 0 && len(f.items) == cap(f.items) {
		f.compact()
	}
	f.items = append(f.items, m)
	f.len++
}

func (f *fifo) compact() {
	n := copy(f.items, f.items[f.head:])
	clear(f.items[n:])
	f.items, f.head = f.items[:n], 0
}

func (f *fifo) pop() *frame.Message {
	m := f.items[f.head]
	f.items[f.head] = nil
	f.head++
	f.len--
	if f.len == 0 {
		f.head = 0
		if f.items = f.items[:0]; cap(f.items) > keepItems {
			f.items = nil
		}
	}
	return m
}
