package wsroom

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/route"
)

// The ends and refusals that programs tell apart, for errors.Is. The text of an error never goes to
// the peer; what does is a close code and, where the application closed, its own reason.
var (
	// ErrClosed is returned by what needs a living connection once it is ending.
	ErrClosed = errors.New("wsroom: connection is closed")

	// ErrSlow ends a connection whose send queue is full, under CloseSlow (close code 1013). The send to it
	// that found it full returns ErrSlow, too.
	ErrSlow = errors.New("wsroom: connection is too slow")

	// ErrQueueFull is returned by a send to one connection that DropNewest dropped, and by a send of
	// OnConnect that found no room in time, under DropNewest and DropOldest; see WithSendQueue.
	ErrQueueFull = errors.New("wsroom: send queue is full")

	// ErrShutdown ends the connections at Shutdown (close code 1012, or that of WithShutdownCode).
	ErrShutdown = cluster.ErrClosed // "wsroom: hub is shut down"

	// ErrOutage is returned by sends to rooms, and by Join, while the broker is away or slow, beyond what
	// WithBrokerBuffer bridges. With WithOutage(DeliverLocally) there is none.
	ErrOutage = cluster.ErrAway // "wsroom: broker is away"

	// ErrHeartbeat ends a connection whose peer no longer answers.
	ErrHeartbeat = errors.New("wsroom: peer does not answer")

	// ErrRateLimited ends a connection over WithRateLimit or WithByteRateLimit, with Disconnect, and one
	// whose peer sends too many pings, pongs or tiny fragments, see WithRateLimit (close code 1008). The
	// cause says which.
	ErrRateLimited = errors.New("wsroom: rate limit exceeded")

	// ErrExpired ends a connection at the time that Until set, unless OnExpire renewed it (close code
	// 4401).
	ErrExpired = errors.New("wsroom: admission has expired")

	// ErrPanic ends a connection in whose callback a panic, or runtime.Goexit, happened (close code
	// 1011).
	ErrPanic = errors.New("wsroom: callback panicked")
)

// DecodeError tells that a message isn't the JSON that a callback or ReadJSON takes. Close code 1007
// unless WithBadJSON(KeepOpen) is set.
type DecodeError struct {
	Err error // what the decoder says
}

func (e *DecodeError) Error() string { return "wsroom: decode JSON: " + e.Err.Error() }

// Unwrap returns what the decoder says.
func (e *DecodeError) Unwrap() error { return e.Err }

// StatusError refuses a request before the upgrade, with an HTTP status; see WithRejectMode. A RoomFunc
// or the function of WithAuthorize returns one, wrapped or not, to choose what the client sees; a nil one
// that is returned as an error refuses with 500. Refusals of the hub itself are StatusErrors too, each
// the caller's own.
type StatusError struct {
	Status     int           // an HTTP status from 400 to 599, else it counts as 500
	Message    string        // the body that the client gets; the status's own text if empty
	RetryAfter time.Duration // sent as Retry-After in whole seconds, rounded up, if positive
}

func (e *StatusError) Error() string {
	if e == nil {
		return "wsroom: refused: a nil *StatusError was returned as an error"
	}
	return "wsroom: refused: " + e.text()
}

func (e *StatusError) text() string {
	if e != nil && e.Message != "" {
		return e.Message
	}
	return http.StatusText(e.status())
}

func (e *StatusError) status() int {
	if e == nil || e.Status < 400 || e.Status > 599 {
		return http.StatusInternalServerError
	}
	return e.Status
}

// refusal is one of the hub's own. It is shared; the application gets copies of its StatusError.
type refusal struct {
	cause string // for metrics
	StatusError
}

// As gives errors.As a copy, which is the caller's.
func (r *refusal) As(target any) bool {
	e, ok := target.(**StatusError)
	if ok {
		own := r.StatusError
		*e = &own
	}
	return ok
}

// owned returns err for the application to keep.
func owned(err error) error {
	if r, ok := err.(*refusal); ok {
		own := r.StatusError
		return &own
	}
	return err
}

func badName() error {
	return &StatusError{Status: http.StatusBadRequest, Message: "bad room name"}
}

func unavailable(cause, message string) *refusal {
	return &refusal{cause, StatusError{Status: http.StatusServiceUnavailable, Message: message, RetryAfter: retryAfter}}
}

var (
	errTooManyConns   = unavailable("max_conns", "too many connections")
	errTooManyRooms   = unavailable("max_rooms", "too many rooms")
	errTooManyMembers = unavailable("max_members", "room is full")
	errShutDown       = unavailable("shutdown", "shutting down")
	errTooLate        = unavailable("timeout", "handshake took too long")
	errAway           = unavailable("broker", "not available right now")

	errTooManyPerKey = &refusal{"max_conns_per",
		StatusError{Status: http.StatusTooManyRequests, Message: "too many connections of yours", RetryAfter: retryAfter}}
	errBadHost   = &refusal{"host", StatusError{Status: http.StatusForbidden, Message: "host not allowed"}}
	errBadOrigin = &refusal{"origin", StatusError{Status: http.StatusForbidden, Message: "origin not allowed"}}
	errHasBody   = &refusal{"handshake", StatusError{Status: http.StatusBadRequest,
		Message: "WebSocket protocol violation: a handshake has no body"}}
)

// RejectMode says how a client learns that its request is refused.
type RejectMode int

const (
	// HTTP answers with the status. It is the default. A browser's script can't see it, and can't
	// tell a refusal from a lost network.
	HTTP RejectMode = iota
	// CloseFrame upgrades the connection to close it at once with a code and a reason.
	CloseFrame
)

