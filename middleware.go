package wsroom

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/site"
)

// retryAfter is what a client that hit a limit is told to wait.
const retryAfter = 5 * time.Second

// Middleware upgrades the WebSocket requests that come by and hands the rest to next, untouched. It
// is a func(http.Handler) http.Handler, as chi's Use takes.
func (h *Hub) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isUpgrade(r) {
			h.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isUpgrade reports whether r asks for a WebSocket: by RFC 6455, section 4.1, or, over HTTP/2, by
// RFC 8441, section 4.
func isUpgrade(r *http.Request) bool {
	if r.ProtoMajor >= 2 {
		return r.Method == http.MethodConnect && r.Header.Get(":protocol") == "websocket"
	}
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket")
}

func hasToken(h http.Header, key, token string) bool {
	for _, line := range h.Values(key) {
		for t := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return c <= ' ' || c >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, c)
	})
}

// upgrade turns the request into a connection in its room, or answers it and returns why it is refused.
// The request that it returns is what OnConnect gets.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request) (*Conn, *http.Request, error) {
	if r.ProtoMajor >= 2 {
		refused := &StatusError{
			Status:  http.StatusUpgradeRequired,
			Message: "WebSocket needs HTTP/1.1, and this request came over " + r.Proto + "; serve this route over HTTP/1.1 only (TLS NextProtos)",
		}
		h.countRefusal(r, "protocol")
		refused.answer(w, r)
		return nil, nil, refused
	}
	g := &gate{ResponseWriter: w, hub: h}
	if h.cfg.deflateFrom >= 0 {
		g.deflate = acceptDeflate(r.Header)
	}
	g.limit.Context, g.limit.deadline = r.Context(), time.Now().Add(h.cfg.handshake)
	defer g.limit.end()
	g.request = r.WithContext(&g.limit)
	g.request.RemoteAddr = h.cfg.clientAddr(r)
	defer g.abort()
	ws, err := websocket.Accept(g, g.request, &websocket.AcceptOptions{
		InsecureSkipVerify: true, // the gate checks the origin, before it calls the application
		Subprotocols:       h.cfg.subprotocols,
	})
	g.returned = true
	if err != nil {
		if g.broken { // the 101 is out, and there is no socket: hang up, or the client would wait
			panic(http.ErrAbortHandler)
		}
		if !g.answered { // coder/websocket refused the handshake, with its reason
			h.countRefusal(r, "handshake")
		}
		return nil, nil, err
	}
	ws.SetReadLimit(h.cfg.maxMessage)
	g.reader.Reset(g.conn.wire) // coder/websocket put a reader of early bytes in between; the wire has them
	g.conn.ws = ws
	g.conn.ready.Done()
	return g.conn, g.request, nil
}

// gate is the ResponseWriter that coder/websocket gets. Once the handshake has proved valid, coder
// calls Hijack; there the gate admits the request, puts the connection in its room, and only then
// lets the 101 out, so that a client that sees it is in the room.
type gate struct {
	http.ResponseWriter
	hub      *Hub
	request  *http.Request // a copy, with the client's address, and the limit until lift
	limit    limited       // the request's context until then; the 101 must be out by its deadline
	deflate  string        // the answer to an offer to compress; "" for none
	room     string        // "" until it is named
	conn     *Conn
	reader   *bufio.Reader // what coder/websocket reads from
	answered bool          // by us; coder's own answer isn't sent
	broken   bool          // the 101 is out, and there is no socket
	returned bool          // from coder/websocket; not set if the application panicked
}

// late reports whether the deadline has passed.
func (g *gate) late() bool { return !time.Now().Before(g.limit.deadline) }

// lift takes the deadline off the request's context. What the application added to it stays.
func (g *gate) lift() {
	ctx := g.limit.Context
	if own := g.request.Context(); own != &g.limit {
		ctx = lifted{ctx, own}
	}
	g.request = g.request.WithContext(ctx)
}

// abort forgets a connection that was admitted and didn't get its websocket.Conn.
func (g *gate) abort() {
	if !g.returned {
		g.hub.countRefusal(g.request, "panic")
	}
	if g.conn != nil && g.conn.ws == nil {
		g.conn.abort()
	}
}

