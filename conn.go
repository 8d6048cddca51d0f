package wsroom

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/resume"
	"github.com/wsroom/wsroom/internal/route"
)

// Conn is one connection. All methods may be called concurrently, except [Conn.Read], [Conn.ReadText] and
// [Conn.ReadJSON], which belong to the function of [Serve].
type Conn struct {
	// The queue stands first: a push to an idle queue touches only its first 64 bytes. A Conn is of the
	// allocator's size class of 448 bytes. That is a multiple of 64 (480 isn't), so each Conn begins on a
	// cache line. So a send to idle members touches one cache line of each Conn before their writers start.
	queue outbound.Queue

	// These are set by newConn and don't change.
	hub        *Hub
	id         string
	room       string
	route      string // the request's pattern, for metrics
	key        string // of the request, by WithMaxConnsPer
	remoteAddr string
	request    request.Detached // the values of the request's context

	ws   *websocket.Conn // set with wire under mu; the application gets the Conn only after that
	home member          // among all connections of the hub; guarded by the lock of its shard

	// turn is locked by the goroutine that runs a callback of this connection, except for Serve.
	turn sync.Mutex

	mu      sync.Mutex  // guards the fields to the next blank line; never locked during a callback
	wire    *frame.Conn // set once, by attach; after start it is read without mu
	ending  *ending     // nil while the connection lives
	context *ownContext // nil until the first call of Context
	rooms   memberships // to write them, the room's shard is locked, too
	values  map[any]any
	expiry  *time.Timer // nil if Until set no time
	events  *events     // what callbacks have yet to handle; nil if there is nothing

	reporting bool // events may be reported; guarded by mu
	gone      bool // it has left every room; a context made from now on is done at once; guarded by mu
	connected bool // OnConnect succeeded; belongs to the goroutine of open, then to that of run
	finished  bool // the message callback panicked or got its err; guarded by turn

	beating atomic.Bool // OnConnect has returned; from now on the heartbeat checks the peer

	// refusal is readingNow while this package reads through coder/websocket. It is a close code once
	// coder/websocket has refused what was read with that code, and 0 otherwise.
	refusal atomic.Int32

	// freshAt is when run last moved to a new goroutine, in seconds of frame.Now. It belongs to run.
	freshAt  uint32
	inbound  atomic.Pointer[inbound] // nil if there is nothing in it; set by newConn or the reader
	overhead bucket.Bucket           // of frames that carry nothing; belongs to the wire's reader

	// pingedAt is the wire's Listened, plus 1, when the ping that the heartbeat waits for was written. It is 0
	// if none was. The writer sets it; the heartbeat sets and reads it.
	pingedAt   atomic.Int64
	readAtPing int64 // the wire's LastRead when that ping was queued; belongs to the heartbeat
	askedAt    int64 // when a ping was last queued, by frame.Now; belongs to the heartbeat
}

// ownContext is a connection's context with the function that cancels it.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

// newConn makes the connection of a request, for a room. key is the request's key of WithMaxConnsPer, or
// "".
func newConn(h *Hub, r *http.Request, room, key string) *Conn {
	c := &Conn{
		hub: h, id: rand.Text(), room: room, route: route.Pattern(r), key: key,
		remoteAddr: strings.Clone(r.RemoteAddr),
		request:    request.Detach(r.Context()),
	}
	c.queue.Init(&h.cfg.outboundQueue, (*transport)(c), h.cfg.onConnect != nil)
	if h.cfg.limitsRate() {
		c.inbound.Store(new(inbound))
	}
	return c
}

// ID returns the connection's name. It is unique across nodes and can't be guessed.
func (c *Conn) ID() string { return c.id }

// Room returns the room that the connection's route named, even after the connection has left it.
func (c *Conn) Room() string { return c.room }

// Rooms returns the rooms that the connection is in, sorted.
func (c *Conn) Rooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.rooms.names()
	slices.Sort(names)
	return names
}

