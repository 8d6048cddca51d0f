package wsroom

import (
	"bytes"
	"net/http"
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
// before any room message, and no room message in between is lost, unless the connection ends before
// f has returned. The request is valid only until f returns. An error ends the connection: a
// websocket.CloseError with its code and reason, cut to 123 bytes, any other with 1011 and no text.
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
