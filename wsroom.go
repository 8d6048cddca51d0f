// Package wsroom puts WebSocket rooms behind any net/http route, of [http.ServeMux] or chi.
//
// [New] returns a [Hub], which is an [http.Handler]. It upgrades each request, puts the connection in the room
// that the route names, and calls the registered callbacks:
//
//	hub := wsroom.New(
//		wsroom.OnJSON(func(c *wsroom.Conn, m Message, err error) {
//			if err != nil {
//				return // the connection is ending; err says why
//			}
//			c.SendJSONToThisRoom(m)
//		}),
//	)
//	mux := http.NewServeMux()
//	mux.Handle("GET /chat/{room}", hub)
//
// A [Conn] sends text, JSON or binary messages to itself, to a room, to several rooms, or to all connections.
// The Hub sends them from anywhere. Any WebSocket client can talk to it and gets plain messages: only a client
// that asks for the subprotocol wsroom.v1 gets anything else.
//
// # Admission
//
// A request is upgraded once it has passed these checks, in this order: the handshake, the host and origin,
// the limits on connections, the room's name, [WithAuthorize], the limits on rooms. Until then it costs the
// hub nothing but a place under the limits. [WithRejectMode] sets how a refused client is told.
//
// # Messages
//
// The hub uses the first of [Serve], [OnJSON] and [OnText] that is registered. [OnBinary] works beside the
// last two. With none of these callbacks the hub is push-only. A message is encoded once for all its
// receivers. All members of a room see its messages in the same order. A send only queues the message and
// doesn't wait for a client, so a client that doesn't read costs the others nothing. (Only sends in
// [OnConnect] to its own connection may wait; see [WithSendQueue].) [WithOverflow] sets what happens when a
// queue is full.
//
// [OnRoomOpen], [OnRoomMessage] and [OnRoomClose] tell the application of rooms on this node and of their
// messages. Package route, on top of this one, gives messages types and replies.
//
// # Lifetime
//
// [Hub.ServeHTTP] returns after the upgrade and OnConnect. The connection lives on, whatever middleware then
// does with the request. Every connection has a heartbeat, bounded queues, and one cause of its end. [OnClose],
// the message callback's last call and context.Cause(c.Context()) all give that cause. [http.Server.Shutdown]
// doesn't close upgraded connections: call [Hub.Shutdown] as well.
//
// # Clients that come back
//
// With [WithHistory] a room keeps its last messages. A client that speaks wsroom.v1, as that of package wsroomjs, is
// sent what it has missed. [Conn.Enter] and [Conn.DropHeld] give any client a snapshot and then the live messages.
//
// # Several nodes
//
// With [WithBroker] the hubs of several processes share their rooms. Each room has one order on all nodes.
// [WithOutage] and [OnGap] say what happens while the broker is away. [Hub.Presence] lists the identities
// ([WithIdentity]) in a room: those on this node, or on all nodes with [WithPresenceStore].
//
// # Concurrency
//
// All methods of Hub, [Target] and Conn may be called from any goroutine and any callback. The exceptions are
// Conn's reading methods, which belong to Serve. Callbacks of one connection run one at a time, in the order
// of the events that they report. Callbacks of different connections run concurrently. Only Hub.Shutdown
// waits for callbacks, and it waits for all of them: in a callback, call it on a goroutine of its own.
package wsroom

import (
	"context"
	"errors"
	"fmt"
	"iter"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/lifecycle"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/netpoll"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/presence"
	"github.com/wsroom/wsroom/internal/resume"
)

// Hub is an [http.Handler] that upgrades requests to connections and keeps the connections in rooms. [New]
// makes it. All methods may be called concurrently.
type Hub struct {
	cfg        *config
	observer   Observer
	tracer     Tracer     // nil unless the observer is one
	propagator Propagator // nil unless the observer is one and a Tracer
	store      store
	node       *cluster.Node    // nil without WithBroker
	presence   *presence.Book   // nil without WithIdentity
	lives      *lifecycle.Rooms // nil without OnRoomOpen, OnRoomClose and OnRoomMessage
	moves      moves            // with a broker
	counters   counters
	ended      sums
	refused    sums

	resumeKey *resume.Key
	heartbeat line.Heartbeat
	parked    netpoll.Set  // connections that wait for their peers without a goroutine
	rejects   atomic.Int32 // refused connections that are being sent a close frame

	mu      sync.Mutex // guards the fields up to the next blank line, and orders wg.Add before wg.Wait
	closing bool
	open    int            // sockets, from before the upgrade until after the close
	perKey  map[string]int // sockets by the key of WithMaxConnsPer
	mostKey int            // see lookup.Delete

	wg sync.WaitGroup // connections, until their last callback has returned
}

