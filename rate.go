package wsroom

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// RateLimitAction says what happens to a client over WithRateLimit or WithByteRateLimit.
type RateLimitAction int

const (
	// SlowDown reads no further until the rate allows, so that TCP pushes back. It is the default.
	SlowDown RateLimitAction = iota
	// Disconnect ends the connection with ErrRateLimited and close code 1008.
	Disconnect
)

// WithRateLimit limits the messages that one client sends, by a token bucket: perSecond on average
// and burst at once. There is no limit by default. Over it the hub reads more slowly, so that TCP
// pushes back; see WithRateLimitAction. What carries nothing has a budget of its own, always: 10 pings
// and pongs a second and 20 at once, which the answers to the hub's pings never exceed. 256 empty
// fragments of messages count as one of them, fragments of 16 bytes or more on average don't count. Over
// it the connection ends with ErrRateLimited and close code 1008.
func WithRateLimit(perSecond, burst int) Option {
	return func(c *config) error {
		c.messageRate = rate{int64(perSecond), int64(burst)}
		return errors.Join(positive("WithRateLimit: messages per second", perSecond),
			positive("WithRateLimit: burst", burst))
	}
}

// WithByteRateLimit limits the bytes of the messages that one client sends, decompressed and without
// frame headers, as WithRateLimit does their number. Both may be set: a message must then fit both
// rates, and waits for the slower one. A message larger than burst passes, after a wait in
// proportion; but under Disconnect it always ends the connection, so let burst be at least the
// WithMaxMessageSize there.
func WithByteRateLimit(perSecond, burst int64) Option {
	return func(c *config) error {
		c.byteRate = rate{perSecond, burst}
		return errors.Join(positive("WithByteRateLimit: bytes per second", perSecond),
			positive("WithByteRateLimit: burst", burst))
	}
}

// WithRateLimitAction says what happens to a client over WithRateLimit or WithByteRateLimit. The
// default is SlowDown.
func WithRateLimitAction(a RateLimitAction) Option {
	return func(c *config) error {
		c.rateAction = a
		return within("WithRateLimitAction", int(a), int(Disconnect))
	}
}

// rate is what a bucket allows; the zero rate allows everything.
type rate struct{ perSecond, burst int64 }

// time returns in how much of it n tokens come in.
func (r rate) time(n int64) int64 {
	const most = 1 << 60 // 36 years: a sum of a few still fits
	return int64(min(float64(n)/float64(r.perSecond)*float64(time.Second), most))
}

// overheadRate is the budget for frames that carry nothing, with room for the answers to the hub's own
// pings, twice over.
func overheadRate(heartbeat time.Duration) rate {
	r := rate{perSecond: 10, burst: 20}
	if heartbeat > 0 {
		r.perSecond += int64(2 * time.Second / heartbeat)
	}
	return r
}

// limitsRate reports whether there is a limit at all.
func (c *config) limitsRate() bool { return c.messageRate.perSecond > 0 || c.byteRate.perSecond > 0 }

// bucket is a token bucket, kept as the time at which it will be full again (the generic cell rate
// algorithm, ITU-T I.371).
type bucket struct{ full int64 }

// take takes n tokens, which may be more than a burst, and returns how long to wait until they are
// there.
func (b *bucket) take(n int64, r rate, now int64) time.Duration {
	if r.perSecond == 0 {
		return 0
	}
	b.full = max(b.full, now) + r.time(n)
	return time.Duration(b.full - now - r.time(r.burst))
}

// inbound is what only some connections need for what comes in. It belongs to their readers.
type inbound struct {
	messages, bytes bucket                  // of the rate limits
	pending         atomic.Pointer[pending] // what a Read has left to the next; nil if there is nothing
}

// limitRate applies the rate limits to a message of size bytes that was read. Under SlowDown it waits
// its turn, in which the peer isn't read.
func (c *Conn) limitRate(size int) error {
	in := c.inbound.Load()
	if in == nil {
		return nil
	}
	cfg, now := c.hub.cfg, frame.Now()
	wait := max(in.messages.take(1, cfg.messageRate, now), in.bytes.take(int64(size), cfg.byteRate, now))
	if wait <= 0 {
		return nil
	}
	if cfg.rateAction == Disconnect {
		c.end(rid("rate", ErrRateLimited, websocket.StatusPolicyViolation, "rate limit exceeded"))
		return c.cause()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.Context().Done():
		return c.cause()
	}
}
