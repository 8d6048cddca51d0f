package wsroom

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/route"
)

// Conn is one connection. All methods may be called concurrently, except [Conn.Read], [Conn.ReadText] and
// [Conn.ReadJSON], which belong to the function of [Serve].
type Conn struct {
	// The line stands first, and in it the queue: a push to an idle queue touches only its first 64 bytes. A
	// Conn is of the allocator's size class of 448 bytes. That is a multiple of 64 (480 isn't), so each Conn
	// begins on a cache line. So a send to idle members touches one cache line of each Conn before their
	// writers start.
	line line.Line

	// These are set by newConn and don't change.
	hub        *Hub
	id         string
	room       string
	route      string // the request's pattern, for metrics
	key        string // of the request, by WithMaxConnsPer
	remoteAddr string
	request    request.Detached // the values of the request's context
	identity   *identity        // nil if the request has none; set before the connection is in the store

	home member // among all connections of the hub; guarded by the lock of its shard

	// turn is locked by the goroutine that runs a callback of this connection, except for Serve.
	turn sync.Mutex

	// mu guards the fields to the next blank line, and is held while the line's ending is set. It is never
	// locked during a callback.
	mu      sync.Mutex
	context *ownContext // nil until the first call of Context; then, or at the end, set
	rooms   memberships // to write them, the room's shard is locked, too
	values  map[any]any
	timers  *timers // nil if neither Until nor WithMaxAge set a time
	mailbox mailbox // events that callbacks have yet to handle
}

// ownContext is a connection's context with the function that cancels it.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

// timers are what ends a connection at a time. A timer is nil if no time was set.
type timers struct {
	expiry *time.Timer // of Until
	age    *time.Timer // of WithMaxAge
}

func (t *timers) stop() {
	if t != nil && t.expiry != nil {
		t.expiry.Stop()
	}
	if t != nil && t.age != nil {
		t.age.Stop()
	}
}

// newConn makes the connection of a request, for a room. key is the request's key of WithMaxConnsPer, or
// "".
func newConn(h *Hub, r *http.Request, room, key string) *Conn {
	c := &Conn{
		hub: h, id: h.newConnID(), room: room, route: route.Pattern(r), key: key,
		remoteAddr: strings.Clone(r.RemoteAddr),
		request:    request.Detach(r.Context()),
	}
	c.line.Init(&h.cfg.outboundQueue, (*owner)(c), h.cfg.onConnect != nil)
	return c
}

// ID returns the connection's name. It is unique across nodes, can't be guessed, and has letters and digits
// only. [Hub.ToConn] takes it, on any node.
func (c *Conn) ID() string { return c.id }

// Hub returns the hub that the connection belongs to.
func (c *Conn) Hub() *Hub { return c.hub }

// Room returns the room that the connection's route named, even after the connection has left it.
func (c *Conn) Room() string { return c.room }

// Rooms returns the rooms that the connection is in, sorted.
func (c *Conn) Rooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.rooms.appendNames(nil)
	slices.Sort(names)
	return names
}

// Join adds the connection to these rooms: to all of them or, if it returns an error, to none. If the
// connection is in some of them already, it stays there. Join returns [ErrClosed] once the connection is
// ending. It returns a [*StatusError] for an invalid name or a limit that is reached.
//
// With a broker, the first connection to join a room on this node waits for the broker, for all rooms at the
// same time. If that takes longer than [WithBrokerBuffer] bridges, Join returns [ErrOutage]; with
// [DeliverLocally] it joins the rooms without the broker instead.
//
// The rooms of URLs and those that the application names are the same rooms. So a room for messages to one
// user must have a name that no URL leads to; see [ByPathValue]. [Hub.ToIdentity] needs none.
func (c *Conn) Join(rooms ...string) error {
	names, err := roomNames(rooms)
	if err != nil || len(names) == 0 {
		return err
	}
	if err := c.subscribe(names...); err != nil {
		return err
	}

	entered, err := c.hub.store.joinAll(c, names)
	for _, name := range names[:entered] {
		c.hub.entered(c, name)
	}
	if rest := names[entered:]; len(rest) > 0 {
		c.hub.unsubscribe(rest...)
	}
	c.runEventsAsync()
	return owned(err)
}

