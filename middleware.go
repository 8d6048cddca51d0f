package wsroom

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/request"
	"github.com/wsroom/wsroom/internal/resume"
	"github.com/wsroom/wsroom/internal/route"
	"github.com/wsroom/wsroom/internal/site"
)

// retryAfter is the Retry-After of the hub's own 429 and 503 (RFC 9110, section 10.2.3).
const retryAfter = 5 * time.Second

// Middleware upgrades WebSocket requests and passes all other requests to next, unchanged. It is a
// func(http.Handler) http.Handler, which chi's Use takes.
//
// A WebSocket request goes to next, too, if the function of [WithRoom] returns [ErrPass]. So several hubs, or
// other handlers of WebSockets, can stand behind each other. Middleware calls that function once the
// handshake is found valid, and before all other checks.
func (h *Hub) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !request.IsUpgrade(r) || h.serve(w, r, true) == errPassed {
			next.ServeHTTP(w, r)
		}
	})
}

// RoomFunc returns the name of a request's room. A name has 1 to 255 bytes of UTF-8 without control
// characters; any other name gets 400. An error refuses the request: a [*StatusError] with its own HTTP
// status, [ErrPass] with 404 or not at all, any other error with 400 and no text. A RoomFunc may be called
// concurrently.
type RoomFunc func(r *http.Request) (string, error)

// ByPath names the room after the URL's path. It is the default. Each segment is decoded once, empty and dot
// segments are removed, and a slash or a percent sign inside a segment stays escaped. So /chat/%67eneral is
// the room /chat/general, and /a%2Fb isn't /a/b. Behind [http.StripPrefix] the name is the path without the
// prefix. Behind chi's Mount and Route it is the whole path.
func ByPath(r *http.Request) (string, error) {
	name, err := route.Path(r.URL)
	if err != nil {
		return "", badName()
	}
	return name, nil
}

// ByPattern names the room after the route's pattern, without method and host. So all requests for
// /chat/{room} share one room. If no pattern is known, for example in middleware that runs before the request
// is routed, ByPattern returns an error and the client gets 500.
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

// ByPathValue names the room after the path value of that name. The value is decoded once, under net/http and
// under chi: with the route /chat/{room}, both /chat/%67eneral and /chat/general are the room general. The
// value of a wildcard that spans segments ({path...}, or * under chi) is decoded as [ByPath] decodes a path.
// If the route has no such value, the RoomFunc returns an error and the client gets 500. Behind a router that
// sets no path values, put a handler in between that calls [http.Request.SetPathValue].
//
// A client can so name any room. If the application itself names rooms, as in [Conn.Join] and [Hub.To], a
// client that guesses the name enters them: GET /chat/user:bob is the room user:bob. Refuse such names in
// [WithAuthorize], or use [Hub.ToIdentity], behind which there is no room.
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

// noPathValue returns the error for a missing path value, which names the remedy.
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

const maxName = 255 // bytes, of a room's or an identity's name

