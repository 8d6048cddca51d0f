// Package wsroom puts WebSocket rooms behind any net/http route, http.ServeMux or chi.
//
// New returns a Hub, which is an http.Handler. It upgrades each request, puts the connection in the
// room that the route names, and calls the callbacks that were registered:
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
// Connections, and the Hub from anywhere, send text, JSON or binary messages to one connection, to a
// room, to several, or to all. Any WebSocket client can talk to it: there is no protocol of wsroom's
// own on the wire.
//
// # Admission
//
// A request is upgraded once it has passed the handshake, the checks of origin and host, the limits on
// connections, its room's name, WithAuthorize and the limits on rooms, in this order. Until then it
// costs the hub nothing but its place under the limits; see WithRejectMode for how its client is told.
//
// # Messages
//
// Of the callbacks for messages the first of Serve, OnJSON and OnText is used; OnBinary works beside
// the last two. With none of them the hub is push-only. A message is encoded once, whoever receives
// it. All members of a room see its messages in the same order. A send only queues: it never waits
// for a client, and a client that doesn't read costs the others nothing. See WithOverflow for what
// happens when its queue is full.
//
// # Lifetime
//
// ServeHTTP returns after the upgrade and OnConnect; the connection lives on, whatever middleware does
// with the request then. Every connection has a heartbeat, bounded queues and one cause of its end,
// which OnClose, the last message callback and context.Cause(c.Context()) give. http.Server.Shutdown
// knows nothing of upgraded connections: call Hub.Shutdown beside it.
//
// # Several nodes
//
// With WithBroker the hubs of several processes share their rooms, with one order for each room on all of
// them; see WithOutage and OnGap for what becomes of that while the broker is away. Hub.Presence says who is
// in a room, by WithIdentity; on all nodes, with WithPresenceStore.
//
// # Concurrency
//
// All methods of Hub, Target and Conn may be called from any goroutine and from any callback, but
// Conn's reading methods, which belong to Serve. Callbacks of one connection run one at a time, in
// the order of what they report; those of different connections run concurrently. No call waits for a
// callback but Hub.Shutdown, which waits for all: in a callback, call it on a goroutine of its own.
package wsroom

import (
	"context"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/presence"
)

// Hub is an http.Handler that upgrades requests to connections and keeps them in rooms. It is made by
// New. All methods may be called concurrently.
type Hub struct {
	cfg      *config
	observer Observer
	tracer   Tracer // nil unless the observer is one
	store    store
	node     *cluster.Node  // nil without WithBroker
	presence *presence.Book // nil without WithIdentity
	counters counters
	ended    sums
	refused  sums

	heartbeat heartbeat
	rejects   atomic.Int32 // connections that are told by a close frame that they are refused

	mu      sync.Mutex // guards the fields to the next blank line, and wg's Add against its Wait
	closing bool
	open    int            // sockets, from before the upgrade to after the close
	perKey  map[string]int // of WithMaxConnsPer

	wg sync.WaitGroup // connections, until their last callback has returned
}

var _ http.Handler = (*Hub)(nil)

// New returns a Hub. It panics with every mistake found in the options, joined.
func New(opts ...Option) *Hub {
	cfg, err := newConfig(opts)
	if err != nil {
		panic(err)
	}
	h := &Hub{cfg: cfg, observer: cfg.observer, perKey: map[string]int{}}
	if h.observer == nil {
		h.observer = noObserver{}
	}
	h.tracer, _ = cfg.observer.(Tracer)
	h.store.init(cfg, h.observer)
	h.heartbeat.init(cfg)
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

// ServeHTTP upgrades the request and returns once OnConnect has returned; the connection lives on. A
// request that it doesn't upgrade is answered with a status and, but for errors of the application,
// the reason: 400 for a bad handshake, one with a body, or a bad room name, 403 for a foreign origin or host or by
// WithAuthorize, 426 for what is no upgrade, 429 and 503 over a limit, 503 after Shutdown or
// WithHandshakeTimeout; see WithRejectMode.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c, r := h.tracedUpgrade(w, r)
	if c == nil {
		return
	}
	h.begin(c, func() { c.open(r) })
}

