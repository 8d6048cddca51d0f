// Package route gives messages types: it calls a typed handler by the type that a message names, sends back
// what the handler returns, and lets the server ask clients questions.
//
//	messages := route.New()
//	route.Handle(messages, "join", func(c *wsroom.Conn, req Join) (Joined, error) { … })
//	route.On(messages, "typing", func(c *wsroom.Conn, t Typing) error { … })
//	hub := wsroom.New(messages.OnJSON())
//
//	hub.SendJSONToRoom(room, messages.Message("said", said))
//	answer, err := route.Call[bool](ctx, messages, c, "confirm", question)
//
// On the wire it is plain JSON, and [WithFields] chooses the names of its fields:
//
//	{"type":"typing","data":…}          a message, in either direction
//	{"type":"join","id":1,"data":…}     a message that wants a reply: a request of the client, a question of the server
//	{"id":1,"data":…}                   the reply
//	{"id":1,"error":{"code":"full"}}    the reply that it failed
//
// The client's ids and the server's are independent of each other: a reply is what has an id and no type.
// js/request.js is the JavaScript side of this package. The package uses the public API of wsroom alone.
package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom"
)

// Fields are the names of the fields of messages. An empty one stands for the default, which its comment has.
type Fields struct {
	Type  string // "type"
	ID    string // "id"
	Data  string // "data"
	Error string // "error"

	Code    string // "code", within an error
	Message string // "message", within an error
}

// Option is an option of [New]. A nil Option is skipped.
type Option func(*Router)

// WithFields sets the names of the fields. New panics if two fields of one object have the same name.
func WithFields(f Fields) Option { return func(r *Router) { r.fields = f } }

// WithTimeout limits the time that [Call] waits if its context has no earlier deadline. The default is 10 s.
func WithTimeout(d time.Duration) Option { return func(r *Router) { r.timeout = d } }

// WithUnmarshal replaces encoding/json for the data of messages. f must not keep the bytes that it is given,
// and may be called concurrently. The rest of a message is decoded, and all of it encoded, by what the hub
// uses ([wsroom.WithJSON]).
func WithUnmarshal(f func([]byte, any) error) Option { return func(r *Router) { r.unmarshal = f } }

// OnError calls f with each error that the client isn't told, or is told without its text: an error of a
// handler that isn't an [*Error], data or a message that doesn't decode ([*wsroom.DecodeError]), a type
// without a handler ([ErrUnknownType]), a reply that can't be encoded or sent, and each error of the handler
// of a message that wants no reply. typ is the message's type, "" if there is none. f runs in the callback of
// the connection that [wsroom.OnJSON] is.
func OnError(f func(c *wsroom.Conn, typ string, err error)) Option {
	return func(r *Router) { r.onError = f }
}

// Router calls a handler by the type of each message. [New] makes it, [Handle] and [On] give it handlers, and
// [Router.OnJSON] makes it the callback of a hub. One Router may serve several hubs.
type Router struct {
	fields    Fields
	timeout   time.Duration
	unmarshal func([]byte, any) error
	onError   func(c *wsroom.Conn, typ string, err error)

	handlers map[string]handler // it doesn't change once inUse is set
	inUse    atomic.Bool

	mu    sync.Mutex // orders the first uses of peers
	peers wsroom.Value[*peer]
}

// handler handles the data of a message. replies is false if there is no data to reply with.
type handler func(c *wsroom.Conn, data json.RawMessage) (reply any, replies bool, err error)

// New returns a Router without handlers. It panics for an option that can't be.
func New(opts ...Option) *Router {
	r := &Router{timeout: 10 * time.Second, unmarshal: json.Unmarshal, handlers: map[string]handler{}}
	for _, opt := range opts {
		if opt != nil {
			opt(r)
		}
	}

	f := &r.fields
	named := map[string]bool{}
	for _, field := range []struct {
		name     *string
		standard string
		within   string
	}{
		{&f.Type, "type", ""}, {&f.ID, "id", ""}, {&f.Data, "data", ""}, {&f.Error, "error", ""},
		{&f.Code, "code", "error "}, {&f.Message, "message", "error "},
	} {
		if *field.name == "" {
			*field.name = field.standard
		}
		if key := field.within + *field.name; named[key] {
			panic(fmt.Sprintf("route: WithFields: two fields are named %q", *field.name))
		} else {
			named[key] = true
		}
	}
	if r.timeout <= 0 || r.unmarshal == nil {
		panic("route: WithTimeout must be positive, and WithUnmarshal not nil")
	}
	return r
}

