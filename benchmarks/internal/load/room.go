package load

import (
	"context"
	"errors"
	"strconv"
	"time"
)

// stuckAfter is how long a sender waits while no member gets anything.
const stuckAfter = 3 * time.Second

// ErrStuck says that a room stopped delivering to members that read.
var ErrStuck = errors.New("load: the room stands still")

// A Room is one room of a fleet. Its first members send, in turn.
type Room struct {
	id      int
	name    string
	fleet   *Fleet
	members []*Member
	senders int
	order   order // the poller's

	seq     uint64 // of the last message sent
	message []byte
	text    []byte
	wire    []byte
	wake    chan struct{}
}

func newRoom(f *Fleet, id int) *Room {
	senders := max(f.plan.Senders, 1)
	return &Room{
		id: id, name: "r" + strconv.Itoa(id), fleet: f, senders: senders, order: order{}, wake: make(chan struct{}, 1),
		// The first message has this number plus 1, so that each sender counts from 1. See Member.checkers.
		seq: uint64(senders) - 1, message: newTemplate(f.plan.Size, f.plan.Prose),
	}
}

// notify wakes the sender; it looks again by itself, so one token is enough.
func (r *Room) notify() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// send sends the next message, through the member whose turn it is.
func (r *Room) send() error {
	r.seq++
	writeStamp(r.message, stamp{r.id, r.seq, r.fleet.clock.Now()})
	r.text = r.fleet.dialect.Wrap(r.text[:0], r.name, r.message)
	r.wire = appendFrame(r.wire[:0], opText, clientMask, r.text)
	return r.members[r.seq%uint64(r.senders)].write(r.wire)
}

// await waits until all members that read have message seq.
func (r *Room) await(ctx context.Context, seq uint64, p *patience) error {
	for _, m := range r.members {
		if err := r.awaitMember(ctx, m, seq, p); err != nil {
			return err
		}
	}
	return nil
}

func (r *Room) awaitMember(ctx context.Context, m *Member, seq uint64, p *patience) error {
	for !m.has(seq) {
		m.want.Store(seq)
		if m.has(seq) { // it came before the member saw that it was wanted
			m.want.Store(0)
			return nil
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return ctx.Err()
		case now := <-p.tick.C:
			if p.over(r.fleet.delivered(), now) {
				return ErrStuck
			}
		}
	}
	return nil
}

// A patience ends when nothing at all was delivered for stuckAfter.
type patience struct {
	tick      *time.Ticker
	delivered uint64
	since     time.Time
}

func newPatience() *patience { return &patience{tick: time.NewTicker(time.Second)} }

func (p *patience) over(delivered uint64, now time.Time) bool {
	if delivered != p.delivered || p.since.IsZero() {
		p.delivered, p.since = delivered, now
	}
	return now.Sub(p.since) > stuckAfter
}

// has says whether nothing up to seq is to be waited for any more.
func (m *Member) has(seq uint64) bool {
	return m.stalled || m.last.Load() >= seq || m.gone.Load()
}

// joined says whether every member has got a message of each sender.
func (r *Room) joined() bool {
	for _, m := range r.members {
		if m.last.Load() == 0 {
			return false
		}
	}
	return true
}

// caughtUp says whether all who heard all senders got the last message, and somebody did, once something
// was sent: a server's first member that sends hears all the others.
func (r *Room) caughtUp() bool {
	heard := r.seq < uint64(r.senders)
	for _, m := range r.members {
		switch last := m.last.Load(); {
		case m.stalled:
		case last >= r.seq:
			heard = true
		case last > 0:
			return false
		}
	}
	return heard
}
