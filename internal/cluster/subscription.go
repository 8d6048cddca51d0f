package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/serial"
)

const (
	// lingerTime is how long a room's subscription is kept after its last member here has left.
	lingerTime = 2 * time.Second
	// subscribeTime bounds one call of Subscribe.
	subscribeTime = 5 * time.Second
	// knownNodes bounds the nodes whose sequence a subscription remembers.
	knownNodes = 1024
	// endedRooms bounds the rooms for which the sequences seen by an ended subscription are remembered.
	endedRooms = 4096
	// longAgo is how far a message's sequence must be below the last one to be no duplicate of an earlier
	// message. At 100,000 messages a second that message would be a quarter of an hour old.
	longAgo = 100_000_000
	// hugeJump is more than any node's sequence rises between two messages on a topic.
	hugeJump = 1 << 40
)

// subscription is what a node receives from one topic. Its life:
//
//	subscribing ──────────> subscribed, in use <─────────> unused ────────> retired, closed
//	     │ Config.Local:           ^       last user leaves,    lingerTime has
//	     v broker is away          │       next one comes       passed: expire
//	members do without it ─────────┘
//	           "late", a gap
//
// Members wait until it is subscribed. It may also become unused and retire while it isn't subscribed.
// Node.Close closes it at any time.
//
// At any time one subscription of the room owns seen, which is what is known of the topic. newSubscription
// takes it from Node.ended, and retire returns it. Messages missing from before a subscription began are no
// gap, because nobody here was to get them. With Config.History a subscription begins with messages of
// before; history.go has what differs then.
type subscription struct {
	node   *Node
	room   string
	rooms  []string      // their members get the messages; nil if it isn't a room's
	kept   bool          // the broker keeps the messages
	before past          // what the last subscription of a kept room had seen
	ready  chan struct{} // closed when it is subscribed, or when members do without it
	ctx    context.Context
	cancel context.CancelFunc

	users  int         // members here and connections about to join; guarded by Node.mu
	linger *time.Timer // retires it; nil if it is in use; guarded by Node.mu

	mu        sync.Mutex // guards the rest; held while a message is delivered, one at a time
	stop      func()     // nil until it is subscribed
	from      uint64     // this node's sequence when it was subscribed
	without   bool       // members have done without it
	closed    bool
	seen      map[nodeID]seen // nil once it is retired
	following *following      // the call that delivers; nil if the messages aren't kept
	at        uint64          // position of the last envelope, if they are kept
	echo      chan struct{}   // closed when this node's message with the awaited sequence has come; nil: none awaited
	await     uint64
}

var errMissing = errors.New("wsroom: broker: messages are missing")

// seen is what is known of a node's messages on the topic.
type seen struct {
	sequence uint64 // of the last one
	gapKnown bool   // the messages missing after it have been reported, or are no gap
	missed   bool   // messages after it may have come without this node
}

// newSubscription returns a room's subscription. Node.mu is locked.
func newSubscription(n *Node, room string) *subscription {
	s := &subscription{node: n, room: room, ready: make(chan struct{}), kept: n.keeps(room)}
	if s.before = n.ended[room]; !s.kept {
		s.seen, s.before = s.before.seen, past{}
	}
	if delete(n.ended, room); s.seen == nil {
		s.seen = map[nodeID]seen{}
	}
	if isRoom(room) {
		s.rooms = []string{room}
	}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	return s
}

// run subscribes, and tries again until that works or nobody wants it any more.
func (s *subscription) run() {
	retry := time.Duration(0)
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, subscribeTime)
		stop, err := s.subscribe(ctx)
		cancel()
		if err == nil {
			s.subscribed(stop)
			return
		}

		s.refused(err, retry == 0)
		retry = serial.NextRetry(retry)
		select {
		case <-time.After(retry):
		case <-s.ctx.Done():
		}
	}
}

// subscribe calls the broker once.
func (s *subscription) subscribe(ctx context.Context) (stop func(), err error) {
	if s.kept {
		return s.follow(ctx)
	}
	subscribe := s.node.cfg.Broker.Subscribe
	if b, ok := s.node.cfg.Broker.(direct); ok {
		subscribe = b.SubscribeDirect
	}
	return subscribe(ctx, s.node.topicName(s.room), s.deliver, s.lost)
}