// Join adds the connection to a room. If the connection is in the room already, Join returns nil. Join
// returns [ErrClosed] once the connection is ending. It returns a [*StatusError] for an invalid name or a
// limit that is reached.
//
// With a broker, the first connection to join a room on this node waits for the broker. If that takes
// longer than [WithBrokerBuffer] bridges, Join returns [ErrOutage]; with [DeliverLocally] it joins the room
// without the broker instead.
func (c *Conn) Join(room string) error {
	if err := checkRoomName(room); err != nil {
		return err
	}

	room = strings.Clone(room) // it is kept, and may be part of a longer string of a request
	if err := c.hub.subscribe(c.Context, room); err != nil {
		return err
	}

	joined, err := c.hub.store.join(c, room)
	if !joined.entered {
		c.hub.unsubscribe(room)
		return owned(err)
	}

	c.hub.entered(c, room)
	c.runEventsAsync()
	return nil
}

// Enter is [Conn.Join] for rooms whose newcomers are sent something first: what welcome sends to c comes before
// any message of the room, and none after it is lost. Until welcome returns, messages of all rooms are held back for
// c, as in [OnConnect]. resumed says that the client has come back and is sent what it has missed; see
// [Conn.Resumed].
//
// If c is in the room already, Enter returns nil and doesn't call welcome. Otherwise its errors are those of Join,
// and that of welcome, after which c isn't in the room and gets none of its messages. Only one goroutine at a time
// holds messages back for c: Enter waits for another one, so welcome must not wait for a goroutine that calls Enter.
// Within OnConnect or welcome, Enter may be called on the same goroutine.
func (c *Conn) Enter(room string, welcome func(resumed bool) error) error {
	if err := checkRoomName(room); err != nil {
		return err
	}

	room = strings.Clone(room)
	if err := c.hub.subscribe(c.Context, room); err != nil {
		return err
	}
	c.hub.store.tagging.Add(1) // so that Forget finds the room's messages
	defer c.hub.store.tagging.Add(-1)
	release, err := c.hold()
	if err != nil {
		c.hub.unsubscribe(room)
		return err
	}
	defer release()

	joined, err := c.hub.store.join(c, room)
	if !joined.entered {
		c.hub.unsubscribe(room)
		return owned(err)
	}
	c.hub.entered(c, room)
	defer c.runEventsAsync()
	return c.welcome(room, joined, welcome)
}

// hold has messages of others wait until release is called.
func (c *Conn) hold() (release func(), err error) {
	for by := goroutine.Current(); ; {
		nested, busy := c.queue.Hold(by)
		switch {
		case nested:
			return func() {}, nil
		case busy == nil:
			return c.queue.Release, nil
		}
		select {
		case <-busy:
		case <-c.Context().Done():
			return nil, ErrClosed
		}
	}
}

// welcome calls the function of Enter. If that fails, it takes the connection out of the room again.
func (c *Conn) welcome(room string, joined joined, f func(resumed bool) error) (err error) {
	before, welcomed := c.queue.SetEntering(joined.room), false
	defer func() {
		c.queue.SetEntering(before)
		if welcomed {
			return
		}
		if left, _ := c.hub.store.leave(c, room); left {
			c.hub.left(c, room)
		}
		c.queue.Forget(joined.room)
	}()
	err = f(joined.resumed)
	welcomed = err == nil
	return err
}

// DropHeld forgets the messages that have been held back for c until now, because the snapshot that is sent next
// has them: in [Conn.Enter] those to the room that is entered, in [OnConnect] those to all rooms and to all
// connections. Call it, and take the snapshot, under the lock under
// which the application changes its state and sends. Elsewhere DropHeld has no effect.
func (c *Conn) DropHeld() { c.queue.DropHeld() }

// Rewind sends c the last n messages of a room that it is in, before those held back, in [OnConnect] or
// [Conn.Enter]. It returns how many there were: with [WithHistory] up to what is kept, otherwise 0. It works for
// every client. Elsewhere Rewind returns 0.
func (c *Conn) Rewind(room string, n int) int {
	sent := 0
	for _, m := range c.hub.store.tail(c, room, n) {
		p := c.queue.PushSnapshot(m.With(outbound.Own{}), goroutine.Current())
		if p.Refused == outbound.Slow {
			c.end(endingSlow)
		}
		if p.Refused != outbound.Taken {
			break
		}
		sent++
	}
	return sent
}

