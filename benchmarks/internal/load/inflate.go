package load

import (
	"bytes"
	"compress/flate"
	"hash/maphash"
	"io"
	"strings"
	"sync"
	"sync/atomic"
)

// deflateTail ends what RFC 7692 section 7.2.2 strips, and then the whole stream.
const deflateTail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

// An inflater decompresses messages sent without context takeover. Members of a room get the same
// bytes, so it remembers recent ones: the load would else spend its time inflating one message for
// each member. A memory is used only for exactly the same bytes.
type inflater struct {
	seed    maphash.Seed
	recent  [4096]atomic.Pointer[inflated]
	readers sync.Pool
}

type inflated struct{ packed, text []byte }

func newInflater() *inflater { return &inflater{seed: maphash.MakeSeed()} }

func (i *inflater) text(packed []byte) ([]byte, error) {
	slot := &i.recent[maphash.Bytes(i.seed, packed)%uint64(len(i.recent))]
	if known := slot.Load(); known != nil && bytes.Equal(known.packed, packed) {
		return known.text, nil
	}
	text, err := i.inflate(packed)
	if err != nil {
		return nil, err
	}
	slot.Store(&inflated{bytes.Clone(packed), text})
	return text, nil
}

func (i *inflater) inflate(packed []byte) ([]byte, error) {
	source := io.MultiReader(bytes.NewReader(packed), strings.NewReader(deflateTail))
	reader, ok := i.readers.Get().(io.ReadCloser)
	if !ok {
		reader = flate.NewReader(source)
	} else if err := reader.(flate.Resetter).Reset(source, nil); err != nil {
		return nil, err
	}
	defer i.readers.Put(reader)
	return io.ReadAll(io.LimitReader(reader, maxPayload))
}
