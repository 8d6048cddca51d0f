package wsroom

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/presence"
	"github.com/wsroom/wsroom/internal/resume"
	"github.com/wsroom/wsroom/internal/serial"
)

// Broker carries a hub's messages between the nodes that share it. Its methods use standard types only, so
// an adapter doesn't import wsroom. The conformance suite for adapters is in adapters/brokertest. All
// methods may be called concurrently. A topic is any non-empty string of up to 600 bytes; NUL and bytes
// that aren't UTF-8 are allowed. Data is any bytes.
//
// A Broker may have a method MaxData() int. It returns the largest number of bytes that Publish takes. The
// hub refuses larger sends by itself: they return an error. The hub calls MaxData for each send, so it mustn't
// wait.
//
// A Broker may also have this method, so that a message takes a node one goroutine less:
//
//	SubscribeDirect(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
//
// It is Subscribe for functions that return at once, mostly within microseconds. They call no method of the Broker,
// and take no lock that is held during such a call. They may therefore be called by the goroutine that reads from the
// server, and hold up other subscriptions while they run. All else that Subscribe's comment says holds. A hub uses
// SubscribeDirect where it would use Subscribe. So a type that embeds a broker and has its own Subscribe must have its
// own SubscribeDirect, too; the same is true of a Keeper's Follow and FollowDirect.
type Broker interface {
	// Publish offers data to every subscriber of the topic, those in this process included. It returns once
	// the broker has the data. While the broker is known to be away, Publish may fail at once. Data that
	// one goroutine publishes to a topic arrives in that order, and all subscribers see the same order.
	// Publish must not keep data. It waits no longer than ctx allows, also for a broker that is away. After
	// an error the data may have been published nevertheless. The hub may then publish it again; nodes drop
	// the duplicates that they recognize. An error with a method Rejected() bool that returns true says
	// that this data can never be published.
	Publish(ctx context.Context, topic string, data []byte) error
	// Subscribe returns once messages published from now on will be delivered. ctx bounds only that wait.
	// Messages are delivered one at a time, in the topic's order. deliver must not keep data. A topic may
	// be subscribed to several times. A slow deliver holds up no other subscription.
	//
	// A subscription survives a reconnect. When messages may have been missed, lost is called once the
	// topic is subscribed to again. It is called in order with the deliveries, and never at the same time
	// as deliver. It may be called although nothing was missed.
	//
	// When stop returns, deliver and lost are not running and won't run again. stop may be called more than
	// once, but not from deliver or lost.
	Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error)
}

