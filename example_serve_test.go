package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/wsroom/wsroom"
)

// hello is what a client says first.
type hello struct{ Name string }

// greet is a conversation with turns of its own: a name, then lines. An error ends the connection; nil closes
// it with 1000.
func greet(c *wsroom.Conn) error {
	var h hello
	if err := c.ReadJSON(c.Context(), &h); err != nil {
		return err
	}
	for {
		line, err := c.ReadText(c.Context())
		if err != nil {
			return err
		}
		if line == "bye" {
			return c.SendText("Bye, " + h.Name + ".")
		}
		if err := c.SendTextToThisRoom(h.Name + ": " + line); err != nil {
			return err
		}
	}
}

// Serve hands over the connection, for what isn't one message after the other.
func ExampleServe() {
	hub := wsroom.New(wsroom.Serve(greet))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	wsjson.Write(ctx, ann, hello{"Ann"})
	for _, line := range []string{"hello", "bye"} {
		ann.Write(ctx, websocket.MessageText, []byte(line))
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}
	_, _, err = ann.Read(ctx)
	fmt.Println(websocket.CloseStatus(err))
	// Output:
	// Ann: hello
	// Bye, Ann.
	// StatusNormalClosure
}
