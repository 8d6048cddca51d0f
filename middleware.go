package wsroom

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/route"
	"github.com/wsroom/wsroom/internal/site"
)

// retryAfter is what a client that hit a limit is told to wait.
const retryAfter = 5 * time.Second

// Middleware upgrades the WebSocket requests that come by and hands the rest to next, untouched. It
// is a func(http.Handler) http.Handler, as chi's Use takes.
func (h *Hub) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if request.IsUpgrade(r) {
			h.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// RoomFunc names the room of a request. A name is 1 to 255 bytes of UTF-8 without control
// characters; any other gets 400. An error refuses the request: a *StatusError with its own HTTP
// status, any other error with 400 and no text. It may be called concurrently.
type RoomFunc func(r *http.Request) (string, error)

// ByPath names the room after the URL's path: each segment is decoded once, empty and dot segments
// are cleaned away, and a slash or a percent sign inside a segment stays escaped. So
// /chat/%67eneral is /chat/general, and /a%2Fb isn't /a/b. Behind http.StripPrefix it is the path
// without the prefix; behind chi's Mount and Route, the whole path. It is the default.
func ByPath(r *http.Request) (string, error) {
	name, err := route.Path(r.URL)
	if err != nil {
		return "", badName()
	}
	return name, nil
}

// ByPattern names the room after the route's pattern, without method and host, so that all of
// /chat/{room} is one room. Where no pattern is known, such as in a middleware that runs before the
// request is routed, it is an error and the client gets 500.
func ByPattern(r *http.Request) (string, error) {
	if p := route.Pattern(r); p != "" {
		return p, nil
	}
	return "", &StatusError{
		Status: http.StatusInternalServerError,
		Message: "wsroom: ByPattern: the route's pattern isn't known here; mount the hub behind the router, not before it, " +
			"or have a router that sets no r.Pattern set it",
	}
}

// ByPathValue names the room after the path value of that name, decoded once under either router: of
// /chat/{room}, /chat/%67eneral and /chat/general are the room general. The value of a wildcard that
// spans segments ({path...}, or * under chi) is decoded as ByPath does. Where the route has no such
// value it is an error and the client gets 500. Behind a router that sets no path values, have a handler
// in between call r.SetPathValue.
func ByPathValue(name string) RoomFunc {
	return func(r *http.Request) (string, error) {
		value, found, err := route.Value(r, name)
		switch {
		case !found:
			return "", noPathValue(r, name)
		case err != nil:
			return "", badName()
		}
		return value, nil
	}
}

// noPathValue says what is to be done about a path value that is missing.
func noPathValue(r *http.Request, name string) error {
	remedy := "mount the hub behind the router, on a pattern that has it"
	if !route.Known(r) {
		remedy = fmt.Sprintf("call r.SetPathValue(%q, …) before the hub where the router sets no path values, "+
			"or mount the hub behind the router, not before it", name)
	}
	return &StatusError{
		Status:  http.StatusInternalServerError,
		Message: fmt.Sprintf("wsroom: ByPathValue: the request has no path value %q: %s", name, remedy),
	}
}

const maxRoomName = 255 // bytes

// checkRoomName returns an error unless name may name a room.
func checkRoomName(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return badName()
	}
	return nil
}

// ByAddr is the key for WithMaxConnsPer that counts by the address of the request's RemoteAddr: an
// IPv4 address, or the /64 prefix of an IPv6 one, which is what a single customer gets. Behind a
// proxy, set WithTrustedProxies, or all clients share the proxy's key. A RemoteAddr that is no
// address is a key as it stands: peers on a Unix socket ("@" or "") all share one.
func ByAddr(r *http.Request) string { return request.AddrKey(r.RemoteAddr) }

