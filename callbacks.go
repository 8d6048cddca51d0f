package wsroom

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/coder/websocket"
)

// callbacks is what the application registered.
type callbacks struct {
	serve              func(c *Conn) error
	onJSON, onText     *messageFunc
	onBinary           *messageFunc
	onConnect          func(c *Conn, r *http.Request) error
	onClose            func(c *Conn, err error)
	onJoin, onLeave    func(c *Conn, room string)
	onExpire           func(c *Conn) (time.Time, error)
	text, binary, last *messageFunc // what choose made of the above; last gets the cause
	ignored            []string
}

// messageFunc is a callback for one kind of message.
type messageFunc struct {
	name string
	take func(c *Conn, p []byte) error // p is valid until it returns
	fail func(c *Conn, err error)
}

// choose applies the priority: Serve, then JSON, then Text.
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

// used names the message callback that choose settled on, for the log.
func (c *callbacks) used() string {
	if c.serve != nil {
		return "Serve"
	}
	return c.last.name
}

func (c *callbacks) handler(typ websocket.MessageType) *messageFunc {
	if typ == websocket.MessageText {
		return c.text
	}
	return c.binary
}

// Serve hands each connection to f, which reads by itself with Conn.Read, ReadText or ReadJSON. It
// should keep reading for as long as the connection lives: pings, pongs and the peer's close are
// seen only while somebody reads. When f returns nil the connection closes with 1000; an error ends
// it as OnConnect's would. OnJoin, OnLeave, OnDrop and OnExpire may run beside f; no other callback does.
func Serve(f func(c *Conn) error) Option {
	return func(c *config) error {
		c.serve = f
		return notNil("Serve", f == nil)
	}
}

// OnJSON calls f with each text message, decoded into a T of its own. The last call but for OnClose
// has an err: a websocket.CloseError when the peer closed, a *DecodeError when a message didn't
// decode, else the cause of the end. With WithBadJSON(KeepOpen) a *DecodeError isn't the last.
// A callback that panicked isn't called again.
func OnJSON[T any](f func(c *Conn, msg T, err error)) Option {
	take := func(c *Conn, p []byte) error {
		var msg T
		if err := c.hub.cfg.unmarshal(p, &msg); err != nil {
			return &DecodeError{Err: err}
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

// OnText calls f with each text message, which is valid UTF-8. The last call but for OnClose has an
// err, as with OnJSON.
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

// OnBinary calls f with each binary message, which is f's to keep. It works beside OnJSON or OnText;
// only without them its last call has an err, as with OnJSON.
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

// OnConnect calls f once for each connection, before any other callback. What f sends to c comes
// before everything that others send, be it to c or to its rooms. That waits for f to return, in one
// order, and none of it is lost, unless the connection ends before f has returned. Goroutines that f
// starts are others, too. Where f sends more than fits, see WithSendQueue. The request is valid only until
// f returns. An error ends the connection: a websocket.CloseError with its code and reason, cut to 123
// bytes, any other with 1011 and no text.
func OnConnect(f func(c *Conn, r *http.Request) error) Option {
	return func(c *config) error {
		c.onConnect = f
		return notNil("OnConnect", f == nil)
	}
}

// OnClose calls f once for each connection whose OnConnect ran, as the last of its callbacks, after
// it has left every room. err is the first cause of the end: a websocket.CloseError when either side
// closed, one of this package's errors, or what happened to the line.
func OnClose(f func(c *Conn, err error)) Option {
	return func(c *config) error {
		c.onClose = f
		return notNil("OnClose", f == nil)
	}
}

// OnJoin calls f once for each room that a connection enters: for its first room after OnConnect
// succeeded, for others after Join. A Join made in a callback is reported when that returns.
func OnJoin(f func(c *Conn, room string)) Option {
	return func(c *config) error {
		c.onJoin = f
		return notNil("OnJoin", f == nil)
	}
}

// OnLeave calls f once for each room that a connection leaves and whose OnJoin was due, when it ends
// for every room it was in. It comes before OnClose.
func OnLeave(f func(c *Conn, room string)) Option {
	return func(c *config) error {
		c.onLeave = f
		return notNil("OnLeave", f == nil)
	}
}

// OnDrop calls f with the number of messages that DropOldest or DropNewest dropped for c since the
// last call. Sending to c from f drops once more, and f is called again.
func OnDrop(f func(c *Conn, messages int)) Option {
	return func(c *config) error {
		c.onDrop = f
		return notNil("OnDrop", f == nil)
	}
}

// statusExpired tells a client that what it was admitted by has expired: 4000 and HTTP's 401.
const statusExpired websocket.StatusCode = 4000 + http.StatusUnauthorized

// until is an instruction to the hub, returned as an error.
type until struct{ time time.Time }

func (u until) Error() string { return "wsroom: admitted until " + u.time.Format(time.RFC3339) }

// Until is what the function of WithAuthorize returns, wrapped or not, to admit a request until t, such
// as the expiry of its token; see OnExpire. The zero time is no limit, and a time that has passed
// refuses the request with 401.
func Until(t time.Time) error { return until{t} }

// OnExpire calls f when the time of Until has come. A later time, or the zero time for no further
// limit, renews the connection; a time that isn't in the future, or an error, ends it with ErrExpired
// and close code 4401, an error that is a websocket.CloseError with its code and reason. Without
// OnExpire the connection ends at once. f waits its turn like any other callback (but runs beside
// Serve): a connection whose callback runs over its time ends when that has returned.
func OnExpire(f func(c *Conn) (until time.Time, err error)) Option {
	return func(c *config) error {
		c.onExpire = f
		return notNil("OnExpire", f == nil)
	}
}

// expireAt sets the time of a connection that has none yet, unless it is zero.
func (c *Conn) expireAt(t time.Time) {
	if t.IsZero() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		c.expiry = time.AfterFunc(time.Until(t), c.expired)
	}
}

// expired is what the timer calls.
func (c *Conn) expired() {
	if c.hub.cfg.onExpire == nil {
		c.end(endingExpired(nil))
		return
	}
	c.mu.Lock()
	if c.ending == nil {
		c.postLocked(event{name: "OnExpire", run: (*Conn).renew})
	}
	c.mu.Unlock()
	c.runEventsAsync()
}

// renew asks OnExpire what is to be, in the connection's turn.
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
	if c.ending == nil && !t.IsZero() {
		c.expiry.Reset(time.Until(t))
	}
}

// endingExpired is the end at the time of Until. err is OnExpire's.
func endingExpired(err error) ending {
	e := ending{cause: ErrExpired, label: "expired", code: statusExpired, reason: "expired", budget: closeBudget}
	if err != nil {
		e.cause = fmt.Errorf("%w: %w", ErrExpired, err)
		e.closeBy(err)
	}
	return e
}

// callback runs a callback in its turn.
func (c *Conn) callback(name string, f func() error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.guard(name, f)
}

// guard runs application code. A panic or runtime.Goexit in it ends the connection, and nothing else; its
// error is for the Tracer.
func (c *Conn) guard(name string, f func() error) {
	guard(name, f, func(v any) { c.panicked(name, v) }, c.trace(name))
}

// guard runs application code that belongs to no connection.
func (h *Hub) guard(name, room string, f func()) {
	guard(name, func() error { f(); return nil }, func(v any) {
		h.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", room,
			"panic", v, "stack", string(debug.Stack()))
	}, h.trace(name))
}

