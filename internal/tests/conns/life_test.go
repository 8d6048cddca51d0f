package conns_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// Every end has one cause, which OnClose, the last message callback and the context all give; OnClose
// comes once, when the connection has left every room.
func TestEveryEndHasOneCause(t *testing.T) {
	type peerFunc func(c *kit.RawConn)
	frame := func(first byte, payload string) peerFunc {
		return func(c *kit.RawConn) { c.Frame(first, payload) }
	}
	bytes := func(p ...byte) peerFunc { return func(c *kit.RawConn) { c.Write(p) } }
	is := func(target error) func(error) bool { return func(err error) bool { return errors.Is(err, target) } }
	closedWith := func(code websocket.StatusCode, reason string) func(error) bool {
		return func(err error) bool {
			ce, ok := err.(websocket.CloseError)
			return ok && ce.Code == code && ce.Reason == reason
		}
	}
	some := func(err error) bool { return err != nil }
	notClosed := func(err error) bool { return err != nil && websocket.CloseStatus(err) == -1 }
	decode := func(err error) bool { return errors.As(err, new(*wsroom.DecodeError)) }
	for i, tc := range []struct {
		name  string
		peer  peerFunc
		code  int // what the peer sees; 0: no close frame is looked for
		cause func(error) bool
	}{
		{"peer closes", frame(0x88, "\x0f\xa0bye"), 4000, closedWith(4000, "bye")},
		{"peer closes without a code", frame(0x88, ""), 1005, closedWith(1005, "")},
		{"peer closes with a code for errors", frame(0x88, "\x03\xf1bye"), 1009, closedWith(1009, "bye")},
		{"peer vanishes", func(c *kit.RawConn) { c.Close() }, 0, some},
		{"invalid UTF-8", frame(0x81, "a\xffb"), 1007, some},
		{"not JSON", frame(0x81, "{"), 1007, decode},
		{"JSON of another type", frame(0x81, `"x"`), 1007, decode},
		{"JSON with something behind", frame(0x81, `1 2`), 1007, decode},
		{"a kind that nobody takes", frame(0x82, "x"), 1003, some},
		{"too big", frame(0x81, strings.Repeat("1", 64<<10+1)), 1009, is(websocket.ErrMessageTooBig)},
		{"too big, in fragments", func(c *kit.RawConn) {
			c.Frame(0x01, strings.Repeat("1", 64<<10))
			c.Frame(0x80, "1")
		}, 1009, is(websocket.ErrMessageTooBig)},
		{"a length of 2^62", bytes(0x81, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 0, some},
		{"a negative length", bytes(0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), 1002, some},
		{"unmasked", bytes(0x81, 0x01, '1'), 1002, some},
		{"a close code that can't be", frame(0x88, "\x03\xed"), 1002, notClosed},
		{"the application closes", frame(0x81, "4001"), 4001, closedWith(4001, "by the application")},
		{"the application kicks the room", frame(0x81, "4002"), 4002, closedWith(4002, "kicked")},
		{"the application closes beneath", frame(0x81, "4003"), 4003, closedWith(4003, "beneath")},
		{"the application closes beneath without a code", frame(0x81, "4005"), 1005, closedWith(1005, "")},
		{"the application drops it beneath", frame(0x81, "4004"), 0, is(net.ErrClosed)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onClose, closed := kit.Closes()
			var hub *wsroom.Hub
			lasts := make(chan error, 10)
			conns, early := make(chan *wsroom.Conn, 1), i%2 == 0
			hub = wsroom.New(onClose,
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
					if c.Room() == "/a" {
						conns <- c
					}
					if early { // otherwise nobody asks before the end
						c.Context()
					}
					return c.Join("other")
				}),
				wsroom.OnLeave(func(c *wsroom.Conn, room string) {
					if slices.Contains(hub.Members(room), c) || slices.Contains(c.Rooms(), room) {
						t.Errorf("OnLeave while still in %s", room)
					}
				}),
				wsroom.OnJSON(func(c *wsroom.Conn, n int, err error) {
					if err != nil {
						lasts <- err
						return
					}
					switch n {
					case 0:
						c.SendText("connected")
					case 4001:
						c.Close(4001, "by the application")
					case 4002:
						hub.To("other").Close(4002, "kicked")
					case 4003:
						c.WebSocket().Close(4003, "beneath")
					case 4004:
						c.WebSocket().CloseNow()
					case 4005:
						c.WebSocket().Close(websocket.StatusNoStatusRcvd, "")
					}
				}))
			srv := kit.Serve(t, hub)
			bystander := kit.Dial(t, srv, "/bystander")
			bystander.SendText("0")
			bystander.ExpectText("connected")
			peer := kit.DialRaw(t, srv, "/a")
			tc.peer(peer)
			if tc.code != 0 {
				if code, reason := peer.CloseCode(); code != tc.code {
					t.Errorf("close code %d %q, want %d", code, reason, tc.code)
				}
			}
			if strings.HasPrefix(tc.name, "a length") {
				peer.Close() // else it is up to the message timeout
			}
			err := kit.Await(t, closed, "OnClose")
			if !tc.cause(err) {
				t.Errorf("cause %v", err)
			}
			if last := kit.Await(t, lasts, "the callback's err"); last != err {
				t.Errorf("the callback heard %v, OnClose %v", last, err)
			}
			ctx := (<-conns).Context()
			if cause := context.Cause(ctx); cause != err || ctx.Err() != context.Canceled {
				t.Errorf("the context says %v and %v, OnClose %v", cause, ctx.Err(), err)
			}
			peer.Close()
			if tc.name == "the application kicks the room" {
				bystander.ExpectClose(4002) // it was in the room, too
			} else if err := hub.Members("/bystander")[0].SendText("still here"); err != nil {
				t.Errorf("the bystander: %v", err)
			} else {
				bystander.ExpectText("still here")
			}
			bystander.CloseNow()
			kit.Shutdown(t, hub)
			if len(closed) != 1 || len(lasts) != 1 { // the bystander's
				t.Errorf("%d further OnClose, %d further err; want the bystander's", len(closed), len(lasts))
			}
		})
	}
}