// roomNames returns each of the names once, or an error if one can't be a room's. The names are copies,
// because they are kept and may be parts of longer strings of a request.
func roomNames(names []string) ([]string, error) {
	for _, name := range names {
		if err := checkRoomName(name); err != nil {
			return nil, err
		}
	}
	own := lookup.Distinct(names)
	for i, name := range own {
		own[i] = strings.Clone(name)
	}
	return own, nil
}

// subscribe is Hub.subscribe. If the connection ends meanwhile, the error says that.
func (c *Conn) subscribe(rooms ...string) error {
	err := c.hub.subscribe(c.Context, rooms...)
	if err != nil && c.isEnded() {
		return ErrClosed
	}
	return err
}

// Leave takes the connection out of a room. If the connection isn't in the room, Leave returns nil. Nothing
// that is sent to the room after Leave has returned reaches the connection. Leave returns [ErrClosed] once
// the connection is ending.
func (c *Conn) Leave(room string) error {
	left, err := c.hub.store.leave(c, room)
	if left {
		c.hub.left(c, room)
		c.runEventsAsync()
	}
	return err
}

// Context returns a context that is done when the connection is ending; [context.Cause] returns the reason.
// The context has the values of the request's context, but not its deadline or cancellation.
// chi.URLParamFromCtx returns this connection's values for as long as the context is used.
// The connection keeps these values, and what they hold: the Logger of chi's middleware, for example, puts the
// whole request with its header there.
func (c *Conn) Context() context.Context {
	return c.ownContext().Context
}

// over stands for the context of a connection whose end nobody has asked for the context. So most connections
// never have one.
var over = new(ownContext)

// ownContext returns the connection's context, which it makes if there is none.
func (c *Conn) ownContext() *ownContext {
	c.mu.Lock()
	defer c.mu.Unlock()
	if has := c.context; has == nil || has == over {
		ctx, cancel := context.WithCancelCause(&c.request)
		c.context = &ownContext{ctx, cancel}
		if has == over {
			cancel(c.line.Ending().Cause) // nobody else has it yet
		}
	}
	return c.context
}

// cancel ends the connection's context, as the last step of the connection's end.
func (c *Conn) cancel(cause error) {
	c.mu.Lock()
	own := c.context
	if own == nil {
		c.context = over
	}
	c.mu.Unlock()
	if own != nil {
		own.cancel(cause)
	}
}

// isWithin reports whether the connection is in one of the first n of the rooms.
func (c *Conn) isWithin(rooms *lookup.List[string], n int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms.within(rooms, n)
}

// isIn reports whether the connection is in the room.
func (c *Conn) isIn(room string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms.get(room) != nil
}

// Set keeps a value under a key for the connection's life.
func (c *Conn) Set(key, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil {
		c.values = map[any]any{}
	}
	c.values[key] = value
}

// Get returns the value that [Conn.Set] stored under the key, and whether there is one.
func (c *Conn) Get(key any) (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[key]
	return v, ok
}

// Delete removes the value that [Conn.Set] stored under the key, if there is one.
func (c *Conn) Delete(key any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.values, key)
}

// Value is a key for values of type T that connections keep, see [Conn.Set]. It is usually a package's
// variable:
//
//	var user wsroom.Value[User]
//
//	user.Set(c, u)
//	u, ok := user.Get(c)
//
// The zero Value is ready to use. Each Value is a key of its own, so it must not be copied. All methods may
// be called concurrently, for the same and for different connections.
type Value[T any] struct {
	_ noCopy
	_ byte // so that no two Values have one address
}

// Set keeps x for the connection's life, in place of what v has kept for it before.
func (v *Value[T]) Set(c *Conn, x T) { c.Set(v, x) }

// Get returns what v keeps for the connection, and whether there is something.
func (v *Value[T]) Get(c *Conn) (x T, ok bool) {
	kept, ok := c.Get(v)
	if ok {
		x, _ = kept.(T) // it is one, unless T is an interface and a nil was set
	}
	return x, ok
}

// Delete removes what v keeps for the connection, if there is something.
func (v *Value[T]) Delete(c *Conn) { c.Delete(v) }

// noCopy makes go vet report copies.
type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// RemoteAddr returns the request's RemoteAddr: the address of the peer, which may be a proxy in front of
// the server. Behind a proxy of [WithTrustedProxies] it is the client's address with port 0.
func (c *Conn) RemoteAddr() string { return c.remoteAddr }

