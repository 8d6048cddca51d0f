package wsroom

import (
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

// maxTick is how often a hub looks for silent peers at the least.
const maxTick = time.Second

// heartbeat looks after all connections of a hub with one timer, which runs while there are any. A
// timer for each would take memory, and wake up for nothing where there is traffic.
type heartbeat struct {
	interval, timeout time.Duration
	tick              time.Duration

	mu      sync.Mutex // guards the rest
	running bool
	setAt   int64 // when the timer was set last, by frame.Now
}

func (b *heartbeat) init(cfg *config) {
	b.interval, b.timeout = cfg.heartbeat, cfg.pongTimeout
	b.tick = max(min(maxTick, b.interval/10, b.timeout/10), time.Millisecond)
}

// start lets the timer run, now that there is a connection.
func (h *Hub) startHeartbeat() {
	b := &h.heartbeat
	if b.interval == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.running {
		b.running = true
		h.setTimer()
	}
}

// setTimer has the next tick come; mu is locked.
func (h *Hub) setTimer() {
	h.heartbeat.setAt = frame.Now()
	time.AfterFunc(h.heartbeat.tick, h.checkPeers)
}

// isLate reports whether a tick that comes now is later than a busy process makes it: the process stood
// still, suspended or stopped by a debugger. What has come meanwhile hasn't been read yet.
func (b *heartbeat) isLate(now int64) bool {
	return time.Duration(now-b.setAt)-b.tick > max(b.tick, 100*time.Millisecond)
}

// checkPeers pings the silent and ends those who didn't answer, and sets the timer again unless
// nobody is left.
func (h *Hub) checkPeers() {
	b := &h.heartbeat
	now := frame.Now()
	late := b.isLate(now) // setAt was written before the timer was set
	var due []*Conn
	for i := range h.store.shards {
		sh := &h.store.shards[i]
		sh.mu.Lock()
		sh.everyone.each(func(c *Conn) {
			if c.silent(now) {
				due = append(due, c)
			}
		})
		sh.mu.Unlock()
	}
	for _, c := range due {
		c.checkPeer(now, late)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running = h.Len() > 0; b.running { // counted under mu: one that comes in now finds the timer or sets it
		h.setTimer()
	}
}

// silent reports whether nothing has been heard from the peer for the interval, less up to a tenth of it
// by the connection's ID, so that many connections don't tick together.
func (c *Conn) silent(now int64) bool {
	if !c.beating.Load() {
		return false
	}
	b := &c.hub.heartbeat
	jitter := b.interval / 10 / ('Z' - '2') * time.Duration(c.id[0]-'2')
	return time.Duration(now-c.wire.Heard()) >= b.interval-jitter-b.tick
}

// checkPeer looks after a peer that is silent, as far as is known. What was read when its ping was queued
// tells whether anything came since: the answer may be read before the ping is noted as written.
//
// While nobody reads, because a callback runs or a rate limit holds, the answer can't be seen, and the peer
// isn't judged. But one that is gone is: its system refuses the ping, and then the next can't be written.
func (c *Conn) checkPeer(now int64, late bool) {
	last, reads := c.wire.LastRead(), c.wire.WaitingSince() != 0
	due := time.Duration(now-c.askedAt) >= max(c.hub.heartbeat.timeout, leastAsking)
	switch {
	case c.readAtPing == last && c.unanswered(now) >= c.hub.heartbeat.timeout:
		if late {
			c.pingedAt.Store(c.wire.Listened(now) + 1)
		} else {
			c.end(endingHeartbeat)
		}
	case c.readAtPing != last && (reads || due):
		c.readAtPing = last
		c.pingedAt.Store(0)
		c.ping(now)
	case !reads && due:
		c.ping(now)
	}
}

// leastAsking is the least time between pings while nobody reads; see overheadRate.
const leastAsking = time.Second

func (c *Conn) ping(now int64) {
	c.askedAt = now
	c.queue.PushControl(frame.Ping, nil, true)
}

// unanswered tells how long the hub has listened, in all, for an answer to its ping. While a callback runs
// nobody listens, and the peer can't be blamed.
func (c *Conn) unanswered(now int64) time.Duration {
	pinged := c.pingedAt.Load()
	if pinged == 0 {
		return 0
	}
	return time.Duration(c.wire.Listened(now) - (pinged - 1))
}
