package admission_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// With CloseFrame a client hears by a close frame why it is refused, and is nothing to the hub.
func TestCloseFrameSaysWhyARequestIsRefused(t *testing.T) {
	status := func(status int, message string) wsroom.Option {
		return wsroom.WithAuthorize(func(*http.Request, string) error {
			return fmt.Errorf("hunter2: %w", &wsroom.StatusError{Status: status, Message: message, RetryAfter: time.Second})
		})
	}
	failing := func(err error) wsroom.Option {
		return wsroom.WithRoom(func(*http.Request) (string, error) { return "", err })
	}
	long := strings.Repeat("x", 122)
	for _, test := range []struct {
		what   string
		opt    wsroom.Option
		code   websocket.StatusCode
		reason string
		cause  string
	}{
		{"room error", failing(errors.New("hunter2")), 4400, "Bad Request", "room"},
		{"room not found", failing(&wsroom.StatusError{Status: 404}), 4404, "Not Found", "room"},
		{"bad room name", wsroom.WithRoom(func(*http.Request) (string, error) { return "\x00", nil }), 4400, "bad room name: it must have 1 to 255 bytes of UTF-8 without control characters", "room"},
		{"no path value", wsroom.WithRoom(wsroom.ByPattern), 1011, "wsroom: ByPattern: the route's pattern isn't known here; mount the hub behind the router, not before it, or have a router t", "room"},
		{"any error", wsroom.WithAuthorize(func(*http.Request, string) error { return errors.New("hunter2") }), 4403, "Forbidden", "authorize"},
		{"expired", kit.AdmitFor(-time.Hour), 4401, "Unauthorized", "authorize"},
		{"401", status(401, "log in"), 4401, "log in", "authorize"},
		{"404", status(404, ""), 4404, "Not Found", "authorize"},
		{"429", status(429, ""), 4429, "Too Many Requests", "authorize"},
		{"499", status(499, "x"), 4499, "x", "authorize"},
		{"no error status", status(200, ""), 1011, "Internal Server Error", "authorize"},
		{"502", status(502, "later"), 1011, "later", "authorize"},
		{"503", status(503, "later"), 1013, "later", "authorize"},
		{"longest reason", status(401, long+"y"), 4401, long + "y", "authorize"},
		{"too long", status(401, long+"yz"), 4401, long + "y", "authorize"},
		{"too long by half a character", status(401, long+"é"), 4401, long, "authorize"},
		{"no UTF-8", status(401, "a\xffb"), 4401, "ab", "authorize"},
	} {
		t.Run(test.what, func(t *testing.T) {
			seen := &kit.Observer{Sums: map[string]float64{}}
			hub := wsroom.New(test.opt, wsroom.WithRejectMode(wsroom.CloseFrame), wsroom.WithObserver(seen), wsroom.WithCompression(0),
				wsroom.WithSubprotocols("chat"), wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1),
				wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { t.Error("OnConnect"); return nil }),
				wsroom.OnClose(func(*wsroom.Conn, error) { t.Error("OnClose") }))
			plain := kit.Serve(t, hub)
			withTLS := kit.ServeConfigured(t, hub, (*httptest.Server).StartTLS, hub)
			for _, srv := range []*httptest.Server{plain, withTLS} {
				c := kit.Dial(t, srv, "/a", wsroomtest.WithSubprotocols("chat", bearer("x")), wsroomtest.WithCompression())
				if c.Subprotocol() != "chat" { // a browser would give up
					t.Errorf("subprotocol %q", c.Subprotocol())
				}
				if reason := c.ExpectClose(test.code); reason != test.reason {
					t.Errorf("reason %q, want %q", reason, test.reason)
				}
			}
			p := kit.Request(t, plain, kit.UpgradeRequest("/a", "Sec-WebSocket-Protocol: chat")+string(kit.RawFrame(0x81, strings.Repeat("x", 10<<10))))
			if p.Res.StatusCode != 101 {
				t.Fatalf("got %d", p.Res.StatusCode)
			}
			if code, reason := p.CloseCode(); code != int(test.code) || reason != test.reason {
				t.Errorf("close frame %d %q", code, reason)
			}
			if rest, err := io.ReadAll(p.R); err != nil || len(rest) > 0 {
				t.Errorf("after the close frame: %q, %v", rest, err)
			}
			if s := hub.Stats(); s != (wsroom.Stats{}) || len(hub.Rooms()) != 0 {
				t.Errorf("something is left: %+v", s)
			}
			seen.Mu.Lock()
			defer seen.Mu.Unlock()
			if len(seen.Sums) != 1 || seen.Sums["refused "+test.cause] != 3 {
				t.Errorf("observed %v", seen.Sums)
			}
		})
	}
}

// Limits are told by close frames, too, and let others in again as ever.
func TestCloseFrameTellsOfLimits(t *testing.T) {
	all := func(*http.Request) string { return "" }
	for _, test := range []struct {
		opt    wsroom.Option
		code   websocket.StatusCode
		reason string
	}{
		{wsroom.WithMaxConns(1), 1013, "too many connections"},
		{wsroom.WithMaxConnsPer(all, 1), 4429, "too many connections of yours"},
		{wsroom.WithMaxRooms(1), 1013, "too many rooms"},
		{wsroom.WithMaxMembers(1), 1013, "room is full"},
	} {
		hub := wsroom.New(test.opt, wsroom.WithRejectMode(wsroom.CloseFrame), kit.TellRoom())
		srv := kit.Serve(t, hub)
		first := kit.Dial(t, srv, "/a")
		first.ExpectText("/a")
		over := "/a"
		if test.reason == "too many rooms" {
			over = "/b"
		}
		for range 3 {
			if reason := kit.Dial(t, srv, over).ExpectClose(test.code); reason != test.reason {
				t.Errorf("reason %q, want %q", reason, test.reason)
			}
		}
		if n := hub.Stats(); n.Conns != 1 || n.Rooms != 1 || n.Opened != 1 {
			t.Errorf("%s: %+v", test.reason, n)
		}
		first.CloseNow()
		kit.NothingLeft(t, hub)
		last := kit.Dial(t, srv, over)
		last.ExpectText(over)
		go kit.Shutdown(t, hub)
		last.ExpectClose(websocket.StatusServiceRestart) // from here on the hub refuses everybody
		if reason := kit.Dial(t, srv, over).ExpectClose(websocket.StatusTryAgainLater); reason != "shutting down" {
			t.Errorf("reason %q after Shutdown, want %q", reason, "shutting down")
		}
	}
}

