package wsroom

import (
	"bytes"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/lifecycle"
	"github.com/wsroom/wsroom/internal/line"
)

// callbacks are the functions that the application registered.
type callbacks struct {
	serve              func(c *Conn) error
	onJSON, onText     *messageFunc
	onBinary           *messageFunc
	onConnect          func(c *Conn, r *http.Request) error
	onClose            func(c *Conn, err error)
	onJoin, onLeave    func(c *Conn, room string)
	onExpire           func(c *Conn) (time.Time, error)
	onRoomOpen         func(room string)
	onRoomClose        func(room string)
	onRoomMessage      func(room string, typ websocket.MessageType, p []byte)
	text, binary, last *messageFunc // set by choose; last gets the cause of the end
	ignored            []string     // names of the callbacks that choose left out
}

// messageFunc is a callback for one kind of message.
type messageFunc struct {
	name string
	take func(c *Conn, p []byte) error // p is valid until it returns
	fail func(c *Conn, err error)
}

// choose applies the priority: Serve first, then OnJSON, then OnText.
func (c *callbacks) choose() {
	ignore := func(f *messageFunc) {
		if f != nil {
			c.ignored = append(c.ignored, f.name)
		}
	}

	switch {
	case c.serve != nil:
		ignore(c.onJSON)
		ignore(c.onText)
		ignore(c.onBinary)
		return
	case c.onJSON != nil:
		c.text = c.onJSON
		ignore(c.onText)
	default:
		c.text = c.onText
	}
	c.binary = c.onBinary

	if c.last = c.text; c.last == nil {
		c.last = c.binary
	}
}

// used returns the name of the message callback that choose selected, for the log.
func (c *callbacks) used() string {
	if c.serve != nil {
		return "Serve"
	}
	return c.last.name
}

// handler returns the callback for messages of this type. It is nil if there is none.
func (c *callbacks) handler(typ websocket.MessageType) *messageFunc {
	if typ == websocket.MessageText {
		return c.text
	}
	return c.binary
}

// Serve hands each connection to f, which reads messages itself with [Conn.Read], [Conn.ReadText] or
// [Conn.ReadJSON]. f should keep reading for as long as the connection lives: the hub sees pings, pongs and
// the peer's close only while f reads. When f returns nil, the connection closes with 1000. An error ends
// the connection as an error of [OnConnect] does. A message that ReadText or ReadJSON can't take ends the
// connection before f has the error; to judge messages itself, f calls Read. [OnJoin], [OnLeave], [OnDrop]
// and [OnExpire] may run at the same time as f; no other callback does.
func Serve(f func(c *Conn) error) Option {
	return func(c *config) error {
		c.serve = f
		return notNil("Serve", f == nil)
	}
}

// OnJSON calls f with each text message, decoded into a T of its own. The last call before [OnClose] has an
// err instead of a message: a [websocket.CloseError] when the peer closed, a [*DecodeError] when a message
// didn't decode, otherwise the cause of the end. With [WithBadJSON]([KeepOpen]), a call with a *DecodeError
// isn't the last one. A callback that panicked isn't called again.
func OnJSON[T any](f func(c *Conn, msg T, err error)) Option {
	take := func(c *Conn, p []byte) error {
		var msg T
		if err := c.hub.cfg.unmarshal(p, &msg); err != nil {
			return decodeError(err, p)
		}
		f(c, msg, nil)
		return nil
	}
	fail := func(c *Conn, err error) {
		var zero T
		f(c, zero, err)
	}
	return func(c *config) error {
		c.onJSON = &messageFunc{name: "OnJSON", take: take, fail: fail}
		return notNil("OnJSON", f == nil)
	}
}

// OnText calls f with each text message, which is valid UTF-8. The last call before [OnClose] has an err,
// as with [OnJSON].
func OnText(f func(c *Conn, text string, err error)) Option {
	take := func(c *Conn, p []byte) error {
		f(c, string(p), nil)
		return nil
	}
	fail := func(c *Conn, err error) { f(c, "", err) }
	return func(c *config) error {
		c.onText = &messageFunc{name: "OnText", take: take, fail: fail}
		return notNil("OnText", f == nil)
	}
}

