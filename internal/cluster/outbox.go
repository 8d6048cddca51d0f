package cluster

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

const (
	// maxEnvelope is the size up to which messages are collected in an envelope while their topic waits for
	// the broker. A single message may be larger.
	maxEnvelope = 128 << 10
	// keptTopics bounds the topics whose sequence is remembered while nothing waits for them.
	keptTopics = 4096
)

// outbox holds what a node has taken for the broker, in order. The envelopes of one topic are published one
// after the other; different topics are published concurrently. Messages that come during a call are
// collected in the next envelope. There are goroutines only while there is something to publish.
type outbox struct {
	node *Node

	mu       sync.Mutex // guards all that follows, and the contents of the topics
	topics   map[string]*topic
	forgetAt int           // the number of topics at which idle ones are removed next
	sequence uint64        // of the last message
	bytes    int64         // in all envelopes
	drained  chan struct{} // closed when nothing waits; nil if nobody waits for that
	closed   bool
	calls    // what is being published
}

// topic holds what waits for one topic of the broker.
type topic struct {
	room      string
	envelopes [][]byte // the first doesn't change unless the topic is idle
	last      uint64   // sequence of its last message
	phase     phase
	local     bool // what waits has been delivered on this node, and so is what comes until nothing waits

	works   bool          // its last call worked
	absence absence       // its calls that have failed since one last worked
	retry   time.Duration // its wait after the last failure; 0: it is published as if it hadn't failed
	begun   time.Time     // when its last call began
	probe   bool          // its last call was a probe
	notice  bool          // the first envelope only says that an earlier one was given up
	tries   int           // how often the first envelope was published and not taken
	offered time.Time     // when it was first published
}

// phase is the state of a topic's publishing.
type phase uint8

const (
	idle       phase = iota // nothing waits
	queued                  // it is in calls.ready
	publishing              // a call is under way
	retrying                // a timer queues it again: after a failure, or once other nodes have subscribed again
)

// Publish takes a message for the audience on all nodes. With labels that aren't empty it belongs to a
// trace, or is the newest value of a key; see [Delivery]. Publish copies the payload, and returns before the
// message is delivered. It returns [ErrClosed], or [ErrAway] unless [Config].Local is set, or an error for a
// message that nodes or the broker can never take. On an error nobody gets the message.
func Publish[P string | []byte](n *Node, l Labels, to Audience, kind byte, payload P) error {
	topics, conns := to.topics()
	if len(topics) == 0 {
		return nil
	}
	m := message{kind: kind, except: to.Except, unless: to.ExceptIdentities, trace: l.Trace, key: l.Key}
	if err := n.checkSize(topics, to, l, len(payload)); err != nil {
		return err
	}

	o := &n.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.admit(topics, len(payload)*len(topics)); err != nil {
		return err
	}
	for i, topic := range topics {
		if m.to = to.Identities; conns != nil {
			m.to = conns[topic]
		} else if !isCommand(kind) {
			m.besides = topics[:i]
		}
		enqueue(o, topic, m, payload)
	}
	return nil
}

// checkSize checks a message against the limits of nodes and of the broker.
func (n *Node) checkSize(topics []string, to Audience, l Labels, size int) error {
	if len(topics) > maxRooms {
		return fmt.Errorf("wsroom: a message to %d rooms: with a broker the most is %d", len(topics), maxRooms)
	}
	named := len(to.Identities) + len(to.Conns) + len(to.Except) + len(to.ExceptIdentities)
	if limit := maxNames - maxRooms; named > limit {
		return fmt.Errorf("wsroom: a message that names %d connections and identities: with a broker the most is %d",
			named, limit)
	}

	overhead := envelopeHead + 6*maxUvarint // at most, without names and labels
	if l.Trace != "" || l.Key != "" {
		overhead += maxUvarint + len(l.Trace) + len(l.Key) // both lengths fit into maxUvarint: they are at most 255
	}
	if len(to.Identities)+len(to.Conns)+len(to.ExceptIdentities) > 0 {
		overhead += 2 * maxUvarint
	}
	lists := [...][]string{to.Identities, to.Conns, to.Except, to.ExceptIdentities, nil}
	if len(to.Rooms) > 0 {
		lists[len(lists)-1] = to.Rooms[:len(to.Rooms)-1] // of which the last message leaves out the members
	}
	for _, names := range lists {
		for _, name := range names {
			overhead += maxUvarint + len(name)
		}
	}
	if limit := n.maxData(); size > limit-overhead {
		return fmt.Errorf("wsroom: a message of %d bytes, with up to %d around it, is more than the %d that the broker takes",
			size, overhead, limit)
	}
	return nil
}

// maxData returns how many bytes the broker takes at most.
func (n *Node) maxData() int {
	if b, ok := n.cfg.Broker.(limited); ok {
		return b.MaxData()
	}
	return math.MaxInt
}

// admit reports whether a message to these rooms is taken. With Config.Local every message is taken.
func (o *outbox) admit(rooms []string, size int) error {
	if o.closed {
		return ErrClosed
	}
	if o.node.cfg.Local {
		return nil
	}
	if o.full(size) {
		return ErrAway
	}
	for _, room := range rooms {
		if o.isAway(o.topics[room]) {
			o.probeUnknown(room)
			return ErrAway
		}
	}
	return nil
}

