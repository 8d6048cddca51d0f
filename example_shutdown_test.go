package wsroom_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// serveUntil serves the hub until ctx is done, such as one of signal.NotifyContext.
func serveUntil(ctx context.Context, ln net.Listener, hub *wsroom.Hub) error {
	srv := &http.Server{Handler: hub, ReadHeaderTimeout: 5 * time.Second}
	go srv.Serve(ln)
	<-ctx.Done()

	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(hub.Shutdown(end), srv.Shutdown(end))
}

// Hub.Shutdown belongs beside http.Server.Shutdown, which knows nothing of upgraded connections. What was
// sent before it comes first.
func ExampleHub_Shutdown() {
	hub := wsroom.New(
		wsroom.WithDrain(100*time.Millisecond), // some seconds, in production
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- serveUntil(ctx, ln, hub) }()

	ws, _, err := websocket.Dial(context.Background(), "http://"+ln.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ws.Write(context.Background(), websocket.MessageText, []byte("hello"))
	_, p, _ := ws.Read(context.Background())
	fmt.Println(string(p))

	hub.SendTextToAll("back in a minute")
	stop()
	_, p, _ = ws.Read(context.Background())
	fmt.Println(string(p))
	_, _, err = ws.Read(context.Background())
	fmt.Println(websocket.CloseStatus(err))
	fmt.Println(<-stopped)
	// Output:
	// hello
	// back in a minute
	// StatusServiceRestart
	// <nil>
}