// Resumed reports, from [OnConnect] on, whether the client has come back to [Conn.Room] with a position that is
// still known: it is sent what it has missed, and needs no snapshot. See [WithHistory].
func (c *Conn) Resumed() bool {
	s := c.queue.Session()
	return s != nil && s.Resumed.Load()
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.context == nil {
		ctx, cancel := context.WithCancelCause(&c.request)
		c.context = &ownContext{ctx, cancel}
		if c.gone {
			cancel(c.ending.cause)
		}
	}
	return c.context.Context
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

// RemoteAddr returns the request's RemoteAddr: the address of the peer, which may be a proxy in front of
// the server. Behind a proxy of [WithTrustedProxies] it is the client's address with port 0.
func (c *Conn) RemoteAddr() string { return c.remoteAddr }

// Subprotocol returns the negotiated subprotocol as [WithSubprotocols] spells it. It returns "" if there is
// none. The hub's own protocol, wsroom.v1, isn't one of the application's.
func (c *Conn) Subprotocol() string {
	if s := c.queue.Session(); s != nil {
		return s.Subprotocol
	}
	return c.WebSocket().Subprotocol()
}

// WebSocket returns the connection of coder/websocket below this one. It is never nil. Messages written to
// it and messages that the hub sends are never mixed. A write while the answer to the handshake is still
// being sent waits for the answer. Its Close ends the connection as [Conn.Close] does. Only the function of
// [Serve] may read from it.
func (c *Conn) WebSocket() *websocket.Conn { return c.ws }

// isKnown reports whether the connection has its socket.
func (c *Conn) isKnown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws != nil
}

// Queued returns how much waits to be written to this connection: the number of messages, and the bytes of
// their frames. For a client that keeps up, that is almost nothing. For a connection that is ending, it is
// 0.
func (c *Conn) Queued() (messages int, bytes int64) { return c.queue.Waiting() }

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
	if !c.end(endingClosed(websocket.CloseError{Code: code, Reason: cutReason(reason)})) {
		return ErrClosed
	}
	return nil
}

// enteredLocked and leftLocked post the events for OnJoin and OnLeave. mu and the room's shard are locked.
func (c *Conn) enteredLocked(room string) {
	if c.hub.cfg.onJoin != nil {
		c.postLocked(event{room: room, run: c.hub.cfg.onJoin, name: "OnJoin"})
	}
}

func (c *Conn) leftLocked(room string) {
	if c.hub.cfg.onLeave != nil {
		c.postLocked(event{room: room, run: c.hub.cfg.onLeave, name: "OnLeave"})
	}
}

var errNotServe = errors.New("wsroom: reading belongs to Serve; other callbacks are handed what is read")

var errNotUTF8 = errors.New("wsroom: text isn't valid UTF-8")

// Read waits for the next message and returns it. Text is valid UTF-8. Only the function of [Serve] may
// call Read, and only one goroutine at a time.
//
// If ctx is done first, Read returns the context's cause, and the connection lives on. A message that has
// begun, or that waits for the rate limit, isn't lost: the next call continues with it. Once the connection
// is ending, Read returns the reason.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	typ, err := c.readInto(ctx, scratch)
	if err != nil {
		return 0, nil, err
	}
	return typ, bytes.Clone(*scratch), nil
}

// ReadText is [Conn.Read] for text messages. A binary message ends the connection with close code 1003.
func (c *Conn) ReadText(ctx context.Context) (string, error) {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	if err := c.readTextInto(ctx, scratch); err != nil {
		return "", err
	}
	return string(*scratch), nil
}

