package wsroom

import (
	"context"
	"time"
)

// Broker carries a hub's messages between the nodes that share it. It is made of standard types, so
// that an adapter needs no import of wsroom; the conformance suite for one is in adapters/brokertest.
// All methods may be called concurrently. Topics are any non-empty strings of up to 600 bytes, NUL and
// bytes that aren't UTF-8 included; data is any bytes, an adapter documents how many.
type Broker interface {
	// Publish offers data to every subscriber of the topic, this process too, and returns once the
	// broker has it. What one goroutine publishes to a topic arrives in that order, and the order is the
	// same for all subscribers. It must not keep data. It waits no longer than ctx allows, neither for
	// a broker that is away. After an error the data may have been published nevertheless; the hub may
	// offer it again and leaves out what it sees twice. An error with a method Rejected() bool that
	// returns true says that this data can never be published.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns once messages published from now on will be delivered, one at a time and
	// in the topic's order; ctx bounds only the wait for that. deliver must not keep data. A topic may
	// be subscribed to several times. A subscription survives a reconnect: lost is called when messages
	// may have been missed, once the topic is subscribed to again, in the order of deliveries and never
	// beside one. When stop returns, deliver and lost are not running and won't run again; stop may be
	// called more than once, but not from within them.
	Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// PresenceStore keeps, for all nodes, which identities are in which rooms by way of which nodes. Rooms,
// identities and nodes are any non-empty strings. All methods may be called concurrently; each takes
// effect as a whole. What a node entered is leased: it lapses when the node doesn't renew.
type PresenceStore interface {
	// Enter adds node to those by way of which identity is in the room and reports whether it is the
	// first of them. To enter again is harmless, and not the first.
	Enter(ctx context.Context, room, identity, node string) (first bool, err error)
	// Exit undoes Enter and reports whether node was the last; where it wasn't there, it was not.
	Exit(ctx context.Context, room, identity, node string) (last bool, err error)
	// Identities returns those in the room, each once, in any order. A node that died counts until
	// another one's Renew has found that its lease has lapsed.
	Identities(ctx context.Context, room string) ([]string, error)
	// Renew leases node's entries for ttl from now. held is false where it had no lease, because it is
	// new or the lease has lapsed; then the node enters again what it has. Renew also ends the entries
	// of nodes whose lease has lapsed, and returns, by room, the identities that were there by way of
	// none but them: each to one caller.
	Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error)
	// Leave ends all of node's entries and its lease, at once.
	Leave(ctx context.Context, node string) (left map[string][]string, err error)
}