var _ http.Handler = (*Hub)(nil)

// New returns a Hub. If the options contain mistakes, it panics with all of them, joined in one error.
func New(opts ...Option) *Hub {
	cfg, err := newConfig(opts)
	if err != nil {
		panic(err)
	}
	h := &Hub{cfg: cfg, observer: cfg.observer, perKey: map[string]int{}}
	if h.observer == nil {
		h.observer = noObserver{}
	}
	if h.tracer, _ = cfg.observer.(Tracer); h.tracer != nil {
		h.propagator, _ = cfg.observer.(Propagator)
	}
	h.resumeKey = resume.NewKey(cfg.name, cfg.resumeKeys)
	h.lives = newLives(h)
	h.store.init(cfg, h.observer, h.mark, h.lives)
	h.heartbeat.Init(cfg.heartbeat, cfg.pongTimeout)
	if cfg.broker != nil {
		h.node = newNode(h)
	}
	if cfg.identity != nil {
		h.presence = newPresence(h)
	}
	if len(cfg.ignored) > 0 {
		cfg.logger.Warn("wsroom: callbacks are ignored: Serve comes before OnJSON, OnJSON before OnText",
			"used", cfg.used(), "ignored", cfg.ignored)
	}
	return h
}

// ServeHTTP upgrades the request and returns once [OnConnect] has returned. The connection lives on.
//
// A request that isn't upgraded is answered with a status and the reason. The text of an application's error
// is sent only if the error is a [*StatusError]. These are the usual statuses:
//
//   - 400 for a bad handshake, a handshake with a body, or a bad room name,
//   - 403 for an origin or host that isn't allowed, or a refusal of [WithAuthorize],
//   - 426 for a request that isn't an upgrade, or that came over HTTP/2,
//   - 429 and 503 for a limit that is reached,
//   - 503 after [Hub.Shutdown], when [WithHandshakeTimeout] has passed, or while the broker is away.
//
// [WithRejectMode] can have clients told by a close frame instead.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) { _ = h.serve(w, r, false) }

// serve upgrades the request and runs OnConnect, or answers it and returns the reason. See upgrade for
// mayPass.
func (h *Hub) serve(w http.ResponseWriter, r *http.Request, mayPass bool) error {
	var c *Conn
	var err error
	if h.tracer == nil {
		c, r, err = h.upgrade(w, r, mayPass)
	} else {
		c, r, err = h.tracedUpgrade(w, r, mayPass)
	}
	if c != nil {
		h.begin(c, r)
	}
	return err
}

// begin counts the connection, calls OnConnect, and starts the connection's goroutine. With a nil r it ends the
// connection instead of calling OnConnect.
func (h *Hub) begin(c *Conn, r *http.Request) {
	opened := false
	defer func() { // even if OnConnect ends this goroutine, or the Observer or Tracer panics
		if !opened {
			c.end(endingAborted())
		}
		c.start()
	}()
	h.counters.opened.Add(1)
	h.observer.Add(MetricConns, c.route, "", 1)
	if r != nil {
		c.open(r)
		opened = true
	}
}

// SendTextToRoom sends text to every member of the room. See [Target.SendText].
func (h *Hub) SendTextToRoom(room, text string) error { return h.room(room).SendText(text) }

// SendJSONToRoom encodes v and sends it to every member of the room. See [Target.SendJSON].
func (h *Hub) SendJSONToRoom(room string, v any) error { return h.room(room).SendJSON(v) }

// SendBinaryToRoom sends a binary message to every member of the room. See [Target.SendBinary].
func (h *Hub) SendBinaryToRoom(room string, p []byte) error { return h.room(room).SendBinary(p) }

