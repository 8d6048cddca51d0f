package wsroom

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/wsroom/wsroom/internal/lookup"

	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/presence"
)

// Broker carries a hub's messages between the nodes that share it. It is made of standard types, so
// that an adapter needs no import of wsroom; the conformance suite for one is in adapters/brokertest.
// All methods may be called concurrently. Topics are any non-empty strings of up to 600 bytes, NUL and
// bytes that aren't UTF-8 included; data is any bytes.
//
// A Broker that also has a method MaxData() int takes data of up to so many bytes. A send of more than that
// returns an error. It is called for each send, and mustn't wait.
type Broker interface {
	// Publish offers data to every subscriber of the topic, this process too, and returns once the broker has
	// it. While the broker is known to be away it may fail at once. What one goroutine publishes to a topic
	// arrives in that order, and the order is the same for all subscribers. It must not keep data. It waits
	// no longer than ctx allows, neither for a broker that is away. After an error the data may have been
	// published nevertheless; the hub may offer it again and leaves out what it sees twice. An error with a
	// method Rejected() bool that returns true says that this data can never be published.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns once messages published from now on will be delivered, one at a time and
	// in the topic's order; ctx bounds only the wait for that. deliver must not keep data. A topic may
	// be subscribed to several times. A subscription survives a reconnect: lost is called when messages
	// may have been missed, once the topic is subscribed to again, in the order of deliveries and never
	// beside one; it may come although nothing was missed. A slow deliver holds up no other subscription.
	// When stop returns, deliver and lost are not running and won't run again; stop may be
	// called more than once, but not from within them.
	Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// PresenceStore keeps, for all nodes, which identities are in which rooms by way of which nodes. Rooms,
// identities and nodes are any non-empty strings. All methods may be called concurrently; each takes
// effect as a whole, but for what is said below. What a node entered is leased: it lapses when the node doesn't
// renew. A store has one source of truth: it derives who is first and last from the entries, and counts nothing
// beside them. The conformance suite is in adapters/brokertest.
//
// A PresenceStore may have these methods, too:
//
//	EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error)
//	ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error)
//
// They do for each entry, a room and an identity, what Enter and Exit do, and return what those return, in the
// order of entries. No two entries are the same. A hub gives them up to 1,000 at a time, and 5 s for that. Without them it
// enters and exits one after the other: in a room of thousands, those that come back after a deploy are seen
// to leave. After an error each entry may have been entered or not.
//
// One that may lose entries without the lease, as by eviction or a failover, should have this:
//
//	Entries(ctx context.Context, node string) (entries map[string][]string, err error)
//
// It returns, by room, the identities that are there by way of node, as Identities and Renew would find them. The
// hub asks for them once a minute and after errors, and enters and exits what differs.
type PresenceStore interface {
	// Enter adds node to those by way of which identity is in the room and reports whether it is the
	// first of them. To enter again is harmless, and not the first.
	Enter(ctx context.Context, room, identity, node string) (first bool, err error)
	// Exit undoes Enter and reports whether node was the last; where it wasn't there, it was not.
	Exit(ctx context.Context, room, identity, node string) (last bool, err error)
	// Identities returns those in the room, each once, in any order: not those that are there by way of none
	// but nodes whose lease has lapsed, whether or not a Renew has ended their entries.
	Identities(ctx context.Context, room string) ([]string, error)
	// Renew leases node's entries for ttl from now. held is false where it had no lease, because it is
	// new or the lease has lapsed; then the node enters again what it has. Renew also ends the entries
	// of nodes whose lease has lapsed, and returns, by room, the identities that were there by way of
	// none but them: each to one caller. An error, as when ctx ends in between, loses none of them: what has
	// been taken out is returned with the error, or by a later Renew, of this node or, when its lease has
	// lapsed, of another one.
	Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error)
	// Leave ends all of node's entries and its lease, at once, and returns, by room, the identities that
	// were there by way of no other node. For an error holds what holds for Renew's.
	Leave(ctx context.Context, node string) (left map[string][]string, err error)
}

// Outage says what becomes of sends while the broker is away for longer than WithBrokerBuffer bridges.
type Outage int

const (
	// Fail makes sends return [ErrOutage]; requests for a room that isn't open yet on this node get 503. It is
	// the default.
	Fail Outage = iota
	// DeliverLocally delivers them to the members on this node at once, to those of other nodes when the
	// broker is back, as far as the buffer holds. Until then there is no one order across nodes.
	DeliverLocally
)