// A panic or runtime.Goexit in any callback ends its connection, with 1011 and a logged stack, and
// nothing else.
func TestPanicEndsOneConnection(t *testing.T) {
	for _, how := range []struct {
		name string
		f    func()
	}{{"panic", func() { panic("boom") }}, {"Goexit", runtime.Goexit}, {"panic(nil)", func() { panic(nil) }}} {
		for _, where := range []string{"OnConnect", "OnJSON", "OnBinary", "OnJoin", "OnLeave", "OnClose", "OnDrop", "Serve", "unmarshal", "MarshalJSON"} {
			t.Run(how.name+" in "+where, func(t *testing.T) { testPanic(t, where, how.f) })
		}
	}
}

type marshalFunc func()

func (f marshalFunc) MarshalJSON() ([]byte, error) { f(); return []byte("1"), nil }

func testPanic(t *testing.T, where string, blow func()) {
	bad := func(c *wsroom.Conn, here string) {
		if here == where && c.Room() == "/bad" {
			blow()
		}
	}
	var log kit.LockedBuffer
	onCloses := make(chan error, 10)
	opts := []wsroom.Option{
		wsroom.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
		wsroom.WithSendQueue(1, 1<<30), wsroom.WithOverflow(wsroom.DropNewest),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { bad(c, "OnConnect"); return nil }),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if c.Room() == "/bad" {
				onCloses <- err
			}
			bad(c, "OnClose")
		}),
		wsroom.OnJoin(func(c *wsroom.Conn, _ string) { bad(c, "OnJoin") }),
		wsroom.OnLeave(func(c *wsroom.Conn, _ string) { bad(c, "OnLeave") }),
		wsroom.OnDrop(func(c *wsroom.Conn, _ int) { bad(c, "OnDrop") }),
		wsroom.OnBinary(func(c *wsroom.Conn, _ []byte, err error) { bad(c, "OnBinary") }),
	}
	if where == "Serve" {
		opts = append(opts, wsroom.Serve(func(c *wsroom.Conn) error {
			text, err := c.ReadText(context.Background())
			if err == nil {
				bad(c, "Serve")
				c.SendText(text)
				_, err = c.ReadText(context.Background())
			}
			return err
		}))
	} else {
		opts = append(opts, wsroom.OnJSON(func(c *wsroom.Conn, text string, err error) {
			if err != nil {
				return
			}
			bad(c, "OnJSON")
			c.SendJSON(marshalFunc(func() { bad(c, "MarshalJSON") }))
		}), wsroom.WithJSON(json.Marshal, func(p []byte, v any) error {
			if where == "unmarshal" && string(p) == `"bad"` {
				blow()
			}
			return json.Unmarshal(p, v)
		}))
	}
	hub := wsroom.New(opts...)
	srv := kit.Serve(t, hub)
	good := kit.Dial(t, srv, "/good")
	peer := kit.DialRaw(t, srv, "/bad")
	switch where {
	case "OnBinary":
		peer.Frame(0x82, "x")
	case "OnLeave", "OnClose":
		peer.Frame(0x88, "\x03\xe8")
	case "OnDrop":
		member := hub.Members("/bad")[0]
		for hub.Stats().Dropped == 0 {
			member.SendText(strings.Repeat("x", 1<<20))
		}
	case "OnConnect", "OnJoin":
	default:
		peer.Frame(0x81, `"bad"`)
	}
	want := 1011
	if where == "OnLeave" || where == "OnClose" {
		want = 1000 // the connection was ending already
	}
	if code, reason := peer.CloseCode(); code != want || reason != "" {
		t.Errorf("close frame %d %q, want %d without text", code, reason, want)
	}
	peer.Close()
	err := kit.Await(t, onCloses, "OnClose")
	if want == 1011 != errors.Is(err, wsroom.ErrPanic) {
		t.Errorf("cause %v", err)
	}
	kit.Until(t, "the stack is logged", func() bool {
		return strings.Contains(log.String(), "testPanic") || strings.Contains(log.String(), "goroutine ")
	})
	good.SendText(`"good"`)
	if text := good.NextText(); text != "1" && text != "good" && text != `"good"` {
		t.Errorf("the other connection: %q", text)
	}
	if len(onCloses) > 0 {
		t.Error("OnClose ran twice")
	}
}

