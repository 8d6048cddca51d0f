package wsroom_test

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
	"github.com/wsroom/wsroom/wsroomtest"
)

// deny refuses every request.
func deny(status int) wsroom.Option {
	return wsroom.WithAuthorize(func(*http.Request, string) error { return &wsroom.StatusError{Status: status} })
}

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
		{"bad room name", wsroom.WithRoom(func(*http.Request) (string, error) { return "\x00", nil }), 4400, "bad room name", "room"},
		{"no path value", wsroom.WithRoom(wsroom.ByPattern), 1011, "wsroom: ByPattern: the route's pattern isn't known here; mount the hub behind the router, not before it, or have a router t", "room"},
		{"any error", wsroom.WithAuthorize(func(*http.Request, string) error { return errors.New("hunter2") }), 4403, "Forbidden", "authorize"},
		{"expired", admitFor(-time.Hour), 4401, "Unauthorized", "authorize"},
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
			seen := &observer{sums: map[string]float64{}}
			hub := wsroom.New(test.opt, wsroom.WithRejectMode(wsroom.CloseFrame), wsroom.WithObserver(seen), wsroom.WithCompression(0),
				wsroom.WithSubprotocols("chat"), wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1),
				wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { t.Error("OnConnect"); return nil }),
				wsroom.OnClose(func(*wsroom.Conn, error) { t.Error("OnClose") }))
			plain := serve(t, hub)
			withTLS := serveConfigured(t, hub, (*httptest.Server).StartTLS, hub)
			for _, srv := range []*httptest.Server{plain, withTLS} {
				c := dial(t, srv, "/a", wsroomtest.WithSubprotocols("chat", bearer("x")), wsroomtest.WithCompression())
				if c.Subprotocol() != "chat" { // a browser would give up
					t.Errorf("subprotocol %q", c.Subprotocol())
				}
				if reason := c.ExpectClose(test.code); reason != test.reason {
					t.Errorf("reason %q, want %q", reason, test.reason)
				}
			}
			p := knock(t, plain, upgradeRequest("/a", "Sec-WebSocket-Protocol: chat")+string(rawFrame(0x81, strings.Repeat("x", 10<<10))))
			if p.res.StatusCode != 101 {
				t.Fatalf("got %d", p.res.StatusCode)
			}
			if code, reason := p.closeCode(); code != int(test.code) || reason != test.reason {
				t.Errorf("close frame %d %q", code, reason)
			}
			if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
				t.Errorf("after the close frame: %q, %v", rest, err)
			}
			if s := hub.Stats(); s != (wsroom.Stats{}) || len(hub.Rooms()) != 0 {
				t.Errorf("something is left: %+v", s)
			}
			seen.mu.Lock()
			defer seen.mu.Unlock()
			if len(seen.sums) != 1 || seen.sums["refused "+test.cause] != 3 {
				t.Errorf("observed %v", seen.sums)
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
		hub := wsroom.New(test.opt, wsroom.WithRejectMode(wsroom.CloseFrame), tellRoom())
		srv := serve(t, hub)
		first := dial(t, srv, "/a")
		first.ExpectText("/a")
		over := "/a"
		if test.reason == "too many rooms" {
			over = "/b"
		}
		for range 3 {
			if reason := dial(t, srv, over).ExpectClose(test.code); reason != test.reason {
				t.Errorf("reason %q, want %q", reason, test.reason)
			}
		}
		if n := hub.Stats(); n.Conns != 1 || n.Rooms != 1 || n.Opened != 1 {
			t.Errorf("%s: %+v", test.reason, n)
		}
		first.CloseNow()
		nothingLeft(t, hub)
		dial(t, srv, over).ExpectText(over)
		go shutdown(t, hub)
		until(t, "the hub is closed", func() bool {
			return dial(t, srv, over).ExpectClose(websocket.StatusTryAgainLater) == "shutting down"
		})
	}
}

