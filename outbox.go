package wsroom

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// maxEnvelope is up to what size messages gather while their topic waits for the broker. A single
	// message may be larger.
	maxEnvelope = 128 << 10
	// keptTopics bounds the topics whose sequence is remembered while nothing waits for them.
	keptTopics = 4096
)

// outbox is what a hub has taken for the broker, in order. A topic's messages are published one envelope
// after the other, those of different topics side by side; what comes while one is under way gathers in
// the next. There are goroutines only while there is something to publish.
type outbox struct {
	cluster *cluster

	mu       sync.Mutex // guards all that follows, and what is in the topics
	topics   map[string]*outTopic
	enough   int           // topics, before it is worthwhile to look for idle ones
	sequence uint64        // of the last message
	bytes    int64         // in all envelopes
	drained  chan struct{} // closed when nothing waits; nil if nobody wants to know
	closed   bool
	calls    // what is being published
}

// outTopic is what waits for a topic. While it is busy it is ready, being published, or about to be
// tried again.
type outTopic struct {
	room      string
	envelopes [][]byte // the first doesn't change while the topic is busy
	last      uint64   // sequence of its last message
	busy      bool
	local     bool // what waits has been delivered on this node

	works   bool          // its last call worked
	absence absence       // its calls that have failed since one worked
	retry   time.Duration // what it waited for after its last failure; 0: it is offered as if it hadn't failed
	begun   time.Time     // when the call under way began; zero: none is
	probe   bool          // that call is a probe
	notice  bool          // the first envelope only tells that one before it was given up
	tries   int           // how often the first envelope was offered and not taken
	offered time.Time     // when it was offered first
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

// fits checks a message against the most that nodes, and the broker, take.
func (c *cluster) fits(rooms []string, l letter, size int) error {
	if len(rooms) > maxRooms {
		return fmt.Errorf("wsroom: a message to %d rooms: with a broker the most is %d", len(rooms), maxRooms)
	}
	if most := maxNames - maxRooms; len(l.except) > most {
		return fmt.Errorf("wsroom: a message that leaves out %d connections: with a broker the most is %d", len(l.except), most)
	}
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
			o.look(room)
			return ErrOutage
		}
	}
	return nil
}

// full reports whether size bytes more are too much. A message is always taken when nothing waits.
func (o *outbox) full(size int) bool {
	return o.bytes > 0 && o.bytes+int64(size) > o.cluster.hub.cfg.outageBytes
}

// late reports whether the topic's messages wait, or would have to, for longer than an outage is bridged. What
// is known of a topic by its own calls counts. A topic whose last call didn't work, or that had none, is late
// also where no call on any topic works.
func (o *outbox) late(t *outTopic) bool {
	bridged := o.cluster.hub.cfg.outageTime
	switch nothingWorks := o.absence.length() > bridged; {
	case t == nil:
		return nothingWorks
	case !t.begun.IsZero() && time.Since(t.begun) > bridged:
		return true
	default:
		return t.absence.length() > bridged || nothingWorks && !t.works
	}
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
	full := o.cluster.hub.cfg.outage == DeliverLocally && o.full(len(payload)) // the other nodes see a gap
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
		last++
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
	o.endCalls()
	clear(o.topics)
	o.tellDrained()
	return lost
}