// WriteHeader holds the 101 back for Hijack.
func (g *gate) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols || g.answered {
		return
	}
	if status == http.StatusMethodNotAllowed {
		g.Header().Set("Allow", http.MethodGet) // coder/websocket leaves it out; RFC 9110, section 15.5.6
	}
	g.ResponseWriter.WriteHeader(status)
}

func (g *gate) Write(p []byte) (int, error) {
	if g.answered {
		return len(p), nil
	}
	return g.ResponseWriter.Write(p)
}

// Hijack admits the request and hands coder/websocket a frame.Conn over its socket.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if g.deflate != "" {
		g.Header().Set("Sec-WebSocket-Extensions", g.deflate)
	}
	conn, cause, err := g.admit()
	if err != nil {
		g.refuse(cause, err)
		return nil, nil, err
	}
	g.conn, g.answered = conn, true
	socket, buffered, err := g.switchProtocols(g.limit.deadline)
	if err != nil {
		cause := "hijack"
		if errors.Is(err, os.ErrDeadlineExceeded) {
			cause = "timeout"
		}
		g.hub.countRefusal(g.request, cause)
		return nil, nil, err
	}
	early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	wire := frame.NewConn(socket, early, (*transport)(conn), &g.hub.cfg.limits)
	if g.deflate != "" {
		wire.AcceptDeflate()
	}
	conn.attach(wire)
	// The smallest buffers: the frame.Conn has its own while there is something to read, and puts
	// frames together itself.
	g.reader = bufio.NewReaderSize(wire, 16)
	return wire, bufio.NewReadWriter(g.reader, bufio.NewWriterSize(wire, 16)), nil
}

// switchProtocols sends the 101 and takes the socket. A client that didn't take it by the deadline is
// cut off.
func (g *gate) switchProtocols(deadline time.Time) (net.Conn, *bufio.ReadWriter, error) {
	server := http.NewResponseController(g.ResponseWriter)
	_ = server.SetWriteDeadline(deadline) // lifted by Hijack; some middleware doesn't pass it on
	g.ResponseWriter.WriteHeader(http.StatusSwitchingProtocols)
	socket, buffered, err := server.Hijack() // it drops an error of the write
	switch {
	case err != nil:
		g.logger().Error("wsroom: hijacking failed", "cause", "hijack", "err", err)
	case !time.Now().Before(deadline):
		err = os.ErrDeadlineExceeded
		frame.Kill(socket)
	}
	g.broken = err != nil
	return socket, buffered, err
}

var errTooLate = &StatusError{Status: http.StatusServiceUnavailable, Message: "handshake took too long", RetryAfter: retryAfter}

// admit checks a valid handshake against the hub's rules and enters the connection. cause is a word
// for metrics.
func (g *gate) admit() (c *Conn, cause string, err error) {
	h, r := g.hub, g.request
	if err := hijackable(g.ResponseWriter); err != nil {
		return nil, "hijack", err
	}
	if cause, err := h.checkSite(r); err != nil {
		return nil, cause, err
	}
	key, err := h.reserve(r)
	if err != nil {
		return nil, limitCause(err), err
	}
	defer func() {
		if c == nil { // refused, or the application panicked
			h.unreserve(key)
		}
	}()
	until, cause, err := g.ask()
	if g.late() {
		return nil, "timeout", errTooLate
	}
	if err != nil {
		return nil, cause, err
	}
	return g.enter(key, until)
}

// limitCause is the cause, for metrics, of a refusal by reserve or by the store.
func limitCause(err error) string {
	switch err {
	case errTooManyConns:
		return "max_conns"
	case errTooManyPerKey:
		return "max_conns_per"
	case errTooManyRooms:
		return "max_rooms"
	case errTooManyMembers:
		return "max_members"
	default:
		return "shutdown"
	}
}

var errAway = &StatusError{Status: http.StatusServiceUnavailable, Message: "not available right now", RetryAfter: retryAfter}

// enter makes the connection of an admitted request and puts it in its room.
func (g *gate) enter(key string, until time.Time) (c *Conn, cause string, err error) {
	h, room := g.hub, g.room
	if !h.store.hasSpace(room) {
		return nil, limitCause(errTooManyRooms), errTooManyRooms
	}
	if err := h.subscribe(g.request.Context, everyRoom, room); err != nil {
		return nil, "broker", errAway
	}
	g.lift()
	conn := newConn(h, g.request, room, key)
	conn.identify(g.request)
	conn.queue.deflate = g.deflate != ""
	if err := h.store.add(conn); err != nil {
		conn.end(endingLost("upgrade", err)) // unless a send to all has; it gives everyRoom back, once
		h.unsubscribe(room)
		return nil, limitCause(err), err
	}
	conn.expireAt(until)
	h.entered(conn, room)
	return conn, "", nil
}