// begin counts the connection, opens it and has it run.
func (h *Hub) begin(c *Conn, open func()) {
	defer func() { // even if OnConnect ends this goroutine, or the Observer or Tracer panics
		if !c.beating.Load() {
			c.end(endingPanic("admission", "the Observer or the Tracer"))
		}
		go c.run(true)
	}()
	h.counters.opened.Add(1)
	h.observer.Add(MetricConns, c.route, "", 1)
	open()
}

// SendTextToRoom sends text to every member of the room. See Target.SendText.
func (h *Hub) SendTextToRoom(room, text string) error { return h.room(room).SendText(text) }

// SendJSONToRoom sends v, encoded, to every member of the room. See Target.SendJSON.
func (h *Hub) SendJSONToRoom(room string, v any) error { return h.room(room).SendJSON(v) }

// SendTextToAll sends text to every connection of the hub. See Target.SendText.
func (h *Hub) SendTextToAll(text string) error { return h.ToAll().SendText(text) }

// SendJSONToAll sends v, encoded, to every connection of the hub. See Target.SendJSON.
func (h *Hub) SendJSONToAll(v any) error { return h.ToAll().SendJSON(v) }

func (h *Hub) room(name string) Target { return Target{hub: h, to: audience{rooms: []string{name}}} }

// Rooms returns the rooms that have a member on this node, sorted.
func (h *Hub) Rooms() []string { return h.store.roomNames() }

// Members returns the room's members on this node, as they are now. A connection that has had the answer to
// its handshake is among them; shortly before that it counts in Len and Rooms, and isn't yet.
func (h *Hub) Members(room string) []*Conn {
	return slices.DeleteFunc(h.store.snapshot(audience{rooms: []string{room}}), func(c *Conn) bool { return !c.isKnown() })
}

// Len returns the number of connections on this node that aren't ending.
func (h *Hub) Len() int { return h.store.len() }

func checkText(text string) error {
	if !utf8.ValidString(text) {
		return errNotUTF8
	}
	return nil
}

func (h *Hub) encodeJSON(v any) ([]byte, error) {
	p, err := h.cfg.marshal(v)
	if err != nil {
		return nil, fmt.Errorf("wsroom: encode JSON: %w", err)
	}
	if !utf8.Valid(p) {
		return nil, errNotUTF8
	}
	return p, nil
}

// encode makes the frame of a message.
func encode[P string | []byte](h *Hub, opcode byte, payload P, deflate bool) *frame.Message {
	m := frame.NewMessage(opcode, payload, deflate && len(payload) >= h.cfg.deflateFrom)
	if h.cfg.observer != nil {
		m.Made = time.Now()
	}
	return m
}

// Shutdown ends the hub: new requests get 503, every connection is closed with ErrShutdown and close code
// 1012, see WithShutdownCode, after what is queued for it, and when every callback has returned so does
// Shutdown; with a broker, after it has taken what was sent. With WithDrain the closes are spread over the
// window. When ctx is done first it closes the sockets that it ended and returns the context's cause. It may
// be called again, and waits again. Call it before, or beside, http.Server.Shutdown.
//
// A callback must not wait for Shutdown, which waits for the callback: until ctx is done, so for ever with
// context.Background(). Call it on a goroutine of its own there.
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
		h.leaveNodes(ctx)
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		for _, c := range conns {
			c.killSocket()
		}
		h.leaveNodes(ctx)
		return fmt.Errorf("wsroom: shutdown: %w", context.Cause(ctx))
	}
}

// leaveNodes ends what there is beside the connections, unless ctx is done with their callbacks.
func (h *Hub) leaveNodes(ctx context.Context) {
	if h.presence != nil {
		h.presence.Close(ctx)
	}
	if h.node != nil {
		h.node.Close(ctx)
	}
}

