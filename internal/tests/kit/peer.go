package kit

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// Peer is a client that sends a request as it is given, and the answer that it got.
type Peer struct {
	*RawConn
	Res  *http.Response
	Body string // unless the server switched protocols
}

// Request sends the request on a connection of its own, and reads the answer.
func Request(t testing.TB, srv *httptest.Server, request string) *Peer {
	t.Helper()
	conn := Connect(t, srv)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return ReadAnswer(t, conn)
}

// Connect opens a connection, over HTTP/1.1 and TLS if the server has it.
func Connect(t testing.TB, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: Patience}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if srv.TLS != nil {
		conn = tls.Client(conn, http1Only(srv))
	}
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// http1Only returns a client's TLS configuration that offers HTTP/1.1 only, as a browser does for wss.
func http1Only(srv *httptest.Server) *tls.Config {
	cfg := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName, cfg.NextProtos = "example.com", []string{"http/1.1"}
	return cfg
}

// ReadAnswer reads the answer to a request that was sent.
func ReadAnswer(t testing.TB, conn net.Conn) *Peer {
	t.Helper()
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &Peer{RawConn: &RawConn{Conn: conn, T: t, R: r}, Res: res}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		p.Body = string(body)
	}
	return p
}

// ReadText reads a text message in one frame.
func (p *Peer) ReadText() string {
	p.T.Helper()
	first, text, err := p.Next()
	if err != nil || first != 0x81 {
		p.T.Fatalf("want a text message, got %#x %q, error %v", first, Short(text), err)
	}
	return text
}

// UpgradeRequest returns a handshake. A header replaces the one of that name, or removes it if it has no
// colon.
func UpgradeRequest(target string, headers ...string) string {
	return RequestLine("GET "+target+" HTTP/1.1", headers...)
}

// RequestLine is UpgradeRequest with another request line.
func RequestLine(line string, headers ...string) string {
	own := []string{
		"Host: 127.0.0.1", "Connection: Upgrade", "Upgrade: websocket",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}
	for _, h := range headers {
		name, _, _ := strings.Cut(h, ":")
		own = slices.DeleteFunc(own, func(line string) bool { return strings.HasPrefix(line, name+":") })
	}
	for _, h := range headers {
		if strings.Contains(h, ":") {
			own = append(own, h)
		}
	}
	return line + "\r\n" + strings.Join(own, "\r\n") + "\r\n\r\n"
}