// PresenceStore keeps the presence of all nodes: for each room, the identities in it and the nodes through
// which each is there. Rooms, identities and nodes are any non-empty strings. All methods may be called
// concurrently. Each takes effect as a whole, except where its comment says otherwise. A node's entries are
// leased: they lapse when the node doesn't renew the lease. A store has one source of truth: it derives
// which entry is the first or the last from the entries themselves, and keeps no counts beside them. The
// conformance suite is in adapters/brokertest.
//
// A PresenceStore may also have these methods:
//
//	EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error)
//	ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error)
//
// Each entry is a room and an identity; no two entries are the same. The methods do what Enter and Exit do
// for each entry, and return those results in the order of entries. After an error each entry may have been
// entered or not. A hub passes up to 1,000 entries at a time and allows 5 s for a call. Without these
// methods it enters and exits one member after the other: then in a room of thousands, members that come
// back after a deploy are reported to have left.
//
// For [WithMemberInfo] and [Conn.SetInfo] a store needs these methods:
//
//	EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error)
//	Infos(ctx context.Context, room string) (infos map[string]string, err error)
//
// EnterInfo does for each entry, which is a room, an identity and an info, what Enter does. From then on the
// identity shows that info in the room, whatever it has shown through other nodes: the latest call counts. It
// does so until it is in the room through no node any more. An empty info leaves what the identity shows.
// changed reports, in the order of entries, whether the identity was in the room and the info isn't what it
// has shown. An info is up to 4 KiB of any bytes. No two entries are of the same room and identity, and there
// are as many as for EnterAll. After an error each entry may have been entered or not. Infos returns the
// identities that Identities returns, and what each shows, "" for nothing.
//
// A store that may lose entries while the lease lasts, for example by eviction or a failover, should have
// this method:
//
//	Entries(ctx context.Context, node string) (entries map[string][]string, err error)
//
// It returns, by room, the identities that are there through node, as Identities and Renew would find them.
// The hub calls it once a minute and after errors, and enters and exits what differs.
type PresenceStore interface {
	// Enter adds node to the nodes through which identity is in the room. It reports whether node is the
	// first of them. Entering again is harmless and isn't the first.
	Enter(ctx context.Context, room, identity, node string) (first bool, err error)
	// Exit undoes Enter and reports whether node was the last. It reports false if identity wasn't in the
	// room through node.
	Exit(ctx context.Context, room, identity, node string) (last bool, err error)
	// Identities returns the identities in the room, each once, in any order. It leaves out an identity
	// that is there only through nodes whose lease has lapsed, whether or not a Renew has ended their
	// entries.
	Identities(ctx context.Context, room string) ([]string, error)
	// Renew leases node's entries for ttl from now. held is false if node had no lease, because it is new
	// or because the lease has lapsed; the node then enters its members again.
	//
	// Renew also ends the entries of nodes whose lease has lapsed. It returns, by room, the identities that
	// were there through such nodes only. Each is returned to one caller only. An error, for example when
	// ctx ends meanwhile, loses none of them: those already removed are returned with the error or by a
	// later Renew. That may be a Renew of this node or, once this node's lease has lapsed, of another node.
	Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error)
	// Leave ends all of node's entries and its lease at once. It returns, by room, the identities that were
	// there through no other node. What Renew's comment says about errors holds for Leave, too.
	Leave(ctx context.Context, node string) (left map[string][]string, err error)
}

// Outage says what happens to sends while the broker is away for longer than [WithBrokerBuffer] bridges.
type Outage int

const (
	// Fail makes sends return [ErrOutage]; requests for a room that isn't open yet on this node get 503. It
	// is the default.
	Fail Outage = iota
	// DeliverLocally delivers sends to the members on this node at once. Members on other nodes get what
	// the buffer holds once the broker is back. Until then nodes may see different orders.
	DeliverLocally
)

// WithBroker makes the hub one of several nodes that share a broker and their rooms. A message to a room
// reaches the room's members on all nodes that have a hub of this name (see [WithName]), in one order.
// Messages to members on this node go through the broker, too: a send returns before the message is queued
// for them. After a gap, a message that a node had to publish again may have another place in the order.
//
// A send to several rooms is ordered in each room separately. A member of more than one gets it once, in
// the first room given to [Hub.To]. A connection that joins or leaves one of them meanwhile may get it
// twice or not at all.
//
// [Hub.Rooms], [Hub.Members], [Hub.Len], [Hub.Stats] and the limits are those of this node.
func WithBroker(b Broker) Option {
	return func(c *config) error {
		c.broker = b
		return notNil("WithBroker", b == nil)
	}
}

// WithOutage says what happens to sends during a long outage of the broker. The default is [Fail].
func WithOutage(o Outage) Option {
	return func(c *config) error {
		c.outage = o
		return within("WithOutage", int(o), int(DeliverLocally))
	}
}

// WithBrokerBuffer bridges outages of the broker. For up to d, messages wait in order, as long as they are
// at most this many bytes in all. The default is 5 s and 4 MiB. [WithOutage] says what happens beyond that.
//
// Each room has outages of its own. An outage counts as longer than d when a call of Publish fails that
// began d after the first failed one; the hub finds that out up to 2 s later. A message may fail for longer
// than d and three tries although the broker takes others on the same topic meanwhile. Then the hub gives
// the message up, which is a gap (see [OnGap]).
func WithBrokerBuffer(d time.Duration, bytes int64) Option {
	return func(c *config) error {
		c.outageTime, c.outageBytes = d, bytes
		return errors.Join(positive("WithBrokerBuffer: time", d), positive("WithBrokerBuffer: bytes", bytes))
	}
}