// SendTextToAll sends text to every connection of the hub. See [Target.SendText].
func (h *Hub) SendTextToAll(text string) error { return h.ToAll().SendText(text) }

// SendJSONToAll encodes v and sends it to every connection of the hub. See [Target.SendJSON].
func (h *Hub) SendJSONToAll(v any) error { return h.ToAll().SendJSON(v) }

// SendBinaryToAll sends a binary message to every connection of the hub. See [Target.SendBinary].
func (h *Hub) SendBinaryToAll(p []byte) error { return h.ToAll().SendBinary(p) }

func (h *Hub) room(name string) Target { return Target{hub: h, to: audience{rooms: []string{name}}} }

// Rooms returns the rooms that have a member on this node, sorted. It looks at some of them at a time: a room that
// opens or closes meanwhile may be among them or not. The same holds for the connections of [Hub.Len], and for those
// of a target of [Hub.ToAll] that [Target.Close], [Target.Join], [Target.Leave] and [Target.Delivered] find.
func (h *Hub) Rooms() []string { return h.store.roomNames() }

// Members returns the room's current members on this node. A connection is among them by the time its client
// gets the answer to the handshake. [Hub.Len] and [Hub.Rooms] count it slightly earlier.
func (h *Hub) Members(room string) []*Conn {
	return slices.DeleteFunc(h.store.snapshot(audience{rooms: []string{room}}), func(c *Conn) bool { return !c.isKnown() })
}

// Conns returns an iterator over the connections on this node that aren't ending, in no order. No lock is
// held while the loop's body runs, so the body may call anything and take any time. A connection that comes
// or goes meanwhile may be left out. None comes twice. Like [Hub.Members], Conns leaves out connections whose
// clients don't have the answer to the handshake yet.
func (h *Hub) Conns() iter.Seq[*Conn] {
	return func(yield func(*Conn) bool) {
		for i := range shardCount {
			for _, c := range h.store.connsOf(i) {
				if c.isKnown() && !c.isEnded() && !yield(c) {
					return
				}
			}
		}
	}
}

// Len returns the number of connections on this node that aren't ending.
func (h *Hub) Len() int { return h.store.len() }

func checkText(text string) error {
	if !utf8.ValidString(text) {
		return line.ErrNotUTF8
	}
	return nil
}

func (h *Hub) encodeJSON(v any) ([]byte, error) {
	p, err := h.cfg.marshal(v)
	if err != nil {
		return nil, fmt.Errorf("wsroom: encode JSON: %w", err)
	}
	if !utf8.Valid(p) {
		return nil, line.ErrNotUTF8
	}
	return p, nil
}

// encode makes the frame of a message.
func encode[P string | []byte](h *Hub, opcode byte, payload P, deflate bool) *frame.Message {
	m := frame.NewMessage(opcode, payload, deflate && len(payload) >= h.cfg.deflateFrom)
	if h.cfg.observer != nil {
		m.Made = frame.Now()
	}
	return m
}

// Shutdown stops the hub. New requests get 503. Each connection gets its queued messages and a close frame
// with close code 1012 (see [WithShutdownCode]), and ends with [ErrShutdown]. With [WithDrain] the closes are
// spread over the window. Shutdown returns when all callbacks have returned and the broker, if there is one,
// has taken every message.
//
// If ctx is done first, Shutdown closes the sockets of the connections that it found and returns the
// context's cause, wrapped. It may be called again, and then waits again. Call it before
// [http.Server.Shutdown], or at the same time.
//
// A callback must not wait for Shutdown, because Shutdown waits for the callback. Such a wait ends only when
// ctx is done, so never with [context.Background]. In a callback, call Shutdown on a goroutine of its own.
func (h *Hub) Shutdown(ctx context.Context) error {
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.store.closed.Store(true)

	if h.node != nil {
		h.node.Settle(ctx)
	}

	conns := h.store.snapshot(everyone)
	h.closeAll(ctx, conns)

	finished := make(chan struct{})
	go func() {
		h.wg.Wait()
		if h.lives != nil {
			h.lives.Wait(ctx)
		}
		h.leaveNodes(ctx)
		close(finished)
	}()

	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		for _, c := range conns {
			c.line.Kill()
		}
		h.leaveNodes(ctx)
		return fmt.Errorf("wsroom: shutdown: %w", context.Cause(ctx))
	}
}

