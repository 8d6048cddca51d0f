package wsroom_test

import (
	"errors"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

func asError(err error, target any) bool { return errors.As(err, target) }

func TestSmoke(t *testing.T) {
	closed := make(chan error, 10)
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err != nil {
				return
			}
			c.SendTextToThisRoom(text)
		}),
		wsroom.OnClose(func(c *wsroom.Conn, err error) { closed <- err }),
	)
	srv := serve(t, hub)
	a, b, other := dial(t, srv, "/a"), dial(t, srv, "/a"), dial(t, srv, "/b")
	a.send("hello")
	a.expect("hello")
	b.expect("hello")
	other.send("x")
	other.expect("x")
	a.conn.Close(websocket.StatusNormalClosure, "bye")
	t.Log(await(t, closed, "close"))
	hub.To("/b").Close(4000, "kick")
	other.expectClose(4000)
	t.Log(await(t, closed, "close"))
}
