package wsroom

import (
	"errors"
	"net/http"
	"time"

	"github.com/wsroom/wsroom/internal/cluster"
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
