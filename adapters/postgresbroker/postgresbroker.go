// Package postgresbroker carries the rooms of wsroom's hubs between nodes over PostgreSQL 14 or newer, by LISTEN
// and NOTIFY. It also keeps there the last messages of each room, and who is in which room, in tables of the
// schema "wsroom".
//
//	pool, err := pgxpool.New(ctx, "postgres://…")
//	…
//	broker, err := postgresbroker.Open(ctx, pool)
//	…
//	hub := wsroom.New(wsroom.WithBroker(broker), …)
//
// All nodes whose pools lead to one database share their rooms.
package postgresbroker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// MaxData is the size of the largest message, in bytes.
	MaxData = 16 << 20

	// MaxBacklog is how much may wait for one slow subscriber, in bytes, with 100 for each message. What comes
	// beyond that isn't delivered, and lost is called in its place.
	MaxBacklog = 16 << 20

	channel  = "wsroom"
	maxNote  = 7999             // bytes of a notification
	maxSmall = 5 << 10          // bytes of data in a notification
	callTime = 10 * time.Second // for which a call of the server may take
)

// Broker implements [wsroom.Broker] and [wsroom.Keeper]. [Open] makes it. Its methods may be called
// concurrently.
type Broker struct {
	pool      *pgxpool.Pool
	line      *line
	published writer
	kept      writer
	reads     chan struct{} // holds one element for each read that is going on
	newest    atomic.Uint64 // the highest position seen on any topic
	full      []int64       // ids of topics to trim; for the writer of kept alone

	hold  time.Duration // for which a topic stays when nothing of it is kept any more
	every time.Duration // somebody cleans up
}

// Open returns a broker over a pool, which it doesn't close. Where the database has no schema "wsroom" it runs
// [Schema]; several nodes may do so at once. It returns an error if the schema is of another version.
//
// While there are subscriptions the broker has one connection besides those of the pool, made with the pool's
// settings. Of the pool it uses two connections to publish and keep, and up to half of all to read. The caller
// closes the pool when all subscriptions have been stopped.
func Open(ctx context.Context, pool *pgxpool.Pool) (*Broker, error) {
	if err := createSchema(ctx, pool); err != nil {
		return nil, err
	}
	b := &Broker{
		pool: pool, reads: make(chan struct{}, max(1, pool.Config().MaxConns/2)),
		hold: 24 * time.Hour, every: 30 * time.Second,
	}
	b.published.send, b.kept.send, b.kept.after = b.sendPublished, b.sendKept, b.trim
	b.line = &line{broker: b, topics: map[string][]*inbox{}, interrupt: func() {}}
	return b, nil
}

// MaxData returns [MaxData], so that a hub refuses larger messages.
func (b *Broker) MaxData() int { return MaxData }

type tooLarge int

func (n tooLarge) Error() string {
	return fmt.Sprintf("postgresbroker: a message of %d bytes is larger than %d", int(n), MaxData)
}

// Rejected reports that publishing the message again is of no use.
func (tooLarge) Rejected() bool { return true }

// Publish implements [wsroom.Broker]. It returns once PostgreSQL has committed the message. It doesn't wait
// until the commit is on the disk. Messages that are published at the same time go in one transaction. While
// PostgreSQL is away Publish fails at once, or when ctx ends. The error for more than [MaxData] has a method
// Rejected that returns true.
func (b *Broker) Publish(ctx context.Context, topic string, data []byte) error {
	return b.published.offer(ctx, "publish", topic, data, 0, 0)
}

// sendPublished publishes messages. Those that are small share notifications.
func (b *Broker) sendPublished(ctx context.Context, posts []*post) error {
	var notes, ids []string
	var large [][]byte
	var note strings.Builder
	end := func() {
		if note.Len() > 0 {
			notes = append(notes, note.String())
			note.Reset()
		}
	}
	for _, p := range posts {
		entry := p.note
		if p.data != nil {
			id := randomID()
			ids, large = append(ids, id), append(large, p.data)
			entry += " *" + id
		}
		if note.Len()+1+len(entry) > maxNote {
			end()
		}
		if note.Len() == 0 { // with a number, because of notifications that are the same only one is sent
			fmt.Fprintf(&note, "p %d", len(notes))
		}
		note.WriteByte(' ')
		note.WriteString(entry)
	}
	end()

	return transact(ctx, b.pool, func(batch *pgx.Batch) {
		batch.Queue(dontWaitDisk)
		batch.Queue(publishSQL, notes, ids, large)
	})
}

