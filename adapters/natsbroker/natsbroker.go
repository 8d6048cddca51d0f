// Package natsbroker carries the rooms of wsroom's hubs between nodes over NATS 2.11 or newer with JetStream,
// and keeps in it who is where.
//
//	nc, err := nats.Connect("127.0.0.1:4222", nats.MaxReconnects(-1))
//	…
//	hub := wsroom.New(wsroom.WithBroker(natsbroker.New(nc)), …)
//
// NATS by itself has no order of what different clients publish: two subscribers may hear it in two. So
// messages go to a stream in memory, named wsroom, that keeps the last one of each topic, and the server
// publishes them again in the stream's order, with their number and that of the one before. By these
// numbers a subscriber finds each gap.
package natsbroker

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// MaxTopic is the length of the longest topic in bytes.
	MaxTopic = 600

	// MaxBacklog is how much may wait for one slow subscriber, in bytes. Of what comes on top nothing is
	// delivered, and lost is called in its place.
	MaxBacklog = 16 << 20

	stream      = "wsroom"
	subjectIn   = "wsroom.in."  // to the stream
	subjectOut  = "wsroom.out." // from it
	probeHeader = "Wsroom-Probe"
	probePause  = 100 * time.Millisecond
	joiners     = 64 // at once, after a reconnect

	// pingEvery and pingTime say how soon the broker notices that a connection carries nothing any more, though it
	// is open: after 20 s at the most.
	pingEvery = 10 * time.Second
	pingTime  = 10 * time.Second

	// arriving is how many messages may have come that aren't sorted into their subscribers' backlogs yet.
	arriving = 1 << 16
)

var (
	errAway = errors.New("not connected")
	errCut  = errors.New("natsbroker: the connection was lost")
	errGap  = errors.New("natsbroker: messages are missing")
)

// Option is an option of New and NewPresence. A nil Option is skipped.
type Option func(*config)

type config struct{ replicas int }

// WithReplicas says on how many servers of a NATS cluster what is kept in memory is: 1, the default, 3 or 5.
// With more than one the death of a server is no outage. What has fewer already is changed to n, and what has more
// is left alone; where the server doesn't do that, each call returns an error that says so.
func WithReplicas(n int) Option { return func(c *config) { c.replicas = n } }

// newConfig panics for what a NATS cluster doesn't do.
func newConfig(opts []Option) config {
	c := config{replicas: 1}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	if c.replicas != 1 && c.replicas != 3 && c.replicas != 5 {
		panic(fmt.Errorf("natsbroker: WithReplicas: must be 1, 3 or 5, not %d", c.replicas))
	}
	return c
}

// Broker implements wsroom.Broker. Create one with New. Its methods may be called concurrently.
type Broker struct {
	nc     *nats.Conn
	js     jetstream.JetStream
	config jetstream.StreamConfig
	turns  chan struct{} // holds one for each subscription that is being joined again
	copies atomic.Bool   // the stream has as many replicas as it is to have
	in     chan *nats.Msg
	closed chan struct{} // when the connection is

	mu     sync.Mutex // guards what follows
	online context.Context
	cut    context.CancelCauseFunc              // ends online
	subs   map[*subscription]bool               // to be joined again after a reconnect
	ways   map[*nats.Subscription]*subscription // all
}

// New returns a broker over a connection, which it doesn't close; it does nothing before it is used, and
// makes the stream when there is none. The broker ends with the connection, which should be one that reconnects
// for ever (nats.MaxReconnects(-1)). Every 10 s the broker asks the server whether it is there, and has the connection
// made anew when nothing has come for 10 s. It panics if the connection's options exclude JetStream.
func New(nc *nats.Conn, opts ...Option) *Broker {
	b := &Broker{nc: nc, js: newJetStream(nc), turns: make(chan struct{}, joiners),
		in: make(chan *nats.Msg, arriving), closed: make(chan struct{}),
		subs: map[*subscription]bool{}, ways: map[*nats.Subscription]*subscription{}}
	b.config = jetstream.StreamConfig{
		Name: stream, Description: "the last message of each of wsroom's topics", Subjects: []string{subjectIn + "*"},
		Storage: jetstream.MemoryStorage, Replicas: newConfig(opts).replicas,
		MaxMsgsPerSubject: 1, MaxBytes: 64 << 20, MaxAge: time.Hour,
		RePublish: &jetstream.RePublish{Source: subjectIn + "*", Destination: subjectOut + "{{wildcard(1)}}"},
	}
	b.online, b.cut = context.WithCancelCause(context.Background())
	changes := nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	if !nc.IsConnected() {
		b.cut(errAway)
	}
	go b.watch(changes) // until the connection is closed, as the others
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

// sort hands what comes to its subscription.
func (b *Broker) sort() {
	for {
		select {
		case m := <-b.in:
			b.mu.Lock()
			s := b.ways[m.Sub]
			b.mu.Unlock()
			if s != nil {
				s.receive(m)
			}
		case <-b.closed:
			return
		}
	}
}

// ping has the connection made anew when it carries nothing any more. nats.go by itself would notice after 4 minutes.
func (b *Broker) ping() {
	every := time.NewTicker(pingEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-b.closed:
			return
		}
		before := b.nc.Stats()
		if !b.nc.IsConnected() || b.nc.FlushTimeout(pingTime) == nil {
			continue
		}
		if after := b.nc.Stats(); after.InBytes == before.InBytes && after.Reconnects == before.Reconnects && b.nc.IsConnected() {
			_ = b.nc.ForceReconnect() // it fails where the connection is closed
		}
	}
}

