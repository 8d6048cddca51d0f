//go:build linux

package parked_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func contextWith(r *http.Request, key, value any) context.Context {
	return context.WithValue(r.Context(), key, value)
}

// reset ends a client's connection with a reset.
func reset(c *kit.RawConn) {
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// What a client does to end wakes its parked connection, which has one OnClose with the cause.
func TestClientsEndParkedConnections(t *testing.T) {
	quietAfter(t, 0)
	for name, test := range map[string]struct {
		act  func(*kit.RawConn)
		want func(error) bool
	}{
		"close frame": {
			func(c *kit.RawConn) { c.Frame(0x88, "\x0f\xa0bye") },
			func(err error) bool { return errors.Is(err, websocket.CloseError{Code: 4000, Reason: "bye"}) },
		},
		"end":        {func(c *kit.RawConn) { c.Close() }, func(err error) bool { return errors.Is(err, io.EOF) }},
		"half close": {func(c *kit.RawConn) { c.Conn.(*net.TCPConn).CloseWrite() }, func(err error) bool { return errors.Is(err, io.EOF) }},
		"reset":      {reset, func(err error) bool { return err != nil }},
		"protocol":   {func(c *kit.RawConn) { c.Write([]byte{0x81, 0x01, 'x'}) }, func(err error) bool { return err != nil }},
	} {
		t.Run(name, func(t *testing.T) {
			closed, closes := kit.Closes()
			hub, srv := hubAndServer(t, closed)
			c := kit.DialRaw(t, srv, "/a")
			member := kit.Member(t, hub, "/a")
			allParked(t)
			test.act(c)
			err := kit.Await(t, closes, "OnClose")
			if !test.want(err) || context.Cause(member.Context()) != err {
				t.Errorf("OnClose got %v, the context %v", err, context.Cause(member.Context()))
			}
			kit.NothingLeft(t, hub)
			if len(closes) > 0 {
				t.Error("OnClose was called twice")
			}
		})
	}
}

// Every end that the application makes reaches a parked connection: its client gets what was sent before and the
// close frame, its context is done, and it has one OnClose with the cause.
func TestApplicationEndsParkedConnections(t *testing.T) {
	quietAfter(t, 0)
	for name, test := range map[string]struct {
		act  func(*wsroom.Hub, *wsroom.Conn)
		code int // 0: no close frame
	}{
		"Close":      {func(_ *wsroom.Hub, c *wsroom.Conn) { c.Close(4001, "") }, 4001},
		"close room": {func(h *wsroom.Hub, _ *wsroom.Conn) { h.To("/a").Close(4002, "") }, 4002},
		"Shutdown":   {func(h *wsroom.Hub, _ *wsroom.Conn) { go h.Shutdown(context.Background()) }, 1012},
		"slow": {func(h *wsroom.Hub, _ *wsroom.Conn) {
			for range 100 {
				h.SendBinaryToRoom("/a", make([]byte, 1<<20))
			}
		}, 0},
		"WebSocket().Close":    {func(_ *wsroom.Hub, c *wsroom.Conn) { go c.WebSocket().Close(4003, "") }, 4003},
		"WebSocket().CloseNow": {func(_ *wsroom.Hub, c *wsroom.Conn) { c.WebSocket().CloseNow() }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			closed, closes := kit.Closes()
			hub, srv := hubAndServer(t, closed, wsroom.WithSendQueue(100, 4<<20))
			c := kit.DialRaw(t, srv, "/a")
			member := kit.Member(t, hub, "/a")
			allParked(t)
			member.SendText("before")
			test.act(hub, member)
			if test.code != 0 {
				wantText(t, c, "before")
				if code, _ := c.CloseCode(); code != test.code {
					t.Errorf("close code %d, want %d", code, test.code)
				}
				c.Frame(0x88, "")
			}
			err := kit.Await(t, closes, "OnClose")
			if context.Cause(member.Context()) != err {
				t.Errorf("OnClose got %v, the context %v", err, context.Cause(member.Context()))
			}
			c.Close()
			kit.NothingLeft(t, hub)
			if len(closes) > 0 {
				t.Error("OnClose was called twice")
			}
		})
	}
}

// Connections whose expiry or age is reached end while they are parked.
func TestParkedConnectionsExpire(t *testing.T) {
	quietAfter(t, 0)
	closed, closes := kit.Closes()
	hub, srv := hubAndServer(t, closed, wsroom.WithMaxAge(50*time.Millisecond))
	c := kit.DialRaw(t, srv, "/a")
	c.CloseCode()
	c.Close()
	kit.Await(t, closes, "OnClose")
	kit.NothingLeft(t, hub)
}

// A Shutdown whose context is done closes the sockets of parked connections whose clients don't answer.
func TestShutdownWithoutTime(t *testing.T) {
	quietAfter(t, 0)
	closed, closes := kit.Closes()
	hub := wsroom.New(closed)
	srv := kit.Serve(t, hub)
	for range 50 {
		kit.DialRaw(t, srv, "/a")
	}
	allParked(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hub.Shutdown(ctx)
	for range 50 {
		if err := kit.Await(t, closes, "OnClose"); !errors.Is(err, wsroom.ErrShutdown) {
			t.Errorf("ended by %v", err)
		}
	}
	kit.NothingLeft(t, hub)
}

// However an end of the application meets a message, an end or a reset of the client, there is one OnClose for each
// connection, after its last message, and nothing is left.
func TestEndsRaceWithWakes(t *testing.T) {
	quietAfter(t, 0)
	acts := []func(*kit.RawConn){
		func(c *kit.RawConn) { c.Write(kit.RawFrame(0x81, "x")) },
		func(c *kit.RawConn) { c.Write(kit.RawFrame(0x8a, "")) },
		func(c *kit.RawConn) { c.Write(kit.RawFrame(0x88, "")) },
		func(c *kit.RawConn) { c.Close() },
		reset,
		func(c *kit.RawConn) { c.Conn.(*net.TCPConn).CloseWrite() },
		func(*kit.RawConn) {},
	}
	ends := []func(*wsroom.Conn){
		func(c *wsroom.Conn) { c.Close(4000, "") },
		func(c *wsroom.Conn) { c.WebSocket().CloseNow() },
		func(c *wsroom.Conn) { c.Hub().To(c.Room()).Close(4000, "") },
	}
	var closes sync.Map // of the connection, a counter
	var count atomic.Int32
	hub, srv := hubAndServer(t,
		wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
			if n, ok := closes.Load(c); ok && err == nil {
				t.Errorf("a message after OnClose, which was called %v times", n)
			}
		}),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) {
			if _, twice := closes.LoadOrStore(c, true); twice {
				t.Error("OnClose was called twice")
			}
			count.Add(1)
		}),
	)
	n := 0
	for round := range kit.Scale(10, 40) {
		for i, act := range acts {
			for j, end := range ends {
				n++
				room := fmt.Sprintf("/%d-%d-%d", round, i, j)
				c := kit.DialRaw(t, srv, room)
				member := kit.Member(t, hub, room)
				var both sync.WaitGroup
				both.Go(func() { act(c) })
				both.Go(func() {
					for range round % 4 {
						runtime.Gosched()
					}
					end(member)
				})
				both.Wait()
				c.Close()
			}
		}
	}
	kit.NothingLeft(t, hub)
	if got := int(count.Load()); got != n {
		t.Errorf("%d calls of OnClose for %d connections", got, n)
	}
}
