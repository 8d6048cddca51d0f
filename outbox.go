package wsroom

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// publishers is how many topics at most are published to at once.
	publishers = 16
	// publishTime bounds one call of Publish.
	publishTime = 2 * time.Second
	// maxEnvelope is up to what size messages gather while their topic waits for the broker. A single
	// message may be larger.
	maxEnvelope = 32 << 10
	// keptTopics bounds the topics whose sequence is remembered while nothing waits for them.
	keptTopics = 4096
	// minRetry and maxRetry bound the time after which a failed call to the broker is tried again.
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
	// maxHold bounds how long, after an outage, messages are held back until other nodes, which find out
	// by themselves that the broker is back, have subscribed again.
	maxHold = 2 * time.Second
)

// outbox is what a hub has taken for the broker, in order. A topic's messages are published one envelope
// after the other, those of different topics side by side; what comes while one is under way gathers in
// the next. There are goroutines only while there is something to publish.
type outbox struct {
	cluster *cluster

	mu       sync.Mutex // guards all that follows
	topics   map[string]*outTopic
	enough   int    // topics, before it is worth while to look for idle ones
	sequence uint64 // of the last message
	bytes    int64  // in all envelopes
	ready    []*outTopic
	working  int           // publishers
	failing  time.Time     // since when nothing has been published but failures; zero: the last call worked
	drained  chan struct{} // closed when nothing waits; nil if nobody wants to know
	closed   bool
}

// outTopic is what waits for a topic. While it is busy it is in ready, being published, or about to be
// tried again.
type outTopic struct {
	room      string
	envelopes [][]byte      // the first doesn't change while the topic is busy
	last      uint64        // sequence of its last message
	since     time.Time     // when the first envelope became the first
	retry     time.Duration // what it waited for after its last failure; 0: it hasn't failed
	busy      bool
	local     bool // what waits has been delivered on this node
}

// publish takes a message for all nodes, or returns ErrOutage, or an error for one that the broker is never
// going to take.
func publish[P string | []byte](c *cluster, t Target, kind byte, payload P) error {
	l := letter{kind: kind}
	for _, conn := range t.except {
		l.except = append(l.except, conn.id)
	}
	rooms := t.to.rooms
	if t.to.all {
		rooms = []string{everyRoom}
	}
	if err := c.fits(rooms, l, len(payload)); err != nil {
		return err
	}
	o := &c.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.admit(rooms, len(payload)*len(rooms)); err != nil {
		return err
	}
	for i, room := range rooms {
		if kind != frame.Close {
			l.besides = rooms[:i]
		}
		put(o, room, l, payload)
	}
	return nil
}

// fits checks a message against the most that the broker takes.
func (c *cluster) fits(rooms []string, l letter, size int) error {
	around := envelopeHead + 6*maxUvarint // at the most, without names
	for _, names := range [][]string{rooms[:len(rooms)-1], l.except} {
		for _, name := range names {
			around += maxUvarint + len(name)
		}
	}
	if most := c.maxData(); size > most-around {
		return fmt.Errorf("wsroom: a message of %d bytes, with up to %d around it, is more than the %d that the broker takes", size, around, most)
	}
	return nil
}

// maxData returns how many bytes the broker takes at most.
func (c *cluster) maxData() int {
	if limited, ok := c.broker.(interface{ MaxData() int }); ok {
		return limited.MaxData()
	}
	return math.MaxInt
}

// admit reports whether a message to these rooms is taken. With DeliverLocally every one is.
func (o *outbox) admit(rooms []string, size int) error {
	if o.closed {
		return ErrShutdown
	}
	if o.cluster.hub.cfg.outage == DeliverLocally {
		return nil
	}
	if o.full(size) {
		return ErrOutage
	}
	for _, room := range rooms {
		if o.late(o.topics[room]) {
			return ErrOutage
		}
	}
	return nil
}

// full reports whether size bytes more are too much. A message is always taken when nothing waits.
func (o *outbox) full(size int) bool {
	return o.bytes > 0 && o.bytes+int64(size) > o.cluster.hub.cfg.outageBytes
}

// late reports whether the topic's messages have waited, or would have to, for longer than an outage is
// bridged.
func (o *outbox) late(t *outTopic) bool {
	bridged := o.cluster.hub.cfg.outageTime
	return !o.failing.IsZero() && time.Since(o.failing) > bridged ||
		t != nil && len(t.envelopes) > 0 && time.Since(t.since) > bridged
}

// put appends a message to what waits for the room's topic.
func put[P string | []byte](o *outbox, room string, l letter, payload P) {
	t := o.topic(room)
	o.sequence++
	l.sequence = o.sequence
	if t.last > 0 {
		l.back = l.sequence - t.last
	}
	t.last = l.sequence
	full := o.full(len(payload)) // only with DeliverLocally: the other nodes see a gap
	if full || o.late(t) {
		o.deliverLocally(t)
	}
	if !full {
		gather(o, t, l, payload)
	}
	if full || t.local {
		o.cluster.deliver(room, appendLetter(appendEnvelope(nil, o.cluster.node), l, payload))
	}
	t.local = t.local && t.busy
}

