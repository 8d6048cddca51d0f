package wsroom_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
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

// nothingLeft waits until the hub holds no connection and no room.
func nothingLeft(t testing.TB, hub *wsroom.Hub) {
	t.Helper()
	until(t, "the hub is empty", func() bool {
		s := hub.Stats()
		return hub.Len() == 0 && len(hub.Rooms()) == 0 && s.Conns == 0 && s.Rooms == 0 && s.Opened == s.Closed
	})
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

// serveConfigured is serve with a server that is configured before it starts. Its log goes nowhere.
func serveConfigured(t *testing.T, h http.Handler, configure func(srv *httptest.Server), hubs ...*wsroom.Hub) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		for _, hub := range hubs {
			shutdown(t, hub)
			nothingLeft(t, hub)
		}
		srv.Close()
	})
	configure(srv)
	return srv
}

func echo() wsroom.Option {
	return wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendText(text)
		}
	})
}

// callbackCount counts calls into the application.
func callbackCount(n *atomic.Int32) []wsroom.Option {
	return []wsroom.Option{
		wsroom.WithRoom(func(r *http.Request) (string, error) { n.Add(1); return wsroom.ByPath(r) }),
		wsroom.WithAuthorize(func(*http.Request, string) error { n.Add(1); return nil }),
		wsroom.WithMaxConnsPer(func(*http.Request) string { n.Add(1); return "" }, 100),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { n.Add(1); return nil }),
	}
}

