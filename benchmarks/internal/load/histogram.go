package load

import (
	"math/bits"
	"time"
)

const (
	stepBits = 4 // 16 buckets for each doubling: 6 % at most
	steps    = 1 << stepBits
	buckets  = 36 * steps // microseconds and up; the last bucket is the rest
)

// A Histogram counts latencies. The zero value is ready; it isn't safe for concurrent use.
type Histogram struct {
	counts [buckets]uint32
	max    time.Duration
}

// Record adds one latency.
func (h *Histogram) Record(d time.Duration) {
	h.counts[bucketOf(d)]++
	h.max = max(h.max, d)
}

// Merge adds all that other counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.max = max(h.max, other.max)
}

// Max is the longest latency, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile is the latency that the share q of all stays at or below, rounded up to a bucket's
// upper edge but never above the longest.
func (h *Histogram) Quantile(q float64) time.Duration {
	var total uint64
	for _, n := range h.counts {
		total += uint64(n)
	}
	if total == 0 {
		return 0
	}
	rank := min(uint64(q*float64(total)), total-1)
	for i, n := range h.counts {
		if rank < uint64(n) {
			return min(upperEdge(i), h.max)
		}
		rank -= uint64(n)
	}
	return h.max
}

// bucketOf works on quarter microseconds, log-linear.
func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0)) / 250
	if n < steps {
		return int(n)
	}
	shift := bits.Len64(n) - stepBits - 1
	return min((shift+1)*steps+int(n>>shift)-steps, buckets-1)
}

func upperEdge(bucket int) time.Duration {
	if bucket < steps {
		return time.Duration(bucket+1) * 250
	}
	shift := bucket/steps - 1
	return time.Duration(uint64(bucket%steps+steps+1)<<shift) * 250
}