// OnBinary calls f with each binary message. f may keep p. OnBinary works together with [OnJSON] or
// [OnText]. Only without them does its last call have an err, as with OnJSON.
func OnBinary(f func(c *Conn, p []byte, err error)) Option {
	take := func(c *Conn, p []byte) error {
		f(c, bytes.Clone(p), nil)
		return nil
	}
	fail := func(c *Conn, err error) { f(c, nil, err) }
	return func(c *config) error {
		c.onBinary = &messageFunc{name: "OnBinary", take: take, fail: fail}
		return notNil("OnBinary", f == nil)
	}
}

// OnConnect calls f once for each connection, before any other callback. The request is valid only until f
// returns.
//
// Messages that f sends to c come before all messages that others send to c or to its rooms. Those wait, in
// one order, until f returns. None of them is lost unless the connection ends before f returns. Goroutines
// that f starts count as others, too. [WithSendQueue] says what happens when f sends more than fits.
//
// An error ends the connection. A [websocket.CloseError] ends it with its code and reason, cut to 123
// bytes. Any other error ends it with 1011 and no text.
func OnConnect(f func(c *Conn, r *http.Request) error) Option {
	return func(c *config) error {
		c.onConnect = f
		return notNil("OnConnect", f == nil)
	}
}

// OnClose calls f once for each connection whose [OnConnect] ran. It is the last of the connection's
// callbacks and comes after the connection has left every room. err is the first cause of the end: a
// [websocket.CloseError] when either side closed, one of this package's errors, or the error of the network
// connection.
func OnClose(f func(c *Conn, err error)) Option {
	return func(c *config) error {
		c.onClose = f
		return notNil("OnClose", f == nil)
	}
}

// OnJoin calls f once for each room that a connection enters: for its first room after [OnConnect] has
// succeeded, for other rooms after [Conn.Join]. A Join made in a callback is reported when that callback
// returns.
func OnJoin(f func(c *Conn, room string)) Option {
	return func(c *config) error {
		c.onJoin = f
		return notNil("OnJoin", f == nil)
	}
}

// OnLeave calls f once for each room that a connection leaves and whose [OnJoin] was due. When the
// connection ends, f is called for every room that it was in. These calls come before [OnClose].
func OnLeave(f func(c *Conn, room string)) Option {
	return func(c *config) error {
		c.onLeave = f
		return notNil("OnLeave", f == nil)
	}
}

// OnRoomOpen calls f before the first member of a room is let in. Requests and calls of [Conn.Join] for the
// room wait until f returns, requests for at most the time of [WithHandshakeTimeout]. So f may load what the
// members need.
//
// Calls of OnRoomOpen, [OnRoomMessage] and [OnRoomClose] for one room come one at a time, and each open is
// followed by one close. Calls for different rooms run concurrently. All run outside of any connection's
// callbacks. If the connections that f was called for are refused or end, the room closes without having had
// a member. With a broker, a room opens and closes on each node, and this node receives the room's messages
// before f is called: what f loads and what OnRoomMessage gets then overlap, and nothing is missing between
// them. f may send, but must not wait for a call of Conn.Join that names the same room.
func OnRoomOpen(f func(room string)) Option {
	return func(c *config) error {
		c.onRoomOpen = f
		return notNil("OnRoomOpen", f == nil)
	}
}

// OnRoomClose calls f when the last member of a room has left, once OnRoomMessage has had what was sent until
// then, and [OnLeave] and [OnClose] of the members have returned. If somebody comes before f is called, the
// room stays open. If somebody comes while f runs, they wait until it has returned and [OnRoomOpen] was
// called again. So f must not wait for a call of [Conn.Join] that names the same room. [Hub.Shutdown] waits
// for f.
func OnRoomClose(f func(room string)) Option {
	return func(c *config) error {
		c.onRoomClose = f
		return notNil("OnRoomClose", f == nil)
	}
}

// OnRoomMessage calls f with each message to a room that has members on this node, in the room's order: those
// of this node and, with a broker, those of all others. Each node with members calls its own f. f gets what
// [Hub.To] and all that is like it sends to rooms, once for each room, whether [Target.Except] leaves out
// members or not. Messages to all and to one connection belong to no room. f may keep p. If f sends to the
// room, it is called with that, too.
//
// The members don't wait for f, nor does the sender. So f may be behind: a newcomer's snapshot isn't to be
// taken from what f has stored (see [Conn.Rewind] and [Conn.DropHeld]). If f is slow, up to as much as
// [WithSendQueue] allows one connection waits for each room. Of further messages f doesn't get any until half
// of that is done; in their place f is called once, with type 0 and no data. They are counted as dropped.
func OnRoomMessage(f func(room string, typ websocket.MessageType, p []byte)) Option {
	return func(c *config) error {
		c.onRoomMessage = f
		return notNil("OnRoomMessage", f == nil)
	}
}