// Subprotocol returns the negotiated subprotocol as [WithSubprotocols] spells it. It returns "" if there is
// none. The hub's own protocol, wsroom.v1, isn't one of the application's.
func (c *Conn) Subprotocol() string {
	if s := c.line.Session(); s != nil {
		return s.Subprotocol
	}
	return c.line.Subprotocol()
}

// WebSocket returns the connection of coder/websocket below this one. It is never nil, and always the same. A
// connection whose WebSocket was called keeps it, some 1.5 KB, while its client is silent. Messages written to
// it and messages that the hub sends are never mixed. A write while the answer to the handshake is still
// being sent waits for the answer. Its Close ends the connection as [Conn.Close] does. Only the function of
// [Serve] may read from it.
func (c *Conn) WebSocket() *websocket.Conn { return c.line.WebSocket() }

// isKnown reports whether the connection has its socket.
func (c *Conn) isKnown() bool { return c.line.Attached() != nil }

// Queued returns how much waits to be written to this connection: the number of messages, and the bytes of
// their frames. For a client that keeps up, that is almost nothing. For a connection that is ending, it is
// 0.
func (c *Conn) Queued() (messages int, bytes int64) { return c.line.Waiting() }

// WaitQueue returns nil once at most so many bytes wait to be written to this connection, as [Conn.Queued]
// counts them. So a program that sends much, such as a file, can send as fast as the client reads. Messages
// of others that [OnConnect] or [Conn.Enter] holds back count, too. WaitQueue returns the context's cause if
// ctx is done first, and [ErrClosed] once the connection is ending.
func (c *Conn) WaitQueue(ctx context.Context, bytes int64) error {
	for {
		drained, closed := c.line.Drained(bytes)
		switch {
		case closed:
			return ErrClosed
		case drained == nil:
			return nil
		}
		select {
		case <-drained:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Context().Done():
			return ErrClosed
		}
	}
}

// Delivered calls f once: with nil when the client has answered a ping that stands behind everything that was
// queued for it before, or with the cause of the connection's end if that comes first. What was dropped
// ([WithOverflow]) or replaced ([Target.Latest]) isn't waited for. docs/slow-clients.md says what the answer
// proves, by client.
//
// The hub sends at most 5 such pings a second to a connection; calls in between share one. The answer is read
// where messages are read: while a callback of c runs, or the function of [Serve] doesn't read, none is seen.
// So a callback of c must not wait for f. f has a goroutine of its own and may run at the same time as
// callbacks of c, also after [OnClose]. A panic in it ends the connection. If c is ending already, f is
// called at once with [ErrClosed], before Delivered returns.
//
// With a broker, messages to rooms and to all aren't queued yet when their send returns: see
// [Target.Delivered].
func (c *Conn) Delivered(f func(error)) {
	call := func(err error) { // a connection counts in wg until Abandon has been called
		c.hub.wg.Go(func() { c.guard("Delivered", func() error { f(err); return nil }) })
	}
	if !c.line.Confirm(call, goroutine.Current()) {
		f(ErrClosed)
	}
}

// Lag returns how long the client took to answer the last ping that stood behind messages: of
// [Conn.Delivered], [Target.Delivered] or [WithFreshness]. It includes what lies in the kernels and on the
// line before the ping. It is 0 if no such ping has been answered.
func (c *Conn) Lag() time.Duration { return c.line.Lag() }

// Close ends the connection. Queued messages are still written (while [OnConnect] runs, only those that it
// sent itself), then a close frame with this code and reason. The socket is closed after 5 s at the latest,
// whatever the peer does. Close returns at once. The cause of the end is a [websocket.CloseError]. A reason
// of over 123 bytes is cut.
//
// Close returns [ErrClosed] if the connection was ending already. For a code that can't be sent (RFC 6455,
// section 7.4) or a reason that isn't UTF-8 it returns an error and has no effect.
func (c *Conn) Close(code websocket.StatusCode, reason string) error {
	if err := frame.CheckClose(code, reason); err != nil {
		return err
	}
	if !c.end(line.Closed(websocket.CloseError{Code: code, Reason: line.CutReason(reason)})) {
		return ErrClosed
	}
	return nil
}

// enteredLocked and leftLocked post the events for OnJoin and OnLeave. mu and the room's shard are locked.
func (c *Conn) enteredLocked(room string) {
	if c.hub.cfg.onJoin != nil {
		c.mailbox.post(event{room: room, run: c.hub.cfg.onJoin, name: "OnJoin"})
	}
}