// What is no valid handshake, or comes of a foreign page, isn't upgraded even to be told so.
func TestCloseFrameUpgradesNoStrangers(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(append(callbackCount(&calls), wsroom.WithRejectMode(wsroom.CloseFrame), wsroom.WithHosts("127.0.0.1"))...)
	srv := serve(t, hub)
	hidden := serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &statusOnly{ResponseWriter: w} }), hub)
	wantRefusal(t, knock(t, srv, upgradeRequest("/", "Sec-WebSocket-Version: 12")), http.StatusBadRequest)
	wantRefusal(t, knock(t, srv, upgradeRequest("/", "Sec-WebSocket-Key: x")), http.StatusBadRequest)
	wantRefusal(t, knock(t, srv, upgradeRequest("/", "Upgrade")), http.StatusUpgradeRequired)
	wantRefusal(t, knock(t, srv, upgradeRequest("/", "Origin: null")), http.StatusForbidden)
	wantRefusal(t, knock(t, srv, upgradeRequest("/", "Host: evil.example", "Origin: http://evil.example")), http.StatusForbidden)
	wantRefusal(t, knock(t, hidden, upgradeRequest("/")), http.StatusNotImplemented, "statusOnly")
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
}

// A refused client is cut after a second, whatever it does: stay silent, not even read the answer, or
// talk on. Shutdown doesn't wait for it.
func TestRefusedClientIsCutInTime(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), deny(401)) }
	for what, act := range map[string]func(conn net.Conn, r *bufio.Reader){
		"silent": func(conn net.Conn, r *bufio.Reader) { io.Copy(io.Discard, r) },
		"dripping": func(conn net.Conn, r *bufio.Reader) {
			for _, err := conn.Write([]byte{0}); err == nil; _, err = conn.Write([]byte{0}) {
				time.Sleep(time.Millisecond)
			}
		},
		"not reading": func(conn net.Conn, r *bufio.Reader) { io.Copy(conn, endless{}) },
	} {
		inBubble(t, newHub, func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
			begin := time.Now()
			conn, err := s.ln.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, handshake, "/a", "")
			p := &peer{rawConn: &rawConn{Conn: conn, t: t, r: bufio.NewReader(conn)}}
			if what != "not reading" {
				p = readAnswer(t, conn)
				if code, _ := p.closeCode(); code != 4401 {
					t.Errorf("%s: close code %d", what, code)
				}
			}
			shutdown(t, hub)
			wantBetween(t, what+": Shutdown", time.Since(begin), 0, 0)
			act(conn, p.r)
			synctest.Wait()
			wantBetween(t, what+": cut", time.Since(begin), time.Second-1, time.Second+time.Millisecond)
		})
	}
}

// Not even refused clients are more than a fixed number at a time; the rest is refused by HTTP.
func TestCloseFramesAreBounded(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), deny(404)) }
	inBubble(t, newHub, func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
		for range 3 {
			statuses := map[int]int{}
			for range 300 {
				conn, err := s.ln.dial(t.Context(), "", "")
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				fmt.Fprintf(conn, handshake, "/a", "Connection: close\r\n")
				p := readAnswer(t, conn)
				if p.res.StatusCode == 101 {
					p.closeCode()
				}
				statuses[p.res.StatusCode]++
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
	srv := serve(t, wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), deny(403)))
	p := knock(t, srv, upgradeRequest("/"))
	go io.Copy(p, endless{})
	if code, _ := p.closeCode(); code != 4403 {
		t.Errorf("close code %d", code)
	}
	if n, err := io.Copy(io.Discard, p.r); n > 0 {
		t.Errorf("%d bytes after the close frame, %v", n, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// Where there is no socket to be had for a close frame, the refusal is by HTTP.
func TestCloseFrameWithoutASocketIsAStatus(t *testing.T) {
	logged := &lockedBuffer{}
	hub := wsroom.New(wsroom.WithRejectMode(wsroom.CloseFrame), deny(403), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
	srv := serveConfigured(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &promising{w} }),
		(*httptest.Server).Start, hub)
	wantRefusal(t, knock(t, srv, upgradeRequest("/")), http.StatusForbidden, "Forbidden")
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
