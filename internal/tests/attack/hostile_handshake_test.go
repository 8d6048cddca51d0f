package attack_test

import (
	"fmt"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// hostileHandshakes are requests that must not be upgraded, and what they get.
func hostileHandshakes() map[string][]string {
	with := func(headers ...string) string { return kit.UpgradeRequest("/", headers...) }
	key := func(k string) string { return with("Sec-WebSocket-Key: " + k) }
	version := func(v string) string { return with("Sec-WebSocket-Version: " + v) }
	line := func(l string, headers ...string) string { return kit.RequestLine(l, headers...) }
	return map[string][]string{
		"405": {
			line("POST / HTTP/1.1", "Content-Length: 0"), line("PUT / HTTP/1.1", "Content-Length: 0"),
			line("DELETE / HTTP/1.1"), line("OPTIONS / HTTP/1.1"), line("PATCH / HTTP/1.1", "Content-Length: 0"),
			line("TRACE / HTTP/1.1"), line("get / HTTP/1.1"), line("GETS / HTTP/1.1"), line("G / HTTP/1.1"),
			line("CONNECT / HTTP/1.1"), line("POST / HTTP/1.1", "X-HTTP-Method-Override: GET", "Content-Length: 0"),
		},
		"426": {
			line("GET / HTTP/1.0"), with("Upgrade"), with("Connection"), with("Connection: keep-alive"),
			with("Connection: close"), with("Connection: upgraded"), with("Connection: up grade"), with("Connection: \"Upgrade\""),
			with("Upgrade: "), with("Upgrade: h2c"), with("Upgrade: websockets"), with("Upgrade: web socket"),
			with("Upgrade: websocket/13"), with("Upgrade: websocket;q=1"), with("Upgrade: http://websocket"), with("Upgrade", "Connection"),
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		},
		"400": {
			key(""), key("dGhlIHNhbXBsZQ=="), key("dGhlIHNhbXBsZSBub25jZTE="), key("!!!!!!!!!!!!!!!!!!!!!!=="),
			key("dGhlIHNhbXBsZSBub25jZQ"), key("dGhlIHNhbXBsZSBub25jZQ=="[:20] + "===="), key(strings.Repeat("A", 4096)),
			key("dGhlIHNhbXBsZSBub25jZQ==, dGhlIHNhbXBsZSBub25jZQ=="), with("Sec-WebSocket-Key"),
			with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
			version("12"), version("0"), version("-13"), version("013"), version("13.0"), version("13, 8"), version("8, 13"),
			version("99999999999999999999"), version(""), version("0xd"), with("Sec-WebSocket-Version"), version("thirteen"),
			// What follows net/http refuses.
			"GET /\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "\x00\x00\x00\x00\r\n\r\n",
			"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1 x\r\nHost: x\r\n\r\n", "GET / HTTP/x\r\nHost: x\r\n\r\n",
			" GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / http/1.1\r\nHost: x\r\n\r\n", "GET % HTTP/1.1\r\nHost: x\r\n\r\n",
			line("GET /%zz HTTP/1.1"), line("GET /%2 HTTP/1.1"), line("GET /\x00 HTTP/1.1"), line("GET a b HTTP/1.1"),
			with("Host: a\r\nHost: b"), with("Host: a b"), with("Host: <script>"), with("no colon here\r\nX: y"),
			with("X\x00: y"), with("X : y"), with(": y"), with("X: \x00"), with("X: a\x7fb"), with("X: y\r\n folded\x01"),
			with("Content-Length: -1"), with("Content-Length: x"), with("Content-Length: 1", "Content-Length: 2"),
		},
		"403": {
			with("Origin: null"), with("Origin: http://evil.example"), with("Origin: http://127.0.0.1.evil.example"), with("Origin: "),
		},
		"431": {
			with("Sec-WebSocket-Protocol: " + strings.Repeat("chat, ", 1<<20/5)),
			with("X-Long: " + strings.Repeat("x", 2<<20)),
			with(strings.Repeat("X-Many: "+strings.Repeat("x", 110)+"\r\n", 10_000) + "X: y"),
			line("GET /" + strings.Repeat("x", 2<<20) + " HTTP/1.1"),
		},
		"501": {line("GET / HTTP/1.1", "Transfer-Encoding: gzip")},
		"505": {line("GET / HTTP/2.0"), line("GET / HTTP/0.9"), line("GET / HTTP/9.9")},
	}
}

// No malformed handshake is upgraded or reaches the application, and each gets its status.
func TestHostileHandshakes(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(kit.CallbackCount(&calls)...)
	srv := kit.Serve(t, hub)
	n := 0
	for status, requests := range hostileHandshakes() {
		for _, request := range requests {
			n++
			if got := statusOf(t, srv, request); got != status {
				t.Errorf("%q got %s, want %s", kit.Short(request), got, status)
			}
		}
	}
	if calls.Load() != 0 || n < 60 {
		t.Errorf("the application was called %d times for %d requests", calls.Load(), n)
	}
	kit.NothingLeft(t, hub)
}

// statusOf sends a request and returns the status that it gets.
func statusOf(t testing.TB, srv *httptest.Server, request string) string {
	conn := kit.Connect(t, srv)
	defer conn.Close()
	go io.WriteString(conn, request) // which may be too long to be read
	var proto, status string
	fmt.Fscan(conn, &proto, &status)
	return status
}

// Half a handshake, of which a byte comes each second, is cut in time and leaves nothing behind, with
// the server's ReadHeaderTimeout.
func TestHostileHalfHandshakes(t *testing.T) {
	const timeout = time.Second
	hub := wsroom.New()
	srv := kit.ServeConfigured(t, hub, func(srv *httptest.Server) {
		srv.Config.ReadHeaderTimeout = timeout
		srv.Start()
	}, hub)
	before := countResources()
	var wg sync.WaitGroup
	for range kit.Scale(100, 1000) {
		conn := kit.Connect(t, srv)
		request := kit.UpgradeRequest("/")
		io.WriteString(conn, request[:20])
		watch := startWatch()
		wg.Go(func() {
			defer conn.Close()
			cut := make(chan struct{})
			go func() {
				defer close(cut)
				io.Copy(io.Discard, conn)
			}()
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for i := 20; ; i++ {
				select {
				case <-tick.C:
					io.WriteString(conn, request[i:i+1])
				case <-cut:
					watch.within(t, "cutting it", time.Since(watch.start), timeout+time.Second)
					return
				}
			}
		})
	}
	wg.Wait()
	wantNoMore(t, before)
}

// A name out of a URL is refused, or is a room of its own: never another's.
func TestHostileNames(t *testing.T) {
	hub := wsroom.New(kit.TellRoom())
	srv := kit.Serve(t, hub)
	rooms := map[string]string{} // to the target that named it
	for _, target := range []string{
		"/a", "/%61b", "/A", "/а", "/%D0%B0", "/a%CC%81", "/%C3%A1", "/a%E2%80%8B", "/%EF%BC%A1", "/a%2Fb", "/a/b", "/a%252Fb", "/a%5Cb",
		"/*", "/a*", "/%3E", "/a.b", "/a.*", "/a.%3E", "/{}", "/{room}", "/%7Broom%7D", "/...", "/..a", "/a;b", "/a|b", "/$", "/~",
		"/%E2%80%AEa", "/a%20", "/%20a", "/a+", "/a%2B%2B",
	} {
		p := kit.Request(t, srv, kit.UpgradeRequest(target))
		if p.Res.StatusCode != 101 {
			t.Errorf("%s: got %d", target, p.Res.StatusCode)
			continue
		}
		room := p.ReadText()
		if other, taken := rooms[room]; taken && !slices.Contains([]string{"/%D0%B0", "/%7Broom%7D"}, target) {
			t.Errorf("%s and %s are both the room %q", other, target, room)
		}
		rooms[room] = target
		p.Close()
	}
	for _, target := range []string{
		"/a%00", "/%00", "/a%0d%0ab", "/%0a", "/a%09b", "/%1b[31m", "/%7f", "/%C2%80", "/%ff", "/%C3%28", "/%ED%A0%80", "/%", "/%2",
		"/" + strings.Repeat("a", 255), "/" + strings.Repeat("a", 64<<10), "/" + strings.Repeat("%C3%A1", 128),
	} {
		if status := statusOf(t, srv, kit.UpgradeRequest(target)); status != "400" {
			t.Errorf("%s got %s, want 400", kit.Short(target), status)
		}
	}
	kit.NothingLeft(t, hub)
}

// A million joins, half of them of rooms that nobody else is in, leave no room behind.
func TestHostileJoins(t *testing.T) {
	const conns, kept = 10, 100
	joins := kit.Scale(100_000, 1_000_000) / conns
	hub := wsroom.New(wsroom.WithMaxRooms(conns * (kept + 2)))
	srv := kit.Serve(t, hub)
	heap := kit.HeapInUse()
	for range conns {
		defer kit.Dial(t, srv, "/a").CloseNow()
	}
	name := func(i, j int) string { return fmt.Sprint("room ", j, " ", i*(j%2)) }
	var wg sync.WaitGroup
	for i, c := range hub.Members("/a") {
		wg.Go(func() {
			for j := range joins {
				if err := c.Join(name(i, j)); err != nil {
					t.Error(err)
					return
				}
				if j >= kept {
					c.Leave(name(i, j-kept))
				}
			}
			c.Close(4000, "")
		})
	}
	wg.Wait()
	if n := len(hub.Rooms()); n > 0 {
		t.Errorf("%d rooms are left", n)
	}
	if grown := kit.HeapInUse() - heap; grown > 4<<20 {
		t.Errorf("heap grew by %d KiB", grown>>10)
	}
}
