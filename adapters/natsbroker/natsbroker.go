// Package natsbroker carries the rooms of wsroom's hubs between nodes over NATS 2.11 or newer with
// JetStream. It also keeps there who is in which room.
//
//	nc, err := nats.Connect("127.0.0.1:4222", nats.MaxReconnects(-1))
//	…
//	hub := wsroom.New(wsroom.WithBroker(natsbroker.New(nc)), …)
//
// NATS by itself doesn't order what different clients publish: two subscribers may receive it in two
// orders. So messages go to a stream in memory, named wsroom, which keeps the last message of each topic.
// The server publishes them again in the stream's order, with their number and the number of the message
// before. By these numbers a subscriber finds each gap. Messages that are to be kept go to a second stream,
// named wsroom-kept.
package natsbroker

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// MaxTopic is the length of the longest topic, in bytes.
	MaxTopic = 600

	// MaxBacklog is how much may wait for one slow subscriber, in bytes. What comes beyond that isn't
	// delivered, and lost is called in its place.
	MaxBacklog = 16 << 20

	stream     = "wsroom"
	subjectIn  = "wsroom.in."  // to the stream
	subjectOut = "wsroom.out." // from it
	joiners    = 64            // at once after a reconnect

	// pingEvery and pingTime say how soon the broker notices that an open connection carries nothing any
	// more: after 20 s at most.
	pingEvery = 10 * time.Second
	pingTime  = 10 * time.Second

	// arriving is how many messages may have arrived that aren't in their subscribers' backlogs yet.
	arriving = 1 << 16

	// together is the longest time between two messages that came in one read. The second one is delivered by
	// another goroutine, so that those of many topics use all processors.
	together = 20 * time.Microsecond
	// atOnce is how long a delivery takes at most for the next one to be direct, and small is the size of the
	// largest message that is delivered directly, in bytes.
	atOnce = time.Millisecond
	small  = 64 << 10
)

var (
	errAway = errors.New("not connected")
	errCut  = errors.New("natsbroker: the connection was lost")
	errGap  = errors.New("natsbroker: messages are missing")
)

// Option is an option of [New] and [NewPresence]. A nil Option is skipped.
type Option func(*config)

type config struct {
	replicas int
	keep     int64
}

// WithReplicas sets on how many servers of a NATS cluster the data in memory is kept: 1, the default, 3 or
// 5. With more than one, the death of a server is no outage. A stream or bucket with fewer replicas is
// changed to n; one with more isn't changed. If the server can't do that, each call returns an error that
// says so.
func WithReplicas(n int) Option { return func(c *config) { c.replicas = n } }

// WithKeepLimit sets how many bytes are kept in all for [Broker.Keep]. The default is 256 MiB. Beyond that
// the oldest messages go first, of whatever topic. The server reserves that much memory when the stream is
// created. A stream with a lower limit gets this one; one with a higher limit isn't changed.
func WithKeepLimit(bytes int64) Option { return func(c *config) { c.keep = bytes } }

// newConfig panics for a number of replicas that a NATS cluster doesn't support, and for a limit below 1.
func newConfig(opts []Option) config {
	c := config{replicas: 1, keep: 256 << 20}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	if c.replicas != 1 && c.replicas != 3 && c.replicas != 5 {
		panic(fmt.Errorf("natsbroker: WithReplicas: must be 1, 3 or 5, not %d", c.replicas))
	}
	if c.keep < 1 {
		panic(fmt.Errorf("natsbroker: WithKeepLimit: must be positive, not %d", c.keep))
	}
	return c
}

// Broker implements [wsroom.Broker] and [wsroom.Keeper]. [New] makes it. Its methods may be called concurrently.
type Broker struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	topics *flow         // what is published
	kept   *flow         // what is kept
	turns  chan struct{} // holds one element for each link that is being joined again
	in     chan *nats.Msg
	closed chan struct{} // closed when the connection is closed

	mu     sync.Mutex // guards what follows
	online context.Context
	cut    context.CancelCauseFunc // ends online
	links  map[listener]bool       // joined again after a reconnect
	ways   map[*nats.Subscription]listener
}