// OnGap calls f when the members of a room on this node may have missed messages. The causes are a lost
// connection to the broker, a lost message, and a message of another node that this one doesn't understand.
// For messages to all, to identities and to connections, room is "": those to connections have gaps of their
// own. Messages that were being published when the connection was lost may come after the gap, later than to
// the members on other nodes.
//
// Calls come one at a time, and outside of any connection's callbacks. A room's first gap is reported at
// once. Its gaps of the same cause within the next second are reported by one more call at the end of that
// second. The log has one line for a second's gaps of all rooms; the [Observer] gets each gap.
// docs/nodes.md shows how to make clients start again.
func OnGap(f func(room string, err error)) Option {
	return func(c *config) error {
		c.onGap = f
		return notNil("OnGap", f == nil)
	}
}

// Member is an identity that is present in a room through any number of connections.
type Member struct {
	Identity string          `json:"identity"`
	Info     json.RawMessage `json:"info,omitempty"` // what it shows; nil for nothing, and in OnMemberLeave: see [WithMemberInfo]
}

// WithIdentity sets the function that returns a request's identity, such as a user name. Connections with the
// identity "" aren't counted. f is called once the request is authorized, and may be called concurrently.
// [Hub.ToIdentity] reaches an identity whose name could be a room's: up to 255 bytes of UTF-8 without control
// characters. See also [Hub.Presence], [OnMemberJoin], [OnMemberLeave] and [Conn.Identity].
func WithIdentity(f func(*http.Request) string) Option {
	return func(c *config) error {
		c.identity = f
		return notNil("WithIdentity", f == nil)
	}
}

// WithMemberInfo sets the function that returns what a request's connection shows in presence, such as a
// display name: [Member] has it as JSON, up to 4 KiB. nil is nothing. f is called after the function of
// [WithIdentity], if that returns an identity, and may be called concurrently. If the value can't be encoded
// or is too large, the request gets 500.
//
// A member with several connections shows what the newest of them brought, or what was given to
// [Conn.SetInfo] since, on whatever node. It shows that until it has left the room. With [WithPresenceStore]
// the store must have the methods EnterInfo and Infos; see [PresenceStore].
func WithMemberInfo(f func(*http.Request) any) Option {
	return func(c *config) error {
		c.memberInfo = f
		return notNil("WithMemberInfo", f == nil)
	}
}

// WithPresenceStore shares presence with the hubs of other nodes that have the same name (see [WithName]).
// Hubs of different names must not share a store's namespace. By default presence covers this process only.
func WithPresenceStore(s PresenceStore) Option {
	return func(c *config) error {
		c.presence = s
		return notNil("WithPresenceStore", s == nil)
	}
}

// WithPresenceGrace sets how long a member stays present after its last connection has left the room. So a
// page reload isn't reported, nor a move to another node when this one shuts down. The default is 5 s.
func WithPresenceGrace(d time.Duration) Option {
	return func(c *config) error {
		c.grace = d
		return notNegative("WithPresenceGrace", d)
	}
}

// OnMemberJoin calls f when the first connection of an identity has entered a room, on the node where that
// happened. Calls of OnMemberJoin and [OnMemberLeave] run one at a time, and outside of any connection's
// callbacks. They may take any time: presence doesn't wait for them. While a call runs, the events that
// wait are merged: a member that comes and goes, or goes and comes back, is not reported at all. When this
// node has lost its lease of the [PresenceStore], members may be reported to have joined again.
func OnMemberJoin(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberJoin = f
		return notNil("OnMemberJoin", f == nil)
	}
}