// ReadJSON is [Conn.Read] for text messages, which it decodes into v. A message that doesn't decode is
// returned as a [*DecodeError]. It also ends the connection with close code 1007, unless
// [WithBadJSON]([KeepOpen]) is set.
func (c *Conn) ReadJSON(ctx context.Context, v any) error {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	if err := c.readTextInto(ctx, scratch); err != nil {
		return err
	}
	if err := c.hub.cfg.unmarshal(*scratch, v); err != nil {
		bad := &DecodeError{Err: err}
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
	for {
		if typ, err := c.readOnce(ctx, buf); err != frame.ErrIdle {
			return typ, err
		}
	}
}

// readOnce is readInto, except that it returns frame.ErrIdle when only a control frame came.
func (c *Conn) readOnce(ctx context.Context, buf *[]byte) (websocket.MessageType, error) {
	p := c.pending()
	if p == nil {
		if err := c.wait(ctx); err != nil {
			return 0, err
		}
		if ctx.Done() == nil || c.wire.Whole() && !c.hub.cfg.limitsRate() {
			return c.receive(buf)
		}
		p = c.receiveAside()
	}

	select {
	case <-p.done:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}

	c.inbound.Load().pending.Store(nil)
	*buf, *p.buf = *p.buf, *buf
	putScratch(p.buf)
	return p.typ, p.err
}

// pending is a message that is read on a goroutine of its own, because coder/websocket can't be interrupted
// within a message. When the context of a Read is done, the next Read takes the message.
type pending struct {
	done chan struct{} // closed when the other fields are set
	buf  *[]byte       // from scratches
	typ  websocket.MessageType
	err  error
}

// pending returns the message that a Read left for the next one. It returns nil if there is none.
func (c *Conn) pending() *pending {
	if in := c.inbound.Load(); in != nil {
		return in.pending.Load()
	}
	return nil
}

// receiveAside starts a goroutine that reads the message that has begun.
func (c *Conn) receiveAside() *pending {
	if c.inbound.Load() == nil {
		c.inbound.Store(new(inbound))
	}
	p := &pending{done: make(chan struct{}), buf: scratches.Get().(*[]byte)}
	c.inbound.Load().pending.Store(p)
	go func() {
		defer close(p.done)
		p.typ, p.err = c.receive(p.buf)
	}()
	return p
}

// awaitPending waits for the goroutine of receiveAside, if it still reads a message that no Read took. The
// connection is ending.
func (c *Conn) awaitPending() {
	if p := c.pending(); p != nil {
		<-p.done
	}
}

// handle reads a message, calls its callback, and reports whether to go on reading.
func (c *Conn) handle() bool {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	typ, err := c.receive(scratch)
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
	c.end(rid("bad_json", bad, websocket.StatusInvalidFramePayloadData, "bad JSON"))
	return false
}

// refuseKind ends the connection for a message of a kind that the application doesn't take. The close code
// is 1003 (RFC 6455, section 7.4.1).
func (c *Conn) refuseKind() error {
	c.end(rid("bad_kind", errors.New("wsroom: message of a kind that nobody takes"),
		websocket.StatusUnsupportedData, "unsupported kind of message"))
	return c.cause()
}

// cause waits until the connection's context is done, and returns the reason for the end.
func (c *Conn) cause() error {
	ctx := c.Context()
	<-ctx.Done()
	return context.Cause(ctx)
}

// wait returns nil once there is something to read. It returns a cause if ctx is done or the connection is
// ending.
func (c *Conn) wait(ctx context.Context) error {
	for {
		err := c.waitOnce(ctx)
		if err == nil {
			return nil
		}
		if c.waitFailed(err) {
			return c.cause()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// waitFailed handles an error of a wait. It reports whether the connection is ending. If not, the wait was
// only interrupted, and waitFailed undoes that.
func (c *Conn) waitFailed(err error) bool {
	if c.isEnded() {
		return true
	}
	if !c.wire.Interrupted(err) { // the wire's ReadFailed has ended it before; this is to be sure
		c.end(endingReadFailed(err))
		return true
	}
	c.resume()
	return false
}

// waitOnce waits until there is something to read, ctx is done or the connection is ending.
func (c *Conn) waitOnce(ctx context.Context) error {
	if ctx.Done() == nil {
		return c.wire.Wait()
	}

	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.wire.Interrupt()
		close(interrupted)
	})

	err := c.wire.Wait()
	if !stop() {
		<-interrupted
		if err == nil {
			c.resume()
		}
	}
	return err
}

// resume undoes an Interrupt, unless it belongs to the connection's end.
func (c *Conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		c.wire.Resume()
	}
}

// isEnded reports whether the connection is ending or has ended.
func (c *Conn) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending != nil
}