// leaveNodes closes the presence book and the cluster node. ctx limits its waits for the store and broker.
func (h *Hub) leaveNodes(ctx context.Context) {
	if h.presence != nil {
		h.presence.Close(ctx)
	}
	if h.node != nil {
		h.node.Close(ctx)
		h.moves.chain.Wait(ctx)
	}
	if h.store.histories != nil {
		h.store.histories.Close()
	}
}

// closeAll ends the connections, spread over the window of WithDrain if there is one.
func (h *Hub) closeAll(ctx context.Context, conns []*Conn) {
	e := endingShutdown(h.cfg.shutdownCode)
	if h.cfg.drain == 0 {
		for _, c := range conns {
			c.end(e)
		}
		return
	}

	mathrand.Shuffle(len(conns), func(i, j int) { conns[i], conns[j] = conns[j], conns[i] })

	begin := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()

	for i, c := range conns {
		if c.isEnded() {
			continue // it has ended by itself
		}
		due := time.Duration(float64(h.cfg.drain) * float64(i) / float64(len(conns)))
		timer.Reset(time.Until(begin.Add(due)))
		select {
		case <-timer.C:
		case <-ctx.Done(): // end the rest at once
		}
		c.end(e)
	}
}

// reserve counts a socket against the limits, until unreserve. It checks in the same critical section whether
// the hub is closing, so that no request is admitted after Shutdown has begun.
func (h *Hub) reserve(key string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closing:
		return errShutDown
	case h.cfg.maxConns > 0 && h.open >= h.cfg.maxConns:
		return errTooManyConns
	case h.cfg.connKey != nil && h.perKey[key] >= h.cfg.maxPerKey:
		return errTooManyPerKey
	}

	h.open++
	if h.cfg.connKey != nil {
		h.perKey[key]++
	}
	h.wg.Add(1)
	return nil
}

func (h *Hub) unreserve(key string) {
	h.mu.Lock()
	h.open--
	if h.cfg.connKey != nil {
		if h.perKey[key]--; h.perKey[key] == 0 {
			h.perKey = lookup.Delete(h.perKey, key, &h.mostKey)
		}
	}
	h.mu.Unlock()
	h.wg.Done()
}

// release removes a connection from the counts. Its callbacks have returned and its socket is closed.
func (h *Hub) release(c *Conn) {
	h.counters.closed.Add(1)
	h.observer.Add(MetricConns, c.route, "", -1)
	h.countEnd(c)
	h.unreserve(c.key)
}

// entered reports that the connection has joined the room, to the Observer and to presence.
func (h *Hub) entered(c *Conn, room string) {
	h.observer.Add(MetricJoins, c.route, "", 1)
	c.appear(room)
}

// left undoes appear and ends the connection's use of the room, unless doneWith does that later.
func (h *Hub) left(c *Conn, room string) {
	c.disappear(room)
	if h.lives == nil {
		h.unsubscribe(room)
	}
}

// Target is a set of receivers: the members of some rooms, or all connections. [Hub.To] and [Hub.ToAll] make
// it. It is a value, and may be kept and used concurrently. The zero Target is not usable.
type Target struct {
	hub    *Hub
	to     audience
	except exceptions
	key    latestKey
	trace  string // "" for none
}

// To returns the members of these rooms as a target. A connection that is in several of them gets one copy.
// With no rooms the target is empty: a message to it reaches no connection, and [Target.Close] closes none.
// For all connections of the hub, see [Hub.ToAll].
func (h *Hub) To(rooms ...string) Target {
	return Target{hub: h, to: audience{rooms: lookup.Distinct(rooms)}}
}

// ToAll returns all connections of the hub, on all nodes, as a target.
func (h *Hub) ToAll() Target { return Target{hub: h, to: everyone} }

