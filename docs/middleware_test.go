package docs_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// recorder is what many a middleware wraps the ResponseWriter in, to log or to count.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// unwrappable is one that http.ResponseController sees through.
type unwrappable struct{ recorder }

func (w *unwrappable) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buffer is of a middleware that looks at the whole answer before it sends any of it.
type buffer struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (w *buffer) WriteHeader(status int)      { w.status = status }
func (w *buffer) Write(p []byte) (int, error) { return w.body.Write(p) }

func buffered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &buffer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		w.WriteHeader(answer.status)
		_, _ = answer.body.WriteTo(w)
	})
}

// zipper compresses what is written.
type zipper struct {
	http.ResponseWriter
	gzip *gzip.Writer
}

func (w *zipper) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *zipper) Write(p []byte) (int, error) {
	if w.gzip == nil {
		w.gzip = gzip.NewWriter(w.ResponseWriter)
	}
	return w.gzip.Write(p)
}

func zipped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		zip := &zipper{ResponseWriter: w}
		next.ServeHTTP(zip, r)
		if zip.gzip != nil {
			_ = zip.gzip.Close()
		}
	})
}

func wrap(with func(http.ResponseWriter) http.ResponseWriter) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(with(w), r) })
	}
}

var quiet = &middleware.DefaultLogFormatter{Logger: log.New(io.Discard, "", 0), NoColor: true}

//lint:ignore SA1019 the page says why not to use it
var realIP = middleware.RealIP

// middlewares are the rows of the page's table.
var middlewares = map[string]func(http.Handler) http.Handler{
	"a recorder with neither Hijack nor Unwrap": wrap(func(w http.ResponseWriter) http.ResponseWriter { return &recorder{ResponseWriter: w} }),
	"a recorder with Unwrap":                    wrap(func(w http.ResponseWriter) http.ResponseWriter { return &unwrappable{recorder{ResponseWriter: w}} }),
	"a buffer with neither":                     buffered,
	"a compressor with Unwrap":                  zipped,
	"`http.TimeoutHandler`":                     func(h http.Handler) http.Handler { return http.TimeoutHandler(h, patience, "late") },
	"`http.MaxBytesHandler`":                    func(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1) },
	"`http.CrossOriginProtection`":              new(http.CrossOriginProtection).Handler,

	"`middleware.Logger`":           middleware.RequestLogger(quiet),
	"`middleware.Recoverer`":        middleware.Recoverer,
	"`middleware.RequestID`":        middleware.RequestID,
	"`middleware.Compress`":         middleware.Compress(5),
	"`middleware.Throttle`":         middleware.Throttle(1),
	"`middleware.Timeout`":          middleware.Timeout(10 * time.Millisecond),
	"`middleware.RealIP`":           realIP,
	"`middleware.ClientIPFromXFF`":  middleware.ClientIPFromXFF("10.0.0.0/8"),
	"`middleware.CleanPath`":        middleware.CleanPath,
	"`middleware.StripSlashes`":     middleware.StripSlashes,
	"`middleware.RedirectSlashes`":  middleware.RedirectSlashes,
	"`middleware.Heartbeat`":        middleware.Heartbeat("/ping"),
	"`middleware.NoCache`":          middleware.NoCache,
	"`middleware.GetHead`":          middleware.GetHead,
	"`middleware.BasicAuth`":        middleware.BasicAuth("", map[string]string{"ann": "secret"}),
	"`middleware.AllowContentType`": middleware.AllowContentType("application/json"),
}

// TestMiddlewaresWorkAsThePageSays holds three connections open behind each, after the middleware's part is
// over and its time is up, and talks to each.
func TestMiddlewaresWorkAsThePageSays(t *testing.T) {
	rows := table(t, "middleware.md", 0)
	for _, row := range rows {
		for _, name := range strings.Split(row[0], ", ") {
			t.Run(name, func(t *testing.T) {
				use := middlewares[name]
				if use == nil {
					t.Fatal("no such middleware")
				}
				if got := behind(t, use); got != row[1] {
					t.Errorf("the page says %s, and it is %s", row[1], got)
				}
			})
		}
	}
	if named := strings.Join(names(rows), ", "); len(strings.Split(named, ", ")) != len(middlewares) {
		t.Errorf("%d middlewares, and on the page: %s", len(middlewares), named)
	}
}

func names(rows [][]string) (names []string) {
	for _, row := range rows {
		names = append(names, row[0])
	}
	return names
}

// behind returns "works", or the status of the answer.
func behind(t *testing.T, use func(http.Handler) http.Handler) string {
	over := make(chan struct{}, 10)
	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendText(text)
		}
	}))
	inner := chi.NewRouter()
	inner.Use(use)
	inner.Handle("/*", hub)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		over <- struct{}{}
	}), hub)
	res := knock(t, srv, "/chat/", "Accept-Encoding: gzip")
	res.Body.Close()
	await(t, over, "the end of the request")
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Sprint(res.StatusCode)
	}
	var open []*wsroomtest.Client
	for range 3 {
		open = append(open, wsroomtest.Dial(t, nil, srv.URL+"/chat/", wsroomtest.WithHeader("Accept-Encoding", "gzip")))
		await(t, over, "the end of the request")
	}
	past, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond) // Timeout's time, and more
	defer cancel()
	<-past.Done()
	for _, c := range open {
		c.SendText("still here")
		c.ExpectText("still here")
	}
	return "works"
}

// A forged header makes RealIP tell lies of the client's address, with nothing but a header.
func TestRealIPBelievesEveryone(t *testing.T) {
	for believes, use := range map[bool]func(http.Handler) http.Handler{true: realIP, false: passOn} {
		addresses := make(chan string, 1)
		hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			addresses <- c.RemoteAddr()
			return nil
		}))
		res := knock(t, serve(t, use(hub), hub), "/", "X-Forwarded-For: 203.0.113.9")
		defer res.Body.Close()
		if got := await(t, addresses, "OnConnect"); strings.HasPrefix(got, "203.0.113.9") != believes {
			t.Errorf("with RealIP %t: %s", believes, got)
		}
	}
}

func passOn(next http.Handler) http.Handler { return next }

// A WebSocket's request is a GET, which CrossOriginProtection lets through: only the hub refuses it.
func TestCrossOriginProtectionLetsWebSocketsThrough(t *testing.T) {
	for status, opt := range map[int]wsroom.Option{101: wsroom.WithInsecureAnyOrigin(), 403: nil} {
		hub := wsroom.New(opt)
		srv := serve(t, new(http.CrossOriginProtection).Handler(hub), hub)
		res := knock(t, srv, "/", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
		defer res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("got %d, want %d", res.StatusCode, status)
		}
	}
}

// lines is a log that a test reads.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Logger's line comes at the upgrade, and Recoverer hears nothing of a callback's panic.
func TestWhatMiddlewareSeesIsTheHandshake(t *testing.T) {
	logged, over := &lines{}, make(chan struct{}, 1)
	hub := wsroom.New(wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
		if err == nil {
			panic("boom")
		}
	}))
	logger := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(logged, "", 0), NoColor: true})
	inner := logger(middleware.Recoverer(hub))
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inner.ServeHTTP(w, r)
		over <- struct{}{}
	}), hub)
	c := wsroomtest.Dial(t, nil, srv.URL+"/")
	await(t, over, "the end of the request")
	before := logged.String()
	if !strings.Contains(before, " - 101 ") {
		t.Errorf("logged: %s", before)
	}
	c.SendText("?")
	c.ExpectClose(websocket.StatusInternalError)
	if after := logged.String(); after != before {
		t.Errorf("logged later: %s", after[len(before):])
	}
}
