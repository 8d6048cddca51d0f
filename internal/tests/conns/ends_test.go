package conns_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// overTLSToo runs f with a server of a hub over TCP and over TLS.
func overTLSToo(t *testing.T, f func(t *testing.T, serve func(*wsroom.Hub) *httptest.Server)) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			f(t, func(hub *wsroom.Hub) *httptest.Server {
				return kit.ServeConfigured(t, hub, func(srv *httptest.Server) {
					if secure {
						srv.StartTLS()
					} else {
						srv.Start()
					}
				}, hub)
			})
		})
	}
}

// wantTexts reads texts until the end of the stream or a close frame, and returns its code.
func wantTexts(t *testing.T, c *kit.RawConn, want int, text func(i int) string) (code int) {
	t.Helper()
	for i := 0; ; i++ {
		first, p, err := c.Next()
		switch {
		case err == nil && first == 0x81:
			if i >= want || p != text(i) {
				t.Fatalf("message %d of %d is %q", i, want, kit.Short(p))
			}
			continue
		case i < want:
			t.Fatalf("%d of %d messages, then %#x, %v", i, want, first, err)
		case err == nil && len(p) >= 2:
			return int(p[0])<<8 | int(p[1])
		}
		return 0
	}
}

// dump answers each message, "dump" by 500.
func dump(c *wsroom.Conn, text string, err error) {
	if err != nil {
		return
	}
	if text != "dump" {
		c.SendText(text)
		return
	}
	for i := range 500 {
		c.SendText(kit.Number(i))
	}
}

// What was queued when the peer's close frame was read goes out before ours.
func TestRepliesComeBeforeTheAnswerToAClose(t *testing.T) {
	overTLSToo(t, func(t *testing.T, serve func(*wsroom.Hub) *httptest.Server) {
		srv := serve(wsroom.New(wsroom.OnText(dump)))
		for range 30 {
			for _, say := range []struct {
				texts []string
				want  int
			}{{[]string{kit.Number(0), kit.Number(1), kit.Number(2), kit.Number(3), kit.Number(4), kit.Number(5), kit.Number(6), kit.Number(7), kit.Number(8), kit.Number(9)}, 10},
				{[]string{"dump"}, 500}} {
				var all []byte
				for _, text := range say.texts {
					all = append(all, kit.RawFrame(0x81, text)...)
				}
				c := kit.Request(t, srv, kit.UpgradeRequest("/a"))
				c.Write(append(all, kit.RawFrame(0x88, "\x0f\xa1bye")...))
				if code := wantTexts(t, c.RawConn, say.want, kit.Number); code != 4001 {
					t.Errorf("close code %d, want 4001", code)
				}
				c.Close()
			}
		}
	})
}

// A peer that shuts down its writing may still read.
func TestQueueGoesOutToAPeerThatSendsNothingMore(t *testing.T) {
	overTLSToo(t, func(t *testing.T, serve func(*wsroom.Hub) *httptest.Server) {
		for name, rest := range map[string][]byte{"between messages": nil, "within a message": kit.RawFrame(0x81, "rest")[:8]} {
			hub := wsroom.New(wsroom.OnText(dump))
			srv := serve(hub)
			for range 20 {
				c := kit.Request(t, srv, kit.UpgradeRequest("/a"))
				c.Write(append(kit.RawFrame(0x81, "dump"), rest...))
				if err := c.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Fatal(err)
				}
				if code := wantTexts(t, c.RawConn, 500, kit.Number); code != 0 {
					t.Errorf("%s: close code %d, want no close frame", name, code)
				}
				c.Close()
			}
			kit.Until(t, "all have ended", func() bool { return hub.Causes().Ended["lost"] == 20 })
		}
	})
}

