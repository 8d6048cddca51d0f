package wsroomtest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
)

// Dial connects a client to handler through a net/http server over a line in memory. It opens no port, and
// in a bubble of testing/synctest all of it runs on fake time. With a nil handler, path is the URL of a
// running server, such as httptest's. When Dial returns, the client is in its room, but OnConnect may still
// be running.
//
// If the server refuses, the test fails. At the test's end the client hangs up. If the server then doesn't
// let go of the connection within the client's patience, because a callback is stuck, the test fails.
func Dial(t testing.TB, handler http.Handler, path string, opts ...Option) *Client {
	t.Helper()
	d := newDialer(t, handler, path, opts)
	c, res, err := d.dial()
	if err != nil {
		t.Fatalf("%s: %s", d.name, d.failure(res, err))
	}
	return c
}

// DialN connects n clients one after the other, with the same options. It appends #1 to #n to their names.
func DialN(t testing.TB, n int, handler http.Handler, path string, opts ...Option) []*Client {
	t.Helper()
	clients := make([]*Client, n)
	name := newConfig(path, opts).name
	for i := range clients {
		named := WithName(fmt.Sprintf("%s #%d", name, i+1))
		clients[i] = Dial(t, handler, path, append(opts[:len(opts):len(opts)], named)...)
	}
	return clients
}

// Refused dials like [Dial] and fails the test unless the server refuses with this HTTP status. The
// response's body can be read. A refusal by close frame (wsroom.WithRejectMode) isn't one by HTTP: for it
// use Dial and [Client.ExpectClose].
func Refused(t testing.TB, handler http.Handler, path string, status int, opts ...Option) *http.Response {
	t.Helper()
	d := newDialer(t, handler, path, opts)
	_, res, err := d.dial()
	switch {
	case err == nil:
		t.Fatalf("%s: want a refusal with status %d, got a connection", d.name, status)
	case res == nil || res.StatusCode != status:
		t.Fatalf("%s: want a refusal with status %d, got: %s", d.name, status, d.failure(res, err))
	}
	return res
}

// dialer makes one client.
type dialer struct {
	*config
	t       testing.TB
	handler http.Handler
	url     string
	log     lockedBuffer // of the server in memory: the handler's panics

	resumption *resumption // nil without WithCursor

	line atomic.Pointer[line] // set by the transport's goroutine, which may be late
	gone <-chan struct{}      // closed when the server in memory has closed its end; nil for a URL
}

func newDialer(t testing.TB, handler http.Handler, path string, opts []Option) *dialer {
	t.Helper()
	d := &dialer{config: newConfig(path, opts), t: t, handler: handler, url: path}
	if handler != nil {
		if !strings.HasPrefix(path, "/") {
			t.Fatalf("wsroomtest: the path %q doesn't begin with a slash", path)
		}
		d.url = "http://example.com" + path
	}
	if d.cursor != nil {
		r, err := newResumption(*d.cursor)
		if err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		d.resumption = r
		d.config.dial.Subprotocols = r.subprotocols(d.config.dial.Subprotocols)
	}
	d.config.dial.HTTPClient = &http.Client{Transport: &http.Transport{
		DialContext: d.connect, TLSClientConfig: &tls.Config{RootCAs: d.roots}, DisableKeepAlives: true,
	}}
	return d
}

// dial returns the client. On an error it returns the response, if there is one.
func (d *dialer) dial() (*Client, *http.Response, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.patience)
	defer cancel()
	ws, res, err := websocket.Dial(ctx, d.url, &d.config.dial)
	if err != nil {
		if l := d.line.Load(); l != nil {
			l.hangUp()
		}
		return nil, res, err
	}
	ws.SetReadLimit(-1)
	return newClient(d, ws), res, nil
}

// connect is the transport's DialContext. It may be called again to follow a redirect.
func (d *dialer) connect(ctx context.Context, network, addr string) (net.Conn, error) {
	if d.handler == nil {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		l := newLine(conn)
		d.line.Store(l)
		return l, nil
	}
	client, server, gone := newPipe(d.remoteAddr)
	l := newLine(client)
	d.gone = gone
	d.line.Store(l)
	srv := &http.Server{
		Handler:     d.handler,
		BaseContext: func(net.Listener) context.Context { return d.ctx },
		ErrorLog:    log.New(&d.log, "", 0),
	}
	pprof.Do(ctx, pprof.Labels(labelKey, d.t.Name()), func(context.Context) {
		_ = srv.Serve(&oneConn{conn: server}) // starts a goroutine that serves it, and returns
	})
	return l, nil
}

// failure returns the reason why there is no connection.
func (d *dialer) failure(res *http.Response, err error) string {
	text := fmt.Sprintf("dial: %v", err)
	if res != nil {
		body, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(body))
		text = fmt.Sprintf("dial: status %d: %s", res.StatusCode, quote(string(bytes.TrimSpace(body))))
	}
	if log := d.log.String(); log != "" {
		text += "\n\tthe server's log: " + log
	}
	return text
}

// oneConn is a net.Listener with one connection.
type oneConn struct{ conn net.Conn }

func (l *oneConn) Accept() (net.Conn, error) {
	if l.conn == nil {
		return nil, net.ErrClosed
	}
	conn := l.conn
	l.conn = nil
	return conn, nil
}

func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return serverAddr }

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