// closeAll ends the connections, over the drain's window if there is one.
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
			continue // it ended by itself
		}
		due := time.Duration(float64(h.cfg.drain) * float64(i) / float64(len(conns)))
		timer.Reset(time.Until(begin.Add(due)))
		select {
		case <-timer.C:
		case <-ctx.Done(): // the rest at once
		}
		c.end(e)
	}
}

// reserve counts a socket, under the limits, until unreserve. In the same critical section it looks
// whether the hub is closing, so that no request slips in behind Shutdown.
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
			delete(h.perKey, key)
		}
	}
	h.mu.Unlock()
	h.wg.Done()
}

// release forgets a connection whose callbacks have returned and whose socket is closed.
func (h *Hub) release(c *Conn) {
	h.counters.closed.Add(1)
	h.observer.Add(MetricConns, c.route, "", -1)
	h.countEnd(c)
	h.unreserve(c.key)
}

// entered and left keep the books of a connection that has entered or left a room.
func (h *Hub) entered(c *Conn, room string) {
	h.observer.Add(MetricJoins, c.route, "", 1)
	h.appear(c, room)
}

// appear lets the connection's identity count as present.
func (h *Hub) appear(c *Conn, room string) {
	if h.presence != nil {
		h.presence.Count(room, c.Identity(), 1)
	}
}

func (h *Hub) left(c *Conn, room string) {
	if h.presence != nil {
		h.presence.Count(room, c.Identity(), -1)
	}
	h.unsubscribe(room)
}

// Target is whom a message goes to: the members of some rooms, or everyone. It is made by Hub.To and
// Hub.ToAll, is a value, and may be kept and used concurrently. The zero Target is of no use.
type Target struct {
	hub    *Hub
	to     audience
	except []*Conn
}

// To returns the members of these rooms. A connection that is in several of them gets one copy. No rooms
// are nobody: a message to them reaches no connection, and Close closes none; for all connections of the
// hub see ToAll.
func (h *Hub) To(rooms ...string) Target {
	return Target{hub: h, to: audience{rooms: lookup.Distinct(rooms)}}
}

// ToAll returns all connections of the hub, on all nodes.
func (h *Hub) ToAll() Target { return Target{hub: h, to: everyone} }

// Except leaves these connections out, on whichever node they are. A nil leaves nobody out, nor does a
// connection that has ended or belongs to a hub that has nothing to do with this one.
func (t Target) Except(conns ...*Conn) Target {
	t.except = slices.DeleteFunc(slices.Concat(t.except, conns), func(c *Conn) bool { return c == nil })
	return t
}

// SendText queues a text message for every connection of the target. All members of a room see its
// messages in the same order, and those of one sender in the order sent. It returns an error, and
// nobody gets the message, for text that isn't valid UTF-8 or a name that can't be a room's. That
// nobody is there is no error. A member whose queue is full is dealt with as WithOverflow says, and
// reported by OnClose or OnDrop; it is no error of the sender.
func (t Target) SendText(text string) error {
	return send(t, frame.Text, text, checkText(text))
}

// SendJSON queues v, encoded once for all, as SendText does; an error of the encoder is returned
// wrapped.
func (t Target) SendJSON(v any) error {
	p, err := t.hub.encodeJSON(v)
	return send(t, frame.Text, p, err)
}

// SendBinary queues a binary message, as SendText does. It copies p.
func (t Target) SendBinary(p []byte) error {
	return send(t, frame.Binary, p, nil)
}

// send sends a message unless there is an err of its encoding.
func send[P string | []byte](t Target, opcode byte, payload P, err error) error {
	if err != nil {
		return err
	}
	if err := t.check(); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, opcode, payload)
	}
	deliver(t.hub, t.to, t.skip(), opcode, payload)
	return nil
}

// deliver sends a message to the connections on this node but for those that skip names, if it isn't nil.
func deliver[P string | []byte](h *Hub, to audience, skip func(*Conn) bool, opcode byte, payload P) {
	m := encode(h, opcode, payload, h.store.deflated.Load() > 0)
	n := h.store.send(to, skip, m)
	h.observer.Record(MetricFanOut, "", "", float64(n))
}