// gather appends the message to the topic's last envelope, or to a new one.
func gather[P string | []byte](o *outbox, t *outTopic, l letter, payload P) {
	last := len(t.envelopes) - 1
	if last < 0 || last == 0 && t.busy {
		if last++; last == 0 {
			t.since = time.Now()
		}
		t.envelopes = append(t.envelopes, appendEnvelope(nil, o.cluster.node))
		o.count(envelopeHead)
	}
	e := t.envelopes[last]
	before := len(e)
	e = appendLetter(e, l, payload)
	o.count(len(e) - before)
	if len(e) > min(maxEnvelope, o.cluster.maxData()) && before > envelopeHead {
		t.envelopes = append(t.envelopes, append(appendEnvelope(nil, o.cluster.node), e[before:]...))
		o.count(envelopeHead)
		e = e[:before]
	}
	t.envelopes[last] = e
	if !t.busy {
		t.busy = true
		o.enlist(t)
	}
}

// deliverLocally hands this node what waits for the topic. What comes back from the broker later is
// known by its sequence then. It happens under the lock, which keeps the order on this node.
func (o *outbox) deliverLocally(t *outTopic) {
	if t.local || o.cluster.hub.cfg.outage != DeliverLocally {
		return
	}
	t.local = true
	for _, e := range t.envelopes {
		o.cluster.deliver(t.room, e)
	}
}

func (o *outbox) topic(room string) *outTopic {
	t := o.topics[room]
	if t == nil {
		if len(o.topics) >= max(o.enough, keptTopics) {
			o.forgetIdle()
			o.enough = 2 * len(o.topics)
		}
		t = &outTopic{room: room}
		o.topics[room] = t
	}
	return t
}

func (o *outbox) forgetIdle() {
	for room, t := range o.topics {
		if !t.busy {
			delete(o.topics, room)
		}
	}
}

func (o *outbox) count(bytes int) {
	o.bytes += int64(bytes)
	o.cluster.hub.observer.Add(MetricBrokerQueue, "", "", bytes)
}

// enlist has the topic's first envelope published.
func (o *outbox) enlist(t *outTopic) {
	o.ready = append(o.ready, t)
	if o.working < publishers {
		o.working++
		o.cluster.wg.Go(o.work)
	}
}

// work is a publisher.
func (o *outbox) work() {
	for t, data := o.next(); t != nil; t, data = o.next() {
		ctx, cancel := context.WithTimeout(o.cluster.ctx, publishTime)
		err := o.cluster.broker.Publish(ctx, o.cluster.topic(t.room), data)
		cancel()
		o.published(t, err)
	}
}

// next takes the topic whose turn it is, and what to publish on it: its first envelope or, where that
// failed, an empty one, to see whether the broker is back.
func (o *outbox) next() (*outTopic, []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 {
		o.working--
		return nil, nil
	}
	t := o.ready[0]
	o.ready[0] = nil
	o.ready = o.ready[1:]
	if t.retry > 0 {
		return t, appendEnvelope(nil, o.cluster.node)
	}
	return t, t.envelopes[0]
}

// published notes what became of what next returned.
func (o *outbox) published(t *outTopic, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return // it has been counted as lost
	}
	rejected := interface{ Rejected() bool }(nil)
	switch {
	case err == nil && t.retry > 0:
		o.works()
		t.retry = 0
		o.enlistIn(min(time.Since(t.since), maxHold), t)
		return
	case err == nil:
		o.works()
		t.local = false
	case errors.As(err, &rejected) && rejected.Rejected():
		o.cluster.hub.observer.Add(MetricBrokerErrors, "", "rejected", 1)
		if s := o.cluster.subscription(t.room); s != nil {
			s.missed("rejected", fmt.Errorf("wsroom: broker: %w", err), o.cluster.node)
		}
	default:
		o.failed(t, err)
		return
	}
	o.count(-len(t.envelopes[0]))
	t.envelopes[0] = nil
	t.envelopes = t.envelopes[1:]
	t.since = time.Now()
	if t.busy = len(t.envelopes) > 0; t.busy {
		o.enlist(t)
	}
	o.tellDrained()
}

// works notes that the broker takes messages.
func (o *outbox) works() {
	if o.failing.IsZero() {
		return
	}
	away := time.Since(o.failing)
	o.failing = time.Time{}
	o.cluster.reports.add("broker is back", func() {
		o.cluster.hub.cfg.logger.Info("wsroom: broker takes messages again", "away", away)
	})
}

// failed has the topic tried again later.
func (o *outbox) failed(t *outTopic, err error) {
	hub := o.cluster.hub
	hub.observer.Add(MetricBrokerErrors, "", "publish", 1)
	if o.failing.IsZero() {
		o.failing = time.Now()
		o.cluster.reports.add("broker is away", func() {
			hub.cfg.logger.Warn("wsroom: broker doesn't take messages", "err", err)
		})
	}
	if o.late(t) {
		o.deliverLocally(t)
	}
	t.retry = nextRetry(t.retry)
	o.enlistIn(t.retry, t)
}

func (o *outbox) enlistIn(d time.Duration, t *outTopic) {
	time.AfterFunc(d, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.closed {
			o.enlist(t)
		}
	})
}

func nextRetry(last time.Duration) time.Duration { return min(max(2*last, minRetry), maxRetry) }

func (o *outbox) tellDrained() {
	if o.bytes == 0 && o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// flush waits until nothing waits, or until ctx is done.
func (o *outbox) flush(ctx context.Context) {
	o.mu.Lock()
	if o.bytes > 0 && o.drained == nil {
		o.drained = make(chan struct{})
	}
	drained := o.drained
	o.mu.Unlock()
	if drained != nil {
		select {
		case <-drained:
		case <-ctx.Done():
		}
	}
}

// close takes no more, and returns how many bytes are lost.
func (o *outbox) close() (lost int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost = o.bytes
	o.closed = true
	o.count(int(-o.bytes))
	o.ready = nil
	clear(o.topics)
	o.tellDrained()
	return lost
}