// OnMemberLeave calls f when the last connection of an identity has left a room and hasn't come back within
// the grace of [WithPresenceGrace], on the node where that happened. If that node has died or shut down, f
// is called on one of the others: within 45 s of its death, or after the grace.
func OnMemberLeave(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberLeave = f
		return notNil("OnMemberLeave", f == nil)
	}
}

// OnMemberUpdate calls f when a member that was present shows another [Member.Info], by [Conn.SetInfo] or by
// a further connection, on the node of that connection. Its calls stand in one order with those of
// [OnMemberJoin] and [OnMemberLeave]. While a call runs, the updates that wait are merged: f gets the newest
// info, and a member that waits to be reported as joined is reported once. Where the store has failed
// meanwhile, f may be called again.
func OnMemberUpdate(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberUpdate = f
		return notNil("OnMemberUpdate", f == nil)
	}
}

// Presence returns the members that are present in the room, and what they show, sorted, on all nodes that
// share the [PresenceStore]. It leaves out members that are there only through a node whose lease of 30 s has
// lapsed. If the store fails, Presence returns the members of this node and an error.
func (h *Hub) Presence(ctx context.Context, room string) ([]Member, error) {
	if h.presence == nil {
		return nil, nil
	}
	there, err := h.presence.Members(ctx, room)

	members := make([]Member, len(there))
	for i, m := range there {
		members[i] = memberOf(m)
	}
	if err != nil {
		return members, fmt.Errorf("wsroom: presence: %w", err)
	}
	return members, nil
}

// Identity returns what the function of [WithIdentity] returned for the connection's request. Without that
// option it returns "".
func (c *Conn) Identity() string {
	if c.identity == nil {
		return ""
	}
	return c.identity.name
}

// identity is a connection's identity.
type identity struct {
	name   string
	member member // among all connections of the identity; guarded by the lock of the name's shard

	mu   sync.Mutex // guards info; held while presence is told of it
	info string     // what the connection shows, as JSON; "" for nothing
}

// identify stores the identity of the connection's request, and what it shows.
func (c *Conn) identify(r *http.Request) (err error) {
	if c.hub.cfg.identity == nil {
		return nil
	}
	name := c.hub.cfg.identity(r)
	if name == "" {
		return nil
	}

	c.identity = &identity{name: strings.Clone(name)}
	if f := c.hub.cfg.memberInfo; f != nil {
		if v := f(r); v != nil {
			c.identity.info, err = c.hub.encodeInfo(v)
		}
	}
	return err
}

const maxInfo = 4 << 10 // bytes

// encodeInfo encodes what a member shows.
func (h *Hub) encodeInfo(v any) (string, error) {
	p, err := h.encodeJSON(v)
	switch {
	case err != nil:
		return "", err
	case len(p) > maxInfo:
		return "", fmt.Errorf("wsroom: a member's info of %d bytes: the most is %d", len(p), maxInfo)
	case !json.Valid(p):
		return "", errors.New("wsroom: a member's info isn't JSON")
	}
	return string(p), nil
}

var (
	errNoIdentity = errors.New("wsroom: SetInfo: the connection has no identity")
	errNoInfos    = errors.New("wsroom: SetInfo: the PresenceStore has no EnterInfo and Infos")
)

// SetInfo sets what the connection's identity shows, in all rooms that the connection is in or enters later:
// see [Member] and [WithMemberInfo]. v is encoded as JSON, to at most 4 KiB. The presence of all nodes has it
// soon after.
//
// SetInfo returns an error for a value that can't be encoded or is too large, for a connection without an
// identity, and with a [PresenceStore] that keeps no info. It returns [ErrClosed] once the connection is
// ending.
func (c *Conn) SetInfo(v any) error {
	info, err := c.hub.encodeInfo(v)
	switch {
	case err != nil:
		return err
	case c.identity == nil:
		return errNoIdentity
	case !c.hub.cfg.keepsInfos():
		return errNoInfos
	case c.isEnded():
		return ErrClosed
	}

	c.identity.mu.Lock()
	defer c.identity.mu.Unlock()
	c.identity.info = info
	for _, room := range c.Rooms() {
		c.hub.presence.Show(room, c.identity.name, info)
	}
	return nil
}