func (c *Conn) leftLocked(room string) {
	if c.hub.cfg.onLeave != nil {
		c.mailbox.post(event{room: room, run: c.hub.cfg.onLeave, name: "OnLeave"})
	}
	if c.hub.lives != nil { // the room is in use until the callbacks that run now, and OnLeave, have returned
		c.hub.lives.Hold(c.id, room)
		c.mailbox.post(event{room: room, run: (*Conn).doneWith})
	}
}

// doneWith ends the use of a room that the connection has left. Once the connection is ending, doneWithAll
// does that: OnClose is still to come.
func (c *Conn) doneWith(room string) {
	if !c.isEnded() && c.hub.lives.Let(c.id, room) {
		c.hub.unsubscribe(room)
	}
}

// doneWithAll ends the use of all rooms that the connection has left.
func (c *Conn) doneWithAll() {
	if c.hub.lives == nil {
		return
	}
	for _, room := range c.hub.lives.LetAll(c.id) {
		c.hub.unsubscribe(room)
	}
}

var errNotServe = errors.New("wsroom: reading belongs to Serve; other callbacks are handed what is read")

// Read waits for the next message and returns it. Text is valid UTF-8. Only the function of [Serve] may
// call Read, and only one goroutine at a time.
//
// If ctx is done first, Read returns the context's cause, and the connection lives on. A message that has
// begun, or that waits for the rate limit, isn't lost: the next call continues with it. Once the connection
// is ending, Read returns the reason.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	scratch := line.Scratch()
	defer line.FreeScratch(scratch)
	typ, err := c.readInto(ctx, scratch)
	if err != nil {
		return 0, nil, err
	}
	return typ, bytes.Clone(*scratch), nil
}

// ReadText is [Conn.Read] for text messages. A binary message ends the connection with close code 1003.
func (c *Conn) ReadText(ctx context.Context) (string, error) {
	scratch := line.Scratch()
	defer line.FreeScratch(scratch)
	if err := c.readTextInto(ctx, scratch); err != nil {
		return "", err
	}
	return string(*scratch), nil
}

// ReadJSON is [Conn.Read] for text messages, which it decodes into v. A message that doesn't decode is
// returned as a [*DecodeError]. It also ends the connection with close code 1007, unless
// [WithBadJSON]([KeepOpen]) is set.
func (c *Conn) ReadJSON(ctx context.Context, v any) error {
	scratch := line.Scratch()
	defer line.FreeScratch(scratch)
	if err := c.readTextInto(ctx, scratch); err != nil {
		return err
	}
	if err := c.hub.cfg.unmarshal(*scratch, v); err != nil {
		bad := decodeError(err, *scratch)
		c.judge(bad)
		return bad
	}
	return nil
}

// readTextInto is readInto for text messages. Another kind of message ends the connection.
func (c *Conn) readTextInto(ctx context.Context, buf *[]byte) error {
	typ, err := c.readInto(ctx, buf)
	if err == nil && typ != websocket.MessageText {
		return c.refuseKind()
	}
	return err
}

// readInto waits for a message and reads it into buf, replacing what buf holds.
func (c *Conn) readInto(ctx context.Context, buf *[]byte) (websocket.MessageType, error) {
	if c.hub.cfg.serve == nil {
		return 0, errNotServe
	}
	return c.line.Read(ctx, buf)
}

// handle reads a message, calls its callback, and reports whether to go on reading.
func (c *Conn) handle() bool {
	scratch := line.Scratch()
	defer line.FreeScratch(scratch)
	typ, err := c.line.Receive(scratch)
	if err != nil {
		return err == frame.ErrIdle
	}

	h := c.hub.cfg.handler(typ)
	if h == nil {
		_ = c.refuseKind()
		return false
	}

	c.callback(h.name, func() error { err = h.take(c, *scratch); return err })
	if err != nil && c.judge(err) {
		c.callback(h.name, func() error { h.fail(c, err); return nil })
	}
	c.runEvents()
	return !c.isEnded()
}

// judge applies WithBadJSON to a message that doesn't decode, and reports whether the connection lives on.
// The close code is 1007 (RFC 6455, section 7.4.1).
func (c *Conn) judge(bad error) bool {
	if c.hub.cfg.badJSON == KeepOpen {
		return !c.isEnded()
	}
	c.end(line.Kick("bad_json", bad, websocket.StatusInvalidFramePayloadData, "bad JSON"))
	return false
}

