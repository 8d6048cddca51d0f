package resume

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
)

// BenchmarkAppend writes batches of messages of 128 bytes for a client in one room. It reports how many bytes each
// message has beside its own frame.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 8, 64} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			limits := history.Limits{Messages: 1024, Bytes: 1 << 20, Age: time.Minute}
			log := history.New(&limits, 1, 1, history.Position{Stream: uint64(time.Now().UnixMicro())})
			s := NewSession(NewKey("", [][]byte{make([]byte, 32)}), "", nil, time.Minute, &limits)
			number, at := log.End()
			buf := s.Append(nil, []*frame.Message{{Tag: &Enter{Room: 1, Name: "/chat/a", Number: number, At: at, Was: -1}}}, false)

			payload := strings.Repeat("x", 128)
			batch, own, all := make([]*frame.Message, size), 0, 0
			b.ReportAllocs()
			for range b.N {
				b.StopTimer()
				for i := range batch {
					batch[i] = frame.NewMessage(frame.Text, payload, false)
					log.Append(batch[i], history.Position{}, nil, 0)
					own += len(batch[i].Bytes(false))
				}
				b.StartTimer()
				buf = s.Append(buf[:0], batch, false)
				all += len(buf)
			}
			b.ReportMetric(float64(all-own)/float64(b.N*size), "bytes/message")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/message")
		})
	}
}