// receive reads the message that has begun into buf, replacing what buf holds, and checks it. It returns
// frame.ErrIdle if only a control frame came. Text that isn't UTF-8 ends the connection (RFC 6455, section
// 8.1).
func (c *Conn) receive(buf *[]byte) (websocket.MessageType, error) {
	typ, p, err := c.readMessage((*buf)[:0])
	*buf = p
	if errors.Is(err, frame.ErrIdle) {
		return 0, frame.ErrIdle
	}
	if err != nil {
		c.end(c.readEnding(err))
		return 0, c.cause()
	}

	if typ == websocket.MessageText && c.queue.Session() != nil && c.isControl(buf) {
		return 0, frame.ErrIdle
	}
	c.hub.countIn(c, len(*buf))
	if typ == websocket.MessageText && !utf8.Valid(*buf) {
		c.end(endingNotUTF8)
		return 0, c.cause()
	}
	return typ, c.limitRate(len(*buf))
}

// isControl answers a message of the hub's own protocol: one that begins with U+0000. If the application's
// message begins with that character, it was sent twice, and isControl takes one off.
func (c *Conn) isControl(message *[]byte) bool {
	answer, rest, ok := resume.Answer(*message)
	if !ok {
		*message = rest
		return false
	}
	(*transport)(c).Overhead(c.wire.CaughtUp())
	if answer != nil && c.queue.PushAnswer(answer).Refused == outbound.Slow {
		c.end(endingSlow)
	}
	return true
}

// inbound is the reading state that only some connections need. It belongs to the goroutine that reads;
// pending may be read by others.
type inbound struct {
	messages, bytes bucket.Bucket           // of the rate limits
	pending         atomic.Pointer[pending] // what a Read left for the next one; nil if there is nothing
}

// limitRate applies the rate limits to a message of size bytes that was read. Under SlowDown it waits until
// the limits allow the message. Meanwhile the peer isn't read.
func (c *Conn) limitRate(size int) error {
	in := c.inbound.Load()
	if in == nil {
		return nil
	}
	cfg, now := c.hub.cfg, frame.Now()
	wait := max(in.messages.Take(1, cfg.messageRate, now), in.bytes.Take(int64(size), cfg.byteRate, now))
	if wait <= 0 {
		return nil
	}

	if cfg.rateAction == Disconnect {
		c.end(rid("rate", ErrRateLimited, websocket.StatusPolicyViolation, "rate limit exceeded"))
		return c.cause()
	}

	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.Context().Done():
		return c.cause()
	}
}

// readingNow is the value of Conn.refusal while a reading method of this package is inside coder/websocket.
const readingNow = -1

// readMessage reads without a context, because coder/websocket closes the connection when a context is
// done. The wire ends the reading instead: by Interrupt, by the message timeout or by Kill.
func (c *Conn) readMessage(buf []byte) (websocket.MessageType, []byte, error) {
	c.refusal.CompareAndSwap(0, readingNow)
	defer c.refusal.CompareAndSwap(readingNow, 0)

	typ, r, err := c.ws.Reader(context.Background())
	for err == nil {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		var n int
		n, err = r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if err == io.EOF {
		err = nil
	}
	return typ, buf, err
}

// scratches are buffers. Messages are read into one before their callback decodes or copies them.
var scratches = sync.Pool{New: func() any {
	b := make([]byte, 0, 512) // small: a message that never ends keeps its buffer
	return &b
}}

// maxScratch is the size of the largest buffer that is kept for another message.
const maxScratch = 64 << 10

// putScratch gives a buffer back to scratches, unless it is larger than maxScratch.
func putScratch(b *[]byte) {
	if cap(*b) <= maxScratch {
		scratches.Put(b)
	}
}
