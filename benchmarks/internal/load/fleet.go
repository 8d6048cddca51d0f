package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const dialers = 32

// A Plan says which connections a fleet has and what it sends.
type Plan struct {
	Rooms   int
	Members int  // of each room, the senders included
	Senders int  // of each room's members, 0 for 1
	Stalled int  // of the first room's members, those that don't read
	Size    int  // of a message, in bytes
	Prose   bool // fill messages with what compresses like real text
	Deflate bool // negotiate permessage-deflate
	Dialers int  // how many connect at the same time, 0 for 32

	Trusted []*x509.Certificate // connect over TLS, to servers with these certificates; nil: without TLS
}

// A Fleet is all connections to one server, or to several that share their rooms.
type Fleet struct {
	plan     Plan
	dialect  Dialect
	addrs    []string
	clock    Clock
	inflater *inflater
	tls      *tls.Config // nil: without TLS
	rooms    []*Room
	members  []*Member
	reading  sync.WaitGroup
	closing  atomic.Bool

	from, to atomic.Int64 // the measured interval, by clock
	cycles   atomic.Uint64
	joining  Histogram
}

// Connect makes all connections of plan, to the servers at addrs in turn within each room. As its first
// members are the senders, these are spread over the servers, too.
func Connect(ctx context.Context, addrs []string, dialect Dialect, plan Plan) (*Fleet, error) {
	f := &Fleet{plan: plan, dialect: dialect, addrs: addrs, clock: NewClock(), inflater: newInflater(), tls: pinned(plan.Trusted)}
	f.from.Store(math.MaxInt64)
	f.to.Store(math.MaxInt64)
	for id := range plan.Rooms {
		r := newRoom(f, id)
		f.rooms = append(f.rooms, r)
		for i := range plan.Members {
			m := newMember(r, i)
			m.stalled = id == 0 && i > 0 && i <= plan.Stalled
			r.members = append(r.members, m)
			f.members = append(f.members, m)
		}
	}
	if err := f.dialAll(ctx); err != nil {
		f.Close()
		return nil, err
	}
	p, err := newPoller(f.members)
	if err != nil {
		f.Close()
		return nil, err
	}
	f.reading.Go(func() { p.run(f.closing.Load) })
	return f, nil
}

func (f *Fleet) dialAll(ctx context.Context) error {
	var next atomic.Int64
	var dialing sync.WaitGroup
	errs := make([]error, cmp.Or(f.plan.Dialers, dialers))
	began, in := time.Now(), make([]time.Duration, len(f.members))
	for w := range errs {
		dialing.Go(func() {
			for errs[w] == nil {
				i := int(next.Add(1) - 1)
				if i >= len(f.members) {
					return
				}
				errs[w] = f.join(ctx, f.members[i])
				in[i] = time.Since(began)
			}
			next.Store(int64(len(f.members)))
		})
	}
	dialing.Wait()
	for _, d := range in {
		f.joining.Record(d)
	}
	return errors.Join(errs...)
}

// Joining has when each member was in its room, from the beginning of Connect on.
func (f *Fleet) Joining() *Histogram { return &f.joining }

// join connects one member as the dialect wants it.
func (f *Fleet) join(ctx context.Context, m *Member) error {
	tcp, err := dial(ctx, f.addrs[m.number%len(f.addrs)], m.stalled)
	if err != nil {
		return err
	}
	defer tcp.Close()
	conn := tcp
	if f.tls != nil {
		m.secure = newSecure(tcp, f.tls)
		conn = m.secure
	}
	buf := make([]byte, 4<<10)
	rest, err := handshake(conn, f.dialect.Path(m.room.name), f.dialect.Subprotocol, f.plan.Deflate, buf)
	if err != nil {
		return err
	}
	if rest, err = f.greet(conn, m.room.name, rest, buf); err != nil {
		return err
	}
	m.rest = append(m.rest, rest...)
	if m.fd, err = descriptor(tcp); m.secure != nil {
		m.secure.beneath.fd = m.fd
	}
	return err
}

// Settle sends messages to every room until each of its members has got one: from then on all
// are known to be in. A room gets the next ones, one of each sender, when those who are in have the last.
func (f *Fleet) Settle(ctx context.Context) error {
	waiting := slices.Clone(f.rooms)
	for {
		waiting = slices.DeleteFunc(waiting, (*Room).joined)
		if len(waiting) == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("load: %d rooms have members that got nothing: %w", len(waiting), err)
		}
		for _, r := range waiting {
			if !r.caughtUp() {
				continue
			}
			for range r.senders {
				if err := r.send(); err != nil {
					return err
				}
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Len is the number of connections.
func (f *Fleet) Len() int { return len(f.members) }

// Begin opens the measured interval and returns what was delivered before it.
func (f *Fleet) Begin() uint64 {
	f.from.Store(f.clock.Now())
	return f.delivered()
}

// End closes the measured interval and returns what was delivered before that.
func (f *Fleet) End() uint64 {
	f.to.Store(f.clock.Now())
	return f.delivered()
}

// measures says whether now belongs to the measured interval.
func (f *Fleet) measures(now int64) bool { return now >= f.from.Load() && now < f.to.Load() }

func (f *Fleet) delivered() (sum uint64) {
	for _, m := range f.members {
		sum += m.delivered.Load()
	}
	return sum
}

// Cycles is the number of connections that Churn has opened and closed so far.
func (f *Fleet) Cycles() uint64 { return f.cycles.Load() }

// Close ends all connections.
func (f *Fleet) Close() {
	f.closing.Store(true)
	f.reading.Wait()
	for _, m := range f.members {
		if m.fd > 0 {
			_ = syscall.Close(m.fd) // the run is over; nothing is left to learn from it
		}
	}
}