// appear counts the connection's identity as present in the room.
func (c *Conn) appear(room string) {
	if c.identity == nil {
		return
	}
	c.identity.mu.Lock()
	defer c.identity.mu.Unlock()
	c.hub.presence.Count(room, c.identity.name, c.identity.info, 1)
}

// disappear undoes appear.
func (c *Conn) disappear(room string) {
	if c.identity != nil {
		c.hub.presence.Count(room, c.identity.name, "", -1)
	}
}

// keepsInfos reports whether the members of all nodes can show something.
func (c *config) keepsInfos() bool { return c.presence == nil || presence.KeepsInfos(c.presence) }

// memberOf returns the member as callbacks get it. They may keep and change its Info.
func memberOf(m presence.Member) Member {
	own := Member{Identity: m.Identity}
	if m.Info != "" {
		own.Info = json.RawMessage(m.Info)
	}
	return own
}

// isOneOf reports whether the connection's identity is in the list.
func (c *Conn) isOneOf(identities *lookup.List[string]) bool {
	return c.identity != nil && identities.Has(c.identity.name)
}

// checkIdentity returns an error if a target may not name the identity.
func checkIdentity(name string) error {
	if !isName(name) {
		return badIdentity()
	}
	return nil
}

// newConnID returns an ID for a connection.
func (h *Hub) newConnID() string {
	if h.node == nil {
		return rand.Text()
	}
	return h.node.NewConnID()
}

// newPresence makes the hub's [presence.Book], which counts its members.
func newPresence(h *Hub) *presence.Book {
	return presence.New(presence.Config{
		Store:   h.cfg.presence,
		Name:    h.cfg.name,
		Grace:   h.cfg.grace,
		Log:     h.cfg.logger,
		Infos:   h.cfg.keepsInfos(),
		Joined:  h.memberHook("OnMemberJoin", h.cfg.onMemberJoin),
		Updated: h.memberHook("OnMemberUpdate", h.cfg.onMemberUpdate),
		Left:    h.memberHook("OnMemberLeave", h.cfg.onMemberLeave),
	})
}