// isName reports whether name can be a room's or an identity's.
func isName(name string) bool {
	return name != "" && len(name) <= maxName && utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

// checkRoomName returns an error if name can't be a room's.
func checkRoomName(name string) error {
	if !isName(name) {
		return badName()
	}
	return nil
}

// ByAddr is a key for [WithMaxConnsPer]: the address in the request's RemoteAddr. An IPv4 address is the key
// itself. Of an IPv6 address the key is the /64 prefix, which a provider assigns to a single customer. Behind
// a proxy, set [WithTrustedProxies]; otherwise all clients share the proxy's key. A RemoteAddr that isn't an
// address is used unchanged, so all peers on a Unix socket ("@" or "") share one key.
func ByAddr(r *http.Request) string { return request.AddrKey(r.RemoteAddr) }

// BearerToken returns the request's bearer token, for [WithAuthorize]. It takes the token from the header
// "Authorization: Bearer …" (RFC 6750, section 2.1) or from the list of subprotocols, because browsers can't
// set headers on a WebSocket. The entry in the list is "bearer." and the token in base64url without padding
// (RFC 4648, section 5):
//
//	new WebSocket(url, ["chat", "bearer." + btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "")])
//
// A browser fails the connection if the server chooses none of its subprotocols. So offer a second one, here
// chat, and name it in [WithSubprotocols]. The hub never chooses, returns or logs a token. ok is false unless
// there is exactly one token, of visible ASCII characters. The caller checks whether the token is valid.
func BearerToken(r *http.Request) (token string, ok bool) { return request.BearerToken(r.Header) }

// upgrade turns the request into a connection in its room. If the request is refused, upgrade answers it and
// returns the reason. OnConnect gets the request that upgrade returns. With mayPass, a request that isn't for
// this hub gets no answer, and upgrade returns errPassed.
func (h *Hub) upgrade(w http.ResponseWriter, r *http.Request, mayPass bool) (*Conn, *http.Request, error) {
	if r.ProtoMajor >= 2 {
		return nil, nil, h.refuseProtocol(w, r)
	}

	g := &gate{
		ResponseWriter: w, hub: h, mayPass: mayPass,
		limit: request.WithDeadline(r.Context(), time.Now().Add(h.cfg.handshake)),
	}
	if h.cfg.deflateFrom >= 0 {
		g.deflate = request.AcceptDeflate(r.Header)
	}
	defer g.limit.End()

	g.request = r.WithContext(g.limit)
	g.request.RemoteAddr = h.cfg.proxies.ClientAddr(r)
	defer g.abort()

	ws, err := websocket.Accept(g, g.request, accept)
	switch {
	case err == nil:
		err = g.open(ws)
	case g.phase == gatePassed:
		err = errPassed
	case g.phase < gateAnswered: // coder/websocket refused the handshake and sent its reason
		g.countRefusal("handshake")
	}

	if err != nil {
		return nil, nil, err
	}
	g.phase = gateAdmitted
	return g.conn, g.request, nil
}

// accept turns off coder/websocket's check of the origin. The gate checks it, before it calls the application, and
// chooses the subprotocol. It is shared, as coder/websocket copies it.
var accept = &websocket.AcceptOptions{InsecureSkipVerify: true}

// errPassed says that the request isn't for this hub and that nothing was answered.
var errPassed = errors.New("wsroom: request was passed on")

// refuseProtocol answers a request of HTTP/2 or later with 426 (RFC 9110, section 15.5.22): the handshake of
// RFC 6455, section 4.1, needs HTTP/1.1. A page that was only opened is told what it has to do.
func (h *Hub) refuseProtocol(w http.ResponseWriter, r *http.Request) error {
	refused := &StatusError{Status: http.StatusUpgradeRequired, Message: "WebSocket needs HTTP/1.1, and this request came over " + r.Proto}
	if hint := request.Hint(r); hint == "" {
		refused.Message += "; serve this route over HTTP/1.1 only (TLS NextProtos)"
	} else {
		refused.Message = hint + "; " + refused.Message
	}
	h.countRefusal(r, "protocol")
	refused.answer(w, r)
	return refused
}

// gate is the ResponseWriter that coder/websocket gets. coder/websocket calls Hijack once it has found the
// handshake valid. In Hijack the gate admits the request and puts the connection in its room. The 101 is sent
// last, so that a client that receives it is in the room already.
type gate struct {
	http.ResponseWriter
	hub     *Hub
	request *http.Request     // a copy with the client's address; its context is limit until it is admitted
	limit   *request.Deadline // the request's context until then; the 101 must be out by its deadline
	deflate string            // the answer to an offer of permessage-deflate; "" for none
	session *resume.Session   // nil unless the client speaks wsroom.v1
	room    string            // "" until the RoomFunc has named it
	named   named             // what the RoomFunc has returned
	wire    *frame.Conn       // nil until the socket is hijacked
	reader  *bufio.Reader     // coder/websocket reads from it

	held hold   // what giveBack undoes unless the request is admitted
	key  string // of WithMaxConnsPer
	conn *Conn

	phase   phase
	mayPass bool
	counted bool // as refused
}

// named is what the RoomFunc has returned.
type named struct {
	called bool
	room   string
	err    error
}

// phase is how far the answer to a request is.
type phase uint8

const (
	gateAsked    phase = iota
	gateAnswered       // refused by the gate, or the 101 is due: an answer of coder/websocket isn't sent
	gatePassed         // not for this hub: nothing is sent, and no header is set
	gateAdmitted
)

// hold is what a request holds. Each value includes those before it.
type hold uint8

const (
	holdsNothing      hold = iota
	holdsPlace             // under the limits on connections, for key
	holdsSubscription      // to messages to all and to the room
	holdsConn              // conn isn't in its room yet
	holdsRoom              // conn is in its room; the end of conn undoes the subscription
	holdsPresence          // conn is counted as present, too
)

// abort gives back what a request holds that wasn't admitted, because of a panic or because the client is
// gone.
func (g *gate) abort() {
	if g.phase >= gatePassed {
		return
	}
	defer g.countRefusal("panic") // unless it has been counted: then it was refused
	g.giveBack()
}

// countRefusal counts the request as refused, once.
func (g *gate) countRefusal(cause string) {
	if !g.counted {
		g.counted = true
		g.hub.countRefusal(g.request, cause)
	}
}

// giveBack undoes what admit has done. It undoes each step only once.
func (g *gate) giveBack() {
	held := g.held
	g.held = holdsNothing

	if held >= holdsPlace {
		defer g.hub.unreserve(g.key)
	}
	switch {
	case held == holdsSubscription:
		g.hub.unsubscribe(g.room)
		g.hub.unsubscribeConn()
	case held > holdsSubscription:
		g.giveBackConn(held)
	}
}

// giveBackConn ends the connection of a request that isn't admitted.
func (g *gate) giveBackConn(held hold) {
	joined := held >= holdsRoom || slices.Contains(g.conn.Rooms(), g.room) // the Observer may have panicked in between
	defer func() {
		if !joined {
			g.hub.unsubscribe(g.room)
		} else if held < holdsPresence { // evens out that the connection's end has counted it as gone
			g.conn.appear(g.room)
		}
	}()

	g.conn.end(line.Lost("upgrade", net.ErrClosed)) // a send to all may have ended it already
	g.conn.line.Abandon(ErrClosed)
	if g.wire != nil {
		g.wire.Kill()
	}
	_ = g.conn.cause() // by then the connection has left every room, whoever ended it
	g.conn.doneWithAll()
}

// WriteHeader passes on the status of a refusal by coder/websocket. It doesn't send the 101, which open sends.
func (g *gate) WriteHeader(status int) {
	if status == http.StatusSwitchingProtocols || g.phase != gateAsked {
		return
	}
	if status == http.StatusMethodNotAllowed {
		g.Header().Set("Allow", http.MethodGet) // coder/websocket leaves it out (RFC 9110, section 15.5.6)
	}
	g.awaitNoBody()
	g.ResponseWriter.WriteHeader(status)
}

// Write passes on the text of a refusal by coder/websocket, or a clearer one.
func (g *gate) Write(p []byte) (int, error) {
	if g.phase != gateAsked {
		return len(p), nil
	}
	hint := request.Hint(g.request)
	if hint == "" {
		return g.ResponseWriter.Write(p)
	}
	_, err := io.WriteString(g.ResponseWriter, hint+"\n")
	return len(p), err
}

// Hijack admits the request and hands coder/websocket a frame.Conn over its socket.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if g.mayPass && g.passes() {
		return nil, nil, errPassed
	}
	if g.deflate != "" || len(g.request.Header["Sec-Websocket-Protocol"]) > 0 { // Go's canonical form
		g.choose()
	}
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
	g.phase = gateAnswered

	g.wire = g.conn.line.NewWire(socket, early, &g.hub.cfg.limits)
	if g.deflate != "" {
		g.wire.AcceptDeflate()
	}
	if g.session != nil {
		g.wire.AnnounceWith(g.session.Foreign)
	}

	b := newBuffers(g.wire)
	g.reader = &b.reader
	return g.wire, &b.both, nil
}