// New returns a broker over a connection, which it doesn't close. It does nothing before it is used, and
// creates the stream if there is none. The broker ends with the connection, which should reconnect for ever
// (nats.MaxReconnects(-1)). Every 10 s the broker asks the server whether it is there. It forces a
// reconnect when nothing has come for 10 s. New panics if the connection's options exclude JetStream.
func New(nc *nats.Conn, opts ...Option) *Broker {
	b := &Broker{nc: nc, js: newJetStream(nc), turns: make(chan struct{}, joiners),
		in: make(chan *nats.Msg, arriving), closed: make(chan struct{}),
		links: map[listener]bool{}, ways: map[*nats.Subscription]listener{}}
	c := newConfig(opts)
	b.topics = newFlow(b.js, jetstream.StreamConfig{
		Name: stream, Description: "the last message of each of wsroom's topics", Subjects: []string{subjectIn + "*"},
		Storage: jetstream.MemoryStorage, Replicas: c.replicas,
		MaxMsgsPerSubject: 1, MaxBytes: 64 << 20, MaxAge: time.Hour,
		RePublish: &jetstream.RePublish{Source: subjectIn + "*", Destination: subjectOut + "{{wildcard(1)}}"},
	})
	b.kept = newFlow(b.js, keptConfig(c))
	b.online, b.cut = context.WithCancelCause(context.Background())
	changes := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	if !nc.IsConnected() {
		b.cut(errAway)
	}
	go b.watch(changes) // runs until the connection is closed, like the others
	go b.sort()
	go b.ping()
	return b
}

func newJetStream(nc *nats.Conn) jetstream.JetStream {
	js, err := jetstream.New(nc)
	if err != nil {
		panic(fmt.Errorf("natsbroker: %w", err))
	}
	return js
}

// sort passes what arrives to those that listen to it. Of one that wants that, it delivers what comes alone.
func (b *Broker) sort() {
	var freeAt time.Time // when the last message had been passed on
	for {
		select {
		case m := <-b.in:
			b.mu.Lock()
			l := b.ways[m.Sub]
			b.mu.Unlock()
			if l != nil {
				if it, mine := l.receive(m, len(b.in) == 0 && time.Since(freeAt) > together); mine {
					l.base().inbox.handle(it)
				}
				freeAt = time.Now()
			}
		case <-b.closed:
			return
		}
	}
}

// ping forces a reconnect when the connection carries nothing any more. nats.go alone would notice after 4
// minutes.
func (b *Broker) ping() {
	every := time.NewTicker(pingEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-b.closed:
			return
		}
		b.beat()
		before := b.nc.Stats()
		if !b.nc.IsConnected() || b.nc.FlushTimeout(pingTime) == nil {
			continue
		}
		if after := b.nc.Stats(); after.InBytes == before.InBytes && after.Reconnects == before.Reconnects && b.nc.IsConnected() {
			_ = b.nc.ForceReconnect() // fails if the connection is closed
		}
	}
}

// watch has all links joined again after each reconnect.
func (b *Broker) watch(changes <-chan nats.Status) {
	for status := range changes {
		b.mu.Lock()
		b.cut(errAway)
		if status == nats.CONNECTED {
			b.online, b.cut = context.WithCancelCause(context.Background())
		}
		for l := range b.links {
			switch status {
			case nats.CONNECTED:
				l.cut()
			case nats.CLOSED:
				l.base().end() // for good
			}
		}
		b.mu.Unlock()
		if status == nats.CLOSED {
			close(b.closed)
			return
		}
	}
}

func (b *Broker) connection() context.Context {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.online
}

// epoch returns the number of the connection. It rises before anything is received on a new one.
func (b *Broker) epoch() uint64 { return b.nc.Stats().Reconnects }

type rejected struct{ error }

// Rejected reports that publishing the message again is of no use.
func (rejected) Rejected() bool { return true }

func (e rejected) Unwrap() error { return e.error }

// encode returns the last part of a topic's subjects.
func encode(topic string) string { return base64.RawURLEncoding.EncodeToString([]byte(topic)) }

// MaxData returns how many bytes a message may have, by the server's max_payload, so that a hub refuses
// larger ones. It is known once there has been a connection.
func (b *Broker) MaxData() int {
	const around = 4 << 10 // for what JetStream adds
	if most := int(b.nc.MaxPayload()); most > around {
		return most - around
	}
	return math.MaxInt
}

// Publish implements [wsroom.Broker]. It returns once the stream has acknowledged the message. While the
// server is away it fails at once. A context without a deadline gets 5 seconds. The error for more than the
// server's max_payload, or for a topic longer than [MaxTopic], has a method Rejected that returns true.
func (b *Broker) Publish(ctx context.Context, topic string, data []byte) error {
	return b.publish(ctx, b.topics, topic, &nats.Msg{Subject: subjectIn + encode(topic), Data: data})
}

