package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/wsroom/wsroom"
)

// wish is what a client of the desk wants: to follow a topic, or not to any more.
type wish struct{ Follow, Unfollow string }

// A connection follows topics, rooms beside the one of its route, and keeps a name of its own.
func ExampleConn() {
	hub := wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			c.Set("name", r.FormValue("name"))
			return nil
		}),
		wsroom.OnJSON(func(c *wsroom.Conn, w wish, err error) {
			if err != nil {
				return
			}
			if w.Follow != "" {
				if err := c.Join("topic:" + w.Follow); err != nil {
					return
				}
			}
			if w.Unfollow != "" {
				c.Leave("topic:" + w.Unfollow)
			}
			name, _ := c.Get("name")
			c.SendText(fmt.Sprint(name, " is in ", c.Rooms()))
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/desk?name=ann", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	for _, w := range []wish{{Follow: "go"}, {Follow: "chess"}, {Unfollow: "go"}} {
		wsjson.Write(ctx, ann, w)
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}
	// Output:
	// ann is in [/desk topic:go]
	// ann is in [/desk topic:chess topic:go]
	// ann is in [/desk topic:chess]
}
