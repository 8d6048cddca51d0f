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
	"github.com/wsroom/wsroom/internal/frame"
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

// logger logs with what is known of the request: its route, and its room and connection once it has them.
func (g *gate) logger() *slog.Logger {
	l := g.hub.cfg.logger.With("route", pattern(g.request))
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