// publish returns once the stream has acknowledged the message.
func (b *Broker) publish(ctx context.Context, to *flow, topic string, m *nats.Msg) error {
	if len(topic) > MaxTopic {
		return rejected{fmt.Errorf("natsbroker: a topic of %d bytes is longer than %d", len(topic), MaxTopic)}
	}
	online := b.connection()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(online, func() { cancel(errAway) })() // the answer won't come any more
	if online.Err() != nil {
		return fmt.Errorf("natsbroker: publish: %w", errAway)
	}
	if err := to.prepare(ctx); err != nil {
		return fmt.Errorf("natsbroker: publish: %w", cmp.Or(context.Cause(ctx), err))
	}

	ack, err := b.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		if err = to.create(ctx); err == nil {
			ack, err = b.js.PublishMsg(ctx, m, jetstream.WithRetryWait(10*time.Millisecond), jetstream.WithRetryAttempts(50))
		}
	}
	switch {
	case err == nil:
		to.stored(ack.Sequence)
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return rejected{fmt.Errorf("natsbroker: publish: %w", err)}
	default:
		return fmt.Errorf("natsbroker: publish: %w", cmp.Or(context.Cause(ctx), err))
	}
}

// Subscribe implements [wsroom.Broker]. It returns once a message of its own has come back through the
// stream, and waits for that as long as ctx allows.
func (b *Broker) Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	return b.subscribe(ctx, topic, deliver, lost, false)
}

// SubscribeDirect is [Broker.Subscribe] for a deliver that returns at once; see [wsroom.Broker]. A message that
// comes alone is delivered by the goroutine that receives all topics' messages, unless it is larger than 64 KiB or
// the last one took long.
func (b *Broker) SubscribeDirect(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	return b.subscribe(ctx, topic, deliver, lost, true)
}

func (b *Broker) subscribe(
	ctx context.Context, topic string, deliver func(data []byte), lost func(error), direct bool,
) (stop func(), err error) {
	s := &subscription{link: b.newLink(b.topics, topic, subjectIn+encode(topic))}
	s.inbox = &inbox{deliver: func(_ uint64, data []byte) { deliver(data) }, lost: lost, direct: direct}
	s.link.step = s.step
	return b.listen(ctx, s, subjectOut+encode(topic))
}

// listen subscribes, and returns once that is joined.
func (b *Broker) listen(ctx context.Context, l listener, subject string) (stop func(), err error) {
	sub, err := b.nc.ChanSubscribe(subject, b.in) // needs no goroutine
	if err != nil {
		return nil, fmt.Errorf("natsbroker: subscribe: %w", err)
	}
	way := l.base()
	way.sub = sub
	b.mu.Lock()
	b.ways[sub] = l
	b.mu.Unlock()
	stop = func() {
		way.end()
		b.mu.Lock()
		delete(b.links, l)
		delete(b.ways, sub)
		b.mu.Unlock()
		_ = sub.Unsubscribe() // fails if the connection is closed or this has been done
		way.inbox.stop()
	}
	if err := l.begin(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("natsbroker: subscribe: %w", err)
	}
	b.mu.Lock()
	b.links[l] = true
	b.mu.Unlock()
	if way.stale() {
		l.cut()
	}
	return stop, nil
}

// subscription is one subscriber of one topic.
type subscription struct {
	*link

	// Guarded by the link's lock.
	joined bool   // a first probe has come back: what comes from then on counts
	seq    uint64 // the number of the last message
	away   error  // why lost is to be called when the next probe has come back
}

func (s *subscription) receive(m *nats.Msg, alone bool) (it item, mine bool) {
	seq, last := sequence(m, jetstream.SequenceHeader), sequence(m, jetstream.LastSequenceHeader)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.isBack(m)
	gap := last != s.seq
	if last == 0 && seq > s.seq { // the stream has forgotten the message before, by its age, or it is a new stream
		gap = s.epoch != s.b.epoch()
	}
	s.seq = seq
	if s.joined && (gap || own && s.away != nil) {
		s.inbox.put(item{lost: cmp.Or(s.away, errGap)})
		s.away = nil
	}
	if own {
		s.joined = true
		s.back()
	}
	if s.joined && m.Header.Get(probeHeader) == "" {
		it.data = m.Data
		mine = s.inbox.hear(it, alone)
	}
	return it, mine
}

// cut has the subscription joined again. lost is called then.
func (s *subscription) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = errCut
	s.rejoin()
}

func (s *subscription) step(ctx context.Context) (done bool, err error) {
	return true, s.probe(ctx)
}

func (s *subscription) begin(ctx context.Context) error { return s.probe(ctx) }