func TestWhatIsNoUpgradeGets426(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	srv := serve(t, hub)
	for what, request := range map[string]string{
		"plain GET":              "GET /x HTTP/1.1\r\nHost: x\r\n\r\n",
		"plain POST":             "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		"no Upgrade":             upgradeRequest("/x", "Upgrade"),
		"no Connection":          upgradeRequest("/x", "Connection"),
		"Connection: keep-alive": upgradeRequest("/x", "Connection: keep-alive"),
		"another protocol":       upgradeRequest("/x", "Upgrade: h2c"),
		"nearly the protocol":    upgradeRequest("/x", "Upgrade: websockets"),
		"HTTP/1.0":               requestLine("GET /x HTTP/1.0"),
	} {
		t.Run(what, func(t *testing.T) {
			p := knock(t, srv, request)
			wantRefusal(t, p, http.StatusUpgradeRequired, "WebSocket")
			if what != "HTTP/1.0" && (p.res.Header.Get("Upgrade") != "websocket" || p.res.Header.Get("Connection") != "Upgrade") {
				t.Errorf("the answer doesn't offer the upgrade: %v", p.res.Header)
			}
		})
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	nothingLeft(t, hub)
}

func TestBadHandshakeIsRefusedWithTheReason(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	behind := hub.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("passed on") }))
	for _, h := range []http.Handler{hub, behind} {
		srv := serve(t, h, hub)
		for _, test := range []struct {
			what, request string
			status        int
			reason        string
		}{
			{"no key", upgradeRequest("/", "Sec-WebSocket-Key"), 400, "missing Sec-WebSocket-Key"},
			{"two keys", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "multiple Sec-WebSocket-Key"},
			{"empty key", upgradeRequest("/", "Sec-WebSocket-Key: "), 400, "16 byte"},
			{"short key", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="), 400, "16 byte"},
			{"long key", upgradeRequest("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZTE="), 400, "16 byte"},
			{"key that isn't base64", upgradeRequest("/", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, "16 byte"},
			{"version 12", upgradeRequest("/", "Sec-WebSocket-Version: 12"), 400, "only 13"},
			{"version 0", upgradeRequest("/", "Sec-WebSocket-Version: 0"), 400, "only 13"},
			{"version list", upgradeRequest("/", "Sec-WebSocket-Version: 13, 8"), 400, "only 13"},
			{"no version", upgradeRequest("/", "Sec-WebSocket-Version"), 400, "only 13"},
			{"POST", requestLine("POST / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"PUT", requestLine("PUT / HTTP/1.1", "Content-Length: 0"), 405, "not GET"},
			{"HTTP/1.0", requestLine("GET / HTTP/1.0"), 426, "HTTP/1.1"},
		} {
			t.Run(test.what, func(t *testing.T) {
				p := knock(t, srv, test.request)
				wantRefusal(t, p, test.status, test.reason)
				if got := p.res.Header.Get("Sec-WebSocket-Version"); test.reason == "only 13" && got != "13" {
					t.Errorf("Sec-WebSocket-Version is %q", got)
				}
				if got := p.res.Header.Get("Allow"); test.status == 405 && got != "GET" {
					t.Errorf("Allow is %q", got)
				}
			})
		}
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	nothingLeft(t, hub)
}

func TestHandshakeIsReadAsTheRFCWantsIt(t *testing.T) {
	hub := wsroom.New(tellRoom(), wsroom.WithSubprotocols("v2", "v1"))
	srv := serve(t, hub.Middleware(http.NotFoundHandler()), hub)
	for what, headers := range map[string][]string{
		"Firefox":        {"Connection: keep-alive, Upgrade"},
		"case":           {"connection: upgrade", "upgrade: WebSocket"},
		"lists":          {"Connection: foo,  UPGRADE ,bar", "Upgrade: h2c, websocket"},
		"several lines":  {"Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"},
		"space at key":   {"Sec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ== "},
		"extensions":     {"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-foo"},
		"no such offer":  {"Sec-WebSocket-Protocol: v9"},
		"second of ours": {"Sec-WebSocket-Protocol: v9, v1"},
		"first of ours":  {"Sec-WebSocket-Protocol: v1, v2"},
	} {
		t.Run(what, func(t *testing.T) {
			if what == "case" {
				headers = append(headers, "Connection", "Upgrade")
			}
			p := knock(t, srv, upgradeRequest("/x", headers...))
			if p.res.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %d %s", p.res.StatusCode, p.body)
			}
			// The key and its answer are those of RFC 6455, section 1.3.
			if got := p.res.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("Sec-WebSocket-Accept is %q", got)
			}
			want := map[string]string{"second of ours": "v1", "first of ours": "v2"}[what]
			if got := p.res.Header.Get("Sec-WebSocket-Protocol"); got != want {
				t.Errorf("subprotocol %q, want %q", got, want)
			}
			if got := p.res.Header.Get("Sec-WebSocket-Extensions"); got != "" {
				t.Errorf("extensions %q, which nobody wants", got)
			}
			if got := p.readText(); got != "/x" {
				t.Errorf("room %q", got)
			}
			p.Close()
		})
	}
	nothingLeft(t, hub)
}

func TestMiddlewareLeavesOtherRequestsUntouched(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	type passed struct {
		w http.ResponseWriter
		r *http.Request
	}
	var got passed
	h := hub.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = passed{w, r} }))
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		upgradeRequest("/", "Upgrade: h2c"),
		upgradeRequest("/", "Connection: close"),
		upgradeRequest("/", "Upgrade"),
		upgradeRequest("/", "Connection"),
	} {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request)))
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if (got != passed{w, r}) {
			t.Errorf("%q: not passed on as it was", request)
		}
	}

	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Add("X-Two", "1")
		w.Header().Add("X-Two", "2")
		w.Header().Set("Upgrade", "tea")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL, body)
	})
	srv := serve(t, hub.Middleware(page), hub)
	p := knock(t, srv, "POST /x?y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	if p.res.StatusCode != http.StatusTeapot || p.body != "POST /x?y hi" || p.res.Header.Get("Upgrade") != "tea" ||
		!slices.Equal(p.res.Header.Values("X-Two"), []string{"1", "2"}) {
		t.Errorf("got %d %q %v", p.res.StatusCode, p.body, p.res.Header)
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	dial(t, srv, "/x").CloseNow()
	nothingLeft(t, hub)
}

func TestOnlyTheSameOriginByDefault(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(callbackCount(&calls)...)
	plain := serve(t, hub)
	withTLS := serveConfigured(t, hub, (*httptest.Server).StartTLS, hub)
	for _, test := range []struct {
		origin     string
		plain, tls bool
	}{
		{"-", true, true}, // none
		{"http://chat.example", true, false},
		{"https://chat.example", true, true}, // a proxy may have ended the TLS
		{"HTTPS://Chat.EXAMPLE", true, true},
		{origin: ""},
		{origin: "null"},
		{origin: "http://evil.example"},
		{origin: "https://evil.example"},
		{origin: "http://chat.example.evil.example"},
		{origin: "http://evilchat.example"},
		{origin: "http://sub.chat.example"},
		{origin: "http://example"},
		{origin: "http://chat.exampl"},
		{origin: "http://chat.example:8080"},
		{origin: "http://chat.example:80"},
		{origin: "https://chat.example:443"},
		{origin: "http://chat.example:"},
		{origin: "http://chat.example."},
		{origin: "http://user@chat.example"},
		{origin: "http://user:pw@chat.example"},
		{origin: "http://chat.example@evil.example"},
		{origin: `http://chat.example\@evil.example`},
		{origin: "http://chat.example/"},
		{origin: "http://chat.example/path"},
		{origin: "http://chat.example?q"},
		{origin: "http://chat.example#f"},
		{origin: "http://evil.example#http://chat.example"},
		{origin: "http://evil.example/http://chat.example"},
		{origin: "http://chat.example http://evil.example"},
		{origin: "http://evil.example, http://chat.example"},
		{origin: "http://chat%2Eexample"},
		{origin: "http://chat.example%00.evil.example"},
		{origin: "http:chat.example"},
		{origin: "http:///chat.example"},
		{origin: "http://"},
		{origin: "//chat.example"},
		{origin: "chat.example"},
		{origin: "file://"},
		{origin: "file://chat.example"},
		{origin: "ftp://chat.example"},
		{origin: "ws://chat.example"},
		{origin: "chrome-extension://chat.example"},
		{origin: "http://[chat.example]"},
		{origin: "http://*"},
		{origin: "*"},
		{origin: "http://chat.example\r\nOrigin: http://chat.example"},
		{origin: "http://chat.example\r\nOrigin: http://evil.example"},
		{origin: "http://evil.example\r\nOrigin: http://chat.example"},
		{origin: "null\r\nOrigin: null"},
	} {
		for _, srv := range []*httptest.Server{plain, withTLS} {
			allowed := test.plain
			if srv == withTLS {
				allowed = test.tls
			}
			headers := []string{"Host: chat.example", "Origin: " + test.origin}
			if test.origin == "-" {
				headers = headers[:1]
			}
			calls.Store(0)
			p := knock(t, srv, upgradeRequest("/", headers...))
			if allowed {
				if p.res.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("origin %q, TLS %t: refused with %d", test.origin, srv == withTLS, p.res.StatusCode)
				}
				until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
			} else {
				wantRefusal(t, p, http.StatusForbidden, "origin not allowed")
				if p.res.StatusCode == http.StatusSwitchingProtocols || calls.Load() != 0 {
					t.Errorf("origin %q, TLS %t: after %d calls of the application", test.origin, srv == withTLS, calls.Load())
				}
			}
			p.Close()
		}
	}
	nothingLeft(t, hub)
}

func TestOriginOfThePort(t *testing.T) {
	hub := wsroom.New()
	srv := serve(t, hub)
	for origin, status := range map[string]int{
		"http://chat.example:8080": 101, "http://chat.example": 403, "http://chat.example:8081": 403, "http://[::1]:8080": 403,
	} {
		if p := knock(t, srv, upgradeRequest("/", "Host: chat.example:8080", "Origin: "+origin)); p.res.StatusCode != status {
			t.Errorf("%s: got %d, want %d", origin, p.res.StatusCode, status)
		}
	}
	if p := knock(t, srv, upgradeRequest("/", "Host: [::1]:8080", "Origin: http://[::1]:8080")); p.res.StatusCode != 101 {
		t.Errorf("IPv6: got %d", p.res.StatusCode)
	}
}

