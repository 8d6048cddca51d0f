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

	mu      sync.Mutex // guards running
	running bool
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
		time.AfterFunc(b.tick, h.checkPeers)
	}
}

// checkPeers pings the silent and ends those who didn't answer, and sets the timer again unless
// nobody is left.
func (h *Hub) checkPeers() {
	b := &h.heartbeat
	now := frame.Now()
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
		c.checkPeer(now)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running = h.Len() > 0; b.running { // counted under mu: one that comes in now finds the timer or sets it
		time.AfterFunc(b.tick, h.checkPeers)
	}
}

// silent reports whether nothing has come from the peer for the interval, less up to a tenth of it by
// the connection's ID, so that many connections don't tick together.
func (c *Conn) silent(now int64) bool {
	if !c.beating.Load() {
		return false
	}
	b := &c.hub.heartbeat
	jitter := b.interval / 10 * time.Duration(c.id[0]-'2') / ('Z' - '2')
	return time.Duration(now-c.wire.LastRead()) >= b.interval-jitter-b.tick
}

// checkPeer pings a silent peer, and ends the connection of one that didn't answer. What was read when
// the ping was queued tells whether anything came since: the answer may be read before the ping is
// noted as written.
func (c *Conn) checkPeer(now int64) {
	last, pinged := c.wire.LastRead(), c.pingedAt.Load()
	switch {
	case c.readAtPing != last:
		c.readAtPing = last
		c.pingedAt.Store(0)
		if c.queue.pushControl(frame.Ping, nil, true) {
			c.wake()
		}
	case pinged != 0 && c.waitedFor(pinged, now) >= c.hub.heartbeat.timeout:
		c.end(ending{cause: ErrHeartbeat, label: "heartbeat", mute: true, drop: true})
	}
}

// waitedFor tells how long the hub has been reading, without a break, for an answer to its ping.
// While a callback runs nobody reads, and the peer can't be blamed.
func (c *Conn) waitedFor(pinged, now int64) time.Duration {
	since := c.wire.WaitingSince()
	if since == 0 {
		return 0
	}
	return time.Duration(now - max(pinged, since))
}
