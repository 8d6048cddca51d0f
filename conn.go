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
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/route"
)

// Conn is one connection. All methods may be called concurrently, but for Read, ReadText and
// ReadJSON, which belong to Serve.
type Conn struct {
	// The queue stands first, and the whole fits into a size class of the allocator that is a multiple
	// of 64 bytes (448; not 480): what a send touches lies in one cache line then, which saves it a
	// tenth of its time in large rooms.
	queue outbound.Queue

	hub        *Hub
	id         string
	room       string
	route      string // the request's pattern, for metrics
	key        string // of WithMaxConnsPer
	remoteAddr string
	request    request.Detached // what is kept of the request's context

	ws   *websocket.Conn // set with wire, before anyone outside of admission knows the connection
	home member          // among all of the hub; belongs to the store

	// turn is held by the goroutine that runs a callback of this connection.
	turn sync.Mutex

	mu      sync.Mutex // guards the fields to the next blank line; held for no callback
	wire    *frame.Conn
	ending  *ending     // nil while the connection lives
	context *ownContext // nil until somebody wants it
	rooms   memberships // written with the room's shard locked, too
	values  map[any]any
	expiry  *time.Timer // nil where Until set no time
	events  *events     // what callbacks are still to be told; nil if there is nothing

	reporting bool // events may be reported; guarded by mu
	gone      bool // it has left every room, and its context is done or will be born so; guarded by mu
	connected bool // OnConnect succeeded; belongs to turn
	finished  bool // the message callback panicked or has had its err; belongs to turn

	beating    atomic.Bool             // OnConnect has returned: the peer is read, and judged
	refusal    atomic.Int32            // the close code with which coder/websocket refused what we read; or readingNow; or 0
	freshAt    uint32                  // when the reading goroutine was last replaced, in seconds of frame.Now
	inbound    atomic.Pointer[inbound] // nil where there is nothing in it
	overhead   bucket.Bucket           // of frames that carry nothing; belongs to the reader
	pingedAt   atomic.Int64            // the wire's Listened when the ping was written that is judged, plus 1; 0: none was
	readAtPing int64                   // the wire's LastRead when that ping was queued; belongs to the heartbeat
	askedAt    int64                   // when a ping was queued last, by frame.Now; belongs to the heartbeat
}

// ownContext is a connection's context with what ends it.
type ownContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

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

// ID returns the connection's name, which is unique across nodes and can't be guessed.
func (c *Conn) ID() string { return c.id }

// Room returns the room that the connection's route named, whether it is still in it or not.
func (c *Conn) Room() string { return c.room }

// Rooms returns the rooms that the connection is in, sorted.
func (c *Conn) Rooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := c.rooms.names()
	slices.Sort(names)
	return names
}

// Join adds the connection to a room; to be in it already is no error. It returns ErrClosed once the
// connection is ending, and a *StatusError for a name that can't be one or a limit that is reached. With
// a broker the first to join a room on this node waits for it, and gets ErrOutage where that takes longer
// than WithBrokerBuffer bridges.
func (c *Conn) Join(room string) error {
	if err := checkRoomName(room); err != nil {
		return err
	}
	room = strings.Clone(room) // it is kept, and may be a piece of a request
	if err := c.hub.subscribe(c.Context, room); err != nil {
		return err
	}
	entered, err := c.hub.store.join(c, room)
	if !entered {
		c.hub.unsubscribe(room)
		return owned(err)
	}
	c.hub.entered(c, room)
	c.runEventsAsync()
	return nil
}

// Leave takes the connection out of a room; not to be in it is no error. Nothing sent to the room
// after Leave has returned reaches the connection. It returns ErrClosed once the connection is
// ending.
func (c *Conn) Leave(room string) error {
	left, err := c.hub.store.leave(c, room)
	if left {
		c.hub.left(c, room)
		c.runEventsAsync()
	}
	return err
}

// Context returns a context that is done when the connection is ending; context.Cause says why. It
// has the values of the request's context, but not its deadline or cancellation. chi.URLParamFromCtx
// gives this connection's values for as long as it is used. The connection keeps these values, and what
// they hold: chi's middleware.Logger, for one, puts the whole request there, with its header.
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

// Set keeps a value for the connection's life.
func (c *Conn) Set(key, value any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.values == nil {
		c.values = map[any]any{}
	}
	c.values[key] = value
}

// Get returns the value that was Set, and whether there is one.
func (c *Conn) Get(key any) (any, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.values[key]
	return v, ok
}

// RemoteAddr returns the request's RemoteAddr: of the peer, which may be a proxy in front of the server;
// behind one of WithTrustedProxies, the client's address with port 0.
func (c *Conn) RemoteAddr() string { return c.remoteAddr }

// Subprotocol returns the negotiated subprotocol as WithSubprotocols spells it, "" if there is none.
func (c *Conn) Subprotocol() string { return c.WebSocket().Subprotocol() }

// WebSocket returns the coder/websocket connection beneath. What is written to it and what the hub
// sends never cut into each other. Its Close ends the connection as Conn.Close does; reading from it
// is for Serve. It is never nil; writing to it while the answer to the handshake is on its way waits for that.
func (c *Conn) WebSocket() *websocket.Conn { return c.ws }

// isKnown reports whether the connection has its socket.
func (c *Conn) isKnown() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ws != nil
}

// Queued returns how much waits to be written to this connection: messages, and bytes of their frames.
// Of a client that keeps up it is next to nothing, of a connection that is ending 0.
func (c *Conn) Queued() (messages int, bytes int64) { return c.queue.Waiting() }

