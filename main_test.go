package wsroom_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
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
	os.Exit(wsroomtest.Main(m))
}

// serve starts a server of h and shuts the hubs down at the test's end.
func serve(t *testing.T, h http.Handler, hubs ...*wsroom.Hub) *httptest.Server {
	t.Helper()
	if hub, ok := h.(*wsroom.Hub); ok {
		hubs = append(hubs, hub)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	for _, hub := range hubs {
		wsroomtest.CheckHub(t, hub)
	}
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

// dial connects a client to a server.
func dial(t testing.TB, srv *httptest.Server, path string, opts ...wsroomtest.Option) *wsroomtest.Client {
	t.Helper()
	opts = append(opts, wsroomtest.WithTimeout(patience))
	if srv.Certificate() != nil {
		opts = append(opts, wsroomtest.WithCertificate(srv.Certificate()))
	}
	return wsroomtest.Dial(t, nil, srv.URL+path, opts...)
}

func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
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

// nothingLeft waits until the hub holds no connection and no room.
func nothingLeft(t testing.TB, hub *wsroom.Hub) {
	t.Helper()
	until(t, "the hub is empty", func() bool {
		s := hub.Stats()
		return hub.Len() == 0 && len(hub.Rooms()) == 0 && s.Conns == 0 && s.Rooms == 0 && s.Opened == s.Closed
	})
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

// lockedBuffer is a bytes.Buffer for several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
