package interop_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// browse opens a page in a headless Chromium, whose script finds args behind the #, closes the
// tab once the promise window.result is kept, and returns its value.
func browse(t *testing.T, address string, args ...string) string {
	t.Helper()
	hash, _ := json.Marshal(args)
	tab := browser.Start(t).Person(t).Open(address+"#"+url.PathEscape(string(hash)), "WebSocket connection to ", "Failed to load resource")
	result := browser.Eval[string](tab, "window.result")
	tab.Close()
	return result
}

// socket is the URL of a WebSocket beside that of a page.
func socket(site string) string { return "ws" + strings.TrimPrefix(site, "http") }

// visit has a page of the server at site go through the session, and returns "done" or what went wrong.
func visit(t *testing.T, site string, s session) string {
	t.Helper()
	s.url = socket(s.url)
	return browse(t, site+"/clients/browser.html", s.args()...)
}

func runChromium(t *testing.T, s session) {
	if result := visit(t, strings.TrimSuffix(s.url, "/room"), s); result != "done" {
		t.Errorf("the page says: %s", result)
	}
}

// answers notes with what a server answers, before it does.
type answers struct {
	http.ResponseWriter
	note func(code int, header http.Header)
}

func (a answers) WriteHeader(code int) {
	a.note(code, a.Header())
	a.ResponseWriter.WriteHeader(code)
}

func (a answers) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// wiretap notes what a hub writes to the socket first, which is its answer to a handshake.
type wiretap struct {
	http.ResponseWriter
	note func(answer string)
}

func (w wiretap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	socket, buffered, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return &tappedConn{Conn: socket, note: w.note}, buffered, err
}

type tappedConn struct {
	net.Conn
	once sync.Once
	note func(string)
}

func (c *tappedConn) Write(p []byte) (int, error) {
	c.once.Do(func() { c.note(string(p)) })
	return c.Conn.Write(p)
}

// A page of another origin is refused before any callback.
func TestChromiumPageOfAnotherOriginIsRefused(t *testing.T) {
	called := func() { t.Error("a callback was called") }
	hub := wsroom.New(
		wsroom.WithRoom(func(*http.Request) (string, error) { called(); return "room", nil }),
		wsroom.WithAuthorize(func(*http.Request, string) error { called(); return nil }),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { called(); return nil }))
	var code atomic.Int32
	own := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeHTTP(answers{w, func(c int, _ http.Header) { code.Store(int32(c)) }}, r)
	}))
	other := serve(t, http.NotFoundHandler())
	if result := visit(t, other, session{own + "/room", "", true}); result != "close 1006, waiting for open" {
		t.Errorf("the page says: %s", result)
	}
	if code.Load() != http.StatusForbidden {
		t.Errorf("status %d, want 403", code.Load())
	}
}

// A page brings its token as a subprotocol, and is let in, or sees why it isn't; the token is in no answer
// and in no line of the log.
func TestChromiumPageBringsAToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const good, bad = "go?>od~token", "ba?>d~token" // base64url writes them otherwise than base64
	hub := wsroom.New(
		wsroom.WithSubprotocols("chat"),
		wsroom.WithRejectMode(wsroom.CloseFrame),
		wsroom.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))),
		wsroom.WithAuthorize(func(r *http.Request, _ string) error {
			if token, _ := wsroom.BearerToken(r); token != good {
				return &wsroom.StatusError{Status: http.StatusUnauthorized, Message: "token unknown"}
			}
			return nil
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return c.SendText("welcome") }),
		wsroom.OnText(func(*wsroom.Conn, string, error) { panic("a panic is logged") }))
	said := make(chan string, 2)
	site := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hub.ServeHTTP(wiretap{w, func(answer string) { said <- answer }}, r)
	}))
	for token, want := range map[string]string{
		good: "open chat, welcome, close 1011 ",
		bad:  "open chat, close 4401 token unknown",
	} {
		if result := browse(t, site+"/clients/token.html", socket(site)+"/room", token); result != want {
			t.Errorf("the page saw %q, want %q", result, want)
		}
	}
	text, err := os.ReadFile(file)
	if !strings.Contains(string(text), "a panic is logged") {
		t.Errorf("the log: %s, %v", text, err)
	}
	answers := []string{await(t, said, "an answer"), await(t, said, "the other answer")}
	for _, answer := range answers {
		if !strings.HasPrefix(answer, "HTTP/1.1 101 ") {
			t.Errorf("the answer is %q", answer)
		}
	}
	for _, where := range append(answers, string(text)) {
		for _, token := range []string{good, bad} {
			if strings.Contains(where, token) || strings.Contains(where, base64.RawURLEncoding.EncodeToString([]byte(token))) {
				t.Errorf("there is the token in %s", where)
			}
		}
	}
}
