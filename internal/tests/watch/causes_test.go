package watch_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Every end and every refusal is counted under its one cause.
func TestCausesAreCounted(t *testing.T) {
	hub := wsroom.New(wsroom.WithMaxConns(2), wsroom.OnText(kit.EchoRoom))
	a, b := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
	wsroomtest.Refused(t, hub, "/c", http.StatusServiceUnavailable)
	wsroomtest.Refused(t, hub, "/c", http.StatusForbidden, wsroomtest.WithOrigin("https://evil.example"))
	hub.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/c", nil))
	a.Close(websocket.StatusNormalClosure, "")
	kit.Member(t, hub, "/b").Close(4000, "bye")
	b.ExpectClose(4000)
	kit.Until(t, "both are released", func() bool { return hub.Stats().Closed == 2 })
	got := hub.Causes()
	if want := map[string]int{"peer": 1, "closed": 1}; !maps.Equal(got.Ended, want) {
		t.Errorf("ended %v, want %v", got.Ended, want)
	}
	if want := map[string]int{"max_conns": 1, "origin": 1, "handshake": 1}; !maps.Equal(got.Refused, want) {
		t.Errorf("refused %v, want %v", got.Refused, want)
	}
	got.Ended["peer"]++
	if hub.Causes().Ended["peer"] != 1 {
		t.Error("the maps aren't the caller's own")
	}
}

// Queued counts what waits behind the message that is being written, what OnConnect's sends hold back
// included.
func TestQueuedCountsWhatWaits(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			c.SendTextToThisRoom("early")
			if n, size := c.Queued(); n != 1 || size != 7 {
				t.Errorf("in OnConnect %d messages, %d bytes are queued, want 1 and 7", n, size)
			}
			return c.SendText("hello")
		}))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		c := kit.Member(t, hub, "/a")
		queued := func(messages int, bytes int64) {
			t.Helper()
			synctest.Wait()
			if n, size := c.Queued(); n != messages || size != bytes {
				t.Errorf("%d messages, %d bytes are queued, want %d and %d", n, size, messages, bytes)
			}
		}
		for range 2 {
			raw.Next()
		}
		queued(0, 0)
		hub.SendTextToAll("being written")
		synctest.Wait()
		for range 3 {
			hub.SendTextToAll("12345")
		}
		queued(3, 21)
		for range 4 {
			raw.Next()
		}
		queued(0, 0)
		hub.SendTextToAll("12345")
		synctest.Wait()
		hub.SendTextToAll("12345")
		queued(1, 7)
		c.Close(websocket.StatusNormalClosure, "")
		queued(0, 0)
		raw.CloseCode()
		raw.Close()
	})
}