// newLives returns what calls OnRoomOpen, OnRoomClose and OnRoomMessage, nil if none of them is set.
func newLives(h *Hub) *lifecycle.Rooms {
	open, closed, message := h.cfg.onRoomOpen, h.cfg.onRoomClose, h.cfg.onRoomMessage
	if open == nil && closed == nil && message == nil {
		return nil
	}

	limits := h.cfg.outboundQueue
	cfg := lifecycle.Config{Messages: limits.Messages, Bytes: limits.Bytes}
	if open != nil {
		cfg.Open = func(room string) { h.guard("OnRoomOpen", room, func() { open(room) }) }
	}
	if closed != nil {
		cfg.Close = func(room string) { h.guard("OnRoomClose", room, func() { closed(room) }) }
	}
	if message != nil {
		cfg.Message = func(room string, m *frame.Message, trace string) {
			opcode, p := m.Payload()
			h.guardTraced("OnRoomMessage", room, trace, func() { message(room, websocket.MessageType(opcode), bytes.Clone(p)) })
		}
		cfg.Lost = func(room string, messages int) {
			h.counters.dropped.Add(int64(messages))
			h.observer.Add(MetricDropped, "", "room", messages)
			h.guard("OnRoomMessage", room, func() { message(room, 0, nil) })
		}
	}
	return lifecycle.New(cfg)
}

// OnDrop calls f with the number of messages that [DropOldest] or [DropNewest] has dropped for c since the
// last call. If f sends to c and messages are dropped again, f is called again.
func OnDrop(f func(c *Conn, messages int)) Option {
	return func(c *config) error {
		c.onDrop = f
		return notNil("OnDrop", f == nil)
	}
}

// statusExpired tells a client that its admission has expired: 4000 plus HTTP's status 401.
const statusExpired websocket.StatusCode = 4000 + http.StatusUnauthorized

// until is an instruction to the hub in the form of an error.
type until struct{ time time.Time }

func (u until) Error() string { return "wsroom: admitted until " + u.time.Format(time.RFC3339) }

// Until makes the error that the function of [WithAuthorize] returns, wrapped or not, to admit a request
// until t, such as the expiry of its token. See [OnExpire]. The zero time means no limit. A time in the
// past refuses the request with 401.
func Until(t time.Time) error { return until{t} }

// OnExpire calls f when the time of [Until] has come. A later time renews the connection; the zero time
// does so without a further limit. A time that isn't in the future, or an error, ends the connection with
// [ErrExpired] and close code 4401; an error that is a [websocket.CloseError] ends it with its own code and
// reason. Without OnExpire the connection ends at once.
//
// f waits for its turn like any other callback, except that it may run at the same time as the function of
// [Serve]. So a connection whose callback runs past the time ends only after that callback has returned.
func OnExpire(f func(c *Conn) (until time.Time, err error)) Option {
	return func(c *config) error {
		c.onExpire = f
		return notNil("OnExpire", f == nil)
	}
}

// startTimers begins to count the connection's time. until is when the admission expires; zero means never.
func (c *Conn) startTimers(until time.Time) {
	age := c.hub.cfg.maxAge
	if until.IsZero() && age == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isEnded() {
		return
	}

	c.timers = new(timers)
	if !until.IsZero() {
		c.timers.expiry = time.AfterFunc(time.Until(until), c.expired)
	}
	if age > 0 {
		c.timers.age = time.AfterFunc(age-mathrand.N(age/ageSpread+1), func() { c.end(endingTooOld) })
	}
}

// ageSpread is the part of the time of WithMaxAge over which the ends are spread.
const ageSpread = 5

// endingTooOld is the ending by WithMaxAge. The close code is 1012, as for a restart: clients come back.
var endingTooOld = line.Ending{
	Cause: ErrMaxAge, Label: "max_age", Code: websocket.StatusServiceRestart, Reason: "connection is old", Budget: line.CloseBudget,
}