// Who does wrong gets what was queued for it before, too, but for one whose queue is full.
func TestRepliesComeBeforeARefusal(t *testing.T) {
	jsonEcho := wsroom.OnJSON(func(c *wsroom.Conn, text string, err error) { dump(c, text, err) })
	quick := wsroom.WithMessageTimeout(time.Second / 4)
	strict := []wsroom.Option{wsroom.WithRateLimit(1, 1), wsroom.WithRateLimitAction(wsroom.Disconnect)}
	for name, wrong := range map[string]struct {
		frames []byte
		code   int
		opts   []wsroom.Option
	}{
		"bad_json":        {kit.RawFrame(0x81, "{"), 1007, nil},
		"bad_kind":        {kit.RawFrame(0x82, "x"), 1003, nil},
		"not_utf8":        {kit.RawFrame(0x81, "\xff"), 1007, nil},
		"too_big":         {kit.RawFrame(0x81, strings.Repeat("x", 70_000)), 1009, nil},
		"protocol":        {kit.RawFrame(0x83, ""), 1002, nil},
		"overhead":        {bytes.Repeat(kit.RawFrame(0x8a, ""), 1000), 1008, nil},
		"rate":            {kit.RawFrame(0x81, "x"), 1008, strict},
		"message_timeout": {kit.RawFrame(0x81, "x")[:6], 1008, []wsroom.Option{quick}},
	} {
		t.Run(name, func(t *testing.T) {
			hub := wsroom.New(append(wrong.opts, jsonEcho)...)
			c := kit.DialRaw(t, kit.Serve(t, hub), "/a")
			c.Write(append(kit.RawFrame(0x81, `"dump"`), wrong.frames...))
			if code := wantTexts(t, c, 500, kit.Number); code != wrong.code {
				t.Errorf("close code %d, want %d", code, wrong.code)
			}
			c.Close()
			kit.Until(t, "it has ended", func() bool { return len(hub.Causes().Ended) > 0 })
			if ended := hub.Causes().Ended; ended[name] != 1 {
				t.Errorf("causes %v", ended)
			}
		})
	}
}

// A peer that closes and doesn't read is given 5 s to take what is queued.
func TestPeerThatClosesAndDoesNotReadIsBounded(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(dump)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		c.Write(append(kit.RawFrame(0x81, "dump"), kit.RawFrame(0x88, "\x03\xe8")...))
		begin := time.Now()
		kit.WantBetween(t, "OnClose", (<-ends).At, 0, 0)
		kit.Shutdown(t, hub)
		kit.WantBetween(t, "the socket's close", time.Since(begin), 5*time.Second, 5*time.Second)
	})
}

// A reason that is too long for a close frame is cut at a character, and the code stays.
func TestLongCloseReasonsAreCut(t *testing.T) {
	long := strings.Repeat("x", 122) + "é and more"
	by := websocket.CloseError{Code: 4321, Reason: long}
	now := time.Now()
	var hub *wsroom.Hub
	for name, opts := range map[string][]wsroom.Option{
		"OnConnect": {wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return by })},
		"Serve":     {wsroom.Serve(func(*wsroom.Conn) error { return fmt.Errorf("wrapped: %w", by) })},
		"OnExpire": {
			wsroom.WithAuthorize(func(*http.Request, string) error { return wsroom.Until(now.Add(time.Second / 4)) }),
			wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { return time.Time{}, by }),
		},
		"Conn.Close":   {wsroom.OnJoin(func(c *wsroom.Conn, _ string) { c.Close(by.Code, by.Reason) })},
		"Target.Close": {wsroom.OnJoin(func(*wsroom.Conn, string) { hub.To("/a").Close(by.Code, by.Reason) })},
	} {
		t.Run(name, func(t *testing.T) {
			now = time.Now()
			hub = wsroom.New(opts...)
			c := wsroomtest.Dial(t, hub, "/a")
			if reason := c.ExpectClose(4321); reason != long[:122] {
				t.Errorf("reason %q", reason)
			}
			kit.Shutdown(t, hub)
		})
	}
	bad := websocket.CloseError{Code: 4321, Reason: "a\xffb"} // not to be sent as it is
	c := wsroomtest.Dial(t, wsroom.New(wsroom.Serve(func(*wsroom.Conn) error { return bad })), "/a")
	if reason := c.ExpectClose(4321); reason != "ab" {
		t.Errorf("reason %q", reason)
	}
}

func TestShutdownCode(t *testing.T) {
	for _, code := range []websocket.StatusCode{1001, 1012, 4000} {
		for _, drain := range []time.Duration{0, time.Millisecond} {
			hub := wsroom.New(wsroom.WithDrain(drain), wsroom.WithShutdownCode(code))
			c := wsroomtest.Dial(t, hub, "/a")
			kit.Shutdown(t, hub)
			c.ExpectClose(code)
		}
	}
	for _, code := range []websocket.StatusCode{-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 1 << 32} {
		func() {
			defer func() {
				if err, _ := recover().(error); err == nil || !strings.Contains(err.Error(), "WithShutdownCode") {
					t.Errorf("code %d: %v", code, err)
				}
			}()
			wsroom.New(wsroom.WithShutdownCode(code))
		}()
	}
}
