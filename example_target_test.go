package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// relay passes on what comes in, to the others of the room, and not back.
type relay struct{ *wsroom.Hub }

func (g *relay) text(c *wsroom.Conn, text string, err error) {
	if err == nil {
		g.To(c.Room()).Except(c).SendText(text)
	}
}

// Messages for everyone but the sender, then for several rooms, and a kick.
func ExampleTarget() {
	var g relay
	g.Hub = wsroom.New(wsroom.OnText(g.text))
	srv := httptest.NewServer(g)
	defer srv.Close()
	defer g.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var clients []*websocket.Conn
	for _, room := range []string{"/red", "/red", "/blue"} {
		ws, _, err := websocket.Dial(ctx, srv.URL+room, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		clients = append(clients, ws)
	}
	ann, bob, cas := clients[0], clients[1], clients[2]

	ann.Write(ctx, websocket.MessageText, []byte("hello, red"))
	_, p, _ := bob.Read(ctx)
	fmt.Println("bob:", string(p))

	var absent []string
	g.To(absent...).SendText("for nobody") // everyone is g.ToAll(), and never an empty list
	g.To("/red", "/blue").SendText("hello, all")
	_, p, _ = ann.Read(ctx) // her own message hasn't come
	fmt.Println("ann:", string(p))
	_, p, _ = cas.Read(ctx)
	fmt.Println("cas:", string(p))

	g.To("/blue").Close(4000, "closing time")
	_, _, err := cas.Read(ctx)
	fmt.Println("cas:", websocket.CloseStatus(err))
	// Output:
	// bob: hello, red
	// ann: hello, all
	// cas: hello, all
	// cas: StatusCode(4000)
}