// buffers are what coder/websocket gets from Hijack, in one object.
type buffers struct {
	reader bufio.Reader
	writer bufio.Writer
	both   bufio.ReadWriter
}

// newBuffers returns the smallest buffers. The frame.Conn has a read buffer of its own while there is something
// to read, and it assembles the frames that it writes.
func newBuffers(wire *frame.Conn) *buffers {
	b := &buffers{reader: *bufio.NewReaderSize(wire, 16), writer: *bufio.NewWriterSize(wire, 16)}
	b.both = bufio.ReadWriter{Reader: &b.reader, Writer: &b.writer}
	return b
}

// passes reports whether the function of WithRoom says that the request isn't for this hub. If so, the gate
// leaves the ResponseWriter as it found it.
func (g *gate) passes() bool {
	_, err := g.nameRoom()
	if !errors.Is(err, ErrPass) {
		return false
	}
	g.clearAnswer()
	g.phase = gatePassed
	return true
}

// Header returns the header of the answer. What coder/websocket sets for a request that is passed on is
// dropped.
func (g *gate) Header() http.Header {
	if g.phase == gatePassed {
		return http.Header{}
	}
	return g.ResponseWriter.Header()
}

// clearAnswer removes the headers of the answer that upgrades the request.
func (g *gate) clearAnswer() {
	for _, key := range []string{"Upgrade", "Connection", "Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} {
		g.Header().Del(key)
	}
}

