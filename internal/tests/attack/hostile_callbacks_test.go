package attack_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// faultyCallbacks are options whose callbacks, codec, room function and authorizer panic or exit for the
// connections with the path /attack/{where}/{how}.
type faultyCallbacks struct{ opened, closed atomic.Int64 }

func (e *faultyCallbacks) fail(where, path string) {
	switch path {
	case "/attack/" + where + "/panic":
		panic("boom")
	case "/attack/" + where + "/Goexit":
		runtime.Goexit()
	}
}

func (e *faultyCallbacks) options() []wsroom.Option {
	room := func(where string) func(*wsroom.Conn, string) {
		return func(c *wsroom.Conn, _ string) { e.fail(where, c.Room()) }
	}
	return []wsroom.Option{
		wsroom.WithRoom(func(r *http.Request) (string, error) { e.fail("RoomFunc", r.URL.Path); return r.URL.Path, nil }),
		wsroom.WithAuthorize(func(r *http.Request, room string) error { e.fail("Authorize", room); return nil }),
		wsroom.WithMaxConnsPer(func(r *http.Request) string { e.fail("key", r.URL.Path); return "" }, 1000),
		wsroom.WithSendQueue(4096, 64<<10), wsroom.WithOverflow(wsroom.DropNewest),
		wsroom.OnDrop(func(c *wsroom.Conn, _ int) { e.fail("OnDrop", c.Room()) }),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			e.opened.Add(1)
			e.fail("OnConnect", c.Room())
			return nil
		}),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) {
			e.closed.Add(1)
			e.fail("OnClose", c.Room())
		}),
		wsroom.OnJoin(room("OnJoin")), wsroom.OnLeave(room("OnLeave")),
		wsroom.OnBinary(func(c *wsroom.Conn, _ []byte, err error) { e.fail("OnBinary", c.Room()) }),
		wsroom.OnJSON(func(c *wsroom.Conn, text string, err error) {
			e.fail("OnJSON", c.Room())
			if c.Room() == "/honest" {
				kit.EchoRoom(c, text, err)
				return
			}
			c.SendJSON(c.Room())
			for strings.HasPrefix(c.Room(), "/attack/OnDrop") && c.SendBinary(make([]byte, 32<<10)) == nil {
			}
		}),
		wsroom.WithJSON(
			func(v any) ([]byte, error) { e.fail("marshal", v.(string)); return json.Marshal(v) },
			func(p []byte, v any) error {
				e.fail("unmarshal", string(p))
				*v.(*string) = string(p)
				return nil
			}),
	}
}

// triggerFault makes something fail for a new connection, and checks how that ends.
func triggerFault(t *testing.T, srv *httptest.Server, where, how string) {
	path := "/attack/" + where + "/" + how
	conn := kit.Connect(t, srv)
	defer conn.Close()
	io.WriteString(conn, kit.UpgradeRequest(path))
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	switch where {
	case "RoomFunc", "Authorize", "key":
		if err == nil {
			t.Errorf("%s: answered with %s", path, res.Status)
		}
		return
	}
	if err != nil {
		t.Errorf("%s: %v", path, err)
		return
	}
	c, want := &kit.RawConn{Conn: conn, T: t, R: r}, 1011
	switch where {
	case "OnBinary":
		c.Frame(0x82, "x")
	case "OnLeave", "OnClose":
		c.Frame(0x88, "\x03\xe8")
		want = 1000
	case "OnConnect", "OnJoin":
	default:
		c.Frame(0x81, path)
	}
	if code, reason, err := c.CloseFrame(); code != want || reason != "" {
		t.Errorf("%s: close frame %d %q, want %d; %v", path, code, reason, want, err)
	}
}

// A panic or runtime.Goexit ends its own connection, with 1011, wherever it happens and however
// often, and OnClose runs once for each.
func TestHostilePanics(t *testing.T) {
	defer log.SetOutput(log.Writer())
	log.SetOutput(io.Discard) // net/http logs those before the upgrade
	var e faultyCallbacks
	withBystanders(t, e.options(), func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		opened, closed := e.opened.Load(), e.closed.Load()
		for range kit.Scale(10, 1000) {
			for _, where := range []string{"RoomFunc", "Authorize", "key", "OnConnect", "OnJoin", "OnJSON", "OnBinary",
				"OnDrop", "OnLeave", "OnClose", "marshal", "unmarshal"} {
				triggerFault(t, srv, where, "panic")
				triggerFault(t, srv, where, "Goexit")
			}
		}
		kit.Until(t, "all have ended", func() bool { return hub.Len() == 10 && e.closed.Load()-closed >= e.opened.Load()-opened })
		if opened, closed := e.opened.Load()-opened, e.closed.Load()-closed; opened != closed {
			t.Errorf("%d connections, %d calls of OnClose", opened, closed)
		}
	})
}