// ToIdentity returns all connections of these identities, on all nodes, as a target; see [WithIdentity]. No
// URL can name it, as it could name a room. An identity has 1 to 255 bytes of UTF-8 without control
// characters, as a room has: for any other the methods that send return an error. An identity without
// connections is nobody, and no error. With no identities the target is empty.
//
// What is sent to an identity has one order, as a room's messages have. It isn't kept by [WithHistory]. With
// a broker it goes to all nodes, and the nodes without a connection of the identity drop it.
func (h *Hub) ToIdentity(ids ...string) Target {
	return Target{hub: h, to: audience{identities: lookup.Distinct(ids)}}
}

// ToConn returns the connections with these IDs as a target, wherever they are; see [Conn.ID]. An ID of no
// connection is nobody, and no error. With no IDs the target is empty. With a broker a message goes only to
// the nodes of the connections. It isn't kept by [WithHistory].
func (h *Hub) ToConn(ids ...string) Target {
	return Target{hub: h, to: audience{conns: lookup.Distinct(ids)}}
}

// Except returns the target without these connections. They may be on any node. A nil has no effect, nor has
// a connection that has ended or that belongs to a hub that shares nothing with this one.
func (t Target) Except(conns ...*Conn) Target {
	t.except.conns = slices.DeleteFunc(slices.Concat(t.except.conns, conns), func(c *Conn) bool { return c == nil })
	return t
}

// ExceptIdentity returns the target without all connections of these identities, on any node. So "ann is
// typing" reaches every tab but ann's own. With [WithHistory] the message stays hidden from an identity that
// comes back. The identity "" has no effect. If another one can't be an identity (see [Hub.ToIdentity]), the
// methods that send return an error.
func (t Target) ExceptIdentity(ids ...string) Target {
	t.except.identities = slices.DeleteFunc(slices.Concat(t.except.identities, ids), func(id string) bool { return id == "" })
	return t
}

// ExceptConn is [Target.Except] for connections by their [Conn.ID]. An ID of no connection has no effect.
func (t Target) ExceptConn(ids ...string) Target {
	t.except.ids = slices.DeleteFunc(slices.Concat(t.except.ids, ids), func(id string) bool { return id == "" })
	return t
}

// Latest returns the target for the newest values of a key, such as where a player stands, or a price. A
// message that is sent with it replaces, for each receiver, the message of the same key and room that still
// waits in the receiver's queue, and takes its place there. So a client that keeps up gets every value, and
// one that doesn't gets the newest ones; for no key more than one waits, if the values are of one size.
//
// A key has 1 to 255 bytes; with another one each send returns an error. Keys of messages to all are those of
// a room of their own. A connection in several of the rooms gets the message in the first of them, as ever.
// Latest has no effect on [Target.Close].
//
// Values of different keys, and other messages, may overtake a value that has been replaced: the new one
// stands where the first of those that waited stood. A replacement needs no further place in the queue. If it
// is larger than the message before and the bytes are too many for the queue, it is queued as any message is,
// and [WithOverflow] sets what happens. The [Observer] counts messages that were replaced as dropped, with
// the cause "replaced"; [OnDrop] and [Stats] don't. [OnRoomMessage] gets each value.
//
// With [WithHistory] the values aren't kept: a client that comes back isn't sent those that it has missed,
// and is told of no gap. Send it the present values from [OnConnect], also when [Conn.Resumed] is true.
func (t Target) Latest(key string) Target {
	t.key = latestKey{key, true}
	return t
}

// latestKey is the key of Target.Latest. The zero value is none.
type latestKey struct {
	name string
	set  bool
}

const maxLatestKey = 255 // bytes

func (k latestKey) check() error {
	if k.set && (k.name == "" || len(k.name) > maxLatestKey) {
		return fmt.Errorf("wsroom: Latest: a key has 1 to %d bytes, not %d", maxLatestKey, len(k.name))
	}
	return nil
}