// full reports whether size more bytes are too many. A message is always taken when nothing waits.
func (o *outbox) full(size int) bool {
	return o.bytes > 0 && o.bytes+int64(size) > o.node.cfg.Bytes
}

// isAway reports whether the topic's messages wait, or would have to wait, for longer than an outage is
// bridged. A topic's own calls decide. A topic whose last call didn't work, or that has had none, is also
// away if no call on any topic works.
func (o *outbox) isAway(t *topic) bool {
	bridge := o.node.cfg.Bridge
	switch nothingWorks := o.absence.length() > bridge; {
	case t == nil:
		return nothingWorks
	case t.phase == publishing && time.Since(t.begun) > bridge:
		return true
	default:
		return t.absence.length() > bridge || nothingWorks && !t.works
	}
}

// enqueue takes a message to a room: for the broker, for this node's members at once, or for both.
//
//	buffer | topic          | by the broker        | at once, to members here
//	space  | works          | yes                  | no: it comes back from the broker
//	space  | works, local   | yes                  | yes: earlier messages were delivered at once, and still wait
//	space  | away           | when it is back      | yes, after all that waits
//	full   | works or away  | no, which is a gap   | yes, after all that waits
//
// The last three rows apply only with Config.Local: otherwise admit refuses the message. A message that was
// delivered at once and comes back is recognized by its sequence and dropped.
func enqueue[P string | []byte](o *outbox, room string, m message, payload P) {
	t := o.topic(room)
	o.sequence++
	m.sequence = o.sequence
	if t.last > 0 {
		m.back = m.sequence - t.last
	}
	t.last = m.sequence

	full := o.node.cfg.Local && o.full(len(payload))
	if full || o.isAway(t) {
		o.deliverLocally(t)
	}
	local := t.local
	if full {
		t.local = t.local && t.phase != idle // nothing waits that has been delivered
	} else {
		appendToEnvelope(o, t, m, payload)
	}
	if local {
		o.node.deliver(room, appendMessage(appendEnvelope(nil, o.node.id), m, payload))
	}
}

// appendToEnvelope appends the message to the topic's last envelope. It begins a new one if the last is
// being published or would become too large.
func appendToEnvelope[P string | []byte](o *outbox, t *topic, m message, payload P) {
	last := len(t.envelopes) - 1
	if last < 0 || last == 0 && t.phase != idle {
		last++
		t.envelopes = append(t.envelopes, appendEnvelope(nil, o.node.id))
		o.count(envelopeHead)
	}

	e := t.envelopes[last]
	before := len(e)
	e = appendMessage(e, m, payload)
	o.count(len(e) - before)
	if len(e) > min(maxEnvelope, o.node.maxData()) && before > envelopeHead {
		t.envelopes = append(t.envelopes, append(appendEnvelope(nil, o.node.id), e[before:]...))
		o.count(envelopeHead)
		e = e[:before]
	}
	t.envelopes[last] = e

	if t.phase == idle {
		o.schedule(t)
	}
}

// deliverLocally delivers what waits for the topic on this node, with Config.Local. It does so under the
// lock, which keeps the order on this node.
func (o *outbox) deliverLocally(t *topic) {
	if t.local || !o.node.cfg.Local {
		return
	}
	t.local = true
	for _, e := range t.envelopes {
		o.node.deliver(t.room, e)
	}
}

// topic returns the room's topic.
func (o *outbox) topic(room string) *topic {
	t := o.topics[room]
	if t == nil {
		if len(o.topics) >= max(o.forgetAt, keptTopics) {
			o.forgetIdle()
			o.forgetAt = 2 * len(o.topics)
		}
		t = &topic{room: room}
		o.topics[room] = t
	}
	return t
}

func (o *outbox) forgetIdle() {
	busy := map[string]*topic{} // a new one, because a map keeps its memory
	for room, t := range o.topics {
		if t.phase != idle {
			busy[room] = t
		}
	}
	o.topics = busy
}

// lastSequence returns the sequence of the node's last message.
func (o *outbox) lastSequence() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sequence
}

// lastSequenceOf returns the sequence of the room's last message, or 0.
func (o *outbox) lastSequenceOf(room string) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.topics[room]; t != nil {
		return t.last
	}
	return 0
}

// lastSequences returns the sequence of each room's last message.
func (o *outbox) lastSequences() map[string]uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	last := make(map[string]uint64, len(o.topics))
	for room, t := range o.topics {
		last[room] = t.last
	}
	return last
}

func (o *outbox) count(bytes int) {
	o.bytes += int64(bytes)
	o.node.cfg.Queued(bytes)
}

func (o *outbox) signalDrained() {
	if o.bytes == 0 && o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// flush waits until nothing waits to be published, or until ctx is done.
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

// close stops the outbox from taking messages. It returns how many bytes are lost.
func (o *outbox) close() (lost int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	lost = o.bytes
	o.closed = true
	o.count(int(-o.bytes))
	o.endCalls()
	clear(o.topics)
	o.signalDrained()
	return lost
}