// choose answers the client's offer of subprotocols and extensions (RFC 6455, section 4.2.2, item 5).
func (g *gate) choose() {
	if g.deflate != "" {
		g.Header().Set("Sec-WebSocket-Extensions", g.deflate)
	}
	cfg := g.hub.cfg
	if chosen, own, offers := resume.Offered(g.request.Header, cfg.subprotocols); chosen != "" {
		g.Header().Set("Sec-WebSocket-Protocol", chosen)
		g.session = resume.NewSession(g.hub.resumeKey, own, offers, cfg.heartbeat, &cfg.history)
	} else if p := request.Subprotocol(g.request.Header, cfg.subprotocols); p != "" {
		g.Header().Set("Sec-WebSocket-Protocol", p)
	}
}

// open completes the upgrade with the 101 and starts the connection's writing. If the 101 can't be sent in
// time, it gives everything back and counts a refusal.
func (g *gate) open(ws *websocket.Conn) error {
	ws.SetReadLimit(g.hub.cfg.maxMessage)
	runtime.SetFinalizer(ws, nil) // the connection closes it; a cycle with a finalizer is never freed
	g.reader.Reset(g.wire)        // removes coder/websocket's reader of early bytes, which the wire returns itself

	err := g.welcome(ws)
	if err == nil {
		noteSwitch(g.ResponseWriter)
		g.conn.line.Start()
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

// welcome attaches the socket to the connection, counts it as present, and sends the 101. It holds the wire
// meanwhile, so that a goroutine that finds the connection can't write before the 101.
func (g *gate) welcome(ws *websocket.Conn) error {
	g.wire.Lock()
	defer g.wire.Unlock()
	g.conn.line.Attach(g.wire, ws)
	g.held = holdsPresence
	g.conn.appear(g.room)
	return switchProtocols(g.wire, g.ResponseWriter.Header(), g.limit.At())
}

// takeSocket hijacks the server's connection. early is what the server has read from it already.
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

// unsent are headers that a 101 must not have (RFC 9110, section 8.6; RFC 9112, section 6.1).
var unsent = map[string]bool{"Content-Length": true, "Transfer-Encoding": true}

// switchProtocols sends the 101 with these headers (RFC 6455, section 4.2.2, item 5). It writes to the socket,
// because some middleware's ResponseWriter only records the status. It returns [os.ErrDeadlineExceeded] if the
// 101 isn't written by the deadline. The caller holds the wire.
func switchProtocols(wire *frame.Conn, header http.Header, deadline time.Time) error {
	answer := answers.Get().(*bytes.Buffer)
	defer answers.Put(answer)
	answer.Reset()
	answer.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = header.WriteSubset(answer, unsent) // it replaces line ends by spaces, as net/http does
	answer.WriteString("\r\n")

	if err := wire.SendBy(answer.Bytes(), deadline); err != nil {
		return err
	}
	if !time.Now().Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// answers are buffers for the answers to handshakes.
var answers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 512)) }}