// refuseKind ends the connection for a message of a kind that the application doesn't take. The close code
// is 1003 (RFC 6455, section 7.4.1).
func (c *Conn) refuseKind() error {
	c.end(line.Kick("bad_kind", errors.New("wsroom: message of a kind that nobody takes"),
		websocket.StatusUnsupportedData, "unsupported kind of message"))
	return c.cause()
}

// isEnded reports whether the connection is ending or has ended. While mu is locked, that doesn't change.
func (c *Conn) isEnded() bool { return c.line.IsEnding() }

// endingShutdown is the ending by Shutdown, with the code of WithShutdownCode.
func endingShutdown(code websocket.StatusCode) line.Ending {
	e := line.Ending{Cause: ErrShutdown, Label: "shutdown", Code: code, Reason: "server is going away", Budget: line.CloseBudget}
	if code == websocket.StatusServiceRestart {
		e.Reason = "server restarts"
	}
	return e
}

// endingBy is the ending by the result of OnConnect's or Serve's function. nil closes normally.
func endingBy(err error) line.Ending {
	if err == nil {
		return line.Closed(websocket.CloseError{Code: websocket.StatusNormalClosure})
	}
	e := line.Ending{Cause: err, Label: "error", Code: websocket.StatusInternalError, Budget: line.CloseBudget}
	if e.CloseBy(err) {
		e.Label = "closed"
	}
	return e
}

// end begins the end of the connection. It reports whether this call was the first to do so. It takes these
// steps:
//
//  1. the ending is set; from then on the connection joins no room;
//  2. the connection leaves every room;
//  3. the line is closed: the close frame goes behind the messages that wait, the reader is interrupted, and a
//     timer limits the rest;
//  4. the connection's context is cancelled; finish waits for that.
//
// end never waits. Any goroutine that holds no lock may call it.
func (c *Conn) end(e line.Ending) bool {
	if c.isEnded() { // mostly it is, and then e needs no memory of its own
		return false
	}
	ending := e
	c.mu.Lock()
	first := c.line.SetEnding(&ending)
	if first {
		c.timers.stop()
	}
	c.mu.Unlock()
	if !first {
		return false
	}

	var few [2]string
	for _, room := range c.hub.store.remove(c, few[:0]) {
		c.hub.left(c, room)
	}
	c.hub.unsubscribeConn()

	c.hub.countLost(c, c.line.Close())
	c.cancel(e.Cause)
	return true
}

// cause waits until the connection's context is done, and returns the reason for the end.
func (c *Conn) cause() error {
	c.mu.Lock()
	isOver := c.context == over
	c.mu.Unlock()
	if isOver {
		return c.line.Ending().Cause
	}
	ctx := c.Context()
	<-ctx.Done()
	return context.Cause(ctx)
}

// open runs OnConnect and then releases the messages that others sent meanwhile.
func (c *Conn) open(r *http.Request) {
	f := c.hub.cfg.onConnect
	if f == nil {
		c.openMailbox()
	} else {
		c.line.SnapshotBy(goroutine.Current())
		c.callback("OnConnect", func() error {
			err := f(c, r)
			if err == nil {
				c.openMailbox()
			} else {
				c.end(endingBy(err))
			}
			return err
		})
		c.line.Release()
	}
	c.hub.heartbeat.Add(&c.line)
}

// start parks the connection until its peer sends something. Where it can't, or where callbacks are due, it starts
// the connection's goroutine.
func (c *Conn) start() {
	if c.hub.cfg.serve != nil || c.hasEvents() || !c.line.Park(&c.hub.parked) {
		go c.run(0, false)
	}
}

