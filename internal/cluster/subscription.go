package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

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
// gap, because nobody here was to get them.
type subscription struct {
	node   *Node
	room   string
	rooms  []string      // their members get the messages; nil: everyone does
	ready  chan struct{} // closed when it is subscribed, or when members do without it
	ctx    context.Context
	cancel context.CancelFunc

	users  int         // members here and connections about to join; guarded by Node.mu
	linger *time.Timer // retires it; nil if it is in use; guarded by Node.mu

	mu      sync.Mutex // guards the rest; held while a message is delivered, one at a time
	stop    func()     // nil until it is subscribed
	from    uint64     // this node's sequence when it was subscribed
	without bool       // members have done without it
	closed  bool
	seen    map[nodeID]seen // nil once it is retired
	echo    chan struct{}   // closed when this node's message with the awaited sequence has come; nil: none awaited
	await   uint64
}

var errMissing = errors.New("wsroom: broker: messages are missing")

// seen is what is known of a node's messages on the topic.
type seen struct {
	sequence uint64 // of the last one
	gapKnown bool   // the messages missing after it have been reported, or are no gap
}

// newSubscription returns a room's subscription. Node.mu is locked.
func newSubscription(n *Node, room string) *subscription {
	s := &subscription{node: n, room: room, ready: make(chan struct{}), seen: n.ended[room]}
	if delete(n.ended, room); s.seen == nil {
		s.seen = map[nodeID]seen{}
	}
	if room != EveryRoom {
		s.rooms = []string{room}
	}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	return s
}

// run subscribes, and tries again until that works or nobody wants it any more.
func (s *subscription) run() {
	n, retry := s.node, time.Duration(0)
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, subscribeTime)
		stop, err := n.cfg.Broker.Subscribe(ctx, n.topicName(s.room), s.deliver, s.lost)
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
		s.gap("late", errors.New("wsroom: broker: subscribed late"))
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

// wait returns when the subscription is subscribed, or when members do without it.
func (s *subscription) wait(ctx func() context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
	}

	timeout := time.NewTimer(s.node.cfg.Bridge)
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
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.users > 0 || n.subs[s.room] != s {
		return false
	}

	delete(n.subs, s.room)
	s.closed = true
	n.remember(s.room, s.seen)
	s.seen = nil
	n.wg.Add(1)
	return true
}

// remember keeps what a room's subscription has seen for the next one. So the next one drops messages that
// are published again or were delivered locally. Messages that nobody here was to get are no gap. mu is
// locked.
func (n *Node) remember(room string, nodes map[nodeID]seen) {
	for node, last := range nodes {
		last.gapKnown = true
		nodes[node] = last
	}

	for other := range n.ended {
		if len(n.ended) < endedRooms {
			break
		}
		delete(n.ended, other)
	}
	if len(nodes) > 0 {
		n.ended[room] = nodes
	}
}

// close ends the subscription. No message is delivered after it.
func (s *subscription) close() {
	s.cancel()
	s.mu.Lock()
	s.closed = true
	stop := s.stop
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// lost is called by the broker when messages may have been missed.
func (s *subscription) lost(err error) {
	s.missed("lost", fmt.Errorf("wsroom: broker: %w", err))
}

// missed reports messages of these nodes, or of all nodes if none is named, that won't come. Their absence
// isn't reported again.
func (s *subscription) missed(cause string, err error, nodes ...nodeID) {
	s.mu.Lock()
	for node, last := range s.seen {
		last.gapKnown = last.gapKnown || len(nodes) == 0 || slices.Contains(nodes, node)
		s.seen[node] = last
	}
	s.mu.Unlock()
	s.gap(cause, err)
}

// gap reports that messages are missing, if anybody here was to get them.
func (s *subscription) gap(cause string, err error) {
	if s.node.inUse(s) {
		s.node.gap(s.room, cause, err)
	}
}

// deliver takes an envelope. Hooks.Receive doesn't wait, so holding mu delays only the topic's next
// message.
func (s *subscription) deliver(envelope []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}

	node, messages, err := openEnvelope(envelope)
	if err != nil {
		s.gap("malformed", err)
		return
	}
	names := budget(maxNames)
	for len(messages) > 0 {
		m, payload, err := messages.message(&names)
		if messages != nil && !s.isNew(node, m) {
			continue
		}
		if err != nil {
			s.gap("malformed", err)
			continue
		}
		if m.kind == kindLost {
			s.givenUp(node)
			continue
		}
		s.node.cfg.Receive(Delivery{s.rooms, m.kind, payload, m.except, m.besides})
	}
	s.signalEcho(node)
}

// isNew notes a message's sequence and reports whether the message is new. If earlier messages haven't
// come, it reports a gap. If the sequence can't be that node's, either this one or the last was forged:
// that counts as a gap, and counting begins anew.
func (s *subscription) isNew(node nodeID, m message) bool {
	last, known := s.seen[node]
	switch {
	case !known:
	case m.sequence <= last.sequence && last.sequence-m.sequence < longAgo:
		return false
	case m.sequence <= last.sequence || m.sequence-last.sequence > hugeJump:
		s.gap("sequence", errMissing)
	case m.back > 0 && last.sequence < m.sequence-m.back && !last.gapKnown:
		s.gap("sequence", errMissing)
	}

	if !known && len(s.seen) >= knownNodes {
		own := s.node.id // what it has delivered locally is still to come
		maps.DeleteFunc(s.seen, func(other nodeID, _ seen) bool { return other != own })
	}
	s.seen[node] = seen{sequence: m.sequence}
	return true
}

// givenUp is called for a message that a node couldn't publish. This node has already reported its own.
func (s *subscription) givenUp(node nodeID) {
	if node != s.node.id {
		s.gap("sequence", errMissing)
	}
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
