package wsroomtest_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// echo sends text back to its room and binary messages to their sender.
func echo(opts ...wsroom.Option) *wsroom.Hub {
	return wsroom.New(append(opts,
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, _ error) { c.SendBinary(p) }))...)
}

// dialFunc dials a hub.
type dialFunc func(t testing.TB, hub http.Handler, path string, opts ...wsroomtest.Option) *wsroomtest.Client

// overLines runs f over each kind of line: in memory, with fake time and without, and over networks.
func overLines(t *testing.T, f func(t *testing.T, dial dialFunc)) {
	t.Run("bubble", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { f(t, wsroomtest.Dial) })
	})
	t.Run("memory", func(t *testing.T) { f(t, wsroomtest.Dial) })
	for name, start := range map[string]func(*httptest.Server){"TCP": (*httptest.Server).Start, "TLS": (*httptest.Server).StartTLS} {
		t.Run(name, func(t *testing.T) {
			servers := map[http.Handler]*httptest.Server{}
			f(t, func(c testing.TB, hub http.Handler, path string, opts ...wsroomtest.Option) *wsroomtest.Client {
				c.Helper()
				srv := servers[hub]
				if srv == nil {
					srv = httptest.NewUnstartedServer(hub)
					start(srv)
					t.Cleanup(srv.Close)
					servers[hub] = srv
				}
				if srv.Certificate() != nil {
					opts = append(opts, wsroomtest.WithCertificate(srv.Certificate()))
				}
				return wsroomtest.Dial(c, nil, srv.URL+path, opts...)
			})
		})
	}
}

func TestMessagesGoBothWays(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		hub := wsroomtest.CheckHub(t, echo(wsroom.WithCompression(0)))
		ann, bob, eve := dial(t, hub, "/a"), dial(t, hub, "/a", wsroomtest.WithCompression()), dial(t, hub, "/b")
		long := strings.Repeat("long", 10_000)
		bob.SendText("hello")
		bob.SendJSON(map[string]int{"n": 1})
		bob.SendText(long)
		bob.SendBinary([]byte{0, 0xff})
		for _, c := range []*wsroomtest.Client{ann, bob} {
			c.ExpectText("hello")
			c.ExpectJSON(map[string]int{"n": 1})
			c.ExpectText(long)
		}
		bob.ExpectBinary([]byte{0, 0xff})
		for _, c := range []*wsroomtest.Client{ann, bob, eve} {
			c.ExpectNothing()
		}
	})
}

// However many messages there are, and wherever they are, nothing isn't expected in vain.
func TestExpectNothingSeesWhatIsOnItsWay(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		hub := wsroomtest.CheckHub(t, echo())
		for i := range 5 {
			for _, n := range []int{1, 2, 200, 1000} {
				var sent []string
				failure := record(t, func(t testing.TB) {
					c := dial(t, hub, fmt.Sprint("/", i))
					for j := range n {
						sent = append(sent, fmt.Sprint(j, strings.Repeat("x", 100)))
						hub.SendTextToAll(sent[j])
					}
					c.ExpectNothing()
				})
				if !strings.Contains(failure, "want nothing, got:") {
					t.Errorf("%d messages: %q", n, failure)
				}
			}
		}
		asked := dial(t, hub, "/a")
		if failure := record(t, func(t testing.TB) {
			c := dial(t, hub, "/a")
			asked.SendText("asked")
			asked.ExpectText("asked") // it is in the queue of the other one, too
			c.ExpectNothing()
		}); !strings.Contains(failure, `the text "asked"`) {
			t.Errorf("%q", failure)
		}
	})
}

// A hub ends who sends more than 20 pings at once. In a bubble there are none.
func TestExpectNothingIsNoFloodOfPings(t *testing.T) {
	t.Parallel()
	often := func(t *testing.T) (took time.Duration) {
		c := wsroomtest.Dial(t, echo(), "/")
		begin := time.Now()
		for range 12 {
			c.ExpectNothing()
		}
		took = time.Since(begin)
		c.SendText("still here")
		c.ExpectText("still here")
		return took
	}
	often(t)
	synctest.Test(t, func(t *testing.T) {
		if took := often(t); took > 0 {
			t.Errorf("it takes %v of fake time", took)
		}
	})
}

