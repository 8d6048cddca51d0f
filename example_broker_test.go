package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// newNode is a hub among others. In production broker is redisbroker.New(client), or natsbroker.New(nc).
func newNode(broker wsroom.Broker) *wsroom.Hub {
	return wsroom.New(
		wsroom.WithName("chat"),
		wsroom.WithBroker(broker),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
		wsroom.OnGap(func(room string, err error) {
			log.Printf("members of %s may have missed something: %v", room, err)
		}),
	)
}

// Two nodes, here in one process: what a client of one sends reaches those of the other.
func ExampleWithBroker() {
	cloud := brokertest.NewMemory()
	one, two := newNode(cloud.Open()), newNode(cloud.Open())
	defer one.Shutdown(context.Background())
	defer two.Shutdown(context.Background())
	srv1, srv2 := httptest.NewServer(one), httptest.NewServer(two)
	defer srv1.Close()
	defer srv2.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv1.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	bob, _, err := websocket.Dial(ctx, srv2.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer bob.CloseNow()

	ann.Write(ctx, websocket.MessageText, []byte("hello from the other side"))
	_, p, err := bob.Read(ctx)
	fmt.Println(string(p), err)
	// Output: hello from the other side <nil>
}
