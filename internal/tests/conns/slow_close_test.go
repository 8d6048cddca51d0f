package conns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// A peer that closes has its socket closed, too, though OnClose or Serve takes long.
func TestSocketClosesBeforeASlowCallbackReturns(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	for name, slow := range map[string]wsroom.Option{
		"OnClose": wsroom.OnClose(func(*wsroom.Conn, error) { <-release }),
		"Serve": wsroom.Serve(func(c *wsroom.Conn) error {
			_, _, err := c.Read(context.Background())
			<-release
			return err
		}),
	} {
		srv := kit.Serve(t, wsroom.New(slow))
		c := kit.DialRaw(t, srv, "/a")
		c.Frame(0x88, "\x03\xe8")
		if code, _ := c.CloseCode(); code != 1000 {
			t.Errorf("%s: close code %d, want 1000", name, code)
		}
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: after the close frames %v, want EOF", name, err)
		}
	}
}

// A Ping through WebSocket() ends when the connection does. Otherwise a callback that waits for it would never return.
// Once the connection is ending, a Ping fails at once.
func TestPingThroughTheWebSocketEnds(t *testing.T) {
	pings, later := make(chan error, 1), make(chan error, 1)
	newHub := func() *wsroom.Hub {
		pings, later = make(chan error, 1), make(chan error, 1) // of the bubble
		return wsroom.New(
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				go func() { pings <- c.WebSocket().Ping(context.Background()) }()
				return nil
			}),
			wsroom.OnClose(func(c *wsroom.Conn, _ error) {
				pings <- <-pings
				later <- c.WebSocket().Ping(context.Background())
			}))
	}
	check := func(t *testing.T, c *kit.RawConn, end func()) {
		if first, _, err := c.Next(); first != 0x89 || err != nil {
			t.Fatalf("%#x, %v, want a ping", first, err)
		}
		end()
		for _, err := range []error{kit.Await(t, later, "the end of the later Ping"), <-pings} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("Ping returned %v, want net.ErrClosed", err)
			}
		}
	}

	t.Run("the peer closes", func(t *testing.T) {
		c := kit.DialRaw(t, kit.Serve(t, newHub()), "/a")
		check(t, c, func() { c.Frame(0x88, "\x03\xe8") })
	})
	t.Run("the peer is gone", func(t *testing.T) {
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, _ *wsroom.Hub) {
			c := s.DialRaw("/a")
			check(t, c, func() { c.Close() })
		})
	})
}