// noteSwitch has chi's response recorders record the 101. They have a Discard method, after which WriteHeader
// records the status and sends nothing.
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

// admit checks a valid handshake against the hub's rules and puts the connection in its room. If it refuses
// the request, it gives back what the request holds, and returns the cause for metrics.
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

// judge makes the checks of an admission in their order. The cause is "" for a *refusal, which has its own.
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

	return g.enter(until)
}

// checkSite refuses hosts and origins that aren't allowed (RFC 6455, sections 4.2.2 and 10.2).
func (h *Hub) checkSite(r *http.Request) error {
	switch {
	case !h.cfg.site.AllowsHost(r):
		return badHost(r)
	case !h.cfg.site.AllowsOrigin(r):
		return errBadOrigin
	}
	return nil
}

// Adapters ask for the check of host and origin through package site, without an exported method of Hub.
func init() {
	site.Check = func(handler http.Handler, r *http.Request) (status int, text string) {
		var refused *StatusError
		if err := handler.(*Hub).checkSite(r); errors.As(err, &refused) {
			return refused.Status, refused.Message
		}
		return 0, ""
	}
}

// awaitNoBody sets "Connection: close" if the request announces a body, so that the server answers without
// waiting for the body and then closes the connection (RFC 9112, section 9.6).
func (g *gate) awaitNoBody() {
	if request.AnnouncesBody(g.request) && g.Header().Get("Connection") == "" {
		g.Header().Set("Connection", "close")
	}
}

// reserve gets the key of WithMaxConnsPer and takes a place under the limits on connections.
func (g *gate) reserve() error {
	h := g.hub
	if h.cfg.connKey != nil {
		g.key = strings.Clone(h.cfg.connKey(g.request))
	}
	if err := h.reserve(g.key); err != nil {
		return err
	}
	g.held = holdsPlace
	return nil
}

// enter makes the connection of an admitted request and puts it in its room. until is when the admission
// expires; zero means never. It returns what judge returns.
func (g *gate) enter(until time.Time) (cause string, err error) {
	h, room := g.hub, g.room
	if !h.store.hasSpace(room) {
		return "", errTooManyRooms
	}

	if err := h.subscribeConn(g.request.Context, room); err != nil {
		if errors.Is(err, ErrOutage) || errors.Is(err, ErrShutdown) {
			return "", errAway
		}
		return "", errTooLate // OnRoomOpen hasn't returned
	}
	g.held = holdsSubscription

	g.request = g.limit.Lift(g.request) // the application's values stay
	conn := newConn(h, g.request, room, g.key)
	if err := conn.identify(g.request); err != nil {
		return "identity", err
	}
	conn.line.Deflate = g.deflate != ""
	if g.session != nil {
		conn.line.Tell(g.session)
	}
	g.conn, g.held = conn, holdsConn

	if err := h.store.add(conn); err != nil {
		return "", err
	}
	g.held = holdsRoom

	conn.startTimers(until)
	h.observer.Add(MetricJoins, conn.route, "", 1)
	return "", nil
}

// ask calls the application's functions, which name the room and authorize the request. until is when the
// admission expires; zero means never.
func (g *gate) ask() (until time.Time, cause string, err error) {
	room, err := g.nameRoom()
	if err != nil {
		return until, "room", roomError(err)
	}
	if err := checkRoomName(room); err != nil {
		return until, "room", err
	}

	g.room = strings.Clone(room) // a substring would keep the whole request line in memory
	until, err = g.hub.authorize(g.request, room)
	return until, "authorize", err
}

// nameRoom calls the RoomFunc, once.
func (g *gate) nameRoom() (string, error) {
	if !g.named.called {
		room, err := g.hub.cfg.room(g.request)
		g.named = named{true, room, err}
	}
	return g.named.room, g.named.err
}

// authorize calls the function of WithAuthorize. t is when the admission expires; zero means never.
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