// expired is called by the expiry's timer.
func (c *Conn) expired() {
	if c.hub.cfg.onExpire == nil {
		c.end(endingExpired(nil))
		return
	}

	c.mu.Lock()
	if !c.isEnded() {
		c.mailbox.post(event{name: "OnExpire", run: (*Conn).renew})
	}
	c.mu.Unlock()

	c.runEventsAsync()
}

// renew calls OnExpire, which renews or ends the connection. It runs in the connection's turn.
func (c *Conn) renew(string) {
	if c.isEnded() {
		return
	}

	t, err := c.hub.cfg.onExpire(c)
	if err != nil || !t.IsZero() && !t.After(time.Now()) {
		c.end(endingExpired(err))
		return
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.isEnded() && !t.IsZero() {
		c.timers.expiry.Reset(time.Until(t))
	}
}

// endingExpired is the ending at the time of [Until]. err is the error of OnExpire, or nil.
func endingExpired(err error) line.Ending {
	e := line.Ending{Cause: ErrExpired, Label: "expired", Code: statusExpired, Reason: "expired", Budget: line.CloseBudget}
	if err != nil {
		e.Cause = fmt.Errorf("%w: %w", ErrExpired, err)
		e.CloseBy(err)
	}
	return e
}

// callback waits for the connection's turn and runs a callback.
func (c *Conn) callback(name string, f func() error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.guard(name, f)
}

// guard runs a function of the application. A panic or runtime.Goexit in it ends this connection and
// nothing else. The [Tracer] gets its error.
func (c *Conn) guard(name string, f func() error) {
	guard(name, f, func(v any) { c.panicked(name, v) }, c.trace(name))
}

// guard runs a function of the application that belongs to no connection.
func (h *Hub) guard(name, room string, f func()) { h.guardTraced(name, room, "", f) }

// guardTraced is guard for a callback whose message belongs to a trace, unless that is "".
func (h *Hub) guardTraced(name, room, trace string, f func()) {
	guard(name, func() error { f(); return nil }, func(v any) {
		h.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", room,
			"panic", v, "stack", string(debug.Stack()))
	}, h.trace(name, trace))
}

// guard runs f. If f panics or ends the goroutine, guard calls failed with the value of the panic, or with
// a text that says so. Then it calls end, unless end is nil, with the error of f or of the panic.
func guard(name string, f func() error, failed func(v any), end func(error)) {
	returned := false
	var err error
	defer func() {
		if !returned {
			v := recover()
			if v == nil {
				v = "runtime.Goexit was called"
			}
			failed(v)
			err = panicError(name, v)
		}
		if end != nil {
			end(err)
		}
	}()

	err = f()
	returned = true
}

// panicError is the error of a callback that panicked with v.
func panicError(name string, v any) error { return fmt.Errorf("%w: %s: %v", ErrPanic, name, v) }

// panicked ends the connection after a panic of the named callback. If that is the callback that gets the
// cause of the end, it isn't called again.
func (c *Conn) panicked(name string, v any) {
	if last := c.hub.cfg.last; last != nil && last.name == name {
		c.mailbox.finished = true
	}

	c.hub.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", c.room, "conn", c.id,
		"panic", v, "stack", string(debug.Stack()))
	c.end(endingPanic(name, v))
}

// endingPanic is the ending after a panic with v in the callback or during what name says. The close code is
// 1011.
func endingPanic(name string, v any) line.Ending {
	return line.Ending{Cause: panicError(name, v), Label: "panic", Code: websocket.StatusInternalError, Budget: line.CloseBudget}
}

// endingAborted is the ending after a panic in the Observer or the Tracer during the admission.
func endingAborted() line.Ending { return endingPanic("admission", "the Observer or the Tracer") }

// event is something that a callback has yet to handle: a join, a leave, an expiry or drops.
type event struct {
	room string
	name string // of the callback; "" for the hub's own function, which doesn't panic
	run  func(c *Conn, room string)
}

// mailbox holds the events that a connection's callbacks have yet to handle. They wait until OnConnect has
// succeeded, and while another callback runs. Conn.mu guards it, except finished.
//
// After a post, the poster calls runEventsAsync with Conn.mu unlocked. Once the connection is ending, finish runs
// what is left and closes the mailbox.
type mailbox struct {
	events   *events // nil if there is none
	state    mailboxState
	finished bool // the message callback panicked or got its err; guarded by Conn.turn
}

