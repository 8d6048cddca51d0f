package line

import (
	mathrand "math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/resume"
)

// maxTick is the longest time between two searches for silent peers.
const maxTick = time.Second

// ever is the longest time that the heartbeat knows. It can be added to what frame.Now returns.
const ever = 100 * 365 * 24 * time.Hour

// maxBuckets bounds the wheel. With a longer interval, lines are visited more often than they need.
const maxBuckets = 1024

// Heartbeat checks many lines with one timer. The timer runs while there are lines. A timer for each line
// would take memory, and would fire for nothing where there is traffic.
//
// A line is visited when its peer may have been silent for long enough, and not before. If it hasn't been silent,
// the next visit is when it may have been by then. So traffic costs nothing here, and a tick costs as much as lines
// are due.
type Heartbeat struct {
	interval, timeout time.Duration
	tick              time.Duration // between two visits

	mu      sync.Mutex // guards the fields below
	wheel   wheel
	begun   int64 // when tick 0 was, by frame.Now
	running bool
	firesAt int64 // when the timer is to fire; beat reads it without mu
}

// Init prepares a heartbeat, which does nothing if the interval is 0.
func (b *Heartbeat) Init(interval, timeout time.Duration) {
	if interval == 0 {
		return
	}
	b.interval, b.timeout = min(interval, ever), min(timeout, ever)
	b.tick = max(min(maxTick, b.interval/10, b.timeout/10), time.Millisecond)
	b.wheel.buckets = make([][]uint32, min(max(b.interval, b.timeout)/b.tick+2, maxBuckets))
}

// Add has the heartbeat look after a line, until [Heartbeat.Remove]. The line is attached.
func (b *Heartbeat) Add(l *Line) {
	if b.interval == 0 {
		return
	}
	now := frame.Now()
	due := l.due(b, now)

	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.running { // then there are no lines
		b.running, b.begun, b.wheel.visited = true, now, 0
		b.setTimer(now)
	}
	b.wheel.add(l)
	b.wheel.schedule(l, b.tickOf(due))
}

// Remove makes the heartbeat forget a line, if it has it.
func (b *Heartbeat) Remove(l *Line) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wheel.remove(l)
}

// tickOf returns the first tick that isn't before that time.
func (b *Heartbeat) tickOf(at int64) int64 {
	return (at - b.begun + int64(b.tick) - 1) / int64(b.tick)
}

// setTimer sets the timer for the next tick. mu is locked.
func (b *Heartbeat) setTimer(now int64) {
	wait := b.tick - time.Duration(now-b.begun)%b.tick
	b.firesAt = now + int64(wait)
	time.AfterFunc(wait, b.beat)
}

// beat visits the lines that are due. It sets the timer again unless no line is left.
func (b *Heartbeat) beat() {
	now := frame.Now()
	late := b.isLate(now) // without mu: firesAt is written before the timer is set
	for b.visit(now, late) {
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.running = b.wheel.lines > 0; b.running { // under mu: a new line finds the timer or sets it
		b.setTimer(frame.Now())
	} else {
		clear(b.wheel.buckets)
	}
}

// batch is how many lines are visited before other goroutines may run.
const batch = 128

// visit visits the lines of the next tick. It reports whether there may be more.
func (b *Heartbeat) visit(now int64, late bool) (more bool) {
	b.mu.Lock()
	bucket, more := b.wheel.advance((now - b.begun) / int64(b.tick))
	b.mu.Unlock()

	var lines []*Line
	for part := range slices.Chunk(bucket, batch) {
		b.mu.Lock()
		lines = b.wheel.due(lines[:0], part)
		b.mu.Unlock()
		b.visitAll(lines, now, late)
		runtime.Gosched() // a million pings shouldn't hold up messages
	}
	return more
}

// visitAll visits lines and schedules their next visits.
func (b *Heartbeat) visitAll(lines []*Line, now int64, late bool) {
	var next [batch]int64
	for i, l := range lines {
		next[i] = l.visit(b, now, late)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for i, l := range lines {
		if next[i] > 0 {
			b.wheel.schedule(l, b.tickOf(next[i]))
		}
	}
}

// isLate reports whether a tick at now is later than a busy process makes it. Then the process stood still:
// it was suspended, or a debugger stopped it. Data that came meanwhile hasn't been read yet.
func (b *Heartbeat) isLate(now int64) bool {
	return time.Duration(now-b.firesAt) > max(b.tick, 100*time.Millisecond)
}

// visit pings a peer that appears to be silent, or ends its line. To a peer that was promised it, it sends a beat if
// nothing else was sent. It returns when the line is to be visited next, by frame.Now. 0 stands for never: the line
// is ending.
func (l *Line) visit(b *Heartbeat, now int64, late bool) (next int64) {
	if l.IsEnding() {
		return 0
	}
	if l.isMute(b, now) {
		l.PushBeat(resume.Beat)
	}
	if l.isSilent(b, now) {
		l.check(b, now, late)
	}
	return l.due(b, now)
}

// isSilent reports whether nothing has come from the peer for the interval. A tenth may be missing, because
// lines that begin together aren't visited together; and a tick, so that the interval isn't exceeded.
func (l *Line) isSilent(b *Heartbeat, now int64) bool {
	return time.Duration(now-l.Wire().Heard()) >= b.interval-b.interval/10-b.tick
}

// isMute reports whether the peer, which was promised that something comes in each interval, is to be sent a
// beat. A ping doesn't count, because browsers don't show it to a page.
func (l *Line) isMute(b *Heartbeat, now int64) bool {
	at, told := l.SpokeAt()
	return told && time.Duration(now-at) >= b.interval-2*b.tick
}

// due returns when there may be something to do for the line that isn't to be done now. Reads and writes until then
// only make it later.
func (l *Line) due(b *Heartbeat, now int64) int64 {
	due := l.silentAt(b, now)
	if at, told := l.SpokeAt(); told {
		if l.isMute(b, now) {
			at = now // a beat waits to be written
		}
		due = min(due, at+int64(b.interval-2*b.tick))
	}
	return due
}

// silentAt is due for pings and their answers. A line that isn't silent yet is visited up to a tenth of the interval
// before it must be, by chance, so that many lines aren't pinged together.
func (l *Line) silentAt(b *Heartbeat, now int64) int64 {
	wire := l.Wire()
	if !l.isSilent(b, now) {
		return wire.Heard() + int64(b.interval-b.tick) - mathrand.Int64N(int64(b.interval/10)+1)
	}
	due := now + int64(b.timeout-l.unanswered(now))
	if wire.WaitingSince() == 0 {
		due = min(due, l.askedAt+int64(max(b.timeout, leastAsking)))
	}
	return due
}

// leastAsking is the shortest time between two pings while nobody reads. See EmptyFrameRate.
const leastAsking = time.Second

// check pings a peer that appears to be silent, or ends its line. It compares LastRead with its value when the
// ping was queued, to learn whether anything has come since: the answer may be read before the ping is noted as
// written. At a late tick (see isLate) it doesn't end the line, but waits for the timeout once more.
//
// While nobody reads, because a callback runs or a rate limit holds, the heartbeat can't see an answer, and the
// time doesn't count against the peer. It still sends pings. They find a peer that is gone: its system refuses
// a ping, and then the next one can't be written.
func (l *Line) check(b *Heartbeat, now int64, late bool) {
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