// Handle calls f with each message of that type, decoded into a Req, and sends the client what f returns. An
// error that is an [*Error] is sent as it is. Any other error is told as the code "internal", with no text,
// and goes to [OnError]. Data that doesn't decode gets the code "bad_data", and f isn't called. If the client
// wants no reply, it gets none.
//
// Handlers are callbacks as that of [wsroom.OnJSON]: one at a time for each connection, in the order of the
// messages. A panic ends the connection. Handle panics for an empty type, for one that has a handler, and
// once the Router is in use.
func Handle[Req, Resp any](r *Router, typ string, f func(c *wsroom.Conn, req Req) (Resp, error)) {
	r.add(typ, f == nil, func(c *wsroom.Conn, data json.RawMessage) (any, bool, error) {
		var req Req
		if err := r.decode(data, &req); err != nil {
			return nil, false, badData{err}
		}
		resp, err := f(c, req)
		return resp, true, err
	})
}

// On is [Handle] for messages with nothing to reply. If the client wants a reply, it is told that f has
// returned, or its error.
func On[T any](r *Router, typ string, f func(c *wsroom.Conn, msg T) error) {
	r.add(typ, f == nil, func(c *wsroom.Conn, data json.RawMessage) (any, bool, error) {
		var msg T
		if err := r.decode(data, &msg); err != nil {
			return nil, false, badData{err}
		}
		return nil, false, f(c, msg)
	})
}

func (r *Router) add(typ string, isNil bool, h handler) {
	switch {
	case r.inUse.Load():
		panic(fmt.Sprintf("route: the handler of %q comes after OnJSON", typ))
	case typ == "" || isNil:
		panic(fmt.Sprintf("route: the type %q needs a name and a function", typ))
	case r.handlers[typ] != nil:
		panic(fmt.Sprintf("route: %q has two handlers", typ))
	}
	r.handlers[typ] = h
}

// OnJSON returns the option of [wsroom.New] that gives the Router a hub's messages. From then on it takes no
// further handlers. A message that isn't a JSON object ends its connection unless [wsroom.WithBadJSON] is
// set.
func (r *Router) OnJSON() wsroom.Option {
	r.inUse.Store(true)
	return wsroom.OnJSON(func(c *wsroom.Conn, m map[string]json.RawMessage, err error) {
		if err == nil {
			r.take(c, m)
		} else if errors.As(err, new(*wsroom.DecodeError)) {
			r.report(c, "", err)
		} // otherwise the connection has ended, which OnClose tells
	})
}

// Message returns a message with a type, for SendJSON and all that are like it: of [wsroom.Conn],
// [wsroom.Hub] and [wsroom.Target].
func (r *Router) Message(typ string, data any) any {
	return map[string]any{r.fields.Type: typ, r.fields.Data: data}
}

// Error is an error that may be shown: [Handle] sends it to the client.
type Error struct {
	Code    string // for programs, such as "room_full"
	Message string // for people; may be empty
}

func (e *Error) Error() string {
	if e == nil {
		return "route: a nil *Error was returned as an error"
	}
	return "route: " + describe(e.Code, e.Message)
}

func describe(code, message string) string {
	if message == "" {
		return code
	}
	return code + ": " + message
}

// The codes of the errors that a Router itself sends.
const (
	CodeUnknownType = "unknown_type" // the message's type has no handler
	CodeBadData     = "bad_data"     // the message's data doesn't decode
	CodeInternal    = "internal"     // the handler has failed
)

// ErrUnknownType is reported to [OnError] for a message whose type has no handler.
var ErrUnknownType = errors.New("route: type has no handler")

var errMalformed = errors.New("route: message has no type and no id, or an id that isn't a short text or a number")

// maxID bounds a client's id, in bytes of JSON. It is sent back.
const maxID = 64

// maxMessage bounds what a DecodeError has of a message, in bytes, as wsroom's own do.
const maxMessage = 4 << 10