func TestDrainTakesAll(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		hub := wsroomtest.CheckHub(t, echo())
		c := dial(t, hub, "/")
		var want []string
		for i := range 500 {
			want = append(want, fmt.Sprint(i))
			hub.SendTextToAll(want[i])
		}
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		c.ExpectNothing()
	})
}

// Who stalls is too slow for the server, and hears of it once it reads on.
func TestStalledClientIsSlow(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, echo(
			wsroom.WithSendQueue(10, 1<<20),
			wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err })))
		c := dial(t, hub, "/a")
		c.Stall()
		for hub.Len() > 0 {
			hub.SendTextToAll(strings.Repeat("x", 100_000))
		}
		if err := <-ends; !errors.Is(err, wsroom.ErrSlow) {
			t.Errorf("ended by %v", err)
		}
		c.Resume()
		c.ExpectClose(websocket.StatusTryAgainLater)
	})
}

// What didn't fit the line by the write timeout never comes.
func TestWriteThatTimedOutIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, wsroom.New())
		c := wsroomtest.Dial(t, hub, "/a")
		c.Stall()
		hub.SendTextToAll(strings.Repeat("x", 1000))
		time.Sleep(11 * time.Second)
		c.Resume()
		c.ExpectClose(websocket.StatusAbnormalClosure)
		c.ExpectNothing()
	})
}

// A stalled client gets all that was sent to it meanwhile, once it reads on.
func TestResumeLosesNothing(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		hub := wsroomtest.CheckHub(t, echo())
		c := dial(t, hub, "/a")
		for round := range 20 {
			c.Stall()
			for i := range 10 {
				hub.SendTextToAll(fmt.Sprint(round, i))
			}
			c.Resume()
			for i := range 10 {
				c.ExpectText(fmt.Sprint(round, i))
			}
		}
	})
}

// A line that is cut carries nothing: no message, no close frame and no end of the stream, either way.
func TestCutLineIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.OnText(func(_ *wsroom.Conn, text string, err error) {
				if err == nil {
					t.Errorf("%q came", text)
				}
			}),
			wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err })))
		c, vanished := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/a")
		begin := time.Now()
		c.Cut()
		c.Resume() // mends nothing
		c.SendText("lost")
		vanished.Cut()
		vanished.CloseNow()
		for range 2 {
			if err := <-ends; !errors.Is(err, wsroom.ErrHeartbeat) {
				t.Errorf("ended by %v", err)
			}
		}
		if d := time.Since(begin); d < 30*time.Second || d > 36*time.Second {
			t.Errorf("ended after %v", d)
		}
	})
}

// Each way to end has its code, as in a browser's close event.
func TestEveryEndHasACode(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(hub *wsroom.Hub, c *wsroomtest.Client)
		code   websocket.StatusCode
		reason string
	}{
		"the hub closes":        {func(hub *wsroom.Hub, _ *wsroomtest.Client) { hub.ToAll().Close(4000, "bye") }, 4000, "bye"},
		"the client closes":     {func(_ *wsroom.Hub, c *wsroomtest.Client) { c.Close(4001, "") }, 4001, ""},
		"the client goes":       {func(_ *wsroom.Hub, c *wsroomtest.Client) { c.CloseNow() }, websocket.StatusAbnormalClosure, ""},
		"a bad message":         {func(_ *wsroom.Hub, c *wsroomtest.Client) { c.SendText("\xff") }, websocket.StatusInvalidFramePayloadData, "text must be UTF-8"},
		"without a code":        {func(hub *wsroom.Hub, _ *wsroomtest.Client) { beneath(hub).Close(websocket.StatusNoStatusRcvd, "") }, websocket.StatusNoStatusRcvd, ""},
		"without a close frame": {func(hub *wsroom.Hub, _ *wsroomtest.Client) { beneath(hub).CloseNow() }, websocket.StatusAbnormalClosure, ""},
	} {
		t.Run(name, func(t *testing.T) {
			overLines(t, func(t *testing.T, dial dialFunc) {
				hub := wsroomtest.CheckHub(t, echo())
				c := dial(t, hub, "/a")
				tc.end(hub, c)
				if reason := c.ExpectClose(tc.code); reason != tc.reason {
					t.Errorf("reason %q, want %q", reason, tc.reason)
				}
				c.ExpectNothing()
				c.Close(4321, "") // does nothing
				c.CloseNow()
				c.ExpectClose(tc.code)
			})
		})
	}
}

