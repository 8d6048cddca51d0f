package admission_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestMiddlewareLeavesOtherRequestsUntouched(t *testing.T) {
	var calls atomic.Int32
	hub := wsroom.New(kit.CallbackCount(&calls)...)
	type passed struct {
		w http.ResponseWriter
		r *http.Request
	}
	var got passed
	h := hub.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got = passed{w, r} }))
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi",
		kit.UpgradeRequest("/", "Upgrade: h2c"),
		kit.UpgradeRequest("/", "Connection: close"),
		kit.UpgradeRequest("/", "Upgrade"),
		kit.UpgradeRequest("/", "Connection"),
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
	srv := kit.Serve(t, hub.Middleware(page), hub)
	p := kit.Request(t, srv, "POST /x?y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
	if p.Res.StatusCode != http.StatusTeapot || p.Body != "POST /x?y hi" || p.Res.Header.Get("Upgrade") != "tea" ||
		!slices.Equal(p.Res.Header.Values("X-Two"), []string{"1", "2"}) {
		t.Errorf("got %d %q %v", p.Res.StatusCode, p.Body, p.Res.Header)
	}
	if n := calls.Load(); n != 0 {
		t.Errorf("the application was called %d times", n)
	}
	kit.Dial(t, srv, "/x").CloseNow()
	kit.NothingLeft(t, hub)
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
		}, "*admission_test.statusOnly"},
		{"status recorder behind one with Unwrap", func(h http.Handler) http.Handler {
			return wrap(h, func(w http.ResponseWriter) http.ResponseWriter {
				return &unwrapping{statusOnly{ResponseWriter: &statusOnly{ResponseWriter: w}}}
			})
		}, "*admission_test.statusOnly"},
		{"TimeoutHandler", func(h http.Handler) http.Handler {
			return http.TimeoutHandler(h, kit.Patience, "late")
		}, "*http.timeoutWriter"},
		{"chi's Logger before TimeoutHandler", func(h http.Handler) http.Handler {
			return http.TimeoutHandler(middleware.RequestLogger(&silentLog{})(h), kit.Patience, "late")
		}, "*http.timeoutWriter"},
		{"status recorder with Unwrap", func(h http.Handler) http.Handler {
			return wrap(h, func(w http.ResponseWriter) http.ResponseWriter {
				return &unwrapping{statusOnly{ResponseWriter: w}}
			})
		}, ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			logged := &kit.LockedBuffer{}
			var calls atomic.Int32
			hub := wsroom.New(append(kit.CallbackCount(&calls), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))...)
			srv := kit.Serve(t, test.mount(hub), hub)
			p := kit.Request(t, srv, kit.UpgradeRequest("/"))
			if test.named == "" {
				if p.Res.StatusCode != 101 || calls.Load() == 0 {
					t.Errorf("got %d %s after %d calls", p.Res.StatusCode, p.Body, calls.Load())
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
			kit.NothingLeft(t, hub)
		})
	}
}

