package wsroom_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// TestMain fails the run if a goroutine of wsroom is left at its end.
func TestMain(m *testing.M) {
	switch { // what tests start in a process of its own
	case os.Getenv(siegeVariable) != "":
		laySiege()
		return
	case os.Getenv(serverVariable) != "":
		runServer()
		return
	}
	code := m.Run()
	if code == 0 {
		if left := goroutinesLeft(); left != "" {
			os.Stderr.WriteString("goroutines of wsroom are left:\n" + left + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

// goroutinesLeft returns the stacks of goroutines inside this module, after giving them time to end.
func goroutinesLeft() string {
	var left string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); runtime.Gosched() {
		buf := make([]byte, 8<<20)
		left = ""
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "wsroom/wsroom.(*") || strings.Contains(g, "internal/frame.(*") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			return ""
		}
	}
	return left
}

// serve starts a server of h and shuts the hubs down at the test's end.
func serve(t *testing.T, h http.Handler, hubs ...*wsroom.Hub) *httptest.Server {
	t.Helper()
	if hub, ok := h.(*wsroom.Hub); ok {
		hubs = append(hubs, hub)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(func() {
		for _, hub := range hubs {
			shutdown(t, hub)
			if n, rooms := hub.Len(), hub.Rooms(); n != 0 || len(rooms) != 0 {
				t.Errorf("after Shutdown %d connections and the rooms %q are left", n, rooms)
			}
		}
		srv.Close()
	})
	return srv
}

func shutdown(t *testing.T, hub *wsroom.Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := hub.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// client is a peer for tests. What it expects but doesn't get in time fails the test.
type client struct {
	t    testing.TB
	conn *websocket.Conn
}

func dial(t testing.TB, srv *httptest.Server, path string) *client {
	t.Helper()
	return dialWith(t, srv, path, nil)
}

func dialWith(t testing.TB, srv *httptest.Server, path string, opts *websocket.DialOptions) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, srv.URL+path, opts)
	if err != nil {
		status := 0
		if res != nil {
			status = res.StatusCode
		}
		t.Fatalf("dial %s: status %d: %v", path, status, err)
	}
	conn.SetReadLimit(64 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return &client{t: t, conn: conn}
}

// refused dials and returns the status and body with which the server refused.
func refused(t testing.TB, srv *httptest.Server, path string, opts *websocket.DialOptions) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, srv.URL+path, opts)
	if err == nil {
		conn.CloseNow()
		t.Fatalf("dial %s: not refused", path)
	}
	if res == nil {
		t.Fatalf("dial %s: no response: %v", path, err)
	}
	body := make([]byte, 1<<10)
	n, _ := res.Body.Read(body)
	return res, string(body[:n])
}

func (c *client) send(text string) {
	c.t.Helper()
	c.write(websocket.MessageText, []byte(text))
}

func (c *client) write(typ websocket.MessageType, p []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	if err := c.conn.Write(ctx, typ, p); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

func (c *client) read() (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	_, p, err := c.conn.Read(ctx)
	return string(p), err
}

func (c *client) expect(texts ...string) {
	c.t.Helper()
	for _, want := range texts {
		got, err := c.read()
		if err != nil {
			c.t.Fatalf("want %q, got the error %v", short(want), err)
		}
		if got != want {
			c.t.Fatalf("want %q, got %q", short(want), short(got))
		}
	}
}

func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// expectClose reads on until the connection ends and checks the close code.
func (c *client) expectClose(code websocket.StatusCode) websocket.CloseError {
	c.t.Helper()
	for {
		text, err := c.read()
		if err == nil {
			c.t.Logf("before the end: %q", short(text))
			continue
		}
		if got := websocket.CloseStatus(err); got != code {
			c.t.Fatalf("want close code %d, got %v", code, err)
		}
		var ce websocket.CloseError
		asError(err, &ce)
		return ce
	}
}

// await waits for a value that a callback sends.
func await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// until waits for a condition that no event tells of.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