// subscribed lets members in. If they did without the subscription, they may have missed messages.
func (s *subscription) subscribed(stop func()) {
	from := s.node.outbox.lastSequence()
	s.mu.Lock()
	s.stop, s.from = stop, from
	closed, without := s.closed, s.without
	s.mu.Unlock()

	switch {
	case closed:
		stop()
	case without:
		s.report("late", errors.New("wsroom: broker: subscribed late"))
	default:
		close(s.ready)
	}
}

// refused counts a failure of the broker, and reports the first one.
func (s *subscription) refused(err error, first bool) {
	if s.ctx.Err() != nil {
		return
	}
	s.node.cfg.Failed("subscribe")
	if first {
		s.node.refused.add(s.room, "", err)
	}
	_ = s.doWithout() // on an error, members wait for the next try
}

// doWithout lets members in without a subscription, with Config.Local.
func (s *subscription) doWithout() error {
	if !s.node.cfg.Local {
		return ErrAway
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.without && s.stop == nil {
		s.without = true
		close(s.ready)
	}
	return nil
}

// isReady reports whether the subscription is subscribed, or members do without it.
func (s *subscription) isReady() bool {
	select {
	case <-s.ready:
		return true
	default:
		return false
	}
}

// wait returns once the subscription is ready, or with an error: after the deadline, or when the context is
// done.
func (s *subscription) wait(ctx func() context.Context, deadline time.Time) error {
	timeout := time.NewTimer(time.Until(deadline))
	defer timeout.Stop()
	select {
	case <-s.ready:
		return nil
	case <-timeout.C:
		return s.doWithout()
	case <-ctx().Done():
		return fmt.Errorf("%w: %w", ErrAway, context.Cause(ctx()))
	case <-s.ctx.Done():
		return ErrClosed
	}
}

// expire ends the subscription if nobody uses it again.
func (s *subscription) expire() {
	if s.retire() {
		defer s.node.wg.Done()
		s.close()
	}
}

// retire makes way for another subscription of the room, if nobody uses this one. From then on this one
// delivers nothing, so that messages aren't delivered twice. The caller must close it and then call
// node.wg.Done, for which the node waits.
func (s *subscription) retire() bool {
	n := s.node
	s.mu.Lock()
	defer s.mu.Unlock()
	n.ending.Lock()
	defer n.ending.Unlock()
	if !s.makeWay() {
		return false
	}
	s.end()
	s.closed, s.seen = true, nil
	return true
}

// makeWay removes the subscription from the node, if nobody uses it. mu is locked.
func (s *subscription) makeWay() bool {
	n := s.node
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.users > 0 || n.subs[s.room] != s {
		return false
	}

	n.subs = lookup.Delete(n.subs, s.room, &n.most)
	n.remember(s.room, s.lastSeen())
	n.wg.Add(1)
	return true
}

// remember keeps what a room's subscription has seen for the next one. So the next one drops messages that
// are published again or were delivered locally. Messages that nobody here was to get are no gap. mu is
// locked.
func (n *Node) remember(room string, last past) {
	for node, of := range last.seen {
		of.gapKnown = true
		last.seen[node] = of
	}

	for other := range n.ended {
		if len(n.ended) < endedRooms {
			break
		}
		delete(n.ended, other)
	}
	if len(last.seen) > 0 {
		n.ended[room] = last
	}
}

// close ends the subscription. No message is delivered after it.
func (s *subscription) close() {
	s.cancel()
	s.mu.Lock()
	s.end()
	s.closed = true
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// lost is called by the broker when messages may have been missed.
func (s *subscription) lost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lostLocked(err)
}

// lostLocked reports that messages of any node won't come. Their absence isn't reported again. mu is
// locked.
func (s *subscription) lostLocked(err error) {
	for node, last := range s.seen {
		last.gapKnown, last.missed = true, true
		s.seen[node] = last
	}
	s.gap("lost", fmt.Errorf("wsroom: broker: %w", err))
}

// rejected reports that a message of this node was given up. A notice of that comes from the broker, if it
// can: a room's log has its hole there, as on other nodes.
func (s *subscription) rejected(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own, known := s.seen[s.node.id]; known && !s.kept {
		own.gapKnown = true
		s.seen[s.node.id] = own
	}
	s.report("rejected", err)
}

// gap reports that messages are missing where the next one stands. mu is locked.
func (s *subscription) gap(cause string, err error) {
	s.hole()
	if !s.isPast() {
		s.report(cause, err)
	}
}

// report reports a gap, if anybody here was to get the messages.
func (s *subscription) report(cause string, err error) {
	if s.node.inUse(s) {
		s.node.gap(s.room, cause, err)
	}
}

// deliver takes an envelope of a topic that isn't kept.
func (s *subscription) deliver(envelope []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.take(envelope)
	}
}

