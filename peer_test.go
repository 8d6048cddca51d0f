package wsroom_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// peer is a client whose request goes out as it stands.
type peer struct {
	*rawConn
	res  *http.Response
	body string // unless the server switched protocols
}

// knock sends what is given and reads the answer to it.
func knock(t testing.TB, srv *httptest.Server, request string) *peer {
	t.Helper()
	conn := connect(t, srv)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, conn)
}

// connect opens a connection, over HTTP/1.1 and TLS if the server has it.
func connect(t testing.TB, srv *httptest.Server) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if srv.TLS != nil {
		conn = tls.Client(conn, http1Only(srv))
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// http1Only is a client's TLS configuration, as a browser's for wss.
func http1Only(srv *httptest.Server) *tls.Config {
	cfg := srv.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.ServerName, cfg.NextProtos = "example.com", []string{"http/1.1"}
	return cfg
}

func readAnswer(t testing.TB, conn net.Conn) *peer {
	t.Helper()
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{rawConn: &rawConn{Conn: conn, t: t, r: r}, res: res}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		p.body = string(body)
	}
	return p
}

// readText reads a text message in one frame.
func (p *peer) readText() string {
	p.t.Helper()
	first, text, err := p.next()
	if err != nil || first != 0x81 {
		p.t.Fatalf("want a text message, got %#x %q, error %v", first, short(text), err)
	}
	return text
}

// upgradeRequest is a handshake. A header replaces the one of that name, and removes it if there is
// no colon.
func upgradeRequest(target string, headers ...string) string {
	return requestLine("GET "+target+" HTTP/1.1", headers...)
}

func requestLine(line string, headers ...string) string {
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

// get makes a request that is no upgrade.
func get(t testing.TB, srv *httptest.Server, target string) (status int, body string) {
	t.Helper()
	p := knock(t, srv, "GET "+target+" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
	return p.res.StatusCode, p.body
}

// wantRefusal checks that the answer isn't, and doesn't look like, an upgrade.
func wantRefusal(t testing.TB, p *peer, status int, inBody ...string) {
	t.Helper()
	if p.res.StatusCode != status {
		t.Errorf("got status %d %q, want %d", p.res.StatusCode, short(p.body), status)
	}
	for _, want := range inBody {
		if !strings.Contains(p.body, want) {
			t.Errorf("status %d: the body %q lacks %q", status, p.body, want)
		}
	}
	for _, key := range []string{"Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Upgrade"} {
		if key == "Upgrade" && status == http.StatusUpgradeRequired {
			continue
		}
		if v := p.res.Header.Values(key); len(v) > 0 {
			t.Errorf("status %d: the refusal has %s: %q", status, key, v)
		}
	}
	if strings.EqualFold(p.res.Header.Get("Connection"), "upgrade") && status != http.StatusUpgradeRequired {
		t.Errorf("status %d: the refusal has Connection: Upgrade", status)
	}
}

func wantRetryAfter(t testing.TB, p *peer) {
	t.Helper()
	var seconds int
	if _, err := fmt.Sscan(p.res.Header.Get("Retry-After"), &seconds); err != nil || seconds <= 0 {
		t.Errorf("Retry-After is %q", p.res.Header.Get("Retry-After"))
	}
}
