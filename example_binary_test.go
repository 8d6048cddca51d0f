package wsroom_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// sum adds up numbers of 16 bits.
func sum(p []byte) (total uint64) {
	for len(p) >= 2 {
		total += uint64(binary.BigEndian.Uint16(p))
		p = p[2:]
	}
	return total
}

// Binary messages beside texts, which set what the sum is to be multiplied by.
func ExampleOnBinary() {
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil && text == "double" {
				c.Set("factor", uint64(2))
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) {
			if err != nil {
				return
			}
			factor, ok := c.Get("factor")
			if !ok {
				factor = uint64(1)
			}
			c.SendBinary(binary.BigEndian.AppendUint64(nil, sum(p)*factor.(uint64)))
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	ws.Write(ctx, websocket.MessageText, []byte("double"))
	ws.Write(ctx, websocket.MessageBinary, []byte{0, 1, 0, 2, 1, 0})
	typ, p, _ := ws.Read(ctx)
	fmt.Println(typ, binary.BigEndian.Uint64(p))
	// Output: MessageBinary 518
}
