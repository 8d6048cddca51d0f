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

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
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
		return nil, nil, h.refuseProtocol(w, r)
	}
	g := &gate{ResponseWriter: w, hub: h, limit: &limited{Context: r.Context(), deadline: time.Now().Add(h.cfg.handshake)}}
	if h.cfg.deflateFrom >= 0 {
		g.deflate = acceptDeflate(r.Header)
	}
	defer g.limit.end()
	g.request = r.WithContext(g.limit)
	g.request.RemoteAddr = h.cfg.clientAddr(r)
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
	request *http.Request // a copy, with the client's address, and the limit until lift
	limit   *limited      // the request's context until then; the 101 must be out by its deadline
	deflate string        // the answer to an offer to compress; "" for none
	room    string        // "" until it is named
	wire    *frame.Conn   // nil until the socket is ours
	reader  *bufio.Reader // what coder/websocket reads from

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

// late reports whether the deadline has passed.
func (g *gate) late() bool { return !time.Now().Before(g.limit.deadline) }

// lift takes the deadline off the request's context. What the application added to it stays.
func (g *gate) lift() {
	ctx := g.limit.Context
	if own := g.request.Context(); own != g.limit {
		ctx = lifted{ctx, own}
	}
	g.request = g.request.WithContext(ctx)
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
		h.unsubscribe(everyRoom, g.room)
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
	if p := chooseSubprotocol(g.request.Header, g.hub.cfg.subprotocols); p != "" {
		g.Header().Set("Sec-WebSocket-Protocol", p)
	}
	if g.deflate != "" {
		g.Header().Set("Sec-WebSocket-Extensions", g.deflate)
	}
}

// chooseSubprotocol returns the first of ours that the client offers, as we spell it; "" if there is none.
func chooseSubprotocol(request http.Header, ours []string) string {
	for _, name := range ours {
		if hasToken(request, "Sec-WebSocket-Protocol", name) {
			return name
		}
	}
	return ""
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
	return switchProtocols(g.wire.Conn, g.Header(), g.limit.deadline)
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
	if announcesBody(g.request) {
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
	if g.late() {
		return "", errTooLate
	}
	if err != nil {
		return cause, err
	}
	return "", g.enter(until)
}

// announcesBody reports whether a body is to come. What follows the header would be taken for frames.
func announcesBody(r *http.Request) bool { return r.ContentLength != 0 || len(r.TransferEncoding) > 0 }

// awaitNoBody has the server answer before the body that is announced comes, and close the connection then.
func (g *gate) awaitNoBody() {
	if announcesBody(g.request) && g.Header().Get("Connection") == "" {
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
	if err := h.subscribe(g.request.Context, everyRoom, room); err != nil {
		return errAway
	}
	g.subscribed = true
	g.lift()
	conn := newConn(h, g.request, room, g.key)
	conn.identify(g.request)
	conn.queue.deflate = g.deflate != ""
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