// WithRejectMode says how clients learn that they are refused. The default is HTTP. With CloseFrame a
// request that could be upgraded, but for its room's name, WithAuthorize, a limit or the hub's Shutdown,
// gets a close frame, in a connection that is part of no room, calls no callback, counts nowhere but as
// refused, and is cut after 1 s at the latest. The code is 4000 and the status for a 4xx status (4401,
// 4403, 4404, 4429), 1013 for 503, else 1011; the reason is what would be the body, cut to 123 bytes.
// Bad handshakes, foreign origins and hosts, and whoever comes while 256 are being told, are refused
// by HTTP all the same.
func WithRejectMode(m RejectMode) Option {
	return func(c *config) error {
		c.rejectMode = m
		return within("WithRejectMode", int(m), int(CloseFrame))
	}
}

// maxRejects bounds the connections in which a close frame tells that they are refused. They aren't
// under the hub's limits.
const maxRejects = 256

// maxUnheard is how much of what a refused client sends is read. A socket that is closed with bytes
// unread resets the connection, and the client may lose the close frame.
const maxUnheard = 64 << 10

// refuse answers a valid handshake that isn't to be upgraded.
func (g *gate) refuse(cause string, err error) {
	g.answered = true
	refused := g.noteRefusal(cause, err)
	if tellable(cause) && g.hub.mayReject() {
		defer g.hub.rejects.Add(-1)
		if g.reject(refused) == nil {
			return
		}
	}
	for _, key := range []string{"Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
		g.Header().Del(key)
	}
	g.awaitNoBody()
	refused.answer(g.ResponseWriter, g.request)
}

// tellable reports whether a refusal for this cause may be told by a close frame.
func tellable(cause string) bool {
	switch cause {
	case "handshake", "hijack", "host", "origin":
		return false
	}
	return true
}

// mayReject counts a connection for a close frame, if WithRejectMode and maxRejects allow one more.
func (h *Hub) mayReject() bool {
	if h.cfg.rejectMode != CloseFrame {
		return false
	}
	ok := h.rejects.Add(1) <= maxRejects
	if !ok {
		h.rejects.Add(-1)
	}
	return ok
}

// reject upgrades the connection, says why it isn't wanted, and cuts it. It returns an error where there is
// no connection to be had.
func (g *gate) reject(refused *StatusError) error {
	deadline := time.Now().Add(ridBudget)
	socket, _, err := g.takeSocket()
	if err != nil {
		g.logger().Error("wsroom: request can't be upgraded", "cause", "hijack", "err", err)
		return err
	}
	defer time.AfterFunc(time.Until(deadline), func() { frame.Kill(socket) }).Stop()
	defer socket.Close() // over TLS it may wait
	if err := switchProtocols(socket, g.Header(), deadline); err != nil {
		return nil
	}
	noteSwitch(g.ResponseWriter)
	if _, err := socket.Write(frame.AppendClose(nil, int(refused.closeCode()), refused.closeReason())); err != nil {
		return nil
	}
	if half, ok := socket.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, socket, maxUnheard)
	return nil
}

// hijackable names the middleware that hides the server's ResponseWriter.
func hijackable(w http.ResponseWriter) error {
	for {
		switch t := w.(type) {
		case http.Hijacker:
			return nil
		case interface{ Unwrap() http.ResponseWriter }:
			w = t.Unwrap()
		default:
			return &StatusError{
				Status:  http.StatusNotImplemented,
				Message: fmt.Sprintf("wsroom: can't upgrade: %T has neither Hijack nor Unwrap; take its middleware off this route", w),
			}
		}
	}
}

func (e *StatusError) closeCode() websocket.StatusCode {
	switch status := e.status(); {
	case status < 500:
		return websocket.StatusCode(4000 + status)
	case status == http.StatusServiceUnavailable:
		return websocket.StatusTryAgainLater
	default:
		return websocket.StatusInternalError
	}
}

func (e *StatusError) closeReason() string { return cutReason(e.text()) }

// noteRefusal counts a refusal, logs it if the server is at fault, and returns what the client gets.
func (g *gate) noteRefusal(cause string, err error) *StatusError {
	g.countRefusal(cause)
	refused := (*StatusError)(nil)
	if !errors.As(err, &refused) || refused == nil {
		refused = &StatusError{Status: http.StatusInternalServerError}
	}
	if s := refused.status(); s == http.StatusInternalServerError || s == http.StatusNotImplemented {
		g.logger().Error("wsroom: request can't be upgraded", "cause", cause, "err", err)
	}
	return refused
}

// roomError turns a RoomFunc's error into the refusal that the client gets.
func roomError(err error) error {
	if refused := (*StatusError)(nil); errors.As(err, &refused) {
		return err
	}
	return &StatusError{Status: http.StatusBadRequest}
}

// logger logs with what is known of the request: its route, and its room and connection once it has them.
func (g *gate) logger() *slog.Logger {
	l := g.hub.cfg.logger.With("route", route.Pattern(g.request))
	if g.room != "" {
		l = l.With("room", g.room)
	}
	if g.conn != nil {
		l = l.With("conn", g.conn.id)
	}
	return l
}

// answer is the refusal by HTTP.
func (e *StatusError) answer(w http.ResponseWriter, r *http.Request) {
	if e.status() == http.StatusUpgradeRequired && r.ProtoMajor < 2 {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
	}
	if e.RetryAfter > 0 {
		seconds := int64(e.RetryAfter / time.Second)
		if e.RetryAfter%time.Second > 0 {
			seconds++
		}
		w.Header().Set("Retry-After", strconv.FormatInt(seconds, 10))
	}
	http.Error(w, e.text(), e.status())
}
