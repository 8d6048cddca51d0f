// Package kit holds what tests of several areas share: servers and clients, raw connections, a broker in memory.
package kit

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	_ "github.com/wsroom/wsroom/internal/tests/quiet" // for all tests of the areas
	"github.com/wsroom/wsroom/wsroomtest"
)

// Patience bounds what a test waits for; nothing takes that long unless it is broken.
const Patience = 20 * time.Second

// Serve starts a server of h and shuts the hubs down at the test's end.
func Serve(t *testing.T, h http.Handler, hubs ...*wsroom.Hub) *httptest.Server {
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

// Shutdown shuts the hub down, and fails the test if that takes too long.
func Shutdown(t *testing.T, hub *wsroom.Hub) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := hub.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

// Dial connects a client to a server.
func Dial(t testing.TB, srv *httptest.Server, path string, opts ...wsroomtest.Option) *wsroomtest.Client {
	t.Helper()
	opts = append(opts, wsroomtest.WithTimeout(Patience))
	if srv.Certificate() != nil {
		opts = append(opts, wsroomtest.WithCertificate(srv.Certificate()))
	}
	return wsroomtest.Dial(t, nil, srv.URL+path, opts...)
}

// Short returns the beginning of a text, for a test's messages.
func Short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// Await waits for a value that a callback sends.
func Await[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// Until polls a condition until it holds. Use Await where an event reports it.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(Patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// NothingLeft waits until the hub holds no connection and no room.
func NothingLeft(t testing.TB, hub *wsroom.Hub) {
	t.Helper()
	Until(t, "the hub is empty", func() bool {
		s := hub.Stats()
		return hub.Len() == 0 && len(hub.Rooms()) == 0 && s.Conns == 0 && s.Rooms == 0 && s.Opened == s.Closed
	})
}

// ServeConfigured is Serve with a server that is configured before it starts. Its log is discarded.
func ServeConfigured(t *testing.T, h http.Handler, configure func(srv *httptest.Server), hubs ...*wsroom.Hub) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		for _, hub := range hubs {
			Shutdown(t, hub)
			NothingLeft(t, hub)
		}
		srv.Close()
	})
	configure(srv)
	return srv
}

// Echo sends each text message back to its sender.
func Echo() wsroom.Option {
	return wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendText(text)
		}
	})
}

// CallbackCount returns options that count calls into the application.
func CallbackCount(n *atomic.Int32) []wsroom.Option {
	return []wsroom.Option{
		wsroom.WithRoom(func(r *http.Request) (string, error) { n.Add(1); return wsroom.ByPath(r) }),
		wsroom.WithAuthorize(func(*http.Request, string) error { n.Add(1); return nil }),
		wsroom.WithMaxConnsPer(func(*http.Request) string { n.Add(1); return "" }, 100),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { n.Add(1); return nil }),
	}
}

// LockedBuffer is a bytes.Buffer for several goroutines.
type LockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *LockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *LockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