// Context returns the target for messages that belong to the trace in ctx: that trace goes on where they are
// delivered, on all nodes. The hub's [Observer] must be a [Tracer] and a [Propagator]; otherwise Context has
// no effect. For each such message Start is called with the name "deliver" on each node that receives it,
// once for each room if there is a broker, and [OnRoomMessage] is traced as a part of it, too. Context
// doesn't keep ctx, whose end and deadline have no effect.
//
// Nodes of a version without Context don't understand such messages, and report a gap. So update all nodes
// first.
func (t Target) Context(ctx context.Context) Target {
	if t.hub.propagator != nil {
		if t.trace = t.hub.propagator.Inject(ctx); len(t.trace) > maxTrace {
			t.trace = ""
		}
	}
	return t
}

const maxTrace = 255 // bytes

// SendText queues a text message for every connection of the target. All members of a room see its messages
// in the same order, and the messages of one sender in the order sent.
//
// SendText returns an error for text that isn't valid UTF-8 and for a name that can't be a room's or an
// identity's. No connection gets the message then. With a broker it also returns [ErrOutage], [ErrShutdown],
// and errors for a message that is larger, or names more rooms, identities or connections, than the broker's
// messages may. An empty room is no error. Nor is a member whose queue is full: [WithOverflow] sets what
// happens to that member, and [OnClose] or [OnDrop] reports it.
func (t Target) SendText(text string) error {
	return send(t, frame.Text, text, checkText(text))
}

// SendJSON encodes v once and queues it as [Target.SendText] does. It returns an encoder's error wrapped.
func (t Target) SendJSON(v any) error {
	p, err := t.hub.encodeJSON(v)
	return send(t, frame.Text, p, err)
}

// SendBinary queues a binary message as [Target.SendText] does. It copies p.
func (t Target) SendBinary(p []byte) error {
	return send(t, frame.Binary, p, nil)
}

// send sends a message. If err, the error of its encoding, isn't nil, it only returns that.
func send[P string | []byte](t Target, opcode byte, payload P, err error) error {
	if err != nil {
		return err
	}
	if err := errors.Join(t.check(), t.key.check()); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, opcode, payload)
	}
	deliver(t.hub, t.to, t.except.omission(t.hub), origin{trace: t.trace, key: t.key.name}, opcode, payload)
	return nil
}

// deliver sends a message to the connections on this node, and to the histories of its rooms.
func deliver[P string | []byte](h *Hub, to audience, omit omission, from origin, opcode byte, payload P) {
	if from.trace != "" && h.propagator != nil {
		_, end := h.tracer.Start(h.extract(from.trace), "deliver", "")
		defer end(nil)
	}
	m := encode(h, opcode, payload, h.store.deflated.Load() > 0)
	if from.key != "" {
		m.Tag = &resume.Latest{Key: from.key} // its rooms are set as it is sent to them
	}
	n := h.store.send(to, omit, from, m)
	h.observer.Record(MetricFanOut, "", "", float64(n))
}

// Close ends every connection of the target as [Conn.Close] does, and returns at once. It returns an error
// for a code or reason that can't be sent (RFC 6455, sections 7.4 and 5.5.1) and for a name that can't be a
// room's or an identity's. With a broker it also returns the errors that [Target.SendText] returns with one.
// A client that is connecting may come in right after: to ban it, have [WithAuthorize] refuse it first.
func (t Target) Close(code websocket.StatusCode, reason string) error {
	if err := frame.CheckClose(code, reason); err != nil {
		return err
	}
	if err := t.check(); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, frame.Close, frame.ClosePayload(code, line.CutReason(reason)))
	}
	t.hub.closeConns(t.to, t.except.skip(), code, reason)
	return nil
}

// Join has every connection of the target enter these rooms, as by [Conn.Join], wherever it is. It returns an
// error for a name that can't be a room's or an identity's, and with a broker the errors that
// [Target.SendText] returns with one. A connection that finds a limit reached stays out of the room; the log
// has a line for that.
//
// Without a broker the connections are in the rooms when Join returns. With one they enter once their node
// has the rooms' messages, in the order of the calls of Join and [Target.Leave] for the target. A message
// that is sent to the room meanwhile may miss them: greet them in [OnJoin].
func (t Target) Join(rooms ...string) error { return t.move(cluster.Join, rooms) }

// Leave has every connection of the target leave these rooms, as by [Conn.Leave], wherever it is. Its errors,
// and when it takes effect, are those of [Target.Join].
func (t Target) Leave(rooms ...string) error { return t.move(cluster.Leave, rooms) }

