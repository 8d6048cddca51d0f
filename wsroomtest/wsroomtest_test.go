package wsroomtest_test

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// echo sends each message back to its sender's room.
func echo(opts ...wsroom.Option) *wsroom.Hub {
	return wsroom.New(append(opts,
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) { c.SendBinary(p) }))...)
}

// everywhere runs f in a bubble and outside, and over a network.
func everywhere(t *testing.T, f func(t *testing.T, dial func(hub *wsroom.Hub, path string, opts ...wsroomtest.Option) *wsroomtest.Client)) {
	inMemory := func(t *testing.T) {
		f(t, func(hub *wsroom.Hub, path string, opts ...wsroomtest.Option) *wsroomtest.Client {
			t.Helper()
			return wsroomtest.Dial(t, hub, path, opts...)
		})
	}
	t.Run("bubble", func(t *testing.T) { synctest.Test(t, inMemory) })
	t.Run("memory", inMemory)
	t.Run("network", func(t *testing.T) {
		servers := map[*wsroom.Hub]*httptest.Server{}
		f(t, func(hub *wsroom.Hub, path string, opts ...wsroomtest.Option) *wsroomtest.Client {
			t.Helper()
			if servers[hub] == nil {
				servers[hub] = httptest.NewServer(hub)
				t.Cleanup(servers[hub].Close)
			}
			return wsroomtest.Dial(t, nil, servers[hub].URL+path, opts...)
		})
	})
}

func TestMessagesBothWays(t *testing.T) {
	everywhere(t, func(t *testing.T, dial func(*wsroom.Hub, string, ...wsroomtest.Option) *wsroomtest.Client) {
		hub := wsroomtest.CheckHub(t, echo())
		ann, bob, eve := dial(hub, "/a"), dial(hub, "/a"), dial(hub, "/b")
		ann.SendText("hello")
		bob.SendJSON(map[string]any{"n": 1, "s": "x"})
		long := strings.Repeat("long", 10_000)
		bob.SendText(long)
		for _, c := range []*wsroomtest.Client{ann, bob} {
			got := []string{c.NextText(), c.NextText(), c.NextText()}
			if len(got) != 3 {
				t.Error(got)
			}
		}
		ann.SendBinary([]byte{0, 0xff})
		ann.ExpectBinary([]byte{0, 0xff})
		for _, c := range []*wsroomtest.Client{ann, bob, eve} {
			c.ExpectNothing()
		}
		ann.Close(websocket.StatusNormalClosure, "")
		ann.ExpectClose(websocket.StatusNormalClosure)
		ann.ExpectNothing()
		bob.SendText("gone?")
		bob.ExpectText("gone?")
	})
}

func TestNothingIsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, dial func(*wsroom.Hub, string, ...wsroomtest.Option) *wsroomtest.Client) {
		hub := wsroomtest.CheckHub(t, echo())
		for i := range 5 {
			for _, n := range []int{1, 2, 200, 1000} {
				failure := record(t, func(t testing.TB) {
					c := wsroomtest.Dial(t, hub, fmt.Sprint("/", i))
					for range n {
						hub.SendTextToAll(strings.Repeat("x", 100))
					}
					c.ExpectNothing()
				})
				if !strings.Contains(failure, "want nothing, got:") {
					t.Errorf("%d messages: %q", n, failure)
				}
			}
		}
		c := dial(hub, "/a")
		for range 9 {
			c.ExpectNothing()
		}
	})
}

func TestStall(t *testing.T) {
	everywhere(t, func(t *testing.T, dial func(*wsroom.Hub, string, ...wsroomtest.Option) *wsroomtest.Client) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, echo(
			wsroom.WithSendQueue(10, 1<<20),
			wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err })))
		c := dial(hub, "/a")
		c.Stall()
		for hub.Len() > 0 {
			hub.SendTextToAll(strings.Repeat("x", 100_000))
		}
		if err := <-ends; !errors.Is(err, wsroom.ErrSlow) {
			t.Error(err)
		}
		c.Resume()
		c.ExpectClose(websocket.StatusTryAgainLater)
	})
}

func TestCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := make(chan error, 1)
		hub := wsroomtest.CheckHub(t, echo(wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err })))
		c := wsroomtest.Dial(t, hub, "/a")
		begin := time.Now()
		c.Cut()
		c.SendText("lost")
		if err := <-ends; !errors.Is(err, wsroom.ErrHeartbeat) {
			t.Error(err)
		}
		if d := time.Since(begin); d < 30*time.Second || d > 36*time.Second {
			t.Error(d)
		}
	})
}
