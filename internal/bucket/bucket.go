// Package bucket limits a rate by a token bucket. It knows neither what is counted nor what happens beyond the rate.
package bucket

import "time"

// Rate is what a bucket allows. The zero Rate allows everything.
type Rate struct {
	PerSecond int64 // tokens on average
	Burst     int64 // tokens at once
}

// Limits reports whether there is a limit at all.
func (r Rate) Limits() bool { return r.PerSecond > 0 }

// nanoseconds returns how long it takes until n tokens have come in.
func (r Rate) nanoseconds(n int64) int64 {
	const most = 1 << 60 // 36 years: a sum of a few still fits
	return int64(min(float64(n)/float64(r.PerSecond)*float64(time.Second), most))
}

// Bucket is a token bucket, kept as the time at which it will be full again (the generic cell rate
// algorithm, ITU-T I.371). The zero Bucket is full. It isn't safe for concurrent use.
type Bucket struct{ full int64 }

// Take takes n tokens, which may be more than a burst, and returns how long to wait until they are there;
// zero or less: they are there already. now is in nanoseconds, of any clock that doesn't go backwards.
func (b *Bucket) Take(n int64, r Rate, now int64) time.Duration {
	if !r.Limits() {
		return 0
	}
	b.full = max(b.full, now) + r.nanoseconds(n)
	return time.Duration(b.full - now - r.nanoseconds(r.Burst))
}