// move is Join or Leave.
func (t Target) move(kind byte, rooms []string) error {
	for _, room := range rooms {
		if err := checkRoomName(room); err != nil {
			return err
		}
	}
	if err := t.check(); err != nil || t.to.nobody() || len(rooms) == 0 {
		return err
	}

	rooms = lookup.Distinct(rooms)
	if t.hub.node != nil {
		return publish(t, kind, cluster.AppendNames(nil, rooms))
	}
	m := move{hub: t.hub, conns: t.hub.store.snapshot(t.to), rooms: rooms, leave: kind == cluster.Leave}
	if skip := t.except.skip(); skip != nil {
		m.conns = slices.DeleteFunc(m.conns, skip)
	}
	m.run()
	return nil
}

// Delivered waits until every connection of the target on this node has everything that was sent to it
// before, in the sense of [Conn.Delivered], or until ctx is done. It returns the connections that haven't:
// they have ended, or haven't answered in time. With a broker it waits first for what this node has sent to
// the target to be queued here. It returns nothing for a name that can't be a room's or an identity's.
//
// It must not be called in a callback of a connection of the target, whose answer isn't read meanwhile.
func (t Target) Delivered(ctx context.Context) (missing []*Conn) {
	if t.check() != nil || t.to.nobody() {
		return nil
	}
	if t.hub.node != nil {
		t.hub.node.Await(ctx, t.to.topics(t.hub.node)...)
	}

	conns := t.hub.store.snapshot(t.to)
	if skip := t.except.skip(); skip != nil {
		conns = slices.DeleteFunc(conns, skip)
	}
	type answer struct {
		index int
		err   error
	}
	answers := make(chan answer, len(conns)) // so that nobody waits to send one
	for i, c := range conns {
		if !c.line.Confirm(func(err error) { answers <- answer{i, err} }, goroutine.Current()) {
			answers <- answer{i, ErrClosed}
		}
	}

	delivered := make([]bool, len(conns))
	for n := 0; n < len(conns); n++ {
		select {
		case a := <-answers:
			delivered[a.index] = a.err == nil
		case <-ctx.Done():
			n = len(conns)
		}
	}
	for i, c := range conns {
		if !delivered[i] {
			missing = append(missing, c)
		}
	}
	return missing
}

// closeConns ends the connections on this node, without those that skip selects. A nil skip selects none.
func (h *Hub) closeConns(to audience, skip func(*Conn) bool, code websocket.StatusCode, reason string) {
	for _, c := range h.store.snapshot(to) {
		if skip == nil || !skip(c) {
			_ = c.Close(code, reason) // ErrClosed means that it was ending already
		}
	}
}

