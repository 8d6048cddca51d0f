package sends_test

import (
	"net"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// Messages that wait behind the application's own, half-written one are counted as lost when the peer sends nothing more.
func TestMessagesBehindAnUnfinishedOneAreCountedAsLost(t *testing.T) {
	seen := &kit.Observer{Sums: map[string]float64{}}
	hub := wsroom.New(wsroom.WithObserver(seen), wsroom.Serve(func(c *wsroom.Conn) error {
		w, err := c.WebSocket().Writer(c.Context(), websocket.MessageText)
		if err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, 5000)); err != nil {
			return err
		}
		for range 3 {
			if err := c.SendText("x"); err != nil {
				return err
			}
		}
		_, err = c.ReadText(c.Context())
		return err
	}))
	srv := kit.Serve(t, hub)

	c := kit.Request(t, srv, kit.UpgradeRequest("/a"))
	if _, _, err := c.Next(); err != nil {
		t.Fatal(err)
	}
	if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	kit.NothingLeft(t, hub)
	kit.Until(t, "3 messages are counted", func() bool { return seen.Sum("dropped ended") == 3 })
}