// TestHijackThatFailsIsRefused: nothing is sent before the socket is ours, so the client gets an answer.
func TestHijackThatFailsIsRefused(t *testing.T) {
	logged := &kit.LockedBuffer{}
	hub := wsroom.New(wsroom.WithMaxConns(1), wsroom.WithLogger(slog.New(slog.NewTextHandler(logged, nil))))
	srv := kit.ServeConfigured(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &kit.NoHijack{ResponseWriter: w} }),
		(*httptest.Server).Start, hub)
	for range 2 {
		wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/")), http.StatusInternalServerError, "Internal Server Error")
		kit.NothingLeft(t, hub)
	}
	if n := strings.Count(logged.String(), "hijacking failed"); n != 2 {
		t.Errorf("logged %d times:\n%s", n, logged)
	}
	if got := hub.Causes().Refused; got["hijack"] != 2 || len(got) != 1 {
		t.Errorf("counted %v", got)
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

// TestConnectionOutlivesChisMiddleware opens connections through chi's middleware, waits until the request is
// over, and talks on. docs/middleware_test.go does so through each by itself.
func TestConnectionOutlivesChisMiddleware(t *testing.T) {
	chiLog := &silentLog{}
	logger := middleware.RequestLogger(chiLog)
	for _, test := range []struct {
		what string
		use  []func(http.Handler) http.Handler
	}{
		{"none", nil},
		{"ThrottleBacklog", []func(http.Handler) http.Handler{middleware.ThrottleBacklog(1, 1, time.Minute)}},
		{"ClientIP", []func(http.Handler) http.Handler{middleware.ClientIPFromRemoteAddr}},
		{"all", []func(http.Handler) http.Handler{
			middleware.RequestID, middleware.ClientIPFromRemoteAddr, logger, middleware.Recoverer, middleware.Compress(5),
			middleware.Heartbeat("/ping"), middleware.StripSlashes, middleware.Throttle(1), middleware.Timeout(kit.Patience),
		}},
	} {
		t.Run(test.what, func(t *testing.T) {
			over := make(chan struct{}, 10)
			hub := wsroom.New(kit.TellRoom(), kit.Echo(), wsroom.WithRoom(wsroom.ByPathValue("room")),
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
			srv := kit.Serve(t, r, hub)
			var peers []*kit.Peer
			for range 3 { // Throttle lets one request in at a time
				p := kit.Request(t, srv, kit.UpgradeRequest("/chat/%61", "Accept-Encoding: gzip, deflate"))
				if p.Res.StatusCode != 101 {
					t.Fatalf("got %d %s", p.Res.StatusCode, p.Body)
				}
				peers = append(peers, p)
				kit.Await(t, over, "the end of the request")
			}
			for i, p := range peers {
				p.Frame(0x81, fmt.Sprint("hello ", i))
				if room, text := p.ReadText(), p.ReadText(); room != "a" || text != fmt.Sprint("hello ", i) {
					t.Errorf("room %q, echo %q", room, text)
				}
			}
			if status, body := get(t, srv, "/chat/a"); status != 200 || body != "page" {
				t.Errorf("beside open connections a page got %d %q", status, body)
			}
			kit.Await(t, over, "the end of the request")
			wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/chat/closed")), http.StatusForbidden, "Forbidden")
			kit.Await(t, over, "the end of the request")
			wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/chat/a", "Origin: http://evil.example", "Accept-Encoding: gzip")), http.StatusForbidden)
			for _, p := range peers {
				p.Close()
			}
			kit.NothingLeft(t, hub)
		})
	}
	if !chiLog.has(101) || !chiLog.has(403) || !chiLog.has(200) || len(chiLog.panics) != 0 {
		t.Errorf("logged %v, panics %v", chiLog.statuses, chiLog.panics)
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
	srv := kit.Serve(t, r, hub)

	p := kit.Request(t, srv, kit.UpgradeRequest("/chat/a/", "X-Request-Id: req-1", "X-Real-IP: 203.0.113.9"))
	q := kit.Request(t, srv, kit.UpgradeRequest("/chat/b", "X-Request-Id: req-2", "X-Real-IP: 203.0.113.10"))
	p.Frame(0x81, "?")
	q.Frame(0x81, "?")
	if got := p.ReadText() + ", " + q.ReadText(); got != "req-1 203.0.113.9, req-2 203.0.113.10" {
		t.Errorf("got %q", got)
	}
	if got := hub.Rooms(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("rooms %q", got)
	}
	if status, body := get(t, srv, "/ping"); status != 200 || body != "." {
		t.Errorf("Heartbeat: %d %q", status, body)
	}
	if kit.Request(t, srv, kit.UpgradeRequest("/chat/panic")).Res.StatusCode == 101 {
		t.Error("upgraded in spite of a panic")
	}
	chiLog.mu.Lock()
	if len(chiLog.panics) != 1 || chiLog.panics[0] != "boom" {
		t.Errorf("Recoverer saw %v", chiLog.panics)
	}
	chiLog.mu.Unlock()
	p.Close()
	q.Close()
	kit.NothingLeft(t, hub)
}