func (t Target) check() error {
	for _, room := range t.to.rooms {
		if err := checkRoomName(room); err != nil {
			return err
		}
	}
	for _, ids := range [...][]string{t.to.identities, t.except.identities} {
		for _, id := range ids {
			if err := checkIdentity(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// exceptions are the connections that a target leaves out.
type exceptions struct {
	conns      []*Conn
	ids        []string // of connections
	identities []string
}

// skip returns the function that selects the connections that are left out. It is nil if there are none.
func (e *exceptions) skip() func(*Conn) bool {
	if len(e.conns)+len(e.ids)+len(e.identities) == 0 {
		return nil
	}
	conns := lookup.New(e.conns)
	if len(e.ids)+len(e.identities) == 0 {
		return conns.Has
	}
	ids, identities := lookup.New(e.ids), lookup.New(e.identities)
	return func(c *Conn) bool { return conns.Has(c) || ids.Has(c.id) || c.isOneOf(&identities) }
}

// allIDs returns the IDs of the connections that are left out, without those of identities. With kept, which says
// that the message is kept, it also returns those under which their clients may come back.
func (e *exceptions) allIDs(kept bool) []string {
	if len(e.conns) == 0 {
		return e.ids
	}
	ids := slices.Clone(e.ids)
	for _, c := range e.conns {
		ids = append(ids, c.id)
		if !kept {
			continue
		}
		for _, tag := range c.holders() {
			ids = append(ids, resume.HolderID(tag))
		}
	}
	return ids
}

// omission returns what a send has to know of the exceptions.
func (e *exceptions) omission(h *Hub) omission {
	o := omission{conns: e.skip()}
	if h.store.histories != nil && o.conns != nil {
		o.known = &history.Hidden{Conns: connTags(e.allIDs(true)), Identities: e.identities}
	}
	return o
}

// SendText queues a text message for this connection. It returns nil only if the message was queued.
// Otherwise it returns [ErrClosed], [ErrSlow], [ErrQueueFull], or an error for text that isn't valid UTF-8. It
// returns at once, except in [OnConnect], where it may wait for room in the queue of c; see [WithSendQueue].
func (c *Conn) SendText(text string) error {
	return enqueue(c, frame.Text, text, checkText(text))
}

// SendJSON encodes v and queues it as [Conn.SendText] does. It returns an encoder's error wrapped.
func (c *Conn) SendJSON(v any) error {
	p, err := c.hub.encodeJSON(v)
	return enqueue(c, frame.Text, p, err)
}

// SendBinary queues a binary message as [Conn.SendText] does. It copies p.
func (c *Conn) SendBinary(p []byte) error {
	return enqueue(c, frame.Binary, p, nil)
}

// enqueue queues a message. If err, the error of its encoding, isn't nil, it only returns that.
func enqueue[P string | []byte](c *Conn, opcode byte, payload P, err error) error {
	if err != nil {
		return err
	}

	m := encode(c.hub, opcode, payload, c.line.Deflate)
	m.Tag = outbound.Own{}
	p := c.line.PushOwn(m)
	if p.Refused == outbound.Held { // OnConnect is running, and its own messages go first
		p = c.line.PushSnapshot(m, goroutine.Current())
	}

	if p.Dropped > 0 {
		c.noteDrops(int(p.Dropped))
	}
	if p.Refused == outbound.Slow {
		c.end(line.TooSlow)
	}
	return refusals[p.Refused]
}

// refusals maps a queue's answer to the error of a send to one connection.
var refusals = [...]error{
	outbound.Taken:  nil,
	outbound.Closed: ErrClosed,
	outbound.Full:   ErrQueueFull,
	outbound.Slow:   ErrSlow,
}

// SendTextToThisRoom sends text to all members of [Conn.Room], this connection included. See
// [Hub.SendTextToRoom].
func (c *Conn) SendTextToThisRoom(text string) error { return c.hub.SendTextToRoom(c.room, text) }

// SendJSONToThisRoom encodes v and sends it to all members of [Conn.Room], this connection included. See
// [Hub.SendJSONToRoom].
func (c *Conn) SendJSONToThisRoom(v any) error { return c.hub.SendJSONToRoom(c.room, v) }

// SendBinaryToThisRoom sends a binary message to all members of [Conn.Room], this connection included. See
// [Hub.SendBinaryToRoom].
func (c *Conn) SendBinaryToThisRoom(p []byte) error { return c.hub.SendBinaryToRoom(c.room, p) }

// SendTextToRoom is [Hub.SendTextToRoom].
func (c *Conn) SendTextToRoom(room, text string) error { return c.hub.SendTextToRoom(room, text) }

// SendJSONToRoom is [Hub.SendJSONToRoom].
func (c *Conn) SendJSONToRoom(room string, v any) error { return c.hub.SendJSONToRoom(room, v) }

// SendBinaryToRoom is [Hub.SendBinaryToRoom].
func (c *Conn) SendBinaryToRoom(room string, p []byte) error { return c.hub.SendBinaryToRoom(room, p) }

// SendTextToAll is [Hub.SendTextToAll].
func (c *Conn) SendTextToAll(text string) error { return c.hub.SendTextToAll(text) }

// SendJSONToAll is [Hub.SendJSONToAll].
func (c *Conn) SendJSONToAll(v any) error { return c.hub.SendJSONToAll(v) }

// SendBinaryToAll is [Hub.SendBinaryToAll].
func (c *Conn) SendBinaryToAll(p []byte) error { return c.hub.SendBinaryToAll(p) }