// memberHook makes a hook of the callback f and guards it against panics. It returns nil if f is nil.
func (h *Hub) memberHook(name string, f func(room string, m Member)) func(presence.Member) {
	if f == nil {
		return nil
	}
	return func(m presence.Member) {
		h.guard(name, m.Room, func() { f(m.Room, memberOf(m)) })
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
	var kept *cluster.History
	if n := h.cfg.history.Messages; n > 0 {
		kept = &cluster.History{Messages: n + n/4 + 8, Age: h.cfg.history.Age} // more than the logs hold: see there
		hooks.Hole, hooks.Ended = h.store.lose, h.store.histories.End
	}
	if f := h.cfg.onGap; f != nil {
		hooks.Gap = func(room string, err error) { h.guard("OnGap", room, func() { f(room, err) }) }
	}

	return cluster.New(cluster.Config{
		Broker:  h.cfg.broker,
		Name:    h.cfg.name,
		Local:   h.cfg.outage == DeliverLocally,
		Bridge:  h.cfg.outageTime,
		Bytes:   h.cfg.outageBytes,
		History: kept,
		Log:     h.cfg.logger,
		Hooks:   hooks,
	})
}

// mark publishes a mark for the end of a room's history. If the broker is away, a later sweep marks it. Without a
// broker no end needs one.
func (h *Hub) mark(room string) {
	if h.node == nil {
		return
	}
	_ = cluster.Publish(h.node, cluster.Labels{}, cluster.Audience{Rooms: []string{room}}, cluster.Mark, "")
}

// subscribe makes this node receive what other nodes send to the rooms from now on, until unsubscribe, and
// has OnRoomOpen called for the rooms that aren't open. OnRoomMessage gets what comes meanwhile, after that.
// Its errors are those of cluster.Node.Subscribe and lifecycle.Rooms.Use.
func (h *Hub) subscribe(ctx func() context.Context, rooms ...string) error {
	return h.subscribeTopics(ctx, rooms, rooms...)
}

// subscribeTopics is subscribe to rooms, and to further topics.
func (h *Hub) subscribeTopics(ctx func() context.Context, rooms []string, topics ...string) error {
	if h.node != nil {
		if err := h.node.Subscribe(ctx, topics...); err != nil {
			return err
		}
	}
	if h.lives == nil {
		return nil
	}
	err := h.lives.Use(ctx, rooms...)
	if err != nil && h.node != nil {
		h.node.Unsubscribe(topics...)
	}
	return err
}

// unsubscribe undoes subscribe.
func (h *Hub) unsubscribe(rooms ...string) {
	if h.lives != nil {
		h.lives.Release(rooms...)
	}
	if h.node != nil {
		h.node.Unsubscribe(rooms...)
	}
}

// subscribeConn makes this node receive what is for a connection in the room, until unsubscribe of the room
// and unsubscribeConn.
func (h *Hub) subscribeConn(ctx func() context.Context, room string) error {
	if h.node == nil {
		return h.subscribe(ctx, room)
	}
	return h.subscribeTopics(ctx, []string{room}, cluster.EveryRoom, h.node.Own(), room)
}

// unsubscribeConn undoes subscribeConn, but for the room.
func (h *Hub) unsubscribeConn() {
	if h.node != nil {
		h.node.Unsubscribe(cluster.EveryRoom, h.node.Own())
	}
}

// publish sends a message to the target's members on all nodes.
func publish[P string | []byte](t Target, opcode byte, payload P) error {
	labels := cluster.Labels{Trace: t.trace, Key: t.key.name}
	if opcode == frame.Close {
		labels.Key = ""
	}
	to := cluster.Audience{
		All: t.to.all, Rooms: t.to.rooms, Identities: t.to.identities, Conns: t.to.conns,
		Except: t.except.allIDs(t.hub.store.histories != nil && !t.to.all), ExceptIdentities: t.except.identities,
	}
	return cluster.Publish(t.hub.node, labels, to, opcode, payload)
}

// topics returns the keys of the topics that carry messages to the audience's connections on this node.
func (to *audience) topics(n *cluster.Node) []string {
	switch {
	case to.all || len(to.identities) > 0:
		return []string{cluster.EveryRoom}
	case len(to.conns) > 0:
		return []string{n.Own()}
	}
	return to.rooms
}

// receive takes a message that came from a node, this one included, and only queues it for the members
// here. What the broker has kept of before this node received the room is for the room's history only: it has
// no member here yet.
func (h *Hub) receive(d cluster.Delivery) {
	to := audience{all: d.All, rooms: d.Rooms, identities: d.Identities, conns: d.Conns}
	omit, from := omission{conns: skipOf(d)}, origin{at: history.Position(d.At), trace: d.Trace, key: d.Key}
	switch kept := h.store.histories != nil; {
	case d.Kind == frame.Close:
		e := frame.CloseErrorOf(d.Payload)
		h.closeConns(to, omit.conns, e.Code, e.Reason)
		return
	case d.Kind == cluster.Join || d.Kind == cluster.Leave:
		h.moveSoon(to, omit.conns, d.Kind == cluster.Leave, cluster.Names(d.Payload))
		return
	case d.Kind == cluster.Mark:
		if kept && len(d.Rooms) > 0 {
			h.store.mark(d.Rooms[0], from.at)
		}
		return
	case kept && omit.conns != nil:
		omit.known = &history.Hidden{Conns: connTags(d.Except), Rooms: d.Besides, Identities: d.ExceptIdentities}
	}

	if d.Past {
		h.store.send(to, omit, from, encode(h, d.Kind, d.Payload, h.store.deflated.Load() > 0))
		return
	}
	deliver(h, to, omit, from, d.Kind, d.Payload)
}

// connTags returns the numbers by which positions name these connections.
func connTags(ids []string) []uint64 {
	tags := make([]uint64, len(ids))
	for i, id := range ids {
		tags[i] = resume.ConnTag(id)
	}
	return tags
}

// skipOf returns the function that reports which connections don't get a message. It returns nil if all get
// it.
func skipOf(d cluster.Delivery) func(*Conn) bool {
	e := exceptions{ids: d.Except, identities: d.ExceptIdentities}
	skip := e.skip()
	if len(d.Besides) == 0 {
		return skip
	}
	besides, n := lookup.New(d.Besides), len(d.Besides) // d is large, and would be on the heap
	return func(c *Conn) bool { return skip != nil && skip(c) || c.isWithin(&besides, n) }
}

// move is a Join or Leave of a target, on one node.
type move struct {
	hub   *Hub
	conns []*Conn
	rooms []string
	leave bool
}

// run has the connections enter or leave the rooms. No lock is held.
func (m *move) run() {
	for _, room := range m.rooms {
		f := failure{room: room}
		for _, c := range m.conns {
			if err := m.one(c, room); err != nil && !c.isEnded() {
				f.conns, f.err = f.conns+1, err
			}
		}
		f.log(m.hub)
	}
}

func (m *move) one(c *Conn, room string) error {
	if m.leave {
		return c.Leave(room)
	}
	return c.Join(room)
}

// failure says that connections don't enter a room. The zero value says nothing.
type failure struct {
	room  string
	conns int
	err   error
}

func (f failure) log(h *Hub) {
	if f.conns > 0 {
		h.cfg.logger.Warn("wsroom: connections don't enter a room", "room", f.room, "conns", f.conns, "err", f.err)
	}
}

// moves are those that targets of any node have asked for. They run in the order in which they came, and wait
// for the broker at the same time.
type moves struct {
	chain serial.Chain

	mu     sync.Mutex // guards the rest
	failed failure    // of the first that has failed since the last line of the log, and of how many connections
	logged time.Time  // when that was
}

// maxMoves bounds the moves that wait for their rooms.
const maxMoves = 4096

var errTooManyMoves = fmt.Errorf("wsroom: more than %d calls of Join and Leave wait for the broker", maxMoves)

// moveSoon has the audience's connections on this node enter or leave the rooms, and returns at once.
func (h *Hub) moveSoon(to audience, skip func(*Conn) bool, leave bool, rooms []string) {
	m := &move{hub: h, conns: h.store.snapshot(to), rooms: rooms, leave: leave}
	if skip != nil {
		m.conns = slices.DeleteFunc(m.conns, skip)
	}
	if len(m.conns) == 0 {
		return
	}

	subscribe, unsubscribe := h.subscribe, h.unsubscribe
	if leave {
		subscribe = func(func() context.Context, ...string) error { return nil }
		unsubscribe = func(...string) {}
	}
	ready := func() error { return subscribe(context.Background, rooms...) }
	ok := h.moves.chain.Add(maxMoves, ready, func(err error) {
		if err == nil {
			m.run()
			unsubscribe(rooms...)
		} else if err != ErrShutdown {
			h.moves.fail(m, err)
		}
		h.moves.log(h)
	})
	if !ok {
		h.moves.fail(m, errTooManyMoves) // those that are there log that
	}
}

// fail notes that a move's connections don't enter its rooms.
func (ms *moves) fail(m *move, err error) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	if ms.failed.conns == 0 {
		ms.failed = failure{room: m.rooms[0], err: err}
	}
	ms.failed.conns += len(m.conns)
}

// log logs what has failed: one line a second, and one at the end.
func (ms *moves) log(h *Hub) {
	ms.mu.Lock()
	f, now := ms.failed, time.Now()
	due := f.conns > 0 && (now.Sub(ms.logged) >= time.Second || ms.chain.Len() == 1)
	if due {
		ms.failed, ms.logged = failure{}, now
	}
	ms.mu.Unlock()

	if due {
		f.log(h)
	}
}