// BearerToken returns the request's bearer token, for WithAuthorize: from the header "Authorization:
// Bearer …" (RFC 6750, section 2.1) or, as browsers can't set headers on a WebSocket, from the list of
// subprotocols, where it is an entry of "bearer." and the token in base64url without padding:
//
//	new WebSocket(url, ["chat", "bearer." + btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")])
//
// A browser gives up if none of its subprotocols is chosen: offer a second one, here chat, and name
// it in WithSubprotocols. A token is never chosen, sent back or logged. ok is false unless there is
// exactly one token, of visible ASCII characters. Whether it is valid is the caller's to find out.
func BearerToken(r *http.Request) (token string, ok bool) { return request.BearerToken(r.Header) }

// upgrade turns the request into a connection in its room, or answers it and returns why it is refused.
// The request that it returns is what OnConnect gets.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request) (*Conn, *http.Request, error) {
	if r.ProtoMajor >= 2 {
		return nil, nil, h.refuseProtocol(w, r)
	}

	g := &gate{ResponseWriter: w, hub: h, limit: request.WithDeadline(r.Context(), time.Now().Add(h.cfg.handshake))}
	if h.cfg.deflateFrom >= 0 {
		g.deflate = request.AcceptDeflate(r.Header)
	}
	defer g.limit.End()

	g.request = r.WithContext(g.limit)
	g.request.RemoteAddr = h.cfg.proxies.ClientAddr(r)
	defer g.abort()

	// The gate checks the origin, before it calls the application, and chooses the subprotocol.
	ws, err := websocket.Accept(g, g.request, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err == nil {
		err = g.open(ws)
	} else if !g.answered { // coder/websocket refused the handshake, with its reason
		g.countRefusal("handshake")
	}
	g.returned = true

	if err != nil {
		return nil, nil, err
	}
	g.admitted = true
	return g.conn, g.request, nil
}

// refuseProtocol answers what didn't come over HTTP/1.1.
func (h *Hub) refuseProtocol(w http.ResponseWriter, r *http.Request) error {
	refused := &StatusError{
		Status:  http.StatusUpgradeRequired,
		Message: "WebSocket needs HTTP/1.1, and this request came over " + r.Proto + "; serve this route over HTTP/1.1 only (TLS NextProtos)",
	}
	h.countRefusal(r, "protocol")
	refused.answer(w, r)
	return refused
}

// gate is the ResponseWriter that coder/websocket gets. Once the handshake has proved valid, coder
// calls Hijack; there the gate admits the request and puts the connection in its room. The 101 goes out
// when all else is done, so that a client that sees it is in the room.
type gate struct {
	http.ResponseWriter
	hub     *Hub
	request *http.Request     // a copy, with the client's address, and the limit until it is admitted
	limit   *request.Deadline // the request's context until then; the 101 must be out by its deadline
	deflate string            // the answer to an offer to compress; "" for none
	room    string            // "" until it is named
	wire    *frame.Conn       // nil until the socket is ours
	reader  *bufio.Reader     // what coder/websocket reads from

	// What is given back unless the request is admitted.
	reserved   bool // a place under the limits, for key
	key        string
	subscribed bool // to messages to all and to the room; conn gives that back if joined
	conn       *Conn
	joined     bool // conn is in its room
	entered    bool // and the books say so

	answered bool // by us; coder's own answer isn't sent
	returned bool // from coder/websocket; not set if the application panicked
	admitted bool
	counted  bool // as refused
}

// abort gives back what a request holds that wasn't admitted after all, because something panicked or
// the client is gone.
func (g *gate) abort() {
	if g.admitted {
		return
	}
	defer func() {
		if !g.returned {
			g.countRefusal("panic")
		}
	}()
	g.giveBack()
}

// countRefusal counts the request as refused, once: a panic after that isn't another one.
func (g *gate) countRefusal(cause string) {
	if !g.counted {
		g.counted = true
		g.hub.countRefusal(g.request, cause)
	}
}

