package postgresbroker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	readTime  = 30 * time.Second // for which a read of what was missed is tried
	readBytes = 1 << 20          // after which a read ends
	readMost  = 1000             // messages in a read
)

var (
	errGone = errors.New("what was missed isn't kept any more")
	errOver = errors.New("another server has taken over, or a backup was restored, and may not have all")
	errBack = errors.New("postgresbroker: positions have gone back")
	errKind = errors.New("postgresbroker: a message that Keep hasn't sent")
)

// Keep implements [wsroom.Keeper]. It takes as long to fail as [Broker.Publish], and in the same cases, also
// for more than [MaxData]. It waits for the disk as the pool's setting synchronous_commit says, so with
// PostgreSQL's default a message outlives a crash once Keep has returned. PostgreSQL keeps up to a quarter
// more than n messages, and at least 16 more, of topics that get messages; what is older than d is deleted
// with these, and of topics that get none within a minute.
func (b *Broker) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	if n <= 0 || d <= 0 {
		return fmt.Errorf("postgresbroker: keep: %d messages for %v: both must be greater than 0", n, d)
	}
	return b.kept.offer(ctx, "keep", topic, data, n, d)
}

// sendKept keeps messages, and notes which topics are then to be trimmed.
func (b *Broker) sendKept(ctx context.Context, posts []*post) error {
	var topics, data [][]byte
	var notes []string
	var most, age []int64
	for _, p := range posts {
		topics, data, notes = append(topics, p.topic), append(data, p.data), append(notes, p.note)
		most, age = append(most, p.most), append(age, p.age)
	}

	return transact(ctx, b.pool, func(batch *pgx.Batch) {
		batch.Queue(keepSQL, topics, data, notes, most, age, int64(b.newest.Load())).Query(func(rows pgx.Rows) error {
			var position, full int64
			_, err := pgx.ForEachRow(rows, []any{&position, &full, nil}, func() error {
				b.saw(uint64(position))
				if full != 0 {
					b.full = append(b.full, full)
				}
				return nil
			})
			return err
		})
	})
}

// trim deletes what need not be kept any more of topics that have had many messages since the last time.
// Where it fails, a later one deletes more.
func (b *Broker) trim(ctx context.Context) {
	if len(b.full) > 0 {
		_, _ = b.pool.Exec(ctx, trimSQL, b.full)
		b.full = nil
	}
}

// clean deletes what is too old, unless another node has done so right before.
func (b *Broker) clean(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	turn, err := conn.Exec(ctx, turnSQL, version, b.every/2)
	if err != nil || turn.RowsAffected() == 0 {
		return err
	}
	_, err1 := conn.Exec(ctx, cleanMessagesSQL)
	_, err2 := conn.Exec(ctx, cleanTopicsSQL, b.hold)
	_, err3 := conn.Exec(ctx, cleanLargeSQL, b.every*4)
	return errors.Join(err1, err2, err3)
}

// Follow implements [wsroom.Keeper]. It waits for PostgreSQL as long as ctx allows. An answer of PostgreSQL
// that says that the topic can't be read is an error at once. The past that it begins with is in memory as a
// whole, n messages at most. What comes later waits up to [MaxBacklog]; what is too much is read again when
// the follower has handled that, and lost is called only if it isn't kept any more.
func (b *Broker) Follow(
	ctx context.Context, topic string, n int,
	deliver func(position uint64, data []byte), live func(), lost func(error),
) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("postgresbroker: follow: %w", err)
	}
	f := &follower{
		inbox: newInbox(true), broker: b, topic: []byte(topic), n: n,
		deliver: deliver, live: live, lost: lost, begun: make(chan error, 1),
	}
	f.handle = f.receive

	b.line.add(topic, f.inbox)
	stop = func() {
		b.line.remove(topic, f.inbox)
		f.stop()
	}
	select {
	case err = <-f.begun:
	case <-ctx.Done():
		err = fmt.Errorf("%w (last error: %v)", ctx.Err(), b.line.lastError())
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("postgresbroker: follow: %w", err)
	}
	return stop, nil
}

// follower is an inbox with the place that it has reached in what is kept. What it receives tells it to go
// on, or to read. Except for what inbox says, only the inbox's goroutine uses what changes.
type follower struct {
	*inbox
	broker  *Broker
	topic   []byte
	n       int
	deliver func(position uint64, data []byte)
	live    func()
	lost    func(error)
	begun   chan error // how the beginning went

	isLive bool
	source string // the server's history at the last read
	last   uint64 // the position that has been reached; later ones are higher
	heard  uint64 // of the last message that was notified, or 0 right after a read
}

