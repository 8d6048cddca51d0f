package cluster

import (
	"context"
	"time"
)

// Keeper is what a Broker is besides, with [Config].History. wsroom.Keeper has the same methods and the
// same contract.
type Keeper interface {
	// Keep is Publish, and has data kept until there are n newer ones on the topic, or for d; it may be
	// longer.
	Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error
	// Follow is Subscribe that begins with what is kept of the topic, up to n, oldest first. Then it calls
	// live, once, and goes on with what is published from then on, nothing left out and nothing twice. It
	// returns after live. Positions rise within a topic and never come again. After a lost connection it
	// goes on where it was, if what it has missed is still kept; else it calls lost.
	Follow(ctx context.Context, topic string, n int, deliver func(position uint64, data []byte), live func(), lost func(error)) (stop func(), err error)
}

// directKeeper is a Keeper that can call a deliver from its reading goroutine. A node's returns at once.
type directKeeper interface {
	FollowDirect(ctx context.Context, topic string, n int, deliver func(position uint64, data []byte), live func(), lost func(error)) (stop func(), err error)
}

// History says what the broker keeps of each room. Messages to all connections aren't kept. All nodes with
// the same name have a History, or none has.
//
// What is kept are envelopes. An envelope has one message or, if more came while the topic waited, several;
// an empty one, or one that says that a message was given up, has none and takes the place of another. A
// node that subscribes to a room reads up to Messages envelopes, once, before any member enters. That read
// is bounded as a subscription is: it has 5 s, and those that wait for it have [Config].Bridge. It is
// repeated for a room that fills again after its subscription has ended, so after 2 s without a member here.
//
// A node recognizes a message that was published twice by the first copy. A node that may have missed the
// first copy, because it isn't kept any more, takes the second for the message. Other nodes have the message
// where the first copy was. So the log of that node has a hole before the second one. Nodes can't tell that
// of a copy that the broker or its client made: for such copies Messages should be some more than the rooms'
// logs hold.
type History struct {
	Messages int           // envelopes of a room, at least 1
	Age      time.Duration // of an envelope
}

// Mark is the kind of a message that holds nothing. It gives the end of a room's log a position.
const Mark = 0x4

// Position names a message of a room on all nodes alike. In a room's order positions rise.
type Position struct {
	Stream uint64 // the broker's position of the envelope
	Letter uint32 // the number of the message within the envelope, from 0; every message counts
}

// following is one call of Keeper.Follow. What it delivers before it is live is the past: it is for the
// room's log only, and nobody here is a member yet.
//
// The past has messages again that an earlier subscription of the room has delivered. So what is seen of
// the topic is built anew from the past, as the other nodes have built it. Where the past goes beyond what
// that subscription has seen, what it had seen is added (recall): from there on this node drops the same
// duplicates as if the subscription had never ended.
//
// subscription.mu guards it.
type following struct {
	sub      *subscription
	begun    bool // an envelope has been delivered
	recalled bool // what the room's last subscription has seen is in subscription.seen
	live     bool
	goesOn   bool // messages may have come, on other nodes, before those that stand in the log
}

// past is what a subscription of a kept room has seen of its topic.
type past struct {
	seen map[nodeID]seen
	at   uint64 // position of the last envelope
}

// awaitEnding waits until Hooks.Ended has been called for a room's last subscription.
func (n *Node) awaitEnding() {
	n.ending.Lock()
	defer n.ending.Unlock()
}

// follow subscribes to a room whose messages are kept.
func (s *subscription) follow(ctx context.Context) (stop func(), err error) {
	n, f := s.node, &following{sub: s}
	n.awaitEnding()

	s.mu.Lock()
	s.following, s.seen, s.at = f, map[nodeID]seen{}, 0
	s.mu.Unlock()

	call := n.keeper.Follow
	if k, ok := n.keeper.(directKeeper); ok {
		call = k.FollowDirect
	}
	stop, err = call(ctx, n.topicName(s.room), n.cfg.History.Messages, f.deliver, f.becomeLive, f.lost)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.before = past{}
	} else {
		s.end()
		s.following = nil
	}
	return stop, err
}

// end says that the room's log ends, because nothing of the subscription comes any more, or everything
// again. mu is locked.
func (s *subscription) end() {
	if s.kept && !s.closed && s.node.cfg.Ended != nil {
		s.node.cfg.Ended(s.room)
	}
}

// hole says that messages are missing in the room's log. mu is locked.
func (s *subscription) hole() {
	if s.kept && !s.closed && s.node.cfg.Hole != nil {
		s.node.cfg.Hole(s.room)
	}
}

// isPast reports whether what is delivered now is the past. mu is locked.
func (s *subscription) isPast() bool { return s.following != nil && !s.following.live }

// lastSeen returns what the room's next subscription has to know. mu is locked.
func (s *subscription) lastSeen() past {
	if s.kept && (s.following == nil || !s.following.recalled) {
		return s.before
	}
	return past{s.seen, s.at}
}

// isOver reports whether nothing may come of this call any more. The subscription's mu is locked.
func (f *following) isOver() bool { return f.sub.closed || f.sub.following != f }

func (f *following) deliver(position uint64, envelope []byte) {
	s := f.sub
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.isOver() {
		return
	}
	if !f.recalled && position > s.before.at {
		f.recall()
	}
	f.goesOn = f.goesOn || f.begun && !f.live
	s.at, f.begun = position, true
	s.take(envelope)
}

func (f *following) becomeLive() {
	f.sub.mu.Lock()
	defer f.sub.mu.Unlock()
	if f.isOver() {
		return
	}
	if !f.recalled {
		f.recall()
	}
	f.live, f.goesOn = true, f.goesOn || f.begun
}

func (f *following) lost(err error) {
	f.sub.mu.Lock()
	defer f.sub.mu.Unlock()
	if !f.isOver() {
		f.goesOn = true
		f.sub.lostLocked(err)
	}
}

// recall adds what the room's last subscription has seen. Everything up to its last envelope has been
// delivered again, as far as it is kept.
//
// If nothing has, messages may be missing between that envelope and the log's beginning, and are no gap. If
// something has but not that last envelope, the broker has lost it, and it is missing in the log: other
// nodes may have it.
func (f *following) recall() {
	f.recalled = true
	s := f.sub
	if s.before.seen == nil {
		return
	}

	for node, last := range s.before.seen {
		last.gapKnown, last.missed = !f.begun, last.missed || !f.begun
		s.seen[node] = last
	}
	if f.begun && s.at != s.before.at {
		s.hole()
	}
}
