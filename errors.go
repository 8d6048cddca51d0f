package wsroom

import (
	"bytes"
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
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/route"
)

// Errors that programs can tell apart with [errors.Is]: causes of a connection's end, and errors of calls. The
// text of such an error is never sent to the peer. The peer gets at most a close code and a fixed reason, or
// the application's own reason if the application closed the connection.
var (
	// ErrClosed is returned by methods that need a living connection, once the connection is ending.
	ErrClosed = errors.New("wsroom: connection is closed")

	// ErrSlow ends a connection whose send queue is full, under [CloseSlow] (close code 1013). The send to
	// this connection that finds the queue full returns ErrSlow, too.
	ErrSlow = line.ErrSlow // "wsroom: connection is too slow"

	// ErrQueueFull is returned by a send to one connection whose message [DropNewest] drops. Under
	// [DropNewest] and [DropOldest] it is also returned by a send in [OnConnect] for which no room becomes
	// free in time; see [WithSendQueue].
	ErrQueueFull = errors.New("wsroom: send queue is full")

	// ErrShutdown ends the connections at [Hub.Shutdown] (close code 1012, or that of [WithShutdownCode]).
	ErrShutdown = cluster.ErrClosed // "wsroom: hub is shut down"

	// ErrOutage is returned by the methods of [Target] that send, close, join or leave, and by [Conn.Join],
	// while the broker is away or slow, beyond what [WithBrokerBuffer] bridges. It doesn't occur under
	// [WithOutage] with [DeliverLocally].
	ErrOutage = cluster.ErrAway // "wsroom: broker is away"

	// ErrHeartbeat ends a connection whose peer no longer answers. No close frame is sent.
	ErrHeartbeat = line.ErrHeartbeat // "wsroom: peer does not answer"

	// ErrRateLimited ends a connection that exceeds [WithRateLimit] or [WithByteRateLimit] under
	// [Disconnect], and a connection whose peer sends too many pings, pongs or tiny fragments (close code
	// 1008). The text of the cause says which of them it was.
	ErrRateLimited = line.ErrRateLimited // "wsroom: rate limit exceeded"

	// ErrExpired ends a connection at the time that [Until] set, unless [OnExpire] extended it (close code
	// 4401).
	ErrExpired = errors.New("wsroom: admission has expired")

	// ErrMaxAge ends a connection at the age that [WithMaxAge] allows (close code 1012).
	ErrMaxAge = errors.New("wsroom: connection has reached its greatest age")

	// ErrPass is returned by a [RoomFunc], wrapped or not, for a request that isn't for this hub.
	// [Hub.Middleware] then passes the request on, unchanged. [Hub.ServeHTTP] answers it with 404.
	ErrPass = errors.New("wsroom: request is not for this hub")

	// ErrPanic ends a connection whose callback panicked or called [runtime.Goexit] (close code 1011).
	ErrPanic = errors.New("wsroom: callback panicked")
)

// DecodeError reports that a message doesn't decode as the JSON that a callback or [Conn.ReadJSON] expects. It
// ends the connection with close code 1007, except under [WithBadJSON] with [KeepOpen].
type DecodeError struct {
	Err     error  // the decoder's error
	Message []byte // a copy of the message, cut to its first 4 KiB; valid UTF-8 unless it was cut
}

// maxDecodeError limits the message that a DecodeError carries, in bytes.
const maxDecodeError = 4 << 10

func decodeError(err error, message []byte) *DecodeError {
	return &DecodeError{err, bytes.Clone(message[:min(len(message), maxDecodeError)])}
}

func (e *DecodeError) Error() string { return "wsroom: decode JSON: " + e.Err.Error() }

// Unwrap returns the decoder's error.
func (e *DecodeError) Unwrap() error { return e.Err }