// Callbacks that never return delay neither their rooms nor Close and Shutdown.
func TestHostileEndlessCallbacks(t *testing.T) {
	var stuck atomic.Int64
	var release chan struct{}
	opts := []wsroom.Option{
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return c.Join("/honest") }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if c.Room() == "/attack" && err == nil {
				until := release
				stuck.Add(1)
				<-until
				return
			}
			kit.EchoRoom(c, text, err)
		}),
	}
	withBystanders(t, opts, func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server) {
		const n = 100
		release = make(chan struct{})
		stuck.Store(0)
		var conns []*kit.RawConn
		for range n {
			c := kit.DialRaw(t, srv, "/attack")
			conns = append(conns, c)
			c.Frame(0x81, "x")
		}
		kit.Until(t, "all are stuck", func() bool { return stuck.Load() == n })
		watch := startWatch()
		<-time.After(time.Second / 2)
		hub.To("/attack").Close(4000, "bye")
		for _, c := range conns {
			if code, _ := c.CloseCode(); code != 4000 {
				t.Errorf("close code %d, want 4000", code)
			}
			c.Close()
		}
		watch.within(t, "closing", time.Since(watch.start), time.Second)
		close(release)
	})
	hub, begun, end := wsroom.New(opts...), stuck.Load(), make(chan struct{})
	release = end
	c := kit.DialRaw(t, kit.Serve(t, hub), "/attack")
	c.Frame(0x81, "x")
	kit.Until(t, "it is stuck", func() bool { return stuck.Load() > begun })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second/10)
	defer cancel()
	watch := startWatch()
	if err := hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	watch.within(t, "Shutdown", time.Since(watch.start), time.Second)
	close(end)
}

// The socket of a connection whose callback never returns is closed all the same.
func TestEndlessCallbackKeepsNoSocket(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
		if err == nil {
			time.Sleep(time.Hour)
		}
	})), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		c.Frame(0x81, "x")
		begin := time.Now()
		hub.To("/a").Close(4000, "")
		c.CloseCode()
		if _, _, err := c.Next(); err == nil {
			t.Error("a frame after the close frame")
		}
		kit.WantBetween(t, "the socket's close", time.Since(begin), 0, 5*time.Second+time.Second/2)
		<-ends // after an hour
	})
}

// Every callback may call everything, whatever others do: nothing waits for itself, and each room
// entered is left once.
func TestHostileReentry(t *testing.T) {
	var hub *wsroom.Hub
	var mu sync.Mutex // guards joins and inside
	joins, inside := 0, map[string]int{}
	report := func(c *wsroom.Conn, room string, n int) {
		mu.Lock()
		defer mu.Unlock()
		joins += max(n, 0)
		if inside[c.ID()+room] += n; inside[c.ID()+room] == 0 {
			delete(inside, c.ID()+room)
		}
	}
	var shutdowns sync.WaitGroup
	defer shutdowns.Wait()
	shutDown := func(c *wsroom.Conn) {
		shutdowns.Go(func() { kit.Shutdown(t, hub) }) // on a goroutine of its own it waits for no longer than others
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		defer cancel()
		for _, ctx := range []context.Context{ctx, c.Context()} { // which is done by then
			if err := hub.Shutdown(ctx); err == nil {
				t.Error("Shutdown hasn't waited for the callback that called it")
			}
		}
	}
	everything := func(c *wsroom.Conn) {
		c.Join("x")
		c.SendText("t")
		c.SendTextToThisRoom("t")
		c.SendTextToAll("t")
		c.SendJSON("t")
		hub.To("x", c.Room()).Except(c).SendBinary([]byte("t"))
		hub.To("nobody").Close(4000, "")
		_ = []any{c.Rooms(), hub.Rooms(), hub.Members("x"), hub.Len(), hub.Stats()}
		c.Set("k", c.Context().Err())
		c.Get("k")
		c.Leave("x")
	}
	hub = wsroom.New(
		wsroom.WithRoom(func(r *http.Request) (string, error) { hub.SendTextToAll("t"); hub.Stats(); return wsroom.ByPath(r) }),
		wsroom.WithAuthorize(func(r *http.Request, room string) error { hub.Members(room); hub.SendTextToRoom(room, "t"); return nil }),
		wsroom.WithMaxConnsPer(func(*http.Request) string { hub.Rooms(); return "" }, 1000),
		wsroom.WithSendQueue(64, 1<<20), wsroom.WithOverflow(wsroom.DropOldest),
		wsroom.OnDrop(func(c *wsroom.Conn, _ int) { c.Rooms(); hub.Stats() }),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { everything(c); return nil }),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) {
			if report(c, room, 1); room != "x" {
				everything(c)
			}
		}),
		wsroom.OnLeave(func(c *wsroom.Conn, room string) {
			report(c, room, -1)
			hub.SendTextToAll("left")
			hub.Members(room)
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			everything(c)
			switch text {
			case "close":
				c.Close(4001, "")
			case "kick":
				hub.To("/b").Close(4002, "")
			case "shut down":
				shutDown(c)
			}
		}),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) { everything(c) }))
	srv := kit.Serve(t, hub)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 5 {
				c := kit.DialRaw(t, srv, []string{"/a", "/b"}[i%2])
				for range 5 {
					c.Write(kit.RawFrame(0x81, "x"))
				}
				c.Write(kit.RawFrame(0x81, []string{"close", "kick", "x"}[(i+j)%3]))
				if (i+j)%3 < 2 && i%2 == 1 {
					c.CloseFrame()
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	c := kit.DialRaw(t, srv, "/a")
	c.Frame(0x81, "shut down")
	if code, _ := c.CloseCode(); code != 1012 {
		t.Errorf("close code %d, want 1012", code)
	}
	c.Close()
	shutdowns.Wait()
	kit.NothingLeft(t, hub)
	if len(inside) > 0 || joins == 0 {
		t.Errorf("%d joins, and some without their leave: %v", joins, inside)
	}
}