func beneath(hub *wsroom.Hub) *websocket.Conn { return hub.Members("/a")[0].WebSocket() }

func TestOptionsShapeTheRequest(t *testing.T) {
	type key struct{}
	var got []string
	hub := wsroom.New(wsroom.WithSubprotocols("v1"), wsroom.WithOrigins("app.example"), wsroom.WithCompression(0),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			cookie, _ := r.Cookie("session")
			got = []string{
				r.Host, r.RemoteAddr, r.URL.RequestURI(), r.Header.Get("Origin"), r.Header.Get("X-Header"), cookie.String(),
				c.Subprotocol(), fmt.Sprint(r.Context().Value(key{})), r.Header.Get("Sec-WebSocket-Extensions"),
			}
			return c.SendText("connected")
		}))
	for _, tc := range []struct {
		opts []wsroomtest.Option
		want []string
	}{
		{nil, []string{"example.com", "192.0.2.1:1234", "/a?q=%2F", "", "", "", "", "<nil>", ""}},
		{
			[]wsroomtest.Option{
				wsroomtest.WithHost("chat.example"), wsroomtest.WithRemoteAddr("203.0.113.7:4711"), wsroomtest.WithOrigin("https://app.example"),
				wsroomtest.WithHeader("X-Header", "value"), wsroomtest.WithCookies(&http.Cookie{Name: "session", Value: "ann's", Path: "/"}),
				wsroomtest.WithSubprotocols("v2", "v1"), wsroomtest.WithContext(context.WithValue(t.Context(), key{}, "value")),
				wsroomtest.WithCompression(), nil,
			},
			[]string{"chat.example", "203.0.113.7:4711", "/a?q=%2F", "https://app.example", "value", "session=ann's", "v1", "value",
				"permessage-deflate; client_no_context_takeover; server_no_context_takeover"},
		},
	} {
		c := wsroomtest.Dial(t, hub, "/a?q=%2F", tc.opts...)
		c.ExpectText("connected")
		if !slices.Equal(got, tc.want) {
			t.Errorf("got  %q\nwant %q", got, tc.want)
		}
		if c.Subprotocol() != got[6] {
			t.Errorf("the client's subprotocol is %q", c.Subprotocol())
		}
	}
}

// Redirects are followed, as httptest's clients follow them.
func TestDialFollowsRedirects(t *testing.T) {
	hub := wsroomtest.CheckHub(t, echo(wsroom.WithRoom(wsroom.ByPathValue("room"))))
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	wsroomtest.Dial(t, mux, "/chat//lobby").SendText("hello")
	if rooms := hub.Rooms(); !slices.Equal(rooms, []string{"lobby"}) {
		t.Errorf("rooms %q", rooms)
	}
}

// Hundreds of clients are no burden.
func TestManyClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, echo())
		clients := wsroomtest.DialN(t, 500, hub, "/a")
		clients[0].SendText("hello")
		for _, c := range clients {
			c.ExpectText("hello")
		}
		for _, c := range clients[:10] {
			c.ExpectNothing()
		}
	})
}

// A hub that is checked before the others of its test isn't taken for what the others still do.
func TestHubsOfATestAreCheckedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 3 {
			hub := wsroomtest.CheckHub(t, echo())
			wsroomtest.Dial(t, hub, "/a").SendText("hello")
		}
	})
}