// run is the connection's goroutine after OnConnect has returned. It takes these steps; the last two are
// taken even if a callback ends the goroutine:
//
//  1. begin reports the first joins; if Serve is set, begin runs it and Serve does all of the reading;
//  2. messages are read and handled until the connection ends;
//  3. finish runs the last callbacks;
//  4. hangUp completes the close handshake and closes the socket.
//
// Step 2 goes on in other goroutines. If no message has come for line.Quiet, or none ever, the connection is parked:
// run returns, and the hub's set waits for the peer. Once there is something to read, or the connection is ending,
// Wake starts run with woken set. A pong is read, and the connection is parked again.
//
// Until then a silent connection waits in Wait, where its stack costs memory. As long as less than 1 KB is in
// use there, the stack stays at 2 KB. Handling a message makes the stack grow to 4 KB, and it doesn't shrink.
// So after a message run hands the connection over to a new goroutine. since is when that happened last, in
// seconds, or 0 for the first goroutine.
func (c *Conn) run(since uint32, woken bool) {
	handedOver, parked := false, false
	defer func() {
		switch {
		case parked: // what wake has started may have the connection by now
		case handedOver:
			go c.run(c.lastRead(), false)
		default:
			c.finish()
		}
	}()

	if since == 0 && !c.begin() {
		return
	}

	for !handedOver {
		err := c.line.Wait()
		if err == frame.ErrQuiet {
			c.line.Shrink()
			if parked = c.line.Park(&c.hub.parked); parked {
				return
			}
			continue
		}
		if woken {
			c.line.Unpark(&c.hub.parked)
			woken = false
		}

		if err != nil {
			if c.line.WaitFailed(err) {
				return
			}
		} else if !c.handle() {
			return
		} else {
			handedOver = c.lastRead() != since && !c.line.Wire().Unread()
		}
	}
}

// lastRead returns when the peer's bytes last came, in seconds; never 0. It tells one second from the next: a
// peer that sends all the time has a new goroutine once a second, so these don't slow it down.
func (c *Conn) lastRead() uint32 { return uint32(c.line.Wire().LastRead() / int64(time.Second)) }

// begin reports the first joins, and runs Serve if it is set. It reports whether run has messages to read.
func (c *Conn) begin() bool {
	c.runEvents()
	if c.isEnded() {
		return false
	}

	serve := c.hub.cfg.serve
	if serve != nil {
		c.guard("Serve", func() error {
			err := serve(c)
			if !c.end(endingBy(err)) {
				return nil // the connection had ended before, and err tells only that
			}
			return err
		})
	}
	return serve == nil
}

// finish runs the last callbacks, each even if the one before it ended the goroutine. So they are deferred.
// They run in this order: drainEvents, closeMailbox, fail, OnClose, hangUp.
func (c *Conn) finish() {
	cause := c.cause() // by then the connection has left every room
	c.line.AwaitPending()

	defer c.hangUp()
	if f := c.hub.cfg.onClose; f != nil {
		defer c.callback("OnClose", func() error { f(c, cause); return nil })
	}

	if !c.mailbox.opened() { // OnConnect didn't succeed; without mu: only this goroutine closes the mailbox
		return
	}

	defer c.fail(cause)
	defer c.closeMailbox()
	c.drainEvents()
}

// fail calls the message callback with the cause of the end, unless it had its last call before.
func (c *Conn) fail(err error) {
	last := c.hub.cfg.last
	if last == nil {
		return
	}

	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.mailbox.finished {
		c.mailbox.finished = true
		c.guard(last.name, func() error { last.fail(c, err); return nil })
	}
}

// hangUp completes the close handshake, closes the socket, and releases what the connection holds. The rooms
// need none of its callbacks any more.
func (c *Conn) hangUp() {
	c.doneWithAll()
	c.hub.heartbeat.Remove(&c.line)
	c.line.HangUp()
	c.line.Abandon(c.cause())
	c.hub.release(c)
}

// owner is the part of a Conn that its line knows.
type owner Conn

var _ line.Owner = (*owner)(nil)

// End ends the connection, unless it is ending already.
func (o *owner) End(e line.Ending) { (*Conn)(o).end(e) }

// Context returns the connection's context, which is done when the connection is ending.
func (o *owner) Context() context.Context { return (*Conn)(o).Context() }

// Limits returns the hub's limits on what peers send.
func (o *owner) Limits() *line.Limits { return &o.hub.cfg.inbound }

// Wake starts a goroutine for a connection that was parked.
func (o *owner) Wake() {
	c := (*Conn)(o)
	go c.run(c.lastRead(), true)
}

// Received counts a message that was read.
func (o *owner) Received(bytes int) { o.hub.countIn((*Conn)(o), bytes) }

// Wrote counts what was written.
func (o *owner) Wrote(w outbound.Written) {
	o.line.Wrote(w)
	o.hub.countOut((*Conn)(o), w)
}

// WriteFailed counts the lost messages and ends the connection. If the connection's own end closed the
// socket, that end stands.
func (o *owner) WriteFailed(err error, lost int) {
	c := (*Conn)(o)
	c.hub.countLost(c, lost)
	c.end(line.WriteFailed(err))
}