// WithBroker makes the hub one of several nodes that share a broker and their rooms: what is sent to a room
// reaches its members on all nodes that have a hub of this name (see [WithName]), in one order. Messages to
// members on this node go through the broker, too: a send returns before it is queued for them. After a gap,
// a message that a node had to publish again may have another place in the order.
//
// A send to several rooms is ordered in each room separately. A member of more than one gets it once, in the
// first room given to [Hub.To]. A connection that joins or leaves one of them meanwhile may get it twice or not
// at all. Rooms, Members, Len, Stats and the limits are those of this node.
func WithBroker(b Broker) Option {
	return func(c *config) error {
		c.broker = b
		return notNil("WithBroker", b == nil)
	}
}

// WithOutage says what becomes of sends while the broker is away for long. The default is Fail.
func WithOutage(o Outage) Option {
	return func(c *config) error {
		c.outage = o
		return within("WithOutage", int(o), int(DeliverLocally))
	}
}

// WithBrokerBuffer bridges outages of the broker: for up to d what is sent waits, in order, while it is at
// most this many bytes in all. The default is 5 s and 4 MiB. See WithOutage for what is beyond it. Each
// room's outage is one by itself. An outage is longer than d when a call of Publish has failed that began d
// after the first one that failed: that is found up to 2 s later. A message that isn't taken for longer than
// d and three tries, although the broker took others on its topic in between, is given up, and is a gap.
func WithBrokerBuffer(d time.Duration, bytes int64) Option {
	return func(c *config) error {
		c.outageTime, c.outageBytes = d, bytes
		return errors.Join(positive("WithBrokerBuffer: time", d), positive("WithBrokerBuffer: bytes", bytes))
	}
}

// OnGap calls f when the members of a room on this node may have missed messages: because the connection to
// the broker was lost, or a message was, or a node sent what this one doesn't understand. What was being
// published when the connection was lost may come after it, later than to the members on other nodes. For
// messages to all, room is "". Calls come one at a time, and outside of any connection's callbacks. A room's
// first gap is told at once, those of the same cause within a second after it by one more call at its end.
// The log has one line for a second's gaps of all rooms; the Observer is told of each. docs/nodes.md shows
// how to have clients start again.
func OnGap(f func(room string, err error)) Option {
	return func(c *config) error {
		c.onGap = f
		return notNil("OnGap", f == nil)
	}
}

// Member is an identity that is present in a room, by any number of connections.
type Member struct {
	Identity string
}

// WithIdentity sets the function that returns a request's identity, such as a user name. Connections with the
// identity "" aren't counted. f is called once the request is authorized, and may be called concurrently. See
// [Hub.Presence], [OnMemberJoin], [OnMemberLeave] and [Conn.Identity].
func WithIdentity(f func(*http.Request) string) Option {
	return func(c *config) error {
		c.identity = f
		return notNil("WithIdentity", f == nil)
	}
}

// WithPresenceStore shares presence with the hubs of other nodes that have the same name (see [WithName]). Hubs of
// different names must not share a store's namespace. By default presence is of this process.
func WithPresenceStore(s PresenceStore) Option {
	return func(c *config) error {
		c.presence = s
		return notNil("WithPresenceStore", s == nil)
	}
}

// WithPresenceGrace sets for how long a member is still present when its last connection has left the room, so that
// a page reload, or a move to another node when this one shuts down, isn't reported. The default is 5 s.
func WithPresenceGrace(d time.Duration) Option {
	return func(c *config) error {
		c.grace = d
		return notNegative("WithPresenceGrace", d)
	}
}

// OnMemberJoin calls f when the first connection of an identity has entered a room, on the node where that happened.
// Calls of it and of [OnMemberLeave] run one at a time, and outside of any connection's callbacks. They may take any
// time: nothing of presence waits for them. While a call runs, what waits is merged: a member that comes and goes, or
// goes and comes back, is not reported at all. When this node has lost its lease of the [PresenceStore], members may
// be reported to have joined again.
func OnMemberJoin(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberJoin = f
		return notNil("OnMemberJoin", f == nil)
	}
}

// OnMemberLeave calls f when the last connection of an identity has left a room and hasn't come back within the grace
// of [WithPresenceGrace], on the node where that happened. If that node has died or shut down, f is called on one of
// the others: within 45 s of its death, or after the grace.
func OnMemberLeave(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberLeave = f
		return notNil("OnMemberLeave", f == nil)
	}
}