// giveBack undoes what admit has done, each thing once.
func (g *gate) giveBack() {
	h := g.hub
	if g.reserved {
		g.reserved = false
		defer h.unreserve(g.key)
	}
	if !g.subscribed {
		return
	}
	g.subscribed = false

	conn := g.conn
	if conn == nil {
		h.unsubscribe(cluster.EveryRoom, g.room)
		return
	}
	g.conn = nil

	joined := g.joined || slices.Contains(conn.Rooms(), g.room) // or the Observer panicked
	defer func() {
		if !joined {
			h.unsubscribe(g.room)
		} else if !g.entered { // the end has counted it as one less
			h.appear(conn, g.room)
		}
	}()

	conn.end(endingLost("upgrade", net.ErrClosed)) // unless a send to all has
	if g.wire != nil {
		g.wire.Kill()
	}
}

// WriteHeader leaves the 101 to open.
func (g *gate) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols || g.answered {
		return
	}
	if status == http.StatusMethodNotAllowed {
		g.Header().Set("Allow", http.MethodGet) // coder/websocket leaves it out; RFC 9110, section 15.5.6
	}
	g.awaitNoBody()
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
	g.choose()
	cause, err := g.admit()
	if err != nil {
		g.refuse(cause, err)
		return nil, nil, err
	}

	socket, early, err := g.takeSocket()
	if err != nil {
		g.giveBack()
		g.refuse("hijack", err)
		return nil, nil, err
	}
	g.answered = true

	g.wire = frame.NewConn(socket, early, (*transport)(g.conn), &g.hub.cfg.limits)
	if g.deflate != "" {
		g.wire.AcceptDeflate()
	}

	// The smallest buffers: the frame.Conn has its own while there is something to read, and puts
	// frames together itself.
	g.reader = bufio.NewReaderSize(g.wire, 16)
	return g.wire, bufio.NewReadWriter(g.reader, bufio.NewWriterSize(g.wire, 16)), nil
}

// choose answers what the client offers.
func (g *gate) choose() {
	if p := request.Subprotocol(g.request.Header, g.hub.cfg.subprotocols); p != "" {
		g.Header().Set("Sec-WebSocket-Protocol", p)
	}
	if g.deflate != "" {
		g.Header().Set("Sec-WebSocket-Extensions", g.deflate)
	}
}

// open makes the connection known, and tells the client that it is upgraded.
func (g *gate) open(ws *websocket.Conn) error {
	ws.SetReadLimit(g.hub.cfg.maxMessage)
	g.reader.Reset(g.wire) // coder/websocket put a reader of early bytes in between; the wire has them

	err := g.welcome(ws)
	if err == nil {
		noteSwitch(g.ResponseWriter)
		g.conn.start()
		return nil
	}

	g.giveBack()
	cause := "lost"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		cause = "timeout"
	}
	g.countRefusal(cause)
	return err
}

// welcome makes the connection known and sends the 101, holding the wire: whoever knows the connection
// can't write ahead of that.
func (g *gate) welcome(ws *websocket.Conn) error {
	g.wire.Lock()
	defer g.wire.Unlock()
	g.conn.attach(g.wire, ws)
	g.entered = true
	g.hub.appear(g.conn, g.room)
	return switchProtocols(g.wire.Conn, g.Header(), g.limit.At())
}

// takeSocket takes the connection from the server, and what of it the server has read already.
func (g *gate) takeSocket() (socket net.Conn, early []byte, err error) {
	socket, buffered, err := http.NewResponseController(g.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("wsroom: hijacking failed: %w", err)
	}
	if buffered != nil && buffered.Reader != nil {
		early, _ = buffered.Reader.Peek(buffered.Reader.Buffered())
	}
	return socket, early, nil
}

// unsent are headers that no 101 has (RFC 9110, section 8.6; RFC 9112, section 6.1).
var unsent = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}