func randomID() string {
	return fmt.Sprintf("%016x%016x", rand.Uint64(), rand.Uint64())
}

const (
	begin        = "BEGIN ISOLATION LEVEL READ COMMITTED"
	dontWaitDisk = "SET LOCAL synchronous_commit TO off"
)

// transact runs a batch as one transaction, in one round trip.
func transact(ctx context.Context, pool *pgxpool.Pool, fill func(*pgx.Batch)) error {
	batch := &pgx.Batch{}
	batch.Queue(begin)
	fill(batch)
	batch.Queue("COMMIT")
	return pool.SendBatch(ctx, batch).Close()
}

// encode is how topics and small data stand in a notification, which is text.
func encode[T string | []byte](s T) string { return base64.RawStdEncoding.EncodeToString([]byte(s)) }

func decode(s string) (string, error) {
	p, err := base64.RawStdEncoding.DecodeString(s)
	return string(p), err
}

// Subscribe implements [wsroom.Broker]. It waits for PostgreSQL as long as ctx allows.
func (b *Broker) Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("postgresbroker: subscribe: %w", err)
	}
	i := newInbox(false)
	i.handle = func(it item) {
		if it.large != "" {
			it.data, it.lost = b.fetch(i.ctx, it.large)
		}
		i.call(func() {
			if it.lost != nil {
				lost(it.lost)
			} else {
				deliver([]byte(it.data))
			}
		})
	}

	b.line.add(topic, i)
	stop = func() {
		b.line.remove(topic, i)
		i.stop()
	}
	select {
	case <-i.joined:
		return stop, nil
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("postgresbroker: subscribe: %w (last error: %v)", ctx.Err(), b.line.lastError())
	}
}

// fetch returns the data of a large message.
func (b *Broker) fetch(ctx context.Context, id string) (data string, err error) {
	err = b.insist(ctx, callTime, func(ctx context.Context) error {
		var p []byte
		err := b.pool.QueryRow(ctx, largeSQL, id).Scan(&p)
		data = string(p)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("postgresbroker: a large message can't be read: %w", err)
	}
	return data, nil
}

// insist reads, again when that fails, for that time or, if it is 0, until ctx ends. Few read at the same
// time.
func (b *Broker) insist(ctx context.Context, d time.Duration, read func(context.Context) error) error {
	const shortest, longest = 10 * time.Millisecond, time.Second
	select {
	case b.reads <- struct{}{}:
		defer func() { <-b.reads }()
	case <-ctx.Done():
		return ctx.Err()
	}
	began := time.Now()
	for pause := shortest; ; pause = min(2*pause, longest) {
		once, cancel := context.WithTimeout(ctx, callTime)
		err := read(once)
		cancel()
		if err == nil || hopeless(err) || d > 0 && time.Since(began) > d {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// hopeless reports whether PostgreSQL has answered, and not that it is in a state that passes.
func hopeless(err error) bool {
	var answer *pgconn.PgError
	if !errors.As(err, &answer) {
		return errors.Is(err, pgx.ErrNoRows)
	}
	switch answer.Code[:2] {
	case "08", "25", "40", "53", "55", "57", "58": // connections, read-only, conflicts, resources, restarts, the system
		return false
	}
	return true
}

// saw notes a position, so that those of topics that this broker begins are higher. That matters where
// PostgreSQL has lost its data and its clock was set back.
func (b *Broker) saw(position uint64) {
	for {
		newest := b.newest.Load()
		if position <= newest || b.newest.CompareAndSwap(newest, position) {
			return
		}
	}
}