// take handles a message.
func (r *Router) take(c *wsroom.Conn, m map[string]json.RawMessage) {
	id, ok := idOf(m[r.fields.ID])
	named, hasType := m[r.fields.Type]
	var typ string
	switch {
	case !ok || !hasType && id == nil:
		r.report(c, "", errMalformed)
		return
	case !hasType:
		r.settle(c, id, m)
		return
	}

	_ = json.Unmarshal(named, &typ) // a type that isn't text has no handler
	reply, replies, err := r.handle(c, typ, m[r.fields.Data])
	if shown := r.shown(c, typ, id, err); shown != nil {
		_ = r.send(c, typ, map[string]any{r.fields.ID: id, r.fields.Error: shown})
		return
	}
	switch {
	case err != nil || id == nil:
	case replies:
		r.reply(c, typ, id, reply)
	default:
		_ = r.send(c, typ, map[string]any{r.fields.ID: id})
	}
}

// idOf returns the id of a message, nil if it has none. ok is false if it can't be one.
func idOf(raw json.RawMessage) (id json.RawMessage, ok bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, true
	}
	isScalar := raw[0] == '"' || raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9'
	return raw, isScalar && len(raw) <= maxID
}

// handle calls the handler of a type.
func (r *Router) handle(c *wsroom.Conn, typ string, data json.RawMessage) (reply any, replies bool, err error) {
	h := r.handlers[typ]
	if h == nil {
		return nil, false, ErrUnknownType
	}
	p := r.peer(c)
	p.enter()
	defer p.exit()
	return h(c, data)
}

// decode decodes the data of a message. Without data it leaves v as it is.
func (r *Router) decode(data json.RawMessage, v any) error {
	if len(data) == 0 {
		return nil
	}
	if err := r.unmarshal(data, v); err != nil {
		return &wsroom.DecodeError{Err: err, Message: data[:min(len(data), maxMessage)]}
	}
	return nil
}

// badData is an error of decode. What a handler returns isn't one.
type badData struct{ error }

// shown returns what the client is told of a handler's error, nil if there is none or the client wants no
// reply. It reports what the client isn't told.
func (r *Router) shown(c *wsroom.Conn, typ string, id json.RawMessage, err error) map[string]any {
	if err == nil {
		return nil
	}
	told := (*Error)(nil)
	if errors.As(err, &told) && told != nil {
		if id == nil {
			r.report(c, typ, err)
			return nil
		}
		return r.errorFields(told.Code, told.Message)
	}

	code := CodeInternal
	if bad, ok := err.(badData); ok {
		code, err = CodeBadData, bad.error
	} else if err == ErrUnknownType {
		code = CodeUnknownType
	}
	r.report(c, typ, err)
	if id == nil {
		return nil
	}
	return r.errorFields(code, "")
}

// errorFields returns what the client is told of an error.
func (r *Router) errorFields(code, message string) map[string]any {
	fields := map[string]any{r.fields.Code: code}
	if message != "" {
		fields[r.fields.Message] = message
	}
	return fields
}

// reply sends what a handler has returned. If that can't be encoded, it tells the client that the handler
// failed.
func (r *Router) reply(c *wsroom.Conn, typ string, id json.RawMessage, data any) {
	switch err := r.send(c, typ, map[string]any{r.fields.ID: id, r.fields.Data: data}); {
	case err == nil, errors.Is(err, wsroom.ErrClosed), errors.Is(err, wsroom.ErrQueueFull), errors.Is(err, wsroom.ErrSlow):
	default:
		_ = r.send(c, typ, map[string]any{r.fields.ID: id, r.fields.Error: r.errorFields(CodeInternal, "")})
	}
}

// send sends a reply, and reports an error, unless that is the end of the connection: OnClose tells it.
func (r *Router) send(c *wsroom.Conn, typ string, m map[string]any) error {
	err := c.SendJSON(m)
	if err != nil && !errors.Is(err, wsroom.ErrClosed) {
		r.report(c, typ, err)
	}
	return err
}

func (r *Router) report(c *wsroom.Conn, typ string, err error) {
	if r.onError != nil {
		r.onError(c, typ, err)
	}
}
