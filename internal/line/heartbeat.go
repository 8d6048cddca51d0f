package line

import (
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/resume"
)

// maxTick is the longest time between two searches for silent peers.
const maxTick = time.Second

// Heartbeat checks many lines with one timer. The timer runs while there are lines. A timer for each line
// would take memory, and would fire for nothing where there is traffic.
type Heartbeat struct {
	interval, timeout time.Duration
	tick              time.Duration              // between two calls of check
	check             func(now int64, late bool) // calls IsSilent and Check for the lines
	hasLines          func() bool

	mu      sync.Mutex // guards the fields below
	running bool
	setAt   int64 // when the timer was last set, by frame.Now; the tick that it starts reads it without mu
}

// Init prepares a heartbeat, which does nothing if the interval is 0. While hasLines reports true, check is
// called at each tick, with no lock held. It calls [Line.Check] for each line of which [Line.IsSilent] reports true.
func (b *Heartbeat) Init(interval, timeout time.Duration, check func(now int64, late bool), hasLines func() bool) {
	b.interval, b.timeout, b.check, b.hasLines = interval, timeout, check, hasLines
	b.tick = max(min(maxTick, b.interval/10, b.timeout/10), time.Millisecond)
}

// Start starts the timer if it isn't running, because now there is a line.
func (b *Heartbeat) Start() {
	if b.interval == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.running {
		b.running = true
		b.setTimer()
	}
}

// setTimer sets the timer for the next tick. mu is locked.
func (b *Heartbeat) setTimer() {
	b.setAt = frame.Now()
	time.AfterFunc(b.tick, b.beat)
}

// beat has the lines checked. It sets the timer again unless no line is left.
func (b *Heartbeat) beat() {
	now := frame.Now()
	b.check(now, b.isLate(now)) // without mu: setAt is written before the timer is set

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running = b.hasLines(); b.running { // under mu: a new line finds the timer or sets it
		b.setTimer()
	}
}

// isLate reports whether a tick at now is later than a busy process makes it. Then the process stood still:
// it was suspended, or a debugger stopped it. Data that came meanwhile hasn't been read yet.
func (b *Heartbeat) isLate(now int64) bool {
	return time.Duration(now-b.setAt)-b.tick > max(b.tick, 100*time.Millisecond)
}

// maxJitter is the greatest jitter. It shortens the interval by a tenth.
const maxJitter = 256

// StartHeartbeat lets [Line.IsSilent] report true from now on. The line is attached.
func (l *Line) StartHeartbeat() { l.jitter.Store(1 + mathrand.Uint32N(maxJitter)) }

// IsSilent reports whether nothing has come from the peer for the interval. The interval is shortened by up
// to a tenth, by chance, so that many lines aren't pinged together.
func (l *Line) IsSilent(b *Heartbeat, now int64) bool {
	jitter := time.Duration(l.jitter.Load())
	if jitter == 0 {
		return false
	}
	return time.Duration(now-l.Wire().Heard()) >= b.interval-b.interval/10/maxJitter*jitter-b.tick
}

// IsMute reports whether the peer, which was promised that something comes in each interval, is to be sent a
// beat. A ping doesn't count, because browsers don't show it to a page.
func (l *Line) IsMute(b *Heartbeat, now int64) bool {
	at, told := l.SpokeAt()
	return told && l.jitter.Load() != 0 && time.Duration(now-at) >= b.interval-2*b.tick
}

// Beat sends a peer something when nothing else is sent.
func (l *Line) Beat() {
	l.PushBeat(resume.Beat)
}

// leastAsking is the shortest time between two pings while nobody reads. See EmptyFrameRate.
const leastAsking = time.Second

// Check pings a peer that appears to be silent, or ends its line. It compares LastRead with its value when the
// ping was queued, to learn whether anything has come since: the answer may be read before the ping is noted as
// written. At a late tick (see isLate) it doesn't end the line, but waits for the timeout once more.
//
// While nobody reads, because a callback runs or a rate limit holds, the heartbeat can't see an answer, and the
// time doesn't count against the peer. It still sends pings. They find a peer that is gone: its system refuses
// a ping, and then the next one can't be written.
func (l *Line) Check(b *Heartbeat, now int64, late bool) {
	wire := l.Wire()
	last, reads := wire.LastRead(), wire.WaitingSince() != 0
	due := time.Duration(now-l.askedAt) >= max(b.timeout, leastAsking)

	switch {
	case l.readAtPing == last && l.unanswered(now) >= b.timeout:
		if late {
			l.pingedAt.Store(wire.Listened(now) + 1)
		} else {
			l.end(silenced)
		}
	case l.readAtPing != last && (reads || due):
		l.readAtPing = last
		l.pingedAt.Store(0)
		l.ping(now)
	case !reads && due:
		l.ping(now)
	}
}

// ping queues a ping (RFC 6455, section 5.5.2).
func (l *Line) ping(now int64) {
	l.askedAt = now
	l.PushControl(frame.Ping, nil, true)
}

// Wrote takes what the queue reports to the owner. The heartbeat waits for an answer to the first ping that
// was written since it last knew the peer to be alive.
func (l *Line) Wrote(w outbound.Written) {
	if w.Pinged {
		l.pingedAt.CompareAndSwap(0, l.Wire().Listened(w.At)+1)
	}
}

// unanswered returns how long, in all, the line has waited for data since its ping was written. The time in
// which a callback runs doesn't count: nobody reads then, and the peer isn't at fault.
func (l *Line) unanswered(now int64) time.Duration {
	pinged := l.pingedAt.Load()
	if pinged == 0 {
		return 0
	}
	return time.Duration(l.Wire().Listened(now) - (pinged - 1))
}

// EmptyFrameRate returns the budget for pings, pongs and tiny fragments of a peer that gets a ping at each
// interval, or none if that is 0. On top of the fixed part it allows two frames for each ping, so that the
// answers never exceed it.
func EmptyFrameRate(interval time.Duration) bucket.Rate {
	r := bucket.Rate{PerSecond: 10, Burst: 20}
	if interval > 0 {
		r.PerSecond += int64(2 * time.Second / interval)
	}
	return r
}
