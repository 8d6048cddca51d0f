package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// visitor says who makes the request; a site with logins takes it from the session.
func visitor(r *http.Request) string { return r.FormValue("name") }

// Ann has two tabs open and is one member; that she came is told once.
func ExampleHub_Presence() {
	joined := make(chan string, 10)
	hub := wsroom.New(
		wsroom.WithIdentity(visitor),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { joined <- m.Identity + " is in " + room }),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx := context.Background()
	for _, name := range []string{"ann", "ann", "bob"} {
		ws, _, err := websocket.Dial(ctx, srv.URL+"/lounge?name="+name, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
	}
	members, err := hub.Presence(ctx, "/lounge")
	fmt.Println(members, err, hub.Len())
	fmt.Println(<-joined)
	fmt.Println(<-joined)
	// Output:
	// [{ann} {bob}] <nil> 3
	// ann is in /lounge
	// bob is in /lounge
}