// ask has the application name the room and admit the request. The time is when it expires; zero: never.
func (g *gate) ask() (until time.Time, cause string, err error) {
	room, err := g.hub.cfg.room(g.request)
	if err != nil {
		return until, "room", roomError(err)
	}
	if err := checkRoomName(room); err != nil {
		return until, "room", err
	}
	g.room = room
	until, err = g.hub.authorize(g.request, room)
	return until, "authorize", err
}

// authorize asks the function of WithAuthorize. The time is when the connection expires; zero: never.
func (h *Hub) authorize(r *http.Request, room string) (t time.Time, err error) {
	if h.cfg.authorize == nil {
		return t, nil
	}
	err = h.cfg.authorize(r, room)
	var admitted until
	switch {
	case err == nil:
		return t, nil
	case errors.As(err, new(*StatusError)):
		return t, err
	case !errors.As(err, &admitted):
		return t, &StatusError{Status: http.StatusForbidden}
	case admitted.time.IsZero() || admitted.time.After(time.Now()):
		return admitted.time, nil
	default:
		return t, &StatusError{Status: http.StatusUnauthorized}
	}
}

func init() {
	site.Check = func(hub any, r *http.Request) (status int, text string) {
		var refused *StatusError
		if _, err := hub.(*Hub).checkSite(r); errors.As(err, &refused) {
			return refused.Status, refused.Message
		}
		return 0, ""
	}
}

// checkSite refuses hosts and origins that aren't allowed.
func (h *Hub) checkSite(r *http.Request) (cause string, err error) {
	host := strings.ToLower(r.Host)
	if len(h.cfg.hosts) > 0 && !matchesHost(h.cfg.hosts, host) {
		return "host", &StatusError{Status: http.StatusForbidden, Message: "host not allowed"}
	}
	if h.cfg.anyOrigin || originAllowed(r, h.cfg.origins) {
		return "", nil
	}
	return "origin", &StatusError{Status: http.StatusForbidden, Message: "origin not allowed"}
}

func matchesHost(patterns []string, host string) bool {
	name := host
	if _, port, err := net.SplitHostPort(host); err == nil {
		name = strings.TrimSuffix(host, ":"+port) // [::1] keeps its brackets
	}
	return matchesAny(patterns, host) || matchesAny(patterns, name)
}

func matchesAny(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, s)
		return p == s || ok && err == nil // equal, too: [::1] isn't meant as a class of characters
	})
}

// originAllowed reports whether the request comes from no page at all, from a page of its own host,
// or from one that patterns allow (RFC 6454, RFC 6455, section 10.2).
func originAllowed(r *http.Request, patterns []string) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return true
	}
	u, err := url.Parse(strings.ToLower(origins[0]))
	if err != nil || len(origins) > 1 || u.Host == "" || u.Scheme+"://"+u.Host != strings.ToLower(origins[0]) {
		return false
	}
	if matchesAny(patterns, u.Host) || matchesAny(patterns, u.Scheme+"://"+u.Host) {
		return true
	}
	web := u.Scheme == "https" || u.Scheme == "http" && r.TLS == nil // no TLS: a proxy may have ended it
	return web && u.Host == strings.ToLower(r.Host)
}

// checkPatterns refuses patterns that match everything, or nothing that can come.
func checkPatterns(option string, patterns []string) error {
	var mistakes []error
	for _, p := range patterns {
		host := p
		if _, after, ok := strings.Cut(p, "://"); ok {
			host = after
		}
		switch _, err := path.Match(p, ""); {
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("%s: %q: %w", option, p, err))
		case strings.Trim(host, "*?.:") == "":
			mistakes = append(mistakes, fmt.Errorf("%s: %q lets any site act as the user; see WithInsecureAnyOrigin", option, p))
		case strings.ContainsAny(host, "/@ ") || strings.HasPrefix(p, "://"):
			mistakes = append(mistakes, fmt.Errorf("%s: %q never matches: a pattern is a host, or scheme://host", option, p))
		}
	}
	return errors.Join(mistakes...)
}
