package wsroom

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
	// lingerTime is how long a room's subscription outlives its last member here.
	lingerTime = 2 * time.Second
	// subscribeTime bounds one call of Subscribe.
	subscribeTime = 5 * time.Second
	// knownNodes bounds the nodes whose sequence a subscription remembers.
	knownNodes = 1024
	// pastRooms bounds the rooms of which what was heard is kept when their subscription has ended.
	pastRooms = 4096
	// longAgo is by how much a message's sequence is below the last one's that can't be an earlier message that
	// comes again: at 100,000 messages a second it would be a quarter of an hour old.
	longAgo = 100_000_000
	// hugeJump is by how much no node's sequence rises from one message on a topic to the next.
	hugeJump = 1 << 40
)

// subscription is what a node hears of one topic.
type subscription struct {
	cluster *cluster
	room    string
	to      audience      // the room's members, or everyone
	ready   chan struct{} // closed when it hears, or members do without
	ctx     context.Context
	cancel  context.CancelFunc

	users  int         // members here and those about to be; guarded by cluster.mu
	linger *time.Timer // ends it where there is none; guarded by cluster.mu

	mu     sync.Mutex // guards the rest; held while a message is delivered, one at a time
	stop   func()     // nil until it is subscribed
	from   uint64     // sequence of this node when it was
	late   bool       // members did without it
	closed bool
	heard  map[nodeID]heard
	echo   chan struct{} // closed when this node's message of the sequence awaited has come; nil: nobody waits
	await  uint64
}

var errMissing = errors.New("wsroom: broker: messages are missing")

// heard is what is known of a node's messages on the topic.
type heard struct {
	sequence uint64 // of the last one
	excused  bool   // that some are missing has been reported
}