// What is no valid handshake, or comes of a foreign page, isn't upgraded even to be told so.
func TestCloseFrameUpgradesNoStrangers(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(append(kit.CallbackCount(&calls), wsroom.WithRejectMode(wsroom.CloseFrame), wsroom.WithHosts("127.0.0.1"))...)
	srv := kit.Serve(t, hub)
	hidden := kit.Serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &statusOnly{ResponseWriter: w} }), hub)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", "Sec-WebSocket-Version: 12")), http.StatusBadRequest)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", "Sec-WebSocket-Key: x")), http.StatusBadRequest)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", "Upgrade")), http.StatusUpgradeRequired)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", "Origin: null")), http.StatusForbidden)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/", "Host: evil.example", "Origin: http://evil.example")), http.StatusForbidden)
	wantRefusal(t, kit.Request(t, hidden, kit.UpgradeRequest("/")), http.StatusNotImplemented, "statusOnly")
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
}

// A refused client is cut after a second, whatever it does: stay silent, not even read the answer, or
// talk on. Shutdown doesn't wait for it.
func TestRefusedClientIsCutInTime(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), kit.Deny(401)) }
	for what, act := range map[string]func(conn net.Conn, r *bufio.Reader){
		"silent": func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) },
		"dripping": func(conn net.Conn, r *bufio.Reader) {
			for _, err := conn.Write([]byte{0}); err == nil; _, err = conn.Write([]byte{0}) {
				time.Sleep(time.Millisecond)
			}
		},
		"not reading": func(conn net.Conn, r *bufio.Reader) { io.Copy(conn, endless{}) },
	} {
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			begin := time.Now()
			conn, err := s.Ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, kit.Handshake, "/a", "")
			p := &kit.Peer{RawConn: &kit.RawConn{Conn: conn, T: t, R: bufio.NewReader(conn)}}
			if what != "not reading" {
				p = kit.ReadAnswer(t, conn)
				if code, _ := p.CloseCode(); code != 4401 {
					t.Errorf("%s: close code %d", what, code)
				}
			}
			kit.Shutdown(t, hub)
			kit.WantBetween(t, what+": Shutdown", time.Since(begin), 0, 0)
			act(conn, p.R)
			synctest.Wait()
			kit.WantBetween(t, what+": cut", time.Since(begin), time.Second-1, time.Second+time.Millisecond)
		})
	}
}

// Not even refused clients are more than a fixed number at a time; the rest is refused by HTTP.
func TestCloseFramesAreBounded(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), kit.Deny(404)) }
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		for range 3 {
			statuses := map[int]int{}
			for range 300 {
				conn, err := s.Ln.Dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, kit.Handshake, "/a", "Connection: close\r\n")
				p := kit.ReadAnswer(t, conn)
				if p.Res.StatusCode == 101 {
					p.CloseCode()
				}
				statuses[p.Res.StatusCode]++
			}
			if statuses[101] != 256 || statuses[404] != 44 {
				t.Errorf("got %v", statuses)
			}
			time.Sleep(time.Second) // they are cut
			synctest.Wait()
		}
	})
}

// A refused client that sends without end gets its close frame, and is cut.
func TestRefusedFloodIsCut(t *testing.T) {
	srv := kit.Serve(t, wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), kit.Deny(403)))
	p := kit.Request(t, srv, kit.UpgradeRequest("/"))
	go io.Copy(p, endless{})
	if code, _ := p.CloseCode(); code != 4403 {
		t.Errorf("close code %d", code)
	}
	if n, err := io.Copy(io.Discard, p.R); n > 0 {
		t.Errorf("%d bytes after the close frame, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Where there is no socket to be had for a close frame, the refusal is by HTTP.
func TestCloseFrameWithoutASocketIsAStatus(t *testing.T) {
	logged := &kit.LockedBuffer{}
	hub := wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), kit.Deny(403), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
	srv := kit.ServeConfigured(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &kit.NoHijack{ResponseWriter: w} }),
		(*httptest.Server).Start, hub)
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/")), http.StatusForbidden, "Forbidden")
	if n := strings.Count(logged.String(), "hijacking failed"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, logged)
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
	srv := kit.Serve(t, kit.MuxOf("GET /chat/{room}", hub), hub)
	kit.Request(t, srv, kit.UpgradeRequest("/chat/a", "Sec-WebSocket-Version: 12"))
	get(t, srv, "/chat/a")
	kit.Request(t, srv, kit.UpgradeRequest("/chat/a", "Origin: null"))
	kit.Request(t, srv, kit.UpgradeRequest("/chat/%01"))
	kit.Request(t, srv, kit.UpgradeRequest("/chat/closed"))
	kit.Request(t, srv, kit.UpgradeRequest("/chat/a"))
	kit.Request(t, srv, kit.UpgradeRequest("/chat/a"))
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
