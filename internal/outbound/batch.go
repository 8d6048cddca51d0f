package outbound

import (
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// batchSize bounds what one write to the socket collects; batchSpace is the part of it without the
	// ping of a receipt and the close frame.
	batchSize  = 32 << 10
	batchSpace = batchSize - frame.MaxControl - 2 - receiptSpace
	// batchFrames bounds the messages that the writer takes from the queue at a time.
	batchFrames = 128
	// announceSize is room for what may stand before a message, for a client that is told of positions.
	announceSize = 48
)

// batch is what the writer takes and writes at once. It is either what fits into buf, or a single message
// that doesn't fit, which is never copied.
type batch struct {
	frames     [batchFrames]*frame.Message
	n          int    // number of frames
	messages   int    // those of the application among them
	resent     bool   // some of them are older than the connection
	head       []byte // what stands before a single message that doesn't fit
	used       int    // bytes of frames, since free
	size       int64  // bytes of control and frames
	control    []byte
	pinged     bool   // control ends with one of our pings
	ping       string // of a receipt
	closeFrame string
	lost       int // messages that the close frame leaves behind
	buf        []byte
}

var batches = sync.Pool{New: func() any { return &batch{buf: make([]byte, 0, batchSize)} }}

func newBatch() *batch { return batches.Get().(*batch) }

func (b *batch) free() {
	clear(b.frames[:b.used])
	b.used, b.control, b.ping, b.closeFrame, b.head = 0, nil, "", "", nil
	batches.Put(b)
}

// bytes returns the batch in the order in which it is written: control frames, messages, ping, close frame.
// What must stand before a single message that doesn't fit is in head.
func (b *batch) bytes(q *Queue) []byte {
	b.head = nil
	single := b.n == 1 && len(b.control)+len(b.ping)+len(b.closeFrame) == 0
	switch t := q.told; {
	case single && t == nil:
		return b.frames[0].Bytes(q.Deflate)
	case single && b.size > batchSpace:
		b.head = t.session.Announce(nil, b.frames[0])
		return b.frames[0].Bytes(q.Deflate)
	case t != nil:
		p := append(b.buf[:0], b.control...)
		p = t.session.Append(p, b.frames[:b.n], q.Deflate)
		return append(append(p, b.ping...), b.closeFrame...)
	}

	p := append(b.buf[:0], b.control...)
	for _, m := range b.frames[:b.n] {
		p = append(p, m.Bytes(q.Deflate)...)
	}
	return append(append(p, b.ping...), b.closeFrame...)
}

// fill takes what fits into space from f, one of q's.
func (b *batch) fill(f *fifo, q *Queue, space int64) {
	for b.n < batchFrames && f.len > 0 {
		next := int64(len(f.first().Bytes(q.Deflate)))
		size := next
		if q.told != nil {
			size += announceSize
		}
		if b.size > 0 && b.size+size > space {
			return
		}

		m := f.pop()
		if q.rare != nil && f == &q.ready {
			q.popped(m)
		}
		b.frames[b.n] = m
		b.n++
		b.size += size
		if q.told == nil || !isControl(m) {
			b.messages++
		}
		if f == &q.ready {
			b.resent = q.count(m, -1) || b.resent
		} else {
			q.snapshot.popped(m, next, q.told)
		}
	}
}

// written describes the batch, which had this many bytes.
func (b *batch) written(bytes int, now int64) Written {
	w := Written{Messages: b.messages, Bytes: bytes, Lost: b.lost, Pinged: b.pinged, At: now}
	if b.messages > 0 && !b.resent {
		w.Oldest = b.frames[0].Made
	}
	return w
}