func TestWithOriginsAllowsWhatItsPatternsSay(t *testing.T) {
	for _, test := range []struct {
		pattern string
		yes, no []string
	}{
		{"app.example", []string{"http://app.example", "https://app.example", "https://APP.example"},
			[]string{"https://app.example:8443", "https://x.app.example", "https://app.example.evil", "https://user@app.example", "https://app.example/", "null"}},
		{"App.Example:8443", []string{"https://app.example:8443", "http://app.example:8443"}, []string{"https://app.example"}},
		{"https://app.example", []string{"https://app.example", "HTTPS://app.example"}, []string{"http://app.example", "wss://app.example"}},
		{"https://*.example.com", []string{"https://a.example.com", "https://a.b.example.com"},
			[]string{"https://example.com", "http://a.example.com", "https://a.example.com:8443", "https://evil.example/.example.com", "https://evil.example#.example.com", "https://evil.example?.example.com", "https://evil@a.example.com"}},
		{"*.example.com", []string{"https://a.example.com", "http://a.example.com"}, []string{"https://example.com", "https://a.example.com.evil"}},
		{"http://localhost:*", []string{"http://localhost:3000", "http://localhost:80"}, []string{"http://localhost", "https://localhost:3000", "http://localhost.evil:3000"}},
		{"http://[::1]:3000", []string{"http://[::1]:3000"}, []string{"http://[::2]:3000", "http://[::1]"}},
		{"capacitor://localhost", []string{"capacitor://localhost"}, []string{"http://localhost", "https://localhost"}},
	} {
		hub := wsroom.New(wsroom.WithOrigins(test.pattern))
		srv := serve(t, hub)
		try := func(origin string, status int) {
			t.Helper()
			p := knock(t, srv, upgradeRequest("/", "Host: chat.example", "Origin: "+origin))
			if p.res.StatusCode != status {
				t.Errorf("pattern %q, origin %q: got %d, want %d", test.pattern, origin, p.res.StatusCode, status)
			}
			p.Close()
		}
		for _, origin := range test.yes {
			try(origin, 101)
		}
		for _, origin := range test.no {
			try(origin, 403)
		}
		try("http://chat.example", 101) // its own
		nothingLeft(t, hub)
	}
}

