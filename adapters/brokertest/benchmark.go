package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// BenchmarkPublish measures Publish of 128 bytes to a topic with one subscriber: first with one publisher,
// then with 16 concurrent publishers, each on a topic of its own. It reports the median as p50-µs.
func BenchmarkPublish(b *testing.B, broker wsroom.Broker) {
	for _, publishers := range []int{1, 16} {
		b.Run(fmt.Sprint(publishers, " at once"), func(b *testing.B) { benchmarkPublish(b, broker, publishers) })
	}
}

func benchmarkPublish(b *testing.B, broker wsroom.Broker, publishers int) {
	var heard, next atomic.Int64
	prefix := newTopic()
	for p := range publishers {
		stop, err := broker.Subscribe(b.Context(), fmt.Sprint(prefix, p), func([]byte) { heard.Add(1) }, func(error) {})
		if err != nil {
			b.Fatal(err)
		}
		defer stop()
	}
	data, took := make([]byte, 128), make([]time.Duration, b.N)
	b.ResetTimer()
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
				began := time.Now()
				if err := broker.Publish(b.Context(), fmt.Sprint(prefix, p), data); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	publishing.Wait()
	until(b, "all arrive", func() bool { return heard.Load() == int64(b.N) || b.Failed() })
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1000, "p50-µs")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
