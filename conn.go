package wsroom

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
)

// Conn is one connection. All methods may be called concurrently, but for Read, ReadText and
// ReadJSON, which belong to Serve.
type Conn struct {
	// The queue stands first, and the whole fits into a size class of the allocator that is a multiple
	// of 64 bytes (448; not 480): what a send touches lies in one cache line then, which saves it a
	// tenth of its time in large rooms.
	queue queue

	hub        *Hub
	id         string
	room       string
	route      string // the request's pattern, for metrics
	key        string // of WithMaxConnsPer
	remoteAddr string
	request    detached // what is kept of the request's context

	ws     *websocket.Conn // set with wire, before anyone outside of admission knows the connection
	writer func()          // c.write; starting a stored func allocates nothing
	home   member          // among all of the hub; belongs to the store

	// turn is held by the goroutine that runs a callback of this connection.
	turn sync.Mutex

	mu      sync.Mutex // guards the fields to the next blank line; held for no callback
	wire    *frame.Conn
	ending  *ending     // nil while the connection lives
	context *ownContext // nil until somebody wants it
	rooms   memberships // written with the room's shard locked, too
	values  map[any]any
	expiry  *time.Timer // nil where Until set no time
	news    *news       // what callbacks are to hear of; nil if there is nothing

	reporting bool // callbacks may hear of the news; guarded by mu
	gone      bool // it has left every room, and its context is done or will be born so; guarded by mu
	connected bool // OnConnect succeeded; belongs to turn
	finished  bool // the message callback panicked or has had its err; belongs to turn

	beating    atomic.Bool             // OnConnect has returned: the peer is read, and judged
	refusal    atomic.Int32            // the close code with which coder/websocket refused what we read; or readingNow; or 0
	freshAt    uint32                  // when the reading goroutine was last replaced, in seconds of frame.Now
	inbound    atomic.Pointer[inbound] // nil where there is nothing in it
	overhead   bucket                  // of frames that carry nothing; belongs to the reader
	wroteAt    atomic.Int64            // when something was written last, by frame.Now
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
		hub: h, id: rand.Text(), room: room, route: pattern(r), key: key,
		remoteAddr: strings.Clone(r.RemoteAddr),
		request:    detach(r.Context()),
	}
	c.queue.limit, c.queue.writing = h.cfg, true
	if h.cfg.onConnect != nil {
		c.queue.open()
	}
	if h.cfg.limitsRate() {
		c.inbound.Store(new(inbound))
	}
	c.writer = c.write
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
	c.runEventsAside()
	return nil
}

// Leave takes the connection out of a room; not to be in it is no error. Nothing sent to the room
// after Leave has returned reaches the connection. It returns ErrClosed once the connection is
// ending.
func (c *Conn) Leave(room string) error {
	left, err := c.hub.store.leave(c, room)
	if left {
		c.hub.left(c, room)
		c.runEventsAside()
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
func (c *Conn) isWithin(rooms *lookup[string], n int) bool {
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
func (c *Conn) Queued() (messages int, bytes int64) { return c.queue.waiting() }

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
	m := encode(c.hub, opcode, payload, c.queue.deflate)
	p := c.queue.push(m, true)
	if p.err == errHeld {
		p = c.pushEarly(m)
	}
	if p.wake {
		c.wake()
	}
	if p.dropped > 0 {
		c.noteDrops(int(p.dropped))
	}
	if p.err == ErrSlow {
		c.end(endingSlow)
	}
	return p.err
}

// pushEarly queues a message while OnConnect runs: its own go first, everybody else's where the rooms' do.
func (c *Conn) pushEarly(m *frame.Message) pushed {
	by := goroutine.Current()
	p, space, before := c.queue.pushFirst(m, by)
	if p.err == errHeld {
		return c.queue.push(m, false)
	}
	if space == nil {
		return p
	}
	patience := time.NewTimer(c.hub.cfg.limits.ForWriting(before))
	defer patience.Stop()
	for space != nil {
		select {
		case <-space:
			p, space, _ = c.queue.pushFirst(m, by)
		case <-patience.C:
			return c.queue.refuse()
		}
	}
	return p
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

// Close ends the connection: what is queued is still written (while OnConnect runs, only what it sent
// itself), then a close frame with this code and
// reason, and after 5 s at the latest the socket is closed, whatever the peer does. It returns at
// once; the cause is a websocket.CloseError. A reason of over 123 bytes is cut. It returns ErrClosed if the
// connection was ending, and an error, without effect, for a code that can't be sent (RFC 6455, section 7.4)
// or a reason that isn't UTF-8.
func (c *Conn) Close(code websocket.StatusCode, reason string) error {
	if err := checkClose(code, reason); err != nil {
		return err
	}
	if !c.end(endingClosed(websocket.CloseError{Code: code, Reason: cutReason(reason)})) {
		return ErrClosed
	}
	return nil
}

func checkClose(code websocket.StatusCode, reason string) error {
	if !utf8.ValidString(reason) {
		return errors.New("wsroom: a close reason must be UTF-8")
	}
	return checkCloseCode(code)
}

func checkCloseCode(code websocket.StatusCode) error {
	switch {
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014, code >= 3000 && code <= 4999:
	default:
		return fmt.Errorf("wsroom: close code %d can't be sent", int(code))
	}
	return nil
}

// enteredLocked and leftLocked note what OnJoin and OnLeave are to hear of; mu and the room's shard are locked.
func (c *Conn) enteredLocked(room string) {
	if c.hub.cfg.onJoin != nil {
		c.tellLocked(event{room: room, run: c.hub.cfg.onJoin, name: "OnJoin"})
	}
}

func (c *Conn) leftLocked(room string) {
	if c.hub.cfg.onLeave != nil {
		c.tellLocked(event{room: room, run: c.hub.cfg.onLeave, name: "OnLeave"})
	}
}