// switchProtocols sends the 101 with these headers. It doesn't go by way of the ResponseWriter, for some
// middleware only notes its status. A client that didn't take it by the deadline is too late.
func switchProtocols(socket net.Conn, header http.Header, deadline time.Time) error {
	answer := bytes.NewBuffer(make([]byte, 0, 512))
	answer.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = header.WriteSubset(answer, unsent) // as net/http does, it makes spaces of line ends
	answer.WriteString("\r\n")

	_ = socket.SetWriteDeadline(deadline)
	if _, err := socket.Write(answer.Bytes()); err != nil {
		return err
	}
	if !time.Now().Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	_ = socket.SetWriteDeadline(time.Time{})
	return nil
}

// noteSwitch tells chi's recorders of the 101, which they can note without sending it.
func noteSwitch(w http.ResponseWriter) {
	for w != nil {
		if recorder, ok := w.(interface{ Discard() }); ok {
			recorder.Discard()
			w.WriteHeader(http.StatusSwitchingProtocols)
		}
		inner, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return
		}
		w = inner.Unwrap()
	}
}

// admit checks a valid handshake against the hub's rules and enters the connection. cause is a word
// for metrics. What it had to take for a request that it refuses, it gives back.
func (g *gate) admit() (cause string, err error) {
	admitted := false
	defer func() {
		if !admitted { // refused, or the application panicked
			g.giveBack()
		}
	}()

	cause, err = g.judge()
	admitted = err == nil
	if r, ok := err.(*refusal); ok {
		cause = r.cause
	}
	return cause, err
}

// judge asks all who have a say. The cause of a refusal of the hub's own is in the error.
func (g *gate) judge() (cause string, err error) {
	h := g.hub
	if request.AnnouncesBody(g.request) {
		return "", errHasBody
	}
	if err := hijackable(g.ResponseWriter); err != nil {
		return "hijack", err
	}
	if err := h.checkSite(g.request); err != nil {
		return "", err
	}
	if err := g.reserve(); err != nil {
		return "", err
	}

	until, cause, err := g.ask()
	if g.limit.Passed() {
		return "", errTooLate
	}
	if err != nil {
		return cause, err
	}

	return "", g.enter(until)
}

// checkSite refuses hosts and origins that aren't allowed.
func (h *Hub) checkSite(r *http.Request) error {
	switch {
	case !h.cfg.site.AllowsHost(r):
		return errBadHost
	case !h.cfg.site.AllowsOrigin(r):
		return errBadOrigin
	}
	return nil
}

func init() {
	site.Check = func(handler http.Handler, r *http.Request) (status int, text string) {
		var refused *StatusError
		if err := handler.(*Hub).checkSite(r); errors.As(err, &refused) {
			return refused.Status, refused.Message
		}
		return 0, ""
	}
}

// awaitNoBody has the server answer before the body that is announced comes, and close the connection then.
func (g *gate) awaitNoBody() {
	if request.AnnouncesBody(g.request) && g.Header().Get("Connection") == "" {
		g.Header().Set("Connection", "close")
	}
}

// reserve asks for the key of WithMaxConnsPer and takes a place under the limits.
func (g *gate) reserve() error {
	h := g.hub
	if h.cfg.connKey != nil {
		g.key = strings.Clone(h.cfg.connKey(g.request))
	}
	err := h.reserve(g.key)
	g.reserved = err == nil
	return err
}

// enter makes the connection of an admitted request and puts it in its room.
func (g *gate) enter(until time.Time) error {
	h, room := g.hub, g.room
	if !h.store.hasSpace(room) {
		return errTooManyRooms
	}
	if err := h.subscribe(g.request.Context, cluster.EveryRoom, room); err != nil {
		return errAway
	}
	g.subscribed = true

	g.request = g.request.WithContext(g.limit.Lift(g.request.Context())) // what the application added stays
	conn := newConn(h, g.request, room, g.key)
	conn.identify(g.request)
	conn.queue.Deflate = g.deflate != ""
	g.conn = conn

	if err := h.store.add(conn); err != nil {
		return err
	}
	g.joined = true

	conn.expireAt(until)
	h.observer.Add(MetricJoins, conn.route, "", 1)
	return nil
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

	g.room = strings.Clone(room) // it may be a piece of the whole request line
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
