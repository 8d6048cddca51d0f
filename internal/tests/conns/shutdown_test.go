package conns_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Shutdown delivers what is queued, closes with 1012, and returns when every callback has.
func TestShutdownReturnsWhenEveryCallbackHas(t *testing.T) {
	const n = 50
	var running atomic.Int64
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) { c.SendText(text) }),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { running.Add(1); return nil }),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if !errors.Is(err, wsroom.ErrShutdown) {
				t.Errorf("cause %v", err)
			}
			runtime.Gosched()
			running.Add(-1)
		}))
	srv := kit.Serve(t, hub)
	clients := wsroomtest.DialN(t, n, nil, srv.URL+"/a")
	for _, c := range clients {
		c.SendText("there?")
		c.ExpectText("there?") // OnConnect has returned
	}
	for i := range 100 {
		hub.SendTextToRoom("/a", fmt.Sprint(i))
	}
	kit.Shutdown(t, hub)
	if left := running.Load(); left != 0 {
		t.Errorf("%d connections without OnClose", left)
	}
	for _, c := range clients {
		for i := range 100 {
			c.ExpectText(fmt.Sprint(i))
		}
		c.ExpectClose(websocket.StatusServiceRestart)
	}
	res := wsroomtest.Refused(t, nil, srv.URL+"/a", http.StatusServiceUnavailable)
	if res.Header.Get("Retry-After") == "" {
		t.Error("after Shutdown: no Retry-After")
	}
}

// No upgrade slips in behind Shutdown.
func TestShutdownRacesWithUpgrades(t *testing.T) {
	for range 20 {
		var connected, closed atomic.Int64
		hub := wsroom.New(
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { connected.Add(1); return nil }),
			wsroom.OnClose(func(*wsroom.Conn, error) { closed.Add(1) }))
		srv := httptest.NewServer(hub)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				conn, res, err := websocket.Dial(t.Context(), srv.URL+"/a", nil)
				if err == nil {
					conn.CloseRead(t.Context())
				} else if res == nil || res.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("refused with %v", err)
				}
			})
		}
		kit.Until(t, "the first is connected", func() bool { return connected.Load() > 0 })
		kit.Shutdown(t, hub)
		if c, d := connected.Load(), closed.Load(); c != d || hub.Len() != 0 {
			t.Errorf("%d connected, %d closed, %d left when Shutdown returned", c, d, hub.Len())
		}
		wg.Wait()
		srv.Close()
	}
}

// Without OnConnect nothing is held back that a Shutdown could overtake.
func TestShutdownLosesNothingOfAConnectionJustMade(t *testing.T) {
	for range 100 {
		hub := wsroom.New()
		c := wsroomtest.Dial(t, hub, "/a")
		if err := hub.SendTextToRoom("/a", "hello"); err != nil {
			t.Fatal(err)
		}
		kit.Shutdown(t, hub)
		c.ExpectText("hello")
		c.ExpectClose(websocket.StatusServiceRestart)
	}
}