type mailboxState uint8

const (
	mailboxNew    mailboxState = iota // OnConnect hasn't succeeded: events are kept
	mailboxOpen                       // events are handled
	mailboxClosed                     // events are dropped
)

// events are the contents of a mailbox that isn't empty.
type events struct {
	queue []event
	drops int // messages; they are one event, which comes first
}

// post adds an event.
func (m *mailbox) post(e event) {
	if es := m.contents(); es != nil {
		es.queue = append(es.queue, e)
	}
}

// postDrops adds n messages to the event for OnDrop. It reports whether there was no such event before.
func (m *mailbox) postDrops(n int) (first bool) {
	es := m.contents()
	if es == nil {
		return false
	}
	first = es.drops == 0
	es.drops += n
	return first
}

// contents returns the mailbox's events, for a caller that adds to them. It returns nil for a closed mailbox.
func (m *mailbox) contents() *events {
	if m.events == nil && m.state != mailboxClosed {
		m.events = new(events)
	}
	return m.events
}

// hasNext reports whether there is an event that may be handled now.
func (m *mailbox) hasNext() bool { return m.state == mailboxOpen && m.events != nil }

// next removes the next event and returns it. ok is false if there is none that may be handled now.
func (m *mailbox) next() (e event, ok bool) {
	if !m.hasNext() {
		return event{}, false
	}

	es := m.events
	if n := es.drops; n > 0 {
		es.drops = 0
		e = event{name: "OnDrop", run: func(c *Conn, _ string) { c.hub.cfg.onDrop(c, n) }}
	} else {
		e, es.queue = es.queue[0], es.queue[1:]
	}

	if es.drops == 0 && len(es.queue) == 0 {
		m.events = nil
	}
	return e, true
}

// opened reports whether the mailbox is or was open.
func (m *mailbox) opened() bool { return m.state != mailboxNew }

// openMailbox lets events be handled, because OnConnect has succeeded.
func (c *Conn) openMailbox() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mailbox.state = mailboxOpen
}

// closeMailbox drops all events to come.
func (c *Conn) closeMailbox() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mailbox.state, c.mailbox.events = mailboxClosed, nil
}

// nextEvent is mailbox.next for a caller that hasn't locked mu.
func (c *Conn) nextEvent() (e event, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mailbox.next()
}

// noteDrops counts n messages that were dropped for the connection, and posts them for OnDrop.
func (c *Conn) noteDrops(n int) {
	c.hub.countDrops(c, n)
	if c.hub.cfg.onDrop == nil {
		return
	}

	c.mu.Lock()
	first := c.mailbox.postDrops(n)
	c.mu.Unlock()

	if first { // the goroutine that reports these drops reports later ones with them
		c.runEventsAsync()
	}
}

// hasEvents is mailbox.hasNext for a caller that hasn't locked mu.
func (c *Conn) hasEvents() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mailbox.hasNext()
}

// runEvents runs the events that are due, unless another goroutine has the turn: that one runs them.
func (c *Conn) runEvents() {
	for c.hasEvents() && c.turn.TryLock() {
		func() {
			defer c.turn.Unlock()
			c.report()
		}()
	}
}

// report runs the events that are due. The caller has the turn, so the callbacks run in the order of the
// events.
func (c *Conn) report() {
	for e, ok := c.nextEvent(); ok; e, ok = c.nextEvent() {
		if e.name == "" { // it is the hub's own
			e.run(c, e.room)
			continue
		}
		c.guard(e.name, func() error { e.run(c, e.room); return nil })
	}
}

// runEventsAsync runs the events that are due on a goroutine of its own, because its callers may hold
// locks.
func (c *Conn) runEventsAsync() {
	c.mu.Lock()
	due := !c.isEnded() && c.mailbox.hasNext()
	if due {
		c.hub.wg.Add(1) // wg isn't zero yet: a connection that isn't ending counts in it until release
	}
	c.mu.Unlock()

	if due {
		go func() {
			defer c.hub.wg.Done()
			c.runEvents()
		}()
	}
}

// drainEvents runs all events that are left, even if one of their callbacks ends the goroutine.
func (c *Conn) drainEvents() {
	done := false
	defer func() {
		if !done {
			c.drainEvents()
		}
	}()

	c.turn.Lock()
	defer c.turn.Unlock()
	c.report()
	done = true
}