// Presence returns who is present in the room, sorted, on all nodes that share the [PresenceStore]. Members that are
// there only by way of a node whose lease of 30 s has lapsed are left out. If the store fails, Presence returns the
// members of this node and an error.
func (h *Hub) Presence(ctx context.Context, room string) ([]Member, error) {
	if h.presence == nil {
		return nil, nil
	}
	identities, err := h.presence.Members(ctx, room)

	members := make([]Member, len(identities))
	for i, identity := range identities {
		members[i].Identity = identity
	}
	if err != nil {
		return members, fmt.Errorf("wsroom: presence: %w", err)
	}
	return members, nil
}

// Identity returns what the function of [WithIdentity] returned for the connection's request; "" without it.
func (c *Conn) Identity() string {
	value, _ := c.Get(identityKey{})
	identity, _ := value.(string)
	return identity
}

// identityKey is the key of a connection's identity among its values.
type identityKey struct{}

// identify stores the identity of the connection's request.
func (c *Conn) identify(r *http.Request) {
	if c.hub.cfg.identity == nil {
		return
	}
	if identity := c.hub.cfg.identity(r); identity != "" {
		c.Set(identityKey{}, strings.Clone(identity))
	}
}

// newPresence makes the hub's book of members.
func newPresence(h *Hub) *presence.Book {
	return presence.New(presence.Config{
		Store:  h.cfg.presence,
		Name:   h.cfg.name,
		Grace:  h.cfg.grace,
		Log:    h.cfg.logger,
		Joined: h.memberHook("OnMemberJoin", h.cfg.onMemberJoin),
		Left:   h.memberHook("OnMemberLeave", h.cfg.onMemberLeave),
	})
}

// memberHook makes a hook of the callback, guarded against its panics; nil without one.
func (h *Hub) memberHook(name string, f func(room string, m Member)) func(room, identity string) {
	if f == nil {
		return nil
	}
	return func(room, identity string) {
		h.guard(name, room, func() { f(room, Member{Identity: identity}) })
	}
}

// newNode makes the hub one of the nodes that share its broker.
func newNode(h *Hub) *cluster.Node {
	hooks := cluster.Hooks{
		Receive: h.receive,
		Missed:  func(cause string) { h.observer.Add(MetricBrokerGaps, "", cause, 1) },
		Failed:  func(call string) { h.observer.Add(MetricBrokerErrors, "", call, 1) },
		Queued:  func(bytes int) { h.observer.Add(MetricBrokerQueue, "", "", bytes) },
	}
	if f := h.cfg.onGap; f != nil {
		hooks.Gap = func(room string, err error) { h.guard("OnGap", room, func() { f(room, err) }) }
	}
	return cluster.New(cluster.Config{
		Broker: h.cfg.broker,
		Name:   h.cfg.name,
		Local:  h.cfg.outage == DeliverLocally,
		Bridge: h.cfg.outageTime,
		Bytes:  h.cfg.outageBytes,
		Log:    h.cfg.logger,
		Hooks:  hooks,
	})
}

// subscribe makes sure that what other nodes send to the rooms from now on is received, until unsubscribe. See
// cluster.Node.Subscribe for its errors.
func (h *Hub) subscribe(ctx func() context.Context, rooms ...string) error {
	if h.node == nil {
		return nil
	}
	return h.node.Subscribe(ctx, rooms...)
}

// unsubscribe undoes subscribe.
func (h *Hub) unsubscribe(rooms ...string) {
	if h.node != nil {
		h.node.Unsubscribe(rooms...)
	}
}

// publish sends a message to the target's members on all nodes.
func publish[P string | []byte](t Target, opcode byte, payload P) error {
	rooms := t.to.rooms
	if t.to.all {
		rooms = []string{cluster.EveryRoom}
	}
	var except []string
	for _, c := range t.except {
		except = append(except, c.id)
	}
	return cluster.Publish(t.hub.node, rooms, except, opcode, payload)
}

// receive takes a message of a node, this one too, for the members here. It only queues it.
func (h *Hub) receive(d cluster.Delivery) {
	to, skip := audience{all: d.Rooms == nil, rooms: d.Rooms}, skipOf(d)
	if d.Kind == frame.Close {
		e := frame.CloseErrorOf(d.Payload)
		h.closeConns(to, skip, e.Code, e.Reason)
		return
	}
	deliver(h, to, skip, d.Kind, d.Payload)
}

// skipOf says which connections don't get a message; nil: all do.
func skipOf(d cluster.Delivery) func(*Conn) bool {
	if len(d.Except)+len(d.Besides) == 0 {
		return nil
	}
	except, besides := lookup.New(d.Except), lookup.New(d.Besides)
	return func(c *Conn) bool {
		return except.Has(c.id) || len(d.Besides) > 0 && c.isWithin(&besides, len(d.Besides))
	}
}