// Close ends the connection: what is queued is still written (while OnConnect runs, only what it sent
// itself), then a close frame with this code and
// reason, and after 5 s at the latest the socket is closed, whatever the peer does. It returns at
// once; the cause is a websocket.CloseError. A reason of over 123 bytes is cut. It returns ErrClosed if the
// connection was ending, and an error, without effect, for a code that can't be sent (RFC 6455, section 7.4)
// or a reason that isn't UTF-8.
func (c *Conn) Close(code websocket.StatusCode, reason string) error {
	if err := frame.CheckClose(code, reason); err != nil {
		return err
	}
	if !c.end(endingClosed(websocket.CloseError{Code: code, Reason: cutReason(reason)})) {
		return ErrClosed
	}
	return nil
}

// enteredLocked and leftLocked post what OnJoin and OnLeave are to be told; mu and the room's shard are locked.
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

// Read waits for the next message and returns it. Text is valid UTF-8. When ctx is done first it
// returns the context's cause, and the connection lives on: of a message that has begun, or waits for the
// rate limit, nothing is lost, the next call goes on with it. Once the connection is ending it returns why.
// It is for Serve only, and for one goroutine at a time.
func (c *Conn) Read(ctx context.Context) (websocket.MessageType, []byte, error) {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	typ, err := c.readInto(ctx, scratch)
	if err != nil {
		return 0, nil, err
	}
	return typ, bytes.Clone(*scratch), nil
}

// ReadText is Read for text messages. A binary message ends the connection with close code 1003.
func (c *Conn) ReadText(ctx context.Context) (string, error) {
	scratch := scratches.Get().(*[]byte)
	defer putScratch(scratch)
	if err := c.readTextInto(ctx, scratch); err != nil {
		return "", err
	}
	return string(*scratch), nil
}

// ReadJSON is Read for text messages that it decodes into v. One that doesn't decode is a
// *DecodeError, and ends the connection with close code 1007 unless WithBadJSON(KeepOpen) is set.
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

func (c *Conn) readTextInto(ctx context.Context, buf *[]byte) error {
	typ, err := c.readInto(ctx, buf)
	if err == nil && typ != websocket.MessageText {
		return c.refuseKind()
	}
	return err
}

// readInto waits for a message and reads it into buf, in place of what is there.
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

// readOnce is readInto, but that it returns frame.ErrIdle where just a ping or the like came.
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

// pending is a message that is read on a goroutine of its own, since coder/websocket can't be interrupted
// within one. A Read whose context is done leaves it to the next.
type pending struct {
	done chan struct{} // closed when the rest is set
	buf  *[]byte       // of scratches
	typ  websocket.MessageType
	err  error
}

func (c *Conn) pending() *pending {
	if in := c.inbound.Load(); in != nil {
		return in.pending.Load()
	}
	return nil
}

// receiveAside starts to read the message that has begun.
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

// awaitPending waits for the end of a reading that no Read takes any more. The connection is ending.
func (c *Conn) awaitPending() {
	if p := c.pending(); p != nil {
		<-p.done
	}
}

// handle reads a message, calls its callback, and reports whether there may be more.
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

// judge applies WithBadJSON and reports whether the connection lives on.
func (c *Conn) judge(bad error) bool {
	if c.hub.cfg.badJSON == KeepOpen {
		return !c.isEnded()
	}
	c.end(rid("bad_json", bad, websocket.StatusInvalidFramePayloadData, "bad JSON"))
	return false
}

func (c *Conn) refuseKind() error {
	c.end(rid("bad_kind", errors.New("wsroom: message of a kind that nobody takes"),
		websocket.StatusUnsupportedData, "unsupported kind of message"))
	return c.cause()
}

// cause waits for the reason why the connection is ending.
func (c *Conn) cause() error {
	ctx := c.Context()
	<-ctx.Done()
	return context.Cause(ctx)
}

// wait returns once there is something to read, ctx is done or the connection is ending.
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

// waitFailed says what an error of waiting means: it reports whether the connection is ending, and
// otherwise undoes the interruption.
func (c *Conn) waitFailed(err error) bool {
	if c.isEnded() {
		return true
	}
	if !c.wire.Interrupted(err) { // the wire has said so before; to be sure
		c.end(endingReadFailed(err))
		return true
	}
	c.resume()
	return false
}

// waitOnce waits until there is something to read, ctx is done or the connection ends.
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

// resume undoes an Interrupt that wasn't the connection's end.
func (c *Conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		c.wire.Resume()
	}
}

func (c *Conn) isEnded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ending != nil
}

// receive reads the message that has begun into buf, in place of what is there, and checks it. Where
// it was just a ping or the like it returns frame.ErrIdle.
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
	c.hub.countIn(c, len(p))
	if typ == websocket.MessageText && !utf8.Valid(p) {
		c.end(endingNotUTF8)
		return 0, c.cause()
	}
	return typ, c.limitRate(len(p))
}

// inbound is what only some connections need for what comes in. It belongs to their readers.
type inbound struct {
	messages, bytes bucket.Bucket           // of the rate limits
	pending         atomic.Pointer[pending] // what a Read has left to the next; nil if there is nothing
}

// limitRate applies the rate limits to a message of size bytes that was read. Under SlowDown it waits
// its turn, in which the peer isn't read.
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

// readingNow is where Conn.refusal stands while a reading method of ours is inside coder/websocket.
const readingNow = -1

// readMessage reads with no context, for coder/websocket would drop the connection with it. What
// ends the reading is the wire: Interrupt, the message timeout, Kill.
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

// scratches are what messages are read into while their callback decodes or copies them.
var scratches = sync.Pool{New: func() any {
	b := make([]byte, 0, 512) // a message that never ends keeps it
	return &b
}}

// maxScratch is the largest buffer that is kept for another message.
const maxScratch = 64 << 10

func putScratch(b *[]byte) {
	if cap(*b) <= maxScratch {
		scratches.Put(b)
	}
}