func newSubscription(c *cluster, room string) *subscription {
	s := &subscription{cluster: c, room: room, ready: make(chan struct{}), heard: c.past[room]}
	if delete(c.past, room); s.heard == nil {
		s.heard = map[nodeID]heard{}
	}
	if s.to = everyone; room != everyRoom {
		s.to = audience{rooms: []string{room}}
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	return s
}

// run subscribes, and tries again until it works or nobody wants it any more.
func (s *subscription) run() {
	c, retry := s.cluster, time.Duration(0)
	for s.ctx.Err() == nil {
		ctx, cancel := context.WithTimeout(s.ctx, subscribeTime)
		stop, err := c.broker.Subscribe(ctx, c.topic(s.room), s.deliver, s.lost)
		cancel()
		if err == nil {
			s.subscribed(stop)
			return
		}
		s.failed(err, retry == 0)
		retry = serial.NextRetry(retry)
		select {
		case <-time.After(retry):
		case <-s.ctx.Done():
		}
	}
}

func (s *subscription) subscribed(stop func()) {
	s.cluster.outbox.mu.Lock()
	from := s.cluster.outbox.sequence
	s.cluster.outbox.mu.Unlock()
	s.mu.Lock()
	s.stop, s.from = stop, from
	closed, late := s.closed, s.late
	s.mu.Unlock()
	switch {
	case closed:
		stop()
	case late:
		s.gap("late", errors.New("wsroom: broker: subscribed late"))
	default:
		close(s.ready)
	}
}

// failed reports the first failure.
func (s *subscription) failed(err error, first bool) {
	hub := s.cluster.hub
	if s.ctx.Err() != nil {
		return
	}
	hub.observer.Add(MetricBrokerErrors, "", "subscribe", 1)
	if first {
		s.cluster.refused.add(s.room, "", err)
	}
	_ = s.doWithout() // where it can't, whoever waits may yet be lucky
}

// doWithout lets the members in without a subscription if that is how the hub takes an outage.
func (s *subscription) doWithout() error {
	if s.cluster.hub.cfg.outage != DeliverLocally {
		return ErrOutage
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.late && s.stop == nil {
		s.late = true
		close(s.ready)
	}
	return nil
}

// wait returns when the subscription hears.
func (s *subscription) wait(ctx func() context.Context) error {
	select {
	case <-s.ready:
		return nil
	default:
	}
	patience := time.NewTimer(s.cluster.hub.cfg.outageTime)
	defer patience.Stop()
	select {
	case <-s.ready:
		return nil
	case <-patience.C:
		return s.doWithout()
	case <-ctx().Done():
		return fmt.Errorf("%w: %w", ErrOutage, context.Cause(ctx()))
	case <-s.ctx.Done():
		return ErrShutdown
	}
}

// expire ends the subscription if nobody has come back to it.
func (s *subscription) expire() {
	if s.retire() {
		defer s.cluster.wg.Done()
		s.close()
	}
}

// retire makes way for another subscription of the room, if nobody uses this one. It delivers nothing any
// more then: both would. The caller is to close it, and then tell the cluster, which waits.
func (s *subscription) retire() bool {
	c := s.cluster
	s.mu.Lock()
	defer s.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.users > 0 || c.subs[s.room] != s {
		return false
	}
	delete(c.subs, s.room)
	s.closed = true
	c.keep(s)
	c.wg.Add(1)
	return true
}

// keep remembers what a subscription has heard, for who comes back to the room: what is published again, or
// has been delivered locally, may be still to come. What wasn't heard in between was for nobody here.
func (c *cluster) keep(s *subscription) {
	for node, h := range s.heard {
		h.excused = true
		s.heard[node] = h
	}
	for room := range c.past {
		if len(c.past) < pastRooms {
			break
		}
		delete(c.past, room)
	}
	if len(s.heard) > 0 {
		c.past[s.room] = s.heard
	}
	s.heard = nil // it is the next one's now
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

// lost is told by the broker that messages may have been missed.
func (s *subscription) lost(err error) {
	s.missed("lost", fmt.Errorf("wsroom: broker: %w", err))
}

// missed reports messages that won't come from any of the nodes, so that their absence isn't reported again.
func (s *subscription) missed(cause string, err error, nodes ...nodeID) {
	s.mu.Lock()
	for node, h := range s.heard {
		h.excused = h.excused || len(nodes) == 0 || slices.Contains(nodes, node)
		s.heard[node] = h
	}
	s.mu.Unlock()
	s.gap(cause, err)
}

// gap reports that messages are missing, if somebody here was to get them.
func (s *subscription) gap(cause string, err error) {
	if s.cluster.inUse(s) {
		s.cluster.gap(s.room, cause, err)
	}
}

// deliver takes an envelope. Writing to sockets that would have to wait isn't done here, so that holding
// mu holds nobody up but the topic's next message.
func (s *subscription) deliver(envelope []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	node, letters, err := openEnvelope(envelope)
	if err != nil {
		s.gap("malformed", err)
		return
	}
	names := budget(maxNames)
	for len(letters) > 0 {
		l, payload, err := letters.letter(&names)
		if letters != nil && !s.fresh(node, l) {
			continue
		}
		if err != nil {
			s.gap("malformed", err)
			continue
		}
		if l.kind == kindLost {
			s.givenUp(node)
			continue
		}
		s.cluster.hub.receive(s.to, l, payload)
	}
	s.tellEcho(node)
}

// fresh reports whether a message hasn't come before, and notices if others before it haven't come. Where a
// sequence can't be that node's, it or the one before was forged: that is a gap, and begins anew.
func (s *subscription) fresh(node nodeID, l letter) bool {
	h, known := s.heard[node]
	switch {
	case !known:
	case l.sequence <= h.sequence && h.sequence-l.sequence < longAgo:
		return false
	case l.sequence <= h.sequence || l.sequence-h.sequence > hugeJump:
		s.gap("sequence", errMissing)
	case l.back > 0 && h.sequence < l.sequence-l.back && !h.excused:
		s.gap("sequence", errMissing)
	}
	if !known && len(s.heard) >= knownNodes {
		own := s.cluster.node // what it has delivered locally is still to come
		maps.DeleteFunc(s.heard, func(other nodeID, _ heard) bool { return other != own })
	}
	s.heard[node] = heard{sequence: l.sequence}
	return true
}

// givenUp is told by a node that it couldn't publish a message. This node has reported its own.
func (s *subscription) givenUp(node nodeID) {
	if node != s.cluster.node {
		s.gap("sequence", errMissing)
	}
}

// waitFor waits until this node's message of that sequence has come back, if it will.
func (s *subscription) waitFor(ctx context.Context, sequence uint64) {
	s.mu.Lock()
	own := s.cluster.node
	if s.stop == nil || s.closed || sequence <= s.from || s.heard[own].sequence >= sequence {
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

func (s *subscription) tellEcho(node nodeID) {
	if s.echo != nil && node == s.cluster.node && s.heard[node].sequence >= s.await {
		close(s.echo)
		s.echo = nil
	}
}

// skip says who doesn't get a letter that comes to a room; nil: everybody does.
func (l letter) skip() func(*Conn) bool {
	if len(l.except)+len(l.besides) == 0 {
		return nil
	}
	except, besides := newLookup(l.except), newLookup(l.besides)
	return func(c *Conn) bool {
		return except.has(c.id) || len(l.besides) > 0 && c.isWithin(&besides, len(l.besides))
	}
}
