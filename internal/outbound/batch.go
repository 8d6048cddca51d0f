package outbound

import (
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// batchSize bounds what one write to the socket collects; batchSpace is the part of it without the
	// close frame.
	batchSize  = 32 << 10
	batchSpace = batchSize - frame.MaxControl - 2
	// batchFrames bounds the messages that the writer takes from the queue at a time.
	batchFrames = 128
)

// batch is what the writer takes and writes at once. It is either what fits into buf, or a single message
// that doesn't fit, which is never copied.
type batch struct {
	frames     [batchFrames]*frame.Message
	n          int   // number of frames
	used       int   // bytes of frames, since free
	size       int64 // bytes of control and frames
	control    []byte
	pinged     bool // control ends with one of our pings
	closeFrame string
	lost       int // messages that the close frame leaves behind
	buf        []byte
}

var batches = sync.Pool{New: func() any { return &batch{buf: make([]byte, 0, batchSize)} }}

func newBatch() *batch { return batches.Get().(*batch) }

func (b *batch) free() {
	clear(b.frames[:b.used])
	b.used, b.control, b.closeFrame = 0, nil, ""
	batches.Put(b)
}

// bytes returns the batch in the order in which it is written: control frames, messages, close frame.
func (b *batch) bytes(deflate bool) []byte {
	if b.n == 1 && len(b.control)+len(b.closeFrame) == 0 {
		return b.frames[0].Bytes(deflate)
	}

	p := append(b.buf[:0], b.control...)
	for _, m := range b.frames[:b.n] {
		p = append(p, m.Bytes(deflate)...)
	}
	return append(p, b.closeFrame...)
}

// fill takes what fits from f. The messages in f have this many bytes.
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

// written describes the batch, which had this many bytes.
func (b *batch) written(bytes int, now int64) Written {
	w := Written{Messages: b.n, Bytes: bytes, Lost: b.lost, Pinged: b.pinged, At: now}
	if b.n > 0 {
		w.Oldest = b.frames[0].Made
	}
	return w
}