// watch has all subscriptions joined again after each reconnect.
func (b *Broker) watch(changes <-chan nats.Status) {
	for status := range changes {
		b.mu.Lock()
		b.cut(errAway)
		if status == nats.CONNECTED {
			b.online, b.cut = context.WithCancelCause(context.Background())
		}
		for s := range b.subs {
			switch status {
			case nats.CONNECTED:
				s.cut()
			case nats.CLOSED:
				s.end() // for good
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

// epoch is the number of the connection. It rises before anything is received on a new one.
func (b *Broker) epoch() uint64 { return b.nc.Stats().Reconnects }

type rejected struct{ error }

// Rejected tells that to offer the message again is no use.
func (rejected) Rejected() bool { return true }

func (e rejected) Unwrap() error { return e.error }

// encode returns the last part of a topic's subjects.
func encode(topic string) string { return base64.RawURLEncoding.EncodeToString([]byte(topic)) }

// MaxData returns what a message may have of the server's max_payload, for a hub to refuse what is larger: it is
// known once there has been a connection.
func (b *Broker) MaxData() int {
	const around = 4 << 10 // for what JetStream adds
	if most := int(b.nc.MaxPayload()); most > around {
		return most - around
	}
	return math.MaxInt
}

// Publish implements wsroom.Broker: it returns once the stream has acknowledged the message. While the
// server is away it fails at once; a context without a deadline gets 5 seconds. The error for more than the
// server's max_payload, or a topic longer than MaxTopic, has a method Rejected that returns true.
func (b *Broker) Publish(ctx context.Context, topic string, data []byte) error {
	return b.publish(ctx, topic, &nats.Msg{Subject: subjectIn + encode(topic), Data: data})
}

func (b *Broker) publish(ctx context.Context, topic string, m *nats.Msg) error {
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
	if err := b.replicate(ctx); err != nil {
		return fmt.Errorf("natsbroker: publish: %w", cmp.Or(context.Cause(ctx), err))
	}
	_, err := b.js.PublishMsg(ctx, m, jetstream.WithRetryAttempts(0))
	if errors.Is(err, jetstream.ErrNoStreamResponse) {
		config := b.config
		config.FirstSeq = uint64(time.Now().UnixNano()) // so that numbers rise even after those of a stream that is gone
		if err = makeStream(ctx, b.js, config); err == nil {
			_, err = b.js.PublishMsg(ctx, m, jetstream.WithRetryWait(10*time.Millisecond), jetstream.WithRetryAttempts(50))
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrMaxPayload):
		return rejected{fmt.Errorf("natsbroker: publish: %w", err)}
	default:
		return fmt.Errorf("natsbroker: publish: %w", cmp.Or(context.Cause(ctx), err))
	}
}

// replicate has the stream's replicas checked once.
func (b *Broker) replicate(ctx context.Context) error {
	if b.copies.Load() {
		return nil
	}
	err := replicate(ctx, b.js, b.config)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // it is made with as many
		return nil
	}
	b.copies.Store(err == nil)
	return err
}

// makeStream makes a stream unless there is one.
func makeStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	err := insist(ctx, func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, config)
		return err
	})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("make the stream: %w", err)
	}
	return nil
}

// insist asks again after half a second, for a cluster doesn't answer what it is asked of a stream that has no
// leader yet.
func insist(ctx context.Context, ask func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		err := ask(try)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}

