package wsroom

import (
	"math/rand/v2"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

// startHeartbeat lets the peer be pinged when it has been silent for the interval.
func (c *Conn) startHeartbeat() {
	every := c.hub.cfg.heartbeat
	if every == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.beat = time.AfterFunc(jittered(every), c.checkPeer)
	}
}

// jittered takes up to a tenth off, at random, so that many connections don't tick together.
func jittered(d time.Duration) time.Duration { return d - rand.N(d/10+1) }

// checkPeer pings a silent peer, and ends the connection of one that didn't answer.
func (c *Conn) checkPeer() {
	now, last, pinged := frame.Now(), c.wire.LastRead(), c.pingedAt.Load()
	var next time.Duration
	switch silent := time.Duration(now - last); {
	case pinged > last:
		waited := c.waitedFor(pinged, now)
		if next = c.hub.cfg.pongTimeout - waited; next <= 0 {
			c.end(ending{cause: ErrHeartbeat, label: "heartbeat", mute: true, drop: true})
			return
		}
	case silent < c.hub.cfg.heartbeat*9/10:
		next = jittered(c.hub.cfg.heartbeat) - silent
	default:
		if c.queue.pushControl(frame.Ping, nil, true) {
			c.wake()
		}
		next = c.hub.cfg.pongTimeout
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.beat.Reset(max(next, time.Millisecond))
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