// StatusError refuses a request before the upgrade, with an HTTP status; see [WithRejectMode]. A [RoomFunc] or
// the function of [WithAuthorize] returns one, wrapped or not, to choose the client's answer. A nil
// *StatusError that is returned as an error refuses the request with 500. The hub's own refusals are
// StatusErrors, too. Each is a copy that the caller may change.
type StatusError struct {
	Status     int           // an HTTP status from 400 to 599; any other value counts as 500
	Message    string        // the body of the answer; if empty, the standard text of the status
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

// refusal is one of the hub's own refusals. It is shared; the application gets copies of its StatusError.
type refusal struct {
	cause string // for metrics
	StatusError
}

// As gives errors.As a copy of the StatusError, which the caller may change.
func (r *refusal) As(target any) bool {
	e, ok := target.(**StatusError)
	if ok {
		own := r.StatusError
		*e = &own
	}
	return ok
}

// owned returns err as the application may keep it: a copy in place of a refusal.
func owned(err error) error {
	if r, ok := err.(*refusal); ok {
		own := r.StatusError
		return &own
	}
	return err
}

// nameRule says what the names of rooms and identities are.
const nameRule = ": it must have 1 to 255 bytes of UTF-8 without control characters"

func badName() error {
	return &StatusError{Status: http.StatusBadRequest, Message: "bad room name" + nameRule}
}

func badIdentity() error {
	return &StatusError{Status: http.StatusBadRequest, Message: "bad identity" + nameRule}
}

// badHost refuses a request by the host that it names. A page in a browser is told no more than that.
func badHost(r *http.Request) *refusal {
	e := StatusError{Status: http.StatusForbidden, Message: "host not allowed"}
	if r.Header.Get("Origin") == "" {
		e.Message = fmt.Sprintf("host not allowed: the server answers to %q only if WithHosts names it", r.Host)
	}
	return &refusal{"host", e}
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
	errBadOrigin = &refusal{"origin", StatusError{Status: http.StatusForbidden, Message: "origin not allowed"}}
	errHasBody   = &refusal{"handshake", StatusError{Status: http.StatusBadRequest,
		Message: "WebSocket protocol violation: a handshake has no body"}}
)

// RejectMode sets how a client is told that its request is refused; see [WithRejectMode].
type RejectMode int

const (
	// HTTP answers with an HTTP status. It is the default. A script in a browser can't see the status, so it
	// can't distinguish a refusal from a network failure.
	HTTP RejectMode = iota
	// CloseFrame upgrades the connection and closes it at once, with a close code and a reason.
	CloseFrame
)

// WithRejectMode sets how clients are told that their requests are refused. The default is [HTTP].
//
// With [CloseFrame] the hub upgrades a valid request that is refused, and sends a close frame. It does so for a
// refusal by the room's name, [WithAuthorize], a limit, [WithHandshakeTimeout], [Hub.Shutdown], or a broker
// that is away. The connection is in no room, runs no callback, counts only as refused, and is cut after 1 s at
// the latest. The close code is 4000 plus the status for a 4xx status (4401, 4403, 4404, 4429), 1013 for 503,
// and 1011 otherwise. The reason is the text that would be the body, cut to 123 bytes.
//
// Bad handshakes and origins and hosts that aren't allowed are always refused by HTTP. So are further requests
// while 256 clients are being sent a close frame.
func WithRejectMode(m RejectMode) Option {
	return func(c *config) error {
		c.rejectMode = m
		return within("WithRejectMode", int(m), int(CloseFrame))
	}
}

// maxRejects limits the refused connections that are being sent a close frame. The hub's own limits don't
// count them.
const maxRejects = 256

// maxUnheard is how many bytes of a refused client's data are read and discarded. Closing a socket with unread
// bytes resets the TCP connection, and the client may then lose the close frame (RFC 6455, section 7.1.1).
const maxUnheard = 64 << 10

// refuse answers a valid handshake that is refused: by a close frame if WithRejectMode allows that, else by
// HTTP.
func (g *gate) refuse(cause string, err error) {
	g.phase = gateAnswered
	refused := g.noteRefusal(cause, err)
	if tellable(cause) && g.hub.mayReject() {
		defer g.hub.rejects.Add(-1)
		if g.reject(refused) == nil {
			return
		}
	}

	g.clearAnswer()
	g.awaitNoBody()
	refused.answer(g.ResponseWriter, g.request)
}

// tellable reports whether a refusal for this cause may be sent as a close frame. Origins and hosts that
// aren't allowed get an HTTP status (RFC 6455, section 4.2.2, item 4).
func tellable(cause string) bool {
	switch cause {
	case "handshake", "hijack", "host", "origin":
		return false
	}
	return true
}

// mayReject reports whether WithRejectMode and maxRejects allow one more close frame. If so, it counts it.
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

// reject upgrades the connection, sends a close frame with the refusal, and cuts the connection. It returns an
// error only if the socket can't be hijacked, because refuse can then still answer by HTTP.
func (g *gate) reject(refused *StatusError) error {
	deadline := time.Now().Add(line.KickBudget)
	socket, _, err := g.takeSocket()
	if err != nil {
		g.logger().Error("wsroom: request can't be upgraded", "cause", "hijack", "err", err)
		return err
	}

	defer time.AfterFunc(time.Until(deadline), func() { frame.Kill(socket) }).Stop()
	defer socket.Close() // over TLS this may wait, and the timer limits that

	wire := frame.NewConn(socket, nil, nil, &g.hub.cfg.limits) // nothing is read through it
	if err := switchProtocols(wire, g.Header(), deadline); err != nil {
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

// hijackable returns nil if the server's connection can be hijacked. Otherwise its error names the type of the
// ResponseWriter that hides the server's own.
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

// closeCode returns the close code for the status: one for private use (RFC 6455, section 7.4.2) for 4xx, else
// one of the IANA registry (RFC 6455, section 11.7).
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

func (e *StatusError) closeReason() string { return line.CutReason(e.text()) }

// noteRefusal counts a refusal, logs it if its status is 500 or 501, and returns the client's answer. An error
// that isn't a StatusError becomes a 500 without its text.
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

// roomError turns a RoomFunc's error into a refusal. An error that isn't a StatusError becomes a 404 or 400
// without its text.
func roomError(err error) error {
	if refused := (*StatusError)(nil); errors.As(err, &refused) {
		return err
	}
	if errors.Is(err, ErrPass) {
		return &StatusError{Status: http.StatusNotFound}
	}
	return &StatusError{Status: http.StatusBadRequest}
}

// logger returns a logger with the request's route, and with its room once it is known.
func (g *gate) logger() *slog.Logger {
	l := g.hub.cfg.logger.With("route", route.Pattern(g.request))
	if g.room != "" {
		l = l.With("room", g.room)
	}
	return l
}

// answer sends the refusal by HTTP. A 426 over HTTP/1 has an Upgrade header (RFC 9110, section 15.5.22); HTTP/2
// forbids that header (RFC 9113, section 8.2.2). Retry-After is in whole seconds (RFC 9110, section 10.2.3).
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