// Subscribe implements wsroom.Broker. It returns once a message of its own has come back by way of the
// stream, for which it waits as long as ctx allows.
func (b *Broker) Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	s := &subscription{b: b, topic: topic, inbox: &inbox{deliver: deliver, lost: lost}}
	s.ctx, s.end = context.WithCancel(context.Background())
	sub, err := b.nc.ChanSubscribe(subjectOut+encode(topic), b.in) // takes no goroutine
	if err != nil {
		return nil, fmt.Errorf("natsbroker: subscribe: %w", err)
	}
	b.mu.Lock()
	b.ways[sub] = s
	b.mu.Unlock()
	stop = func() {
		s.end()
		b.mu.Lock()
		delete(b.subs, s)
		delete(b.ways, sub)
		b.mu.Unlock()
		_ = sub.Unsubscribe() // it fails where the connection is closed or this is done already
		s.inbox.stop()
	}
	if err := s.probe(ctx); err != nil {
		stop()
		return nil, fmt.Errorf("natsbroker: subscribe: %w", err)
	}
	b.mu.Lock()
	b.subs[s] = true
	b.mu.Unlock()
	if s.stale() {
		s.cut()
	}
	return stop, nil
}

// subscription is one subscriber of one topic.
type subscription struct {
	b     *Broker
	topic string
	inbox *inbox
	ctx   context.Context // until it is stopped
	end   context.CancelFunc

	mu         sync.Mutex // guards what follows
	joined     bool       // a first probe has come back: what comes from then on counts
	seq        uint64     // the number of the last message
	epoch      uint64     // of the connection on which a probe has come back
	away       error      // why lost is to be called when the next one has
	joining    bool       // there is a goroutine for that
	token      string     // of the probe that is under way
	tokenEpoch uint64
	back       chan struct{} // closed when that has come back
}

// receive takes what comes from the stream, in its order.
func (s *subscription) receive(m *nats.Msg) {
	seq, last := sequence(m, jetstream.SequenceHeader), sequence(m, jetstream.LastSequenceHeader)
	probe := m.Header.Get(probeHeader)
	s.mu.Lock()
	defer s.mu.Unlock()
	own := probe != "" && probe == s.token && s.tokenEpoch == s.b.epoch()
	gap := last != s.seq
	if last == 0 && seq > s.seq { // the stream doesn't know the one before, by its age, or it is a new stream
		gap = s.epoch != s.b.epoch()
	}
	s.seq = seq
	if s.joined && (gap || own && s.away != nil) {
		s.inbox.put(item{lost: cmp.Or(s.away, errGap)})
		s.away = nil
	}
	if own {
		s.joined, s.epoch, s.token = true, s.tokenEpoch, ""
		close(s.back)
	}
	if s.joined && probe == "" {
		s.inbox.put(item{data: m.Data})
	}
}

func sequence(m *nats.Msg, header string) uint64 {
	n, _ := strconv.ParseUint(m.Header.Get(header), 10, 64)
	return n
}

// cut has the subscription joined again, and lost called then.
func (s *subscription) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = errCut
	if !s.joining {
		s.joining = true
		go s.join() // until it is done, or the subscription stopped
	}
}

func (s *subscription) join() {
	for {
		s.b.turns <- struct{}{}
		err := s.probe(s.ctx)
		<-s.b.turns
		s.mu.Lock()
		s.joining = err == nil && s.epoch != s.b.epoch() // and the next reconnect
		again := s.joining
		s.mu.Unlock()
		if !again {
			return
		}
	}
}

func (s *subscription) stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch != s.b.epoch()
}

// probe publishes messages that say nothing until one of them has come back: then the way from the stream
// to this subscription is there.
func (s *subscription) probe(ctx context.Context) error {
	var err error
	for {
		token, back := s.newToken()
		m := nats.NewMsg(subjectIn + encode(s.topic))
		m.Header.Set(probeHeader, token)
		if failed := s.b.publish(ctx, s.topic, m); failed != nil {
			err = failed
		}
		if r := (rejected{}); errors.As(err, &r) {
			return err
		}
		select {
		case <-back:
			return nil
		case <-ctx.Done():
			return cmp.Or(err, context.Cause(ctx))
		case <-time.After(probePause):
		}
	}
}

func (s *subscription) newToken() (token string, back <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.tokenEpoch, s.back = nats.NewInbox(), s.b.epoch(), make(chan struct{})
	return s.token, s.back
}
