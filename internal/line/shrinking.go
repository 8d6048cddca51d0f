package line

import (
	"bufio"
	"net"
	"net/http"
	"runtime"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// WebSocket returns the connection of coder/websocket, for the application. From then on it is always the same one.
// WebSocket must be called after [Line.Attach].
func (l *Line) WebSocket() *websocket.Conn {
	l.Wire().Hand()
	return l.websocket()
}

// Subprotocol returns the subprotocol that coder/websocket was told of. See Shrink.
func (l *Line) Subprotocol() string {
	if ws := l.ws.Load(); ws != nil {
		return ws.Subprotocol()
	}
	return ""
}

// Shrink drops the websocket.Conn of a line that has been silent for long: it takes as much memory as all else that such
// a line holds. There is another one when a message has come, or the application asks for it. The reader calls Shrink
// between two messages. Then nothing is lost with it: it has no data, and nobody else has it. A line with a subprotocol
// keeps its own, because that is in it.
func (l *Line) Shrink() {
	if l.Wire().LongQuiet() && l.Subprotocol() == "" {
		l.Wire().Drop(func() { l.ws.Store(nil) })
	}
}

// websocket returns the websocket.Conn, which it makes if there is none.
func (l *Line) websocket() *websocket.Conn {
	for {
		if ws := l.ws.Load(); ws != nil {
			return ws
		}
		ws := l.renew()
		if l.ws.CompareAndSwap(nil, ws) && l.IsEnding() {
			_ = ws.CloseNow() // Kill and HangUp may have found none
		}
	}
}

// renew has coder/websocket accept a handshake again. The answer goes nowhere.
func (l *Line) renew() *websocket.Conn {
	h := handshake{wire: l.Wire(), header: make(http.Header, 4)}
	ws, err := websocket.Accept(&h, asked, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		panic(err) // a valid handshake is accepted
	}
	h.reader.Reset(h.wire) // removes coder/websocket's reader of early bytes
	ws.SetReadLimit(l.owner().Limits().Message)
	runtime.SetFinalizer(ws, nil) // a cycle with a finalizer is never freed
	return ws
}

// asked is a valid handshake (RFC 6455, section 4.1).
var asked = &http.Request{
	Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	},
}

// handshake is the ResponseWriter of renew.
type handshake struct {
	wire   *frame.Conn
	reader *bufio.Reader
	header http.Header
}

func (h *handshake) Header() http.Header         { return h.header }
func (h *handshake) WriteHeader(int)             {}
func (h *handshake) Write(p []byte) (int, error) { return len(p), nil }

// Hijack returns the wire with the smallest buffers.
func (h *handshake) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	h.reader = bufio.NewReaderSize(h.wire, 16)
	return h.wire, bufio.NewReadWriter(h.reader, bufio.NewWriterSize(h.wire, 16)), nil
}
