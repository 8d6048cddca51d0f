package outbound

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/resume"
)

// Whatever is pushed, taken and dropped: a newest value replaces the last one of its key that waits, if one
// does.
func TestNewestValuesAgainstAModel(t *testing.T) {
	type entry struct{ key, text string }
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		var q Queue
		q.Init(&Limits{Messages: 300, Bytes: 1 << 20, Policy: DropOldest}, nobody{}, false)
		var model []entry
		b := newBatch()
		for i := range 3000 {
			switch key, text := fmt.Sprint(r.IntN(1+r.IntN(200))), fmt.Sprintf("%08d", i); {
			case r.IntN(200) == 0 && len(model) > 0: // the writer takes some
				b.buf = b.buf[:0]
				q.take(b, true)
				for k, m := range b.frames[:b.n] {
					if got := string(m.Bytes(false)[2:]); got != model[k].text {
						t.Fatalf("seed %d, step %d: %q was taken, want %q", seed, i, got, model[k].text)
					}
				}
				model = model[b.n:]
			case r.IntN(100) == 0:
				q.mu.Lock()
				q.filter(func(*frame.Message) bool { return true })
				q.mu.Unlock()
			case r.IntN(4) == 0:
				q.Push(frame.NewMessage(frame.Text, text, false))
				model = append(model, entry{"", text})
			default:
				m := frame.NewMessage(frame.Text, text, false)
				m.Tag = &resume.Latest{Room: 1, Key: key}
				p, at := q.PushLatest(m), -1
				for k := range model {
					if model[k].key == key {
						at = k
					}
				}
				if p.Replaced != (at >= 0) {
					t.Fatalf("seed %d, step %d: replaced: %t, want %t", seed, i, p.Replaced, at >= 0)
				}
				if at >= 0 {
					model[at].text = text
				} else {
					model = append(model, entry{key, text})
				}
			}
			if len(model) > 300 {
				model = model[1:]
			}
			if n, bytes := q.Waiting(); n != len(model) || bytes != int64(10*n) {
				t.Fatalf("seed %d, step %d: %d messages and %d bytes wait, want %d", seed, i, n, bytes, len(model))
			}
		}
		b.free()
	}
}

// Values that were waiting when the queue was held are in the snapshot, and aren't replaced there.
func TestHeldValuesAreNotReplaced(t *testing.T) {
	var q Queue
	q.Init(&Limits{Messages: 300, Bytes: 1 << 20}, nobody{}, false)
	value := func(text string) Pushed {
		m := frame.NewMessage(frame.Text, text, false)
		m.Tag = &resume.Latest{Room: 1, Key: "k"}
		return q.PushLatest(m)
	}
	for i := range 20 { // so that numbers are kept
		q.Push(frame.NewMessage(frame.Text, fmt.Sprint(i), false))
	}
	value("1")
	q.Hold(1)
	if p := value("2"); p.Replaced {
		t.Error("what is in the snapshot was replaced")
	}
	if p := value("3"); !p.Replaced {
		t.Error("what is held back isn't replaced")
	}
	if n, _ := q.Waiting(); n != 22 {
		t.Errorf("%d messages wait", n)
	}
}
