// Package cluster is a hub's part among the nodes that share a broker. It publishes the hub's messages, and
// delivers what all nodes publish for the rooms that have members here.
//
// It knows rooms and identities by their names, connections by their ids, and the broker's topics. It keeps
// each room's order, drops duplicates, notices missing messages, and bridges the broker's outages. It doesn't
// know who is in a room: a [Delivery] says which members a message is for, and the owner finds them.
//
// With [Config].History the broker keeps the rooms' messages. Then a room's subscription begins with those
// that are kept, and the owner has a log of the room with the same messages in the same order, at the same
// [Position], as the other nodes have.
//
// A message goes from [Publish] through the outbox to the broker, and from there to the subscriptions of
// all nodes, including this one. So all members see one order.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// EveryRoom names the topic of messages to all connections. No room has this name.
const EveryRoom = ""

var (
	// ErrAway means that the broker is away or slow, for longer than [Config].Bridge or with more than
	// [Config].Bytes waiting.
	ErrAway = errors.New("wsroom: broker is away")

	// ErrClosed means that the node was closed.
	ErrClosed = errors.New("wsroom: hub is shut down")
)

// Broker carries messages between nodes. wsroom.Broker has the same methods and the same contract.
type Broker interface {
	// Publish offers data to every subscriber of the topic. It must not keep data.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns once the messages published from then on are delivered. deliver must not keep data.
	Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// limited is a Broker that limits the data of one call.
type limited interface{ MaxData() int }

// direct is a Broker that can call a deliver from its reading goroutine. A node's returns at once.
type direct interface {
	SubscribeDirect(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// rejection is an error by which a Broker can say that it will never take the data.
type rejection interface{ Rejected() bool }

// Config configures a [Node]. All fields except Name, Local, History, Hooks.Gap, Hooks.Hole and Hooks.Ended
// are required.
type Config struct {
	Broker  Broker        // with History it must be a Keeper
	Name    string        // nodes with the same name share their rooms
	Local   bool          // deliver on this node while the broker is away; else refuse with ErrAway; not with History
	Bridge  time.Duration // how long messages wait for the broker before it counts as away
	Bytes   int64         // how many bytes may wait for the broker, at most
	History *History      // what the broker keeps of rooms; nil: nothing
	Log     *slog.Logger
	Hooks
}

// Hooks are the functions that a [Node] calls. All except Gap must return at once: they are called with
// locks of this package held, and must not call the Node. They may be called concurrently.
//
// With [Config].History, Receive, Hole and Ended fill a log of each room that is subscribed to. Their calls
// for one room come one at a time. All nodes have the same messages at the same positions, as far as their
// logs go back and where Hole wasn't called between two messages.
type Hooks struct {
	// Receive takes a message for members on this node. The messages of one room come one at a time, in the
	// room's order. Receive queues the message and doesn't wait. It must not keep the payload or change the
	// lists.
	Receive func(Delivery)
	// Hole says that messages of the room are missing between the last one that Receive took and the next,
	// whether or not anybody here is a member. It is called with History only. Hole may be nil.
	Hole func(room string)
	// Ended says that the room's log ends. Then nothing comes for the room until a new log begins, with
	// what the broker has kept. It may be called when there is no log. It is called with History only.
	// Ended may be nil.
	Ended func(room string)
	// Gap reports that members of the room may have missed messages. The calls come one at a time, with no
	// lock held. The gaps of a room with the same cause are merged for a second. Gap may be nil.
	Gap func(room string, err error)
	// Missed counts a gap by its cause: "late", "lost", "malformed", "rejected" or "sequence".
	Missed func(cause string)
	// Failed counts a failed call of the broker: "publish", "subscribe" or "rejected".
	Failed func(call string)
	// Queued reports by how many bytes the data waiting for the broker has grown. A negative number means
	// that it has shrunk.
	Queued func(bytes int)
}

// Labels are what a message may have besides. The zero value is none.
type Labels struct {
	Trace string // the trace that it belongs to
	Key   string // it takes the place of a message of this key that still waits for a member
}

// Audience says for whom a message is. One of All, Rooms, Identities and Conns is set; a message to none of
// them is for nobody. Messages to all and to identities share a topic, which every node with connections
// subscribes to. So an identity costs no subscription, and nobody needs to know on which nodes it is. Those
// to connections go to a topic of the connection's node, which its id names.
type Audience struct {
	All        bool
	Rooms      []string // their members
	Identities []string // their connections
	Conns      []string // ids of connections, as [Node.NewConnID] makes them; others are nobody's

	Except           []string // ids of connections that don't get it
	ExceptIdentities []string // their connections don't get it
}

// Delivery is a message for members on this node.
type Delivery struct {
	Audience
	Kind    byte // frame.Text, frame.Binary, frame.Close, Join, Leave or Mark
	Payload []byte
	Besides []string // rooms whose members don't get it, because they got it there
	Labels

	// With Config.History, for messages to a room:
	At   Position
	Past bool // it was published before this node subscribed: only the room's log takes it
}
