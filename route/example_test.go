package route_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/route"
)

type (
	bid      struct{ Amount int }
	accepted struct{ Highest int }
)

// A client asks the server, and the server asks the client.
func Example() {
	messages := route.New()
	highest := 100
	route.Handle(messages, "bid", func(c *wsroom.Conn, b bid) (accepted, error) {
		if b.Amount <= highest {
			return accepted{}, &route.Error{Code: "too_low", Message: fmt.Sprint("more than ", highest)}
		}
		highest = b.Amount
		go func() { // a handler can't wait for its own client
			paid, err := route.Call[bool](c.Context(), messages, c, "pay", b)
			c.SendJSON(messages.Message("over", paid && err == nil))
		}()
		return accepted{highest}, nil
	})
	hub := wsroom.New(messages.OnJSON())
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/auction", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	says := func(text string) { ann.Write(ctx, websocket.MessageText, []byte(text)) }
	hears := func() {
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}

	says(`{"type":"bid","id":1,"data":{"Amount":90}}`)
	hears()
	says(`{"type":"bid","data":{"Amount":120}}`) // without an id it wants no reply
	hears()
	says(`{"id":1,"data":true}`) // the answer
	hears()
	// Output:
	// {"error":{"code":"too_low","message":"more than 100"},"id":1}
	// {"data":{"Amount":120},"id":1,"type":"pay"}
	// {"data":true,"type":"over"}
}