// OnClose comes when the connection has left every room, however many, and each has been reported.
func TestOnCloseComesAfterEveryLeave(t *testing.T) {
	const rooms = 30_000
	left := 0
	done := make(chan struct{})
	var hub *wsroom.Hub
	hub = wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			for i := range rooms {
				c.Join(fmt.Sprint(i))
			}
			return nil
		}),
		wsroom.OnLeave(func(*wsroom.Conn, string) { left++ }),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if n := len(c.Rooms()); n > 0 || left != rooms+1 || len(hub.Rooms()) > 0 {
				t.Errorf("at OnClose it is in %d rooms, and has left %d of %d", n, left, rooms+1)
			}
			close(done)
		}))
	srv := kit.Serve(t, hub)
	kit.Dial(t, srv, "/a")
	kit.Until(t, "all are joined", func() bool { return len(hub.Rooms()) == rooms+1 })
	kit.Member(t, hub, "/a").Close(4000, "")
	kit.Await(t, done, "OnClose")
}

// Joins, leaves and ends at random leave nothing behind, and OnJoin and OnLeave are one to one.
func TestJoinRacesWithTheEnd(t *testing.T) {
	const conns, operations = 100, 100
	var mu sync.Mutex
	inside := map[string]int{}
	count := func(c *wsroom.Conn, room string, n int) {
		mu.Lock()
		defer mu.Unlock()
		inside[c.ID()+" "+room] += n
		if v := inside[c.ID()+" "+room]; v < 0 || v > 1 {
			t.Errorf("%s: %d joins more than leaves", room, v)
		}
	}
	var open atomic.Int64
	all := make(chan *wsroom.Conn, conns)
	hub := wsroom.New(wsroom.OnText(kit.DiscardText),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { open.Add(1); all <- c; return nil }),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) { count(c, room, 1) }),
		wsroom.OnLeave(func(c *wsroom.Conn, room string) { count(c, room, -1) }),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if err := c.Join("late"); !errors.Is(err, wsroom.ErrClosed) {
				t.Errorf("Join after the end: %v", err)
			}
			open.Add(-1)
		}))
	srv := kit.Serve(t, hub)
	var wg sync.WaitGroup
	for i := range conns {
		kit.Dial(t, srv, fmt.Sprintf("/%d", i%7))
	}
	for range conns {
		c := kit.Await(t, all, "a connection")
		wg.Go(func() {
			for range operations {
				room := fmt.Sprint("r", rand.IntN(10))
				switch rand.IntN(20) {
				case 0:
					if rand.IntN(4) == 0 {
						c.Close(4000, "")
					}
				case 1, 2, 3, 4, 5, 6, 7, 8:
					c.Leave(room)
				case 9:
					hub.SendTextToRoom(room, "x")
				default:
					c.Join(room)
				}
			}
			c.Close(4000, "")
		})
	}
	wg.Wait()
	kit.Until(t, "all have ended", func() bool { return open.Load() == 0 })
	if n, rooms := hub.Len(), hub.Rooms(); n != 0 || len(rooms) != 0 {
		t.Errorf("%d connections and the rooms %v are left", n, rooms)
	}
	mu.Lock()
	defer mu.Unlock()
	for key, n := range inside {
		if n != 0 {
			t.Errorf("%s: OnJoin without OnLeave", key)
		}
	}
}