// guard calls failed with what f panicked with, or if it ended the goroutine, and end, unless it is nil,
// with what became of f.
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

func panicError(name string, v any) error { return fmt.Errorf("%w: %s: %v", ErrPanic, name, v) }

// panicked ends the connection.
func (c *Conn) panicked(name string, v any) {
	if last := c.hub.cfg.last; last != nil && last.name == name {
		c.finished = true
	}
	c.hub.cfg.logger.Error("wsroom: callback panicked", "callback", name, "room", c.room, "conn", c.id,
		"panic", v, "stack", string(debug.Stack()))
	c.end(endingPanic(name, v))
}

func endingPanic(name string, v any) ending {
	return ending{cause: panicError(name, v), label: "panic", code: websocket.StatusInternalError, budget: closeBudget}
}

// event is a join, a leave or an expiry that its callback is to be told of.
type event struct {
	room string
	name string
	run  func(c *Conn, room string)
}

// events are what callbacks are still to be told of a connection. Those of drops come first, as one.
type events struct {
	queue []event
	drops int // messages
}

// next takes the next event; there must be one.
func (es *events) next() event {
	if n := es.drops; n > 0 {
		es.drops = 0
		return event{name: "OnDrop", run: func(c *Conn, _ string) { c.hub.cfg.onDrop(c, n) }}
	}

	e := es.queue[0]
	es.queue = es.queue[1:]
	return e
}

func (es *events) empty() bool { return es.drops == 0 && len(es.queue) == 0 }

// eventsLocked returns the events to add to; mu is locked.
func (c *Conn) eventsLocked() *events {
	if c.events == nil {
		c.events = new(events)
	}
	return c.events
}

// postLocked adds an event; mu is locked. The caller has runEventsAsync run it, once mu is free.
func (c *Conn) postLocked(e event) {
	es := c.eventsLocked()
	es.queue = append(es.queue, e)
}

// nextEvent takes the next event, if there is one and events are reported.
func (c *Conn) nextEvent() (e event, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.hasEventsLocked() {
		return event{}, false
	}

	e = c.events.next()
	if c.events.empty() {
		c.events = nil
	}
	return e, true
}

// setReporting lets events be reported: after OnConnect, until all are.
func (c *Conn) setReporting(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reporting = on
}

// noteDrops counts messages dropped for the connection and has OnDrop told of them.
func (c *Conn) noteDrops(n int) {
	c.hub.countDrops(c, n)
	if c.hub.cfg.onDrop == nil {
		return
	}

	c.mu.Lock()
	es := c.eventsLocked()
	first := es.drops == 0
	es.drops += n
	c.mu.Unlock()

	if first { // the goroutine that reports it reports the rest with it
		c.runEventsAsync()
	}
}

func (c *Conn) hasEvents() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hasEventsLocked()
}

func (c *Conn) hasEventsLocked() bool { return c.reporting && c.events != nil }

// runEvents runs what is due, unless the goroutine whose turn it is will do so.
func (c *Conn) runEvents() {
	for c.hasEvents() && c.turn.TryLock() {
		func() {
			defer c.turn.Unlock()
			c.report()
		}()
	}
}

// report runs what is due. The caller has the turn, so that the order of events is that of their
// callbacks.
func (c *Conn) report() {
	for e, ok := c.nextEvent(); ok; e, ok = c.nextEvent() {
		c.guard(e.name, func() error { e.run(c, e.room); return nil })
	}
}

// runEventsAsync runs what is due on a goroutine of its own, for callers that may hold locks.
func (c *Conn) runEventsAsync() {
	c.mu.Lock()
	due := c.ending == nil && c.hasEventsLocked()
	if due {
		c.hub.wg.Add(1) // the connection isn't finished, so Shutdown's Wait isn't either
	}
	c.mu.Unlock()

	if due {
		go func() {
			defer c.hub.wg.Done()
			c.runEvents()
		}()
	}
}

// drainEvents runs all that is left, even if one of them ends the goroutine.
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
