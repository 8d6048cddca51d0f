// Package cluster is a hub's part among the nodes that share a broker: it publishes the hub's messages, and
// delivers what all nodes publish for the rooms that have members here.
//
// It knows rooms by their names, connections by their ids, and the broker's topics. It keeps each room's
// order, leaves out what comes twice, notices what is missing, and bridges the broker's outages. It doesn't
// know who is in a room: a [Delivery] says for which members a message is, and the owner finds them.
//
// A message goes from [Publish] through the outbox to the broker, and from there to the subscriptions of all
// nodes, this one too: so all members see one order.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// EveryRoom stands for the topic of messages to all connections. No room has this name.
const EveryRoom = ""

var (
	// ErrAway says that the broker is away or slow, beyond what Config.Bridge and Config.Bytes bridge.
	ErrAway = errors.New("wsroom: broker is away")

	// ErrClosed says that the node was closed.
	ErrClosed = errors.New("wsroom: hub is shut down")
)

// Broker carries messages between nodes. wsroom.Broker has these methods and their contract.
type Broker interface {
	// Publish offers data to every subscriber of the topic. It mustn't keep data.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns once messages published from now on are delivered. deliver mustn't keep data.
	Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// limited is a Broker with a limit on the data of one call.
type limited interface{ MaxData() int }

// rejection is an error of a Broker that may say that it never takes the data.
type rejection interface{ Rejected() bool }

// Config is what a Node is made of. All fields but Name, Local and Hooks.Gap are required.
type Config struct {
	Broker Broker
	Name   string        // nodes of one name share their rooms
	Local  bool          // while the broker is away, messages are delivered on this node; else they are refused with ErrAway
	Bridge time.Duration // how long messages wait for the broker before it counts as away
	Bytes  int64         // how many bytes may wait for the broker
	Log    *slog.Logger
	Hooks
}

// Hooks are what a Node calls. All but Gap return at once: they are called with locks of this package held, and
// mustn't call the Node. They may be called concurrently.
type Hooks struct {
	// Receive takes a message for members on this node. Those of one room come one at a time, in the room's
	// order. It queues the message and doesn't wait. It mustn't keep the payload, and mustn't change the
	// lists.
	Receive func(Delivery)
	// Gap says that members of the room may have missed messages. Calls come one at a time, with no lock
	// held; gaps of a room with one cause are merged for a second. nil: nobody wants to know.
	Gap func(room string, err error)
	// Missed counts a gap, by its cause: "late", "lost", "malformed", "rejected" or "sequence".
	Missed func(cause string)
	// Failed counts a failed call of the broker: "publish", "subscribe" or "rejected".
	Failed func(call string)
	// Queued says by how many bytes what waits for the broker has grown; negative: has shrunk.
	Queued func(bytes int)
}

// Delivery is a message for members on this node.
type Delivery struct {
	Rooms   []string // whose members get it; nil: all connections do
	Kind    byte     // frame.Text, frame.Binary or frame.Close
	Payload []byte
	Except  []string // ids of connections that don't get it
	Besides []string // rooms whose members don't get it, because they got it there
}
