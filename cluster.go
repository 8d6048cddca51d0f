package wsroom

import (
	"context"
	"net/url"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/serial"

	"github.com/wsroom/wsroom/internal/frame"
)

const (
	// everyRoom stands for the topic of messages to all. No room has this name.
	everyRoom = ""
	// settleTime bounds the time in which, at Shutdown, what was taken comes back from the broker.
	settleTime = time.Second
)

// cluster is a hub's part among the nodes that share its broker. A hub without a broker has none.
//
// What is sent goes by way of the outbox to the broker, and from there to the subscriptions of all nodes
// that have members, this one too: so that all members see one order.
type cluster struct {
	hub     *Hub
	broker  Broker
	node    nodeID
	outbox  outbox
	reports serial.Queue // what is logged, and calls of OnGap: with no lock held
	gaps    digest
	refused digest          // subscriptions
	ctx     context.Context // done at the end of Shutdown
	cancel  context.CancelFunc
	wg      sync.WaitGroup // publishers and subscribers

	mu     sync.Mutex // guards the rest, and the subscriptions' users and linger
	subs   map[string]*subscription
	past   map[string]map[nodeID]heard // by room: what subscriptions that have ended had heard
	closed bool
}

func newCluster(h *Hub) *cluster {
	c := &cluster{hub: h, broker: h.cfg.broker, node: newNodeID(), subs: map[string]*subscription{}, past: map[string]map[nodeID]heard{}}
	c.outbox.cluster, c.outbox.topics = c, map[string]*outTopic{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.gaps = digest{tell: c.tellGap, log: c.logGaps}
	c.refused = digest{log: c.logRefused}
	return c
}

// topic returns the topic of a room's messages. Escaped, the hub's name has no colon.
func (c *cluster) topic(room string) string {
	name := url.QueryEscape(c.hub.cfg.name)
	if room == everyRoom {
		return name + ":all"
	}
	return name + ":room:" + room
}

// subscribe makes sure that what is published for the rooms from now on comes in, until unsubscribe.
// The context is asked for where it has to wait. It returns ErrOutage where the broker is away for too
// long, unless the hub delivers locally then.
func (h *Hub) subscribe(ctx func() context.Context, rooms ...string) error {
	if h.cluster == nil {
		return nil
	}
	for i, room := range rooms {
		if err := h.cluster.subscribe(ctx, room); err != nil {
			h.unsubscribe(rooms[:i]...)
			return err
		}
	}
	return nil
}

// unsubscribe undoes subscribe.
func (h *Hub) unsubscribe(rooms ...string) {
	if h.cluster == nil {
		return
	}
	for _, room := range rooms {
		h.cluster.unsubscribe(room)
	}
}

func (c *cluster) subscribe(ctx func() context.Context, room string) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrShutdown
	}
	s := c.subs[room]
	if s == nil {
		s = newSubscription(c, room)
		c.subs[room] = s
		c.wg.Go(s.run)
	}
	s.users++
	c.mu.Unlock()
	err := s.wait(ctx)
	if err != nil {
		c.unsubscribe(room)
	}
	return err
}

// unsubscribe lets a subscription that nobody uses any more linger, for rooms that fill again.
func (c *cluster) unsubscribe(room string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[room]
	if s == nil { // the hub is shut down
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

// inUse reports whether somebody on this node is to get the subscription's messages.
func (c *cluster) inUse(s *subscription) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return s.users > 0
}

// subscription returns the room's, nil if there is none.
func (c *cluster) subscription(room string) *subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subs[room]
}

// deliver hands an envelope of this node to its own members, without the broker.
func (c *cluster) deliver(room string, envelope []byte) {
	if s := c.subscription(room); s != nil {
		s.deliver(envelope)
	}
}

// gap reports that members of the room may have missed messages.
func (c *cluster) gap(room, cause string, err error) {
	c.hub.observer.Add(MetricBrokerGaps, "", cause, 1)
	c.gaps.add(room, cause, err)
}

func (c *cluster) tellGap(room string, err error) {
	if f := c.hub.cfg.onGap; f != nil {
		c.reports.Add("gap "+room, func() { c.hub.guard("OnGap", room, func() { f(room, err) }) })
	}
}

func (c *cluster) logGaps(l digestLine) {
	c.reports.AddFirst("gaps", func() {
		c.hub.cfg.logger.Warn("wsroom: messages of other nodes may be missing",
			"room", l.room, "cause", l.cause, "err", l.err, "rooms", l.rooms, "gaps", l.reports)
	})
}

func (c *cluster) logRefused(l digestLine) {
	c.reports.AddFirst("refused", func() {
		c.hub.cfg.logger.Warn("wsroom: broker takes no subscription", "room", l.room, "err", l.err, "rooms", l.rooms)
	})
}

// settle waits, within limits, until what was taken has been delivered on this node.
func (c *cluster) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	c.outbox.flush(ctx)
	c.outbox.mu.Lock()
	last := map[string]uint64{}
	for room, t := range c.outbox.topics {
		last[room] = t.last
	}
	c.outbox.mu.Unlock()
	for room, sequence := range last {
		if s := c.subscription(room); s != nil {
			s.waitFor(ctx, sequence)
		}
	}
}

// close publishes what was taken, until ctx is done, and ends all subscriptions.
func (c *cluster) close(ctx context.Context) {
	c.outbox.flush(ctx)
	if lost := c.outbox.close(); lost > 0 {
		c.hub.cfg.logger.Error("wsroom: shut down before the broker took all messages", "bytes", lost)
	}
	c.mu.Lock()
	c.closed = true
	subs := c.subs
	c.subs = map[string]*subscription{}
	c.mu.Unlock()
	c.cancel()
	for _, s := range subs {
		s.close()
	}
	c.wg.Wait()
	c.gaps.flush()
	c.refused.flush()
	c.reports.Wait(ctx)
}

// receive does what a letter says, for the audience on this node.
func (h *Hub) receive(to audience, l letter, payload []byte) {
	skip := l.skip()
	if l.kind == frame.Close {
		by := closeErrorOf(payload)
		h.closeConns(to, skip, by.Code, by.Reason)
		return
	}
	deliver(h, to, skip, l.kind, payload)
}