// take delivers an envelope's messages. Hooks.Receive doesn't wait, so holding mu delays only the topic's
// next message. mu is locked.
func (s *subscription) take(envelope []byte) {
	node, messages, err := openEnvelope(envelope)
	if err != nil {
		s.gap("malformed", err)
		return
	}

	names, past, again := budget(maxNames), s.isPast(), envelope[0]&published != 0
	for letter := uint32(0); len(messages) > 0; letter++ {
		m, payload, err := messages.message(&names)
		switch {
		case messages != nil && !s.isNew(node, m, again):
		case err != nil:
			s.gap("malformed", err)
		case m.kind == kindLost:
			s.givenUp(node)
		case past && (isCommand(m.kind) || m.key != ""): // it was for the members of then
		default:
			s.receive(m, payload, Position{s.at, letter}, past)
		}
	}
	s.signalEcho(node)
}

// receive hands over a message. What is for identities or connections must have come on a topic for those.
func (s *subscription) receive(m message, payload []byte, at Position, past bool) {
	d := Delivery{Kind: m.kind, Payload: payload, Besides: m.besides, At: at, Past: past}
	d.Except, d.ExceptIdentities = m.except, m.unless
	d.Labels = Labels{m.trace, m.key}
	switch {
	case s.rooms != nil && len(m.to) > 0:
		s.gap("malformed", errMalformed)
		return
	case s.rooms != nil:
		d.Rooms = s.rooms
	case s.room != EveryRoom:
		d.Conns = m.to
	case len(m.to) > 0:
		d.Identities = m.to
	default:
		d.All = true
	}
	s.node.cfg.Receive(d)
}

// isNew notes a message's sequence and reports whether the message is new. If earlier messages haven't
// come, it reports a gap. If the sequence can't be that node's, either this one or the last was forged:
// that counts as a gap, and counting begins anew. again says that the message may have been published
// before: if that copy may have been missed here, other nodes have the message there and not here, which is
// a hole.
func (s *subscription) isNew(node nodeID, m message, again bool) bool {
	last, known := s.seen[node]
	switch {
	case !known:
		if again && s.following != nil && s.following.goesOn {
			s.hole()
		}
	case m.sequence <= last.sequence && last.sequence-m.sequence < longAgo:
		return false
	case m.sequence <= last.sequence || m.sequence-last.sequence > hugeJump:
		s.gap("sequence", errMissing)
	case m.back > 0 && last.sequence < m.sequence-m.back && !last.gapKnown:
		s.gap("sequence", errMissing)
	case again && last.missed:
		s.hole()
	}

	if !known && len(s.seen) >= knownNodes {
		own := s.node.id // what it has delivered locally is still to come
		maps.DeleteFunc(s.seen, func(other nodeID, _ seen) bool { return other != own })
	}
	s.seen[node] = seen{sequence: m.sequence}
	return true
}

// givenUp is called for a message that a node couldn't publish. This node has already reported its own, but
// not as a hole.
func (s *subscription) givenUp(node nodeID) {
	if node == s.node.id {
		s.hole()
		return
	}
	s.gap("sequence", errMissing)
}

// waitFor waits until this node's message with that sequence has come back, if it will.
func (s *subscription) waitFor(ctx context.Context, sequence uint64) {
	s.mu.Lock()
	if s.stop == nil || s.closed || sequence <= s.from || s.seen[s.node.id].sequence >= sequence {
		s.mu.Unlock()
		return
	}
	if s.echo == nil {
		s.echo = make(chan struct{})
	}
	echo := s.echo
	s.await = max(s.await, sequence)
	s.mu.Unlock()

	select {
	case <-echo:
	case <-ctx.Done():
	}
}

func (s *subscription) signalEcho(node nodeID) {
	if s.echo != nil && node == s.node.id && s.seen[node].sequence >= s.await {
		close(s.echo)
		s.echo = nil
	}
}
