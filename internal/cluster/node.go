package cluster

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

// settleTime bounds how long Settle waits for messages to come back from the broker.
const settleTime = time.Second

// Node is one of the nodes that share a broker. [New] makes it. All methods may be called concurrently.
type Node struct {
	cfg     Config
	keeper  Keeper // cfg.Broker, with cfg.History; else nil
	id      nodeID
	own     string // the key of the node's own topic
	outbox  outbox
	reports serial.Queue // log lines, and calls of Hooks.Gap: with no lock held
	gaps    digest
	refused digest          // subscriptions
	ctx     context.Context // done at the end of Close
	cancel  context.CancelFunc
	wg      sync.WaitGroup // publishers and subscribers

	// ending is held while a subscription ends, until Hooks.Ended has returned. The room's next one waits
	// for that.
	ending sync.Mutex

	mu     sync.Mutex // guards the rest, and the subscriptions' users and linger
	subs   map[string]*subscription
	most   int             // see lookup.Delete
	ended  map[string]past // by room: what its last subscription had seen; only for rooms not in subs
	closed bool
}

// New returns a [Node]. [Node.Close] ends it.
func New(cfg Config) *Node {
	n := &Node{
		cfg:   cfg,
		id:    newNodeID(),
		subs:  map[string]*subscription{},
		ended: map[string]past{},
	}
	if cfg.History != nil {
		n.keeper = cfg.Broker.(Keeper)
	}
	n.own = ownTopic + n.id.String()
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.outbox.node, n.outbox.topics = n, map[string]*topic{}

	n.gaps = digest{report: n.reportGap, log: n.logGaps}
	n.refused = digest{log: n.logRefused}
	return n
}

// ownTopic precedes a node's name in the key of its own topic. No room has a name that begins with it.
const ownTopic = "\x00"

// Own returns what a node subscribes to besides rooms and [EveryRoom], for messages to its connections.
func (n *Node) Own() string { return n.own }

// isRoom reports whether what a topic's key names is a room.
func isRoom(key string) bool { return key != EveryRoom && key[0] != ownTopic[0] }

// roomOf returns the room of a topic's key. What isn't to a room is reported as what is to all.
func roomOf(key string) string {
	if isRoom(key) {
		return key
	}
	return EveryRoom
}

// topicName returns the topic of a room's messages. The hub's name is escaped, so it contains no colon.
func (n *Node) topicName(room string) string {
	name := url.QueryEscape(n.cfg.Name)
	switch {
	case room == EveryRoom:
		return name + ":all"
	case isRoom(room):
		return name + ":room:" + room
	default:
		return name + ":node:" + room[len(ownTopic):]
	}
}

// keeps reports whether the broker keeps the room's messages.
func (n *Node) keeps(room string) bool { return n.keeper != nil && isRoom(room) }

// publish calls the broker once. What tells whether it is back is kept like a message: only so it tells
// whether messages would be.
func (n *Node) publish(ctx context.Context, room string, data []byte) error {
	if h := n.cfg.History; n.keeps(room) {
		return n.keeper.Keep(ctx, n.topicName(room), data, h.Messages, h.Age)
	}
	return n.cfg.Broker.Publish(ctx, n.topicName(room), data)
}

// Subscribe makes sure that what is published for these rooms from now on is received, until
// [Node.Unsubscribe] has been called as often. It subscribes to all of them at the same time. It calls ctx
// for its context if it has to wait. On an error it subscribes to none of the rooms. The error is
// [ErrClosed], or [ErrAway] if the broker takes no subscription within [Config].Bridge. With [Config].Local
// the room then does without a subscription until the broker is back. With [Config].History it returns once
// the rooms' logs have what the broker keeps.
func (n *Node) Subscribe(ctx func() context.Context, rooms ...string) error {
	subs, err := n.use(rooms)
	if err != nil {
		return err
	}

	deadline := time.Time{} // one for all rooms, because all wait at the same time
	for _, s := range subs {
		if s.isReady() {
			continue
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(n.cfg.Bridge)
		}
		if err := s.wait(ctx, deadline); err != nil {
			n.Unsubscribe(rooms...)
			return err
		}
	}
	return nil
}