// Close ends every connection of the target as Conn.Close would, and returns at once. Its error is
// for a code or reason that can't be sent, or a name that can't be a room's.
func (t Target) Close(code websocket.StatusCode, reason string) error {
	if err := frame.CheckClose(code, reason); err != nil {
		return err
	}
	if err := t.check(); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, frame.Close, frame.ClosePayload(code, cutReason(reason)))
	}
	t.hub.closeConns(t.to, t.skip(), code, reason)
	return nil
}

// closeConns ends the connections on this node but for those that skip names, if it isn't nil.
func (h *Hub) closeConns(to audience, skip func(*Conn) bool, code websocket.StatusCode, reason string) {
	for _, c := range h.store.snapshot(to) {
		if skip == nil || !skip(c) {
			_ = c.Close(code, reason) // ErrClosed: it was ending already
		}
	}
}

// skip says whom Except left out; nil: nobody.
func (t Target) skip() func(*Conn) bool {
	if len(t.except) == 0 {
		return nil
	}
	except := lookup.New(t.except)
	return except.Has
}

func (t Target) check() error {
	for _, room := range t.to.rooms {
		if err := checkRoomName(room); err != nil {
			return err
		}
	}
	return nil
}

// SendText queues a text message for this connection. It returns nil only if the message was queued;
// otherwise ErrClosed, ErrSlow, ErrQueueFull, or an error for text that isn't valid UTF-8. It returns at
// once, but in OnConnect, where it may wait for room in the queue of c; see WithSendQueue.
func (c *Conn) SendText(text string) error {
	return enqueue(c, frame.Text, text, checkText(text))
}

// SendJSON queues v, encoded, as SendText does; an error of the encoder is returned wrapped.
func (c *Conn) SendJSON(v any) error {
	p, err := c.hub.encodeJSON(v)
	return enqueue(c, frame.Text, p, err)
}

// SendBinary queues a binary message, as SendText does. It copies p.
func (c *Conn) SendBinary(p []byte) error {
	return enqueue(c, frame.Binary, p, nil)
}

// enqueue queues a message unless there is an err of its encoding.
func enqueue[P string | []byte](c *Conn, opcode byte, payload P, err error) error {
	if err != nil {
		return err
	}

	m := encode(c.hub, opcode, payload, c.queue.Deflate)
	p := c.queue.PushOwn(m)
	if p.Refused == outbound.Held { // OnConnect runs, and what it sends goes first
		p = c.queue.PushSnapshot(m, goroutine.Current())
	}

	if p.Dropped > 0 {
		c.noteDrops(int(p.Dropped))
	}
	if p.Refused == outbound.Slow {
		c.end(endingSlow)
	}
	return refusals[p.Refused]
}

// refusals are the errors of a send to one connection.
var refusals = [...]error{
	outbound.Taken:  nil,
	outbound.Closed: ErrClosed,
	outbound.Full:   ErrQueueFull,
	outbound.Slow:   ErrSlow,
}

// SendTextToThisRoom sends to everyone in Room(), this connection included. See Hub.SendTextToRoom.
func (c *Conn) SendTextToThisRoom(text string) error { return c.hub.SendTextToRoom(c.room, text) }

// SendJSONToThisRoom sends to everyone in Room(), this connection included. See Hub.SendJSONToRoom.
func (c *Conn) SendJSONToThisRoom(v any) error { return c.hub.SendJSONToRoom(c.room, v) }

// SendTextToRoom is Hub.SendTextToRoom.
func (c *Conn) SendTextToRoom(room, text string) error { return c.hub.SendTextToRoom(room, text) }

// SendJSONToRoom is Hub.SendJSONToRoom.
func (c *Conn) SendJSONToRoom(room string, v any) error { return c.hub.SendJSONToRoom(room, v) }

// SendTextToAll is Hub.SendTextToAll.
func (c *Conn) SendTextToAll(text string) error { return c.hub.SendTextToAll(text) }

// SendJSONToAll is Hub.SendJSONToAll.
func (c *Conn) SendJSONToAll(v any) error { return c.hub.SendJSONToAll(v) }