func TestPatternsThatAllowAllOrNothingAreRefused(t *testing.T) {
	refuses := func(opt wsroom.Option, want ...string) {
		t.Helper()
		defer func() {
			t.Helper()
			v := recover()
			err, _ := v.(error)
			if err == nil {
				t.Errorf("want a panic about %q, got %v", want, v)
				return
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q lacks %q", err, w)
				}
			}
		}()
		wsroom.New(opt)
	}
	for _, p := range []string{
		"*", "https://*", "http*://*", "*://*", "*.*", "*:*", "**", "?*", "https://*.*", "https://*:*", "",
		"a b", "https://x/y", "https://x/", "x/y", "user@x", "://x", "https://", "[", "a[", `x\`, "https://[a-",
	} {
		refuses(wsroom.WithOrigins("fine.example", p), "WithOrigins", fmt.Sprintf("%q", p))
		refuses(wsroom.WithHosts("fine.example", p), "WithHosts")
	}
	refuses(wsroom.WithOrigins("*", "a b", "["), `"*"`, `"a b"`, `"["`) // every mistake
	refuses(wsroom.WithHosts("https://chat.example"), "WithHosts", "scheme")
}

func TestWithHostsStopsDNSRebinding(t *testing.T) {
	var calls atomic.Int32
	opts := append(callbackCount(&calls), wsroom.WithHosts("chat.example", "*.chat.example:8080", "[::1]"))
	strict := wsroom.New(opts...)
	anyOrigin := wsroom.New(append(opts, wsroom.WithInsecureAnyOrigin())...)
	for _, hub := range []*wsroom.Hub{strict, anyOrigin} {
		srv := serve(t, hub)
		for host, allowed := range map[string]bool{
			"chat.example": true, "CHAT.example": true, "chat.example:8080": true, "chat.example:1": true,
			"a.chat.example:8080": true, "[::1]": true, "[::1]:8080": true,
			"a.chat.example": false, "a.chat.example:80": false, "evil.example": false, "evil.example:8080": false,
			"chat.example.evil.example": false, "evilchat.example": false, "": false, "[::2]": false, "127.0.0.1": false,
		} {
			for _, origin := range []string{"Origin: http://" + host, "Origin"} {
				calls.Store(0)
				p := knock(t, srv, upgradeRequest("/", "Host: "+host, origin))
				if allowed {
					if p.res.StatusCode != 101 {
						t.Errorf("host %q, %s: refused with %d", host, origin, p.res.StatusCode)
					}
					until(t, "OnConnect was called", func() bool { return calls.Load() == 4 })
				} else {
					wantRefusal(t, p, http.StatusForbidden, "host not allowed")
					if calls.Load() != 0 {
						t.Errorf("host %q: after %d calls of the application", host, calls.Load())
					}
				}
				p.Close()
			}
		}
		nothingLeft(t, hub)
	}
}

func TestWithInsecureAnyOriginAllowsAnyOrigin(t *testing.T) {
	hub := wsroom.New(wsroom.WithInsecureAnyOrigin())
	srv := serve(t, hub)
	for _, origin := range []string{"null", "https://evil.example", "x"} {
		if p := knock(t, srv, upgradeRequest("/", "Origin: "+origin)); p.res.StatusCode != 101 {
			t.Errorf("origin %q: got %d", origin, p.res.StatusCode)
		}
	}
}

func TestLimitsRefuseAndAreFreed(t *testing.T) {
	byUser := func(r *http.Request) string { return r.URL.Query().Get("u") }
	for _, test := range []struct {
		what      string
		opt       wsroom.Option
		fill      []string
		over, fit string // the latter still has room
		status    int
	}{
		{"WithMaxConns", wsroom.WithMaxConns(2), []string{"/a", "/b"}, "/a", "", 503},
		{"WithMaxRooms", wsroom.WithMaxRooms(2), []string{"/a", "/b"}, "/c", "/a", 503},
		{"WithMaxMembers", wsroom.WithMaxMembers(2), []string{"/a", "/a"}, "/a", "/b", 503},
		{"WithMaxConnsPer", wsroom.WithMaxConnsPer(byUser, 2), []string{"/a?u=1", "/b?u=1"}, "/c?u=1", "/c?u=2", 429},
	} {
		t.Run(test.what, func(t *testing.T) {
			hub := wsroom.New(tellRoom(), test.opt)
			srv := serve(t, hub)
			var peers []*peer
			join := func(path string) {
				p := knock(t, srv, upgradeRequest(path))
				if p.res.StatusCode != 101 {
					t.Fatalf("%s: got %d %s", path, p.res.StatusCode, p.body)
				}
				peers = append(peers, p)
			}
			for _, path := range test.fill {
				join(path)
			}
			for range 3 {
				p := knock(t, srv, upgradeRequest(test.over, "Sec-WebSocket-Protocol: x"))
				wantRefusal(t, p, test.status)
				wantRetryAfter(t, p)
			}
			if n := hub.Len(); n != len(test.fill) {
				t.Errorf("%d connections after the refusals", n)
			}
			if test.fit != "" {
				join(test.fit)
			}
			for _, p := range peers {
				p.Close()
			}
			until(t, "what was over the limit fits", func() bool {
				p := knock(t, srv, upgradeRequest(test.over))
				p.Close()
				return p.res.StatusCode == 101
			})
			nothingLeft(t, hub)
		})
	}
}

func TestLimitsHoldUnderConcurrency(t *testing.T) {
	const limit, tries = 5, 40
	for _, test := range []struct {
		what string
		opt  wsroom.Option
		path func(i int) string
	}{
		{"WithMaxConns", wsroom.WithMaxConns(limit), func(i int) string { return fmt.Sprint("/", i) }},
		{"WithMaxRooms", wsroom.WithMaxRooms(limit), func(i int) string { return fmt.Sprint("/", i) }},
		{"WithMaxMembers", wsroom.WithMaxMembers(limit), func(int) string { return "/" }},
		{"WithMaxConnsPer", wsroom.WithMaxConnsPer(func(r *http.Request) string { return "" }, limit), func(i int) string { return fmt.Sprint("/", i) }},
	} {
		t.Run(test.what, func(t *testing.T) {
			hub := wsroom.New(test.opt)
			srv := serve(t, hub)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			var in atomic.Int32
			var wg sync.WaitGroup
			for i := range tries {
				wg.Go(func() {
					if conn, _, err := websocket.Dial(ctx, srv.URL+test.path(i), nil); err == nil {
						in.Add(1)
						t.Cleanup(func() { conn.CloseNow() })
					}
				})
			}
			wg.Wait()
			if n := int(in.Load()); n != limit || hub.Len() != limit {
				t.Errorf("%d were let in, the hub has %d, the limit is %d", n, hub.Len(), limit)
			}
		})
	}
}

func TestWithAuthorizeDecides(t *testing.T) {
	for _, test := range []struct {
		what       string
		err        error
		status     int
		body       string
		retryAfter string
	}{
		{"allow", nil, 101, "", ""},
		{"any error", errors.New("hunter2"), 403, "Forbidden", ""},
		{"StatusError", &wsroom.StatusError{Status: 401, Message: "log in"}, 401, "log in", ""},
		{"wrapped StatusError", fmt.Errorf("hunter2: %w", &wsroom.StatusError{Status: 402, Message: "pay"}), 402, "pay", ""},
		{"without a message", &wsroom.StatusError{Status: 404}, 404, "Not Found", ""},
		{"to come again", &wsroom.StatusError{Status: 429, RetryAfter: time.Minute}, 429, "Too Many Requests", "60"},
		{"to upgrade", &wsroom.StatusError{Status: 426}, 426, "Upgrade Required", ""},
		{"no error status", &wsroom.StatusError{Status: 101}, 500, "Internal Server Error", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			var asked []string
			hub := wsroom.New(
				wsroom.WithRoom(wsroom.ByPathValue("room")),
				wsroom.WithSubprotocols("x"),
				wsroom.WithCompression(0),
				wsroom.WithAuthorize(func(r *http.Request, room string) error {
					asked = append(asked, r.URL.String()+" "+room)
					return test.err
				}))
			srv := serve(t, muxOf("/chat/{room}", hub), hub)
			p := knock(t, srv, upgradeRequest("/chat/%61?token=1", "Sec-WebSocket-Protocol: x", "Sec-WebSocket-Extensions: permessage-deflate"))
			if !slices.Equal(asked, []string{"/chat/%61?token=1 a"}) {
				t.Errorf("asked for %q", asked)
			}
			if test.err == nil {
				if p.res.StatusCode != 101 {
					t.Errorf("got %d %s", p.res.StatusCode, p.body)
				}
				return
			}
			wantRefusal(t, p, test.status)
			if got := strings.TrimSpace(p.body); got != test.body {
				t.Errorf("got %q, want %q", got, test.body)
			}
			if got := p.res.Header.Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, test.retryAfter)
			}
			nothingLeft(t, hub)
		})
	}
}

func TestAfterShutdownRequestsGet503(t *testing.T) {
	hub := wsroom.New(tellRoom())
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") }
	srv := serve(t, hub.Middleware(http.HandlerFunc(page)), hub)
	p := knock(t, srv, upgradeRequest("/a"))
	p.readText()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.closeCode()
		p.Close()
	}()
	shutdown(t, hub)
	await(t, done, "the close frame")
	for range 3 {
		p := knock(t, srv, upgradeRequest("/a"))
		wantRefusal(t, p, http.StatusServiceUnavailable, "shutting down")
		wantRetryAfter(t, p)
	}
	wantRefusal(t, knock(t, srv, upgradeRequest("/a", "Sec-WebSocket-Version: 12")), http.StatusBadRequest)
	if status, body := get(t, srv, "/a"); status != http.StatusOK || body != "page" {
		t.Errorf("a request that is no upgrade got %d %q", status, body)
	}
	nothingLeft(t, hub)
}

// TestPanicBeforeTheUpgradeFreesWhatWasReserved leaves the panic to net/http, and the one place that
// the limits allow to the next request.
func TestPanicBeforeTheUpgradeFreesWhatWasReserved(t *testing.T) {
	trap := func(where string, r *http.Request) {
		switch r.URL.Query().Get("do") {
		case where + " panic":
			panic("boom in " + where)
		case where + " exit":
			runtime.Goexit()
		}
	}
	hub := wsroom.New(tellRoom(), wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1), wsroom.WithMaxMembers(1),
		wsroom.WithMaxConnsPer(func(r *http.Request) string { trap("key", r); return "k" }, 1),
		wsroom.WithRoom(func(r *http.Request) (string, error) { trap("room", r); return "r", nil }),
		wsroom.WithAuthorize(func(r *http.Request, _ string) error { trap("authorize", r); return nil }))
	logged := &safeBuffer{}
	srv := serveConfigured(t, hub, func(srv *httptest.Server) {
		srv.Config.ErrorLog = log.New(logged, "", 0)
		srv.Start()
	}, hub)
	for _, where := range []string{"key", "room", "authorize"} {
		for _, what := range []string{"panic", "exit"} {
			conn := connect(t, srv)
			io.WriteString(conn, upgradeRequest("/?do="+where+"%20"+what))
			if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
				t.Errorf("%s in %s: the client got %q, %v", what, where, rest, err)
			}
		}
		if !strings.Contains(logged.String(), "boom in "+where) {
			t.Errorf("net/http didn't see the panic in %s", where)
		}
	}
	nothingLeft(t, hub)
	if p := knock(t, srv, upgradeRequest("/")); p.res.StatusCode != 101 {
		t.Errorf("the next request got %d %s", p.res.StatusCode, p.body)
	}
}

// safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// statusOnly is what many a logging middleware wraps a ResponseWriter in: it hides Hijack.
type statusOnly struct {
	http.ResponseWriter
	status int
}

func (w *statusOnly) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// unwrapping is one that http.ResponseController can see through.
type unwrapping struct{ statusOnly }

func (w *unwrapping) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// promising has a Hijack that fails.
type promising struct{ http.ResponseWriter }

func (*promising) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }

// roomy hands out what is buffered in a larger buffer than net/http's, as a proxy might.
type roomy struct {
	http.ResponseWriter
	peek int
}

func (w *roomy) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early, _ := rw.Reader.Peek(rw.Reader.Buffered())
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), conn), 64<<10)
	_, err = r.Peek(w.peek)
	return conn, bufio.NewReadWriter(r, rw.Writer), err
}

// wrap serves next with a ResponseWriter of the middleware's.
func wrap(next http.Handler, with func(w http.ResponseWriter) http.ResponseWriter) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(with(w), r) })
}

func TestMiddlewareThatHidesHijackerIsNamed(t *testing.T) {
	for _, test := range []struct {
		what  string
		mount func(h http.Handler) http.Handler
		named string // "": it works
	}{
		{"status recorder", func(h http.Handler) http.Handler {
			return wrap(h, func(w http.ResponseWriter) http.ResponseWriter { return &statusOnly{ResponseWriter: w} })
		}, "*wsroom_test.statusOnly"},
		{"status recorder behind one with Unwrap", func(h http.Handler) http.Handler {
			return wrap(h, func(w http.ResponseWriter) http.ResponseWriter {
				return &unwrapping{statusOnly{ResponseWriter: &statusOnly{ResponseWriter: w}}}
			})
		}, "*wsroom_test.statusOnly"},
		{"TimeoutHandler", func(h http.Handler) http.Handler {
			return http.TimeoutHandler(h, patience, "late")
		}, "*http.timeoutWriter"},
		{"chi's Logger before TimeoutHandler", func(h http.Handler) http.Handler {
			return http.TimeoutHandler(middleware.RequestLogger(&silentLog{})(h), patience, "late")
		}, "*http.timeoutWriter"},
		{"status recorder with Unwrap", func(h http.Handler) http.Handler {
			return wrap(h, func(w http.ResponseWriter) http.ResponseWriter {
				return &unwrapping{statusOnly{ResponseWriter: w}}
			})
		}, ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			logged := &safeBuffer{}
			var calls atomic.Int32
			hub := wsroom.New(append(callbackCount(&calls), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))...)
			srv := serve(t, test.mount(hub), hub)
			p := knock(t, srv, upgradeRequest("/"))
			if test.named == "" {
				if p.res.StatusCode != 101 || calls.Load() == 0 {
					t.Errorf("got %d %s after %d calls", p.res.StatusCode, p.body, calls.Load())
				}
				return
			}
			wantRefusal(t, p, http.StatusNotImplemented, test.named, "neither Hijack nor Unwrap")
			if !strings.Contains(logged.String(), test.named) {
				t.Errorf("the log lacks the type: %s", logged)
			}
			if calls.Load() != 0 {
				t.Errorf("after %d calls of the application", calls.Load())
			}
			nothingLeft(t, hub)
		})
	}
}

// TestHijackThatFailsHangsUp has the 101 on its way when no socket is to be had; a client must not
// go on as if it were connected.
func TestHijackThatFailsHangsUp(t *testing.T) {
	logged := &safeBuffer{}
	hub := wsroom.New(wsroom.WithMaxConns(1), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
	srv := serveConfigured(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &promising{w} }),
		(*httptest.Server).Start, hub)
	for range 2 {
		conn := connect(t, srv)
		io.WriteString(conn, upgradeRequest("/"))
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("want the end of the stream, got %v", err)
		}
		nothingLeft(t, hub)
	}
	if n := strings.Count(logged.String(), "hijacking failed"); n != 2 {
		t.Errorf("logged %d times:\n%s", n, logged)
	}
}

// silentLog is a log for chi that keeps what it is told.
type silentLog struct {
	mu       sync.Mutex
	statuses []int
	panics   []any
}

func (l *silentLog) NewLogEntry(*http.Request) middleware.LogEntry { return l }

func (l *silentLog) Write(status, _ int, _ http.Header, _ time.Duration, _ any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.statuses = append(l.statuses, status)
}

func (l *silentLog) Panic(v any, _ []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.panics = append(l.panics, v)
}

func (l *silentLog) has(status int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Contains(l.statuses, status)
}

// TestConnectionOutlivesChisMiddleware opens connections through each of them, waits until the
// request is over, and talks on.
func TestConnectionOutlivesChisMiddleware(t *testing.T) {
	chiLog := &silentLog{}
	logger := middleware.RequestLogger(chiLog)
	for _, test := range []struct {
		what string
		use  []func(http.Handler) http.Handler
	}{
		{"none", nil},
		{"Timeout", []func(http.Handler) http.Handler{middleware.Timeout(patience)}},
		{"Logger", []func(http.Handler) http.Handler{logger}},
		{"Recoverer", []func(http.Handler) http.Handler{middleware.Recoverer}},
		{"Compress", []func(http.Handler) http.Handler{middleware.Compress(5)}},
		{"Throttle", []func(http.Handler) http.Handler{middleware.Throttle(1)}},
		{"ThrottleBacklog", []func(http.Handler) http.Handler{middleware.ThrottleBacklog(1, 1, time.Minute)}},
		{"Heartbeat", []func(http.Handler) http.Handler{middleware.Heartbeat("/ping")}},
		{"RequestID", []func(http.Handler) http.Handler{middleware.RequestID}},
		{"ClientIP", []func(http.Handler) http.Handler{middleware.ClientIPFromRemoteAddr}},
		{"CleanPath", []func(http.Handler) http.Handler{middleware.CleanPath}},
		{"StripSlashes", []func(http.Handler) http.Handler{middleware.StripSlashes}},
		{"GetHead", []func(http.Handler) http.Handler{middleware.GetHead}},
		{"NoCache", []func(http.Handler) http.Handler{middleware.NoCache}},
		{"all", []func(http.Handler) http.Handler{
			middleware.RequestID, middleware.ClientIPFromRemoteAddr, logger, middleware.Recoverer, middleware.Compress(5),
			middleware.Heartbeat("/ping"), middleware.StripSlashes, middleware.Throttle(1), middleware.Timeout(patience),
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			over := make(chan struct{}, 10)
			hub := wsroom.New(tellRoom(), echo(), wsroom.WithRoom(wsroom.ByPathValue("room")),
				wsroom.WithAuthorize(func(r *http.Request, room string) error {
					if room == "closed" {
						return errors.New("no")
					}
					return nil
				}))
			r := chi.NewRouter()
			r.Use(func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					next.ServeHTTP(w, r)
					over <- struct{}{}
				})
			})
			r.Use(test.use...)
			r.With(hub.Middleware).Get("/chat/{room}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") })
			srv := serve(t, r, hub)
			var peers []*peer
			for range 3 { // Throttle lets one request in at a time
				p := knock(t, srv, upgradeRequest("/chat/%61", "Accept-Encoding: gzip, deflate"))
				if p.res.StatusCode != 101 {
					t.Fatalf("got %d %s", p.res.StatusCode, p.body)
				}
				peers = append(peers, p)
				await(t, over, "the end of the request")
			}
			for i, p := range peers {
				p.frame(0x81, fmt.Sprint("hello ", i))
				if room, text := p.readText(), p.readText(); room != "a" || text != fmt.Sprint("hello ", i) {
					t.Errorf("room %q, echo %q", room, text)
				}
			}
			if status, body := get(t, srv, "/chat/a"); status != 200 || body != "page" {
				t.Errorf("beside open connections a page got %d %q", status, body)
			}
			await(t, over, "the end of the request")
			wantRefusal(t, knock(t, srv, upgradeRequest("/chat/closed")), http.StatusForbidden, "Forbidden")
			await(t, over, "the end of the request")
			wantRefusal(t, knock(t, srv, upgradeRequest("/chat/a", "Origin: http://evil.example", "Accept-Encoding: gzip")), http.StatusForbidden)
			for _, p := range peers {
				p.Close()
			}
			nothingLeft(t, hub)
		})
	}
	if !chiLog.has(101) || !chiLog.has(403) || !chiLog.has(200) || len(chiLog.panics) != 0 {
		t.Errorf("logged %v, panics %v", chiLog.statuses, chiLog.panics)
	}
}

// TestConnectionOutlivesTimeout lets the request's deadline pass, before OnConnect returns and after.
func TestConnectionOutlivesTimeout(t *testing.T) {
	for _, slow := range []bool{false, true} {
		requests, conns := make(chan context.Context, 1), make(chan *wsroom.Conn, 1)
		hub := wsroom.New(echo(), wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			requests <- r.Context()
			conns <- c
			if slow {
				<-r.Context().Done()
			}
			return nil
		}))
		h := middleware.Timeout(20 * time.Millisecond)(hub)
		srv := serveConfigured(t, h, (*httptest.Server).Start, hub)
		c := dial(t, srv, "/")
		request, conn := await(t, requests, "OnConnect"), await(t, conns, "OnConnect")
		deadline, ok := request.Deadline()
		if !ok {
			t.Fatal("Timeout isn't in front")
		}
		past, cancel := context.WithDeadline(t.Context(), deadline.Add(time.Millisecond))
		await(t, past.Done(), "the deadline")
		cancel()
		await(t, request.Done(), "the end of the request")
		if slow && request.Err() != context.DeadlineExceeded {
			t.Errorf("the request's context ended with %v", request.Err())
		}
		if _, has := conn.Context().Deadline(); has || conn.Context().Err() != nil {
			t.Errorf("the connection's context has a deadline: %t; error: %v", has, conn.Context().Err())
		}
		c.SendText("still here")
		c.ExpectText("still here")
		if err := conn.SendText("and back"); err != nil {
			t.Error(err)
		}
		c.ExpectText("and back")
	}
}

func TestChisMiddlewareKeepsItsPart(t *testing.T) {
	chiLog := &silentLog{}
	hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if room == "panic" {
				panic("boom")
			}
			return nil
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendText(middleware.GetReqID(c.Context()) + " " + middleware.GetClientIP(c.Context()))
			}
		}))
	r := chi.NewRouter()
	r.Use(middleware.RequestID, middleware.ClientIPFromHeader("X-Real-IP"), middleware.RequestLogger(chiLog),
		middleware.Recoverer, middleware.Heartbeat("/ping"), middleware.StripSlashes)
	r.Handle("/chat/{room}", hub)
	srv := serve(t, r, hub)

	p := knock(t, srv, upgradeRequest("/chat/a/", "X-Request-Id: req-1", "X-Real-IP: 203.0.113.9"))
	q := knock(t, srv, upgradeRequest("/chat/b", "X-Request-Id: req-2", "X-Real-IP: 203.0.113.10"))
	p.frame(0x81, "?")
	q.frame(0x81, "?")
	if got := p.readText() + ", " + q.readText(); got != "req-1 203.0.113.9, req-2 203.0.113.10" {
		t.Errorf("got %q", got)
	}
	if got := hub.Rooms(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("rooms %q", got)
	}
	if status, body := get(t, srv, "/ping"); status != 200 || body != "." {
		t.Errorf("Heartbeat: %d %q", status, body)
	}
	if knock(t, srv, upgradeRequest("/chat/panic")).res.StatusCode == 101 {
		t.Error("upgraded in spite of a panic")
	}
	chiLog.mu.Lock()
	if len(chiLog.panics) != 1 || chiLog.panics[0] != "boom" {
		t.Errorf("Recoverer saw %v", chiLog.panics)
	}
	chiLog.mu.Unlock()
	p.Close()
	q.Close()
	nothingLeft(t, hub)
}

func TestHTTP2IsRefusedClearly(t *testing.T) {
	hub := wsroom.New(echo())
	mux := http.NewServeMux()
	mux.Handle("/ws", hub)
	mux.Handle("/both", hub.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) })))
	srv := serveConfigured(t, mux, func(srv *httptest.Server) {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	}, hub)
	fetch := func(path string) (*http.Response, string) {
		res, err := srv.Client().Get(srv.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	res, body := fetch("/ws")
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusUpgradeRequired || !strings.Contains(body, "HTTP/1.1") || !strings.Contains(body, "HTTP/2.0") {
		t.Errorf("%s: got %d %q", res.Proto, res.StatusCode, body)
	}
	if res, body := fetch("/both"); res.StatusCode != 200 || body != "HTTP/2.0" {
		t.Errorf("through Middleware: got %d %q", res.StatusCode, body)
	}
	// The CONNECT of RFC 8441, which net/http offers no client for.
	r := httptest.NewRequest(http.MethodConnect, "/both", nil)
	r.ProtoMajor, r.Proto = 2, "HTTP/2.0"
	r.Header[":protocol"] = []string{"websocket"}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, r)
	if w.Code != http.StatusUpgradeRequired || !strings.Contains(w.Body.String(), "HTTP/1.1") {
		t.Errorf("extended CONNECT: got %d %q", w.Code, w.Body)
	}
	// What browsers do at the same server.
	p := knock(t, srv, upgradeRequest("/ws"))
	p.frame(0x81, "hello")
	if got := p.readText(); got != "hello" {
		t.Errorf("got %q", got)
	}
}

func TestMessagesOverTLS(t *testing.T) {
	hub := wsroom.New(wsroom.WithMaxMessageSize(2<<20), wsroom.WithSendQueue(1000, 8<<20),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
	srv := serveConfigured(t, hub, (*httptest.Server).StartTLS, hub)
	a, b := dial(t, srv, "/x"), dial(t, srv, "/x")
	for _, size := range []int{0, 1, 125, 126, 1 << 12, 1<<14 + 1, 1 << 16, 1<<16 + 1, 1 << 20} {
		text := strings.Repeat("x", size)
		a.SendText(text)
		a.ExpectText(text)
		b.ExpectText(text)
	}
	for i := range 200 {
		hub.SendTextToRoom("/x", fmt.Sprint(i))
	}
	for i := range 200 {
		a.ExpectText(fmt.Sprint(i))
		b.ExpectText(fmt.Sprint(i))
	}
	a.Close(websocket.StatusNormalClosure, "")
	b.Close(websocket.StatusNormalClosure, "")
	nothingLeft(t, hub)
}

// TestContextKeepsTheRoute hammers the router while connections ask their contexts: chi reuses its
// route contexts for other requests.
func TestContextKeepsTheRoute(t *testing.T) {
	const conns, rounds = 6, 20
	type key struct{}
	hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
			if err != nil {
				return
			}
			ctx := c.Context()
			route := chi.RouteContext(ctx)
			c.SendText(fmt.Sprint(chi.URLParamFromCtx(ctx, "room"), " ", chi.URLParamFromCtx(ctx, "user"), " ",
				route.RoutePattern(), " ", ctx.Value(key{}), " ", ctx.Err()))
		}))
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, chi.URLParam(r, "room")) }
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, "value of "+r.URL.Path))
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	})
	r.Route("/{room}", func(r chi.Router) {
		r.With(hub.Middleware).Get("/{user}", page)
		r.Get("/", page)
	})
	srv := serve(t, r, hub)

	var clients []*wsroomtest.Client
	for i := range conns {
		clients = append(clients, dial(t, srv, fmt.Sprintf("/room%d/user%d", i, i)))
	}
	for round := range rounds {
		var others sync.WaitGroup
		for i := range 4 {
			others.Go(func() {
				for n := range 10 {
					w := httptest.NewRecorder()
					room := fmt.Sprint("other", round, "-", i, "-", n)
					r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+room+[]string{"", "/someone"}[n%2], nil))
					if w.Body.String() != room {
						t.Errorf("the page of %s got %q", room, w.Body)
					}
				}
			})
		}
		for i, c := range clients {
			c.SendText("?")
			c.ExpectText(fmt.Sprintf("room%d user%d /{room}/{user} value of /room%d/user%d <nil>", i, i, i, i))
		}
		others.Wait()
	}
}

// TestFirstFramesMayComeWithTheHandshake sends what a client without patience sends, cut in pieces:
// the first goes out with the handshake, the others once the answer has come.
func TestFirstFramesMayComeWithTheHandshake(t *testing.T) {
	long := strings.Repeat("x", 3<<10) // with the handshake nearly all that net/http buffers
	longer := strings.Repeat("y", 20<<10)
	many := slices.Repeat([]string{"hello"}, 1000)
	for _, test := range []struct {
		what  string
		texts []string
		cuts  []int // of the frames; negative: from their end
	}{
		{"one frame", []string{"a"}, nil},
		{"three frames", []string{"a", "b", "c"}, nil},
		{"an empty frame", []string{""}, nil},
		{"the first byte", []string{"hello"}, []int{1}},
		{"half a header", []string{"hello"}, []int{4}},
		{"a header", []string{"hello"}, []int{6}},
		{"half a frame", []string{"hello"}, []int{8}},
		{"all but a byte", []string{"hello"}, []int{-1}},
		{"a frame and a half", []string{"hello", "world"}, []int{11 + 8}},
		{"a frame byte by byte", []string{"hello"}, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}},
		{"a long frame", []string{long}, nil},
		{"half a long frame", []string{long}, []int{1000}},
		{"a frame that no buffer holds", []string{longer}, nil},
		{"frames that no buffer holds", many, nil},
		{"frames that no buffer holds, cut", many, []int{4096, 5000}},
		{"long ones and short ones", []string{"a", longer, "b", long, ""}, []int{3, 2000}},
	} {
		for name, serving := range map[string]wsroom.Option{
			"OnText": echo(),
			"Serve": wsroom.Serve(func(c *wsroom.Conn) error {
				for {
					text, err := c.ReadText(context.Background())
					if err != nil {
						return err
					}
					c.SendText(text)
				}
			}),
		} {
			for _, start := range []func(*httptest.Server){(*httptest.Server).Start, (*httptest.Server).StartTLS} {
				t.Run(test.what+" "+name, func(t *testing.T) {
					hub := wsroom.New(serving)
					srv := serveConfigured(t, hub, start, hub)
					var frames []byte
					for _, text := range test.texts {
						frames = append(frames, rawFrame(0x81, text)...)
					}
					from := 0
					p := &peer{}
					conn := connect(t, srv)
					for i, to := range append(test.cuts, len(frames)) {
						if to < 0 {
							to += len(frames)
						}
						piece := string(frames[from:to])
						if from = to; i == 0 {
							piece = upgradeRequest("/") + piece
						}
						if _, err := io.WriteString(conn, piece); err != nil {
							t.Fatal(err)
						}
						if i == 0 {
							p = readAnswer(t, conn)
						}
					}
					for _, want := range test.texts {
						if got := p.readText(); got != want {
							t.Fatalf("got %q, want %q", short(got), short(want))
						}
					}
				})
			}
		}
	}
}

func TestFirstFramesInALargerBufferAreKept(t *testing.T) {
	hub := wsroom.New(echo())
	texts := slices.Repeat([]string{strings.Repeat("x", 1000)}, 10)
	var frames []byte
	for _, text := range texts {
		frames = append(frames, rawFrame(0x81, text)...)
	}
	srv := serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &roomy{w, len(frames)} }), hub)
	p := knock(t, srv, upgradeRequest("/")+string(frames))
	for i, want := range texts {
		if got := p.readText(); got != want {
			t.Fatalf("message %d: got %q", i, short(got))
		}
	}
}

// refusals counts by cause.
type refusals struct {
	mu sync.Mutex
	n  map[string]int
}

func (o *refusals) Add(metric, route, cause string, n int) {
	if metric == wsroom.MetricRefused {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.n[route+" "+cause] += n
	}
}

func (o *refusals) Record(string, string, string, float64) {}

func TestRefusalsAreCountedByCause(t *testing.T) {
	seen := &refusals{n: map[string]int{}}
	hub := wsroom.New(wsroom.WithObserver(seen), wsroom.WithMaxConns(1), wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if room == "closed" {
				return errors.New("no")
			}
			return nil
		}))
	srv := serve(t, muxOf("GET /chat/{room}", hub), hub)
	knock(t, srv, upgradeRequest("/chat/a", "Sec-WebSocket-Version: 12"))
	get(t, srv, "/chat/a")
	knock(t, srv, upgradeRequest("/chat/a", "Origin: null"))
	knock(t, srv, upgradeRequest("/chat/%01"))
	knock(t, srv, upgradeRequest("/chat/closed"))
	knock(t, srv, upgradeRequest("/chat/a"))
	knock(t, srv, upgradeRequest("/chat/a"))
	seen.mu.Lock()
	defer seen.mu.Unlock()
	want := map[string]int{"handshake": 2, "origin": 1, "room": 1, "authorize": 1, "max_conns": 1}
	if len(seen.n) != len(want) {
		t.Errorf("got %v", seen.n)
	}
	for cause, n := range want {
		if got := seen.n["/chat/{room} "+cause]; got != n {
			t.Errorf("%s: got %d, want %d", cause, got, n)
		}
	}
}
