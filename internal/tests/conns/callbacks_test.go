package conns_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestKeepOpenGoesOnAfterBadJSON(t *testing.T) {
	hub := wsroom.New(wsroom.WithBadJSON(wsroom.KeepOpen), wsroom.OnJSON(func(c *wsroom.Conn, n int, err error) {
		if bad := (*wsroom.DecodeError)(nil); errors.As(err, &bad) {
			c.SendText("bad")
		} else if err == nil {
			c.SendJSON(n)
		}
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	for range 3 {
		c.SendText("nonsense")
		c.SendText("7")
		c.ExpectText("bad", "7")
	}
}

// With no message callback the hub is push-only, and refuses what it would have to drop.
func TestPushOnly(t *testing.T) {
	onClose, closed := kit.Closes()
	hub := wsroom.New(onClose)
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	hub.SendTextToAll("news")
	c.ExpectText("news")
	c.SendText("hello?")
	c.ExpectClose(websocket.StatusUnsupportedData)
	kit.Await(t, closed, "OnClose")
}

func TestOnBinaryAloneRefusesText(t *testing.T) {
	last := make(chan error, 1)
	hub := wsroom.New(wsroom.OnBinary(func(_ *wsroom.Conn, _ []byte, err error) { last <- err }))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.SendText("text")
	c.ExpectClose(websocket.StatusUnsupportedData)
	if err := kit.Await(t, last, "its err"); err == nil {
		t.Error("no err")
	}
}

// Callbacks of one connection run one at a time: first OnConnect, then OnJoin, what is read in its
// order, every Join's OnJoin once, OnLeave for all, the message callback's err, OnClose.
func TestOneCallbackAtATime(t *testing.T) {
	var mu sync.Mutex
	var log []string
	note := func(format string, args ...any) func() {
		if !mu.TryLock() {
			t.Error("two callbacks at a time")
			mu.Lock()
		}
		log = append(log, fmt.Sprintf(format, args...))
		return mu.Unlock
	}
	closed := make(chan struct{})
	hub := wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			defer note("connect")()
			return c.Join("second")
		}),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) { defer note("join %s", room)() }),
		wsroom.OnLeave(func(c *wsroom.Conn, room string) { defer note("leave %s", room)() }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err != nil {
				defer note("err %d", websocket.CloseStatus(err))()
				return
			}
			defer note("text %s", text)()
			c.Join("room of " + text)
			c.Leave("room of " + text)
		}),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			defer close(closed)
			defer note("close %d", websocket.CloseStatus(err))()
		}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.SendText("1")
	c.SendText("2")
	c.Close(websocket.StatusNormalClosure, "")
	kit.Await(t, closed, "OnClose")
	want := []string{"connect", "join /a", "join second", "text 1", "join room of 1", "leave room of 1",
		"text 2", "join room of 2", "leave room of 2", "leave /a", "leave second", "err 1000", "close 1000"}
	if !slices.Equal(log, want) {
		t.Errorf("got  %q\nwant %q", log, want)
	}
}

// A Join from outside is reported at once, or after the callback that runs.
func TestJoinFromOutsideIsReported(t *testing.T) {
	joined := make(chan string, 10)
	hub := wsroom.New(wsroom.OnJoin(func(_ *wsroom.Conn, room string) { joined <- room }))
	kit.Dial(t, kit.Serve(t, hub), "/a")
	m := kit.Member(t, hub, "/a")
	for _, room := range []string{"/a", "b", "c"} {
		m.Join(room)
		if got := kit.Await(t, joined, "OnJoin"); got != room {
			t.Errorf("OnJoin %q, want %q", got, room)
		}
	}
}

// Each callback may call the hub, even the calls that end its own connection.
func TestCallbacksMayCallAnything(t *testing.T) {
	onClose, closed := kit.Closes()
	everything := func(c *wsroom.Conn) {
		c.Join("x")
		c.SendTextToThisRoom("t")
		c.SendTextToAll("t")
		c.Rooms()
		c.Leave("x")
	}
	var hub *wsroom.Hub
	hub = wsroom.New(onClose,
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { everything(c); return nil }),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) {
			if room != "x" {
				everything(c)
			}
		}),
		wsroom.OnLeave(func(c *wsroom.Conn, room string) { c.SendTextToAll("left") }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			everything(c)
			hub.Stats()
			hub.ToAll().Close(4000, "")
			c.Close(4001, "")
		}))
	srv := kit.Serve(t, hub)
	c := kit.Dial(t, srv, "/a")
	c.SendText("x")
	if err := kit.Await(t, closed, "OnClose"); websocket.CloseStatus(err) != 4000 {
		t.Errorf("cause %v", err)
	}
}

// A second message is read while the first one's callback runs only as far as TCP's buffers: the
// reader waits, and so does the client.
func TestSlowCallbackPushesBack(t *testing.T) {
	release := make(chan struct{})
	hub := wsroom.New(wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
		if err == nil {
			<-release
		}
	}))
	peer := kit.DialRaw(t, kit.Serve(t, hub), "/a")
	defer close(release)
	peer.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	msg := kit.RawFrame(0x81, strings.Repeat("x", 60_000))
	for range 1000 { // 60 MB
		if _, err := peer.Write(msg); err != nil {
			return
		}
	}
	t.Error("60 MB were taken behind a callback that doesn't return")
}