// receive takes what comes over the subscription.
func (f *follower) receive(it item) {
	p := it.position
	switch {
	case f.ctx.Err() != nil:
	case it.lost != nil && !f.isLive:
		f.begin()
	case it.lost != nil:
		f.repair(it.lost)
	case !f.isLive: // of before it was subscribed; begin reads it
	case p == 0:
		f.tell(errKind)
	case p > f.last && it.data == "":
		f.repair(nil) // it is large, or empty
	case p > f.last:
		f.heard = p
		f.pass(message{p, []byte(it.data)})
	case f.heard > 0 && p > f.heard: // it has been read
		f.heard = p
	default: // as it is for the first one that has been read, and where PostgreSQL has lost its data
		f.repair(errBack)
		f.heard = p
	}
}

func (f *follower) pass(m message) {
	f.last = m.position
	f.broker.saw(m.position)
	f.call(func() { f.deliver(m.position, m.data) })
}

func (f *follower) tell(err error) { f.call(func() { f.lost(err) }) }

// begin delivers the end of what is kept.
func (f *follower) begin() {
	past, err := f.past()
	if err != nil {
		f.cancel()
		f.begun <- err // the only one: nothing is received any more
		return
	}
	for _, m := range past.messages {
		f.pass(m)
	}
	f.source, f.last = past.source, past.last
	f.isLive = true
	f.call(f.live)
	f.begun <- nil
}

// past reads the last messages that are kept, up to n. Where there is no such topic it begins it, so that the
// topic has a place from which a follower can go on. It tries for as long as Follow waits.
func (f *follower) past() (p page, err error) {
	for err == nil && !p.found {
		p, err = f.read(0, pastSQL, f.topic, f.n)
		if err == nil && !p.found {
			err = f.write(beginSQL, f.broker.newest.Load())
		}
	}
	return p, err
}

// repair delivers what was missed. If something is missing of it, lost is called before. cause is why it
// reads, or nil if nothing was missed.
func (f *follower) repair(cause error) {
	f.heard = 0
	for more := true; more; {
		p, err := f.read(readTime, missedSQL, f.topic, int64(f.last), readMost, readBytes)
		switch {
		case f.ctx.Err() != nil:
			return
		case err != nil:
			f.tell(fmt.Errorf("what was missed can't be read: %w", errors.Join(cause, err)))
			return
		case p.last < f.last: // there is no such topic, or an older one
			err := f.write(raiseSQL, f.last)
			f.tell(errors.Join(cause, errGone, err))
			return
		case p.before != f.last:
			f.tell(errors.Join(cause, errGone))
		case p.source != f.source:
			f.tell(errors.Join(cause, errOver))
		}

		f.source = p.source
		for _, m := range p.messages {
			f.pass(m)
		}
		more = len(p.messages) > 0 && f.last < p.last
		if !more {
			f.last = p.last
		}
	}
}

// page is an answer of pastSQL or missedSQL.
type page struct {
	found    bool
	source   string
	last     uint64 // the topic's last position
	before   uint64 // that of the message before the first, or the last position where there are none
	messages []message
}

type message struct {
	position uint64
	data     []byte
}

// read reads a page. It tries for that time or, if it is 0, until the follower is stopped.
func (f *follower) read(d time.Duration, sql string, args ...any) (p page, err error) {
	err = f.broker.insist(f.ctx, d, func(ctx context.Context) error {
		p = page{}
		rows, err := f.broker.pool.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		var last int64
		var position, before *int64
		var data []byte
		_, err = pgx.ForEachRow(rows, []any{&p.source, &last, &position, &before, &data}, func() error {
			p.found, p.last = true, uint64(last)
			if position == nil {
				p.before = p.last
				return nil
			}
			if len(p.messages) == 0 {
				p.before = uint64(*before)
			}
			p.messages = append(p.messages, message{uint64(*position), data})
			return nil
		})
		return err
	})
	f.broker.saw(p.last) // what is kept from now on comes after it, even if PostgreSQL loses this, too
	return p, err
}

// write has the topic's new messages be after a position.
func (f *follower) write(sql string, position uint64) error {
	return f.broker.insist(f.ctx, readTime, func(ctx context.Context) error {
		_, err := f.broker.pool.Exec(ctx, sql, f.topic, int64(position))
		return err
	})
}