// use returns the rooms' subscriptions, each with one user more. It starts those that there aren't yet.
func (n *Node) use(rooms []string) ([]*subscription, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, ErrClosed
	}

	subs := make([]*subscription, len(rooms))
	for i, room := range rooms {
		s := n.subs[room]
		if s == nil {
			s = newSubscription(n, room)
			n.subs[room] = s
			n.wg.Go(s.run)
		}
		s.users++
		subs[i] = s
	}
	return subs, nil
}

// Unsubscribe undoes [Node.Subscribe]. An unused subscription is kept for a short time, for rooms that fill
// again.
func (n *Node) Unsubscribe(rooms ...string) {
	for _, room := range rooms {
		n.unsubscribe(room)
	}
}

func (n *Node) unsubscribe(room string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.subs[room]
	if s == nil { // the node is closed
		return
	}
	if s.users--; s.users > 0 {
		return
	}
	if s.linger == nil {
		s.linger = time.AfterFunc(lingerTime, s.expire)
	} else {
		s.linger.Reset(lingerTime)
	}
}

// inUse reports whether anybody on this node is to get the subscription's messages.
func (n *Node) inUse(s *subscription) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return s.users > 0
}

// subscription returns the room's subscription, or nil if there is none.
func (n *Node) subscription(room string) *subscription {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.subs[room]
}

// deliver delivers an envelope of this node to its own members, without the broker.
func (n *Node) deliver(room string, envelope []byte) {
	if s := n.subscription(room); s != nil {
		s.deliver(envelope)
	}
}

// gap reports that members of the room may have missed messages.
func (n *Node) gap(room, cause string, err error) {
	n.cfg.Missed(cause)
	n.gaps.add(room, cause, err)
}

func (n *Node) reportGap(room string, err error) {
	if f := n.cfg.Gap; f != nil {
		room = roomOf(room)
		n.reports.Add("gap "+room, func() { f(room, err) })
	}
}

func (n *Node) logGaps(l digestLine) {
	n.reports.AddFirst("gaps", func() {
		n.cfg.Log.Warn("wsroom: messages of other nodes may be missing",
			"room", roomOf(l.room), "cause", l.cause, "err", l.err, "rooms", l.rooms, "gaps", l.count)
	})
}

func (n *Node) logRefused(l digestLine) {
	n.reports.AddFirst("refused", func() {
		n.cfg.Log.Warn("wsroom: broker takes no subscription", "room", roomOf(l.room), "err", l.err, "rooms", l.rooms)
	})
}

// Settle waits until what was published has been delivered on this node, until ctx is done, or for 1 s.
func (n *Node) Settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	n.outbox.flush(ctx)

	for room, sequence := range n.outbox.lastSequences() {
		if s := n.subscription(room); s != nil {
			s.waitFor(ctx, sequence)
		}
	}
}

// Await waits until what this node has published for the rooms, [EveryRoom] or [Node.Own] has been delivered
// here, or until ctx is done.
func (n *Node) Await(ctx context.Context, rooms ...string) {
	for _, room := range rooms {
		if s := n.subscription(room); s != nil {
			s.waitFor(ctx, n.outbox.lastSequenceOf(room))
		}
	}
}

// Close waits until the broker has taken every message, or until ctx is done, and ends all subscriptions.
// From then on [Publish] and [Node.Subscribe] return [ErrClosed]. Once Close has returned, no hook is
// called, except that Gap may still be called if ctx was done.
func (n *Node) Close(ctx context.Context) {
	n.outbox.flush(ctx)
	if lost := n.outbox.close(); lost > 0 {
		n.cfg.Log.Error("wsroom: shut down before the broker took all messages", "bytes", lost)
	}

	n.mu.Lock()
	n.closed = true
	subs := n.subs
	n.subs = map[string]*subscription{}
	n.mu.Unlock()

	n.cancel()
	for _, s := range subs {
		s.close()
	}
	n.wg.Wait()

	n.gaps.flush()
	n.refused.flush()
	n.reports.Wait(ctx)
}
