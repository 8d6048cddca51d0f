// Echo sends every message back to its sender. It is the example for Serve, which hands the reading
// to one function, in its own words and with its own state.
//
//	go run ./examples/echo
//	npx wscat -c ws://localhost:8080/
package main

import (
	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

func newHub() *wsroom.Hub {
	return wsroom.New(wsroom.Serve(echo))
}

// echo runs for as long as its connection. What it returns ends it; nil would be a normal closure.
func echo(c *wsroom.Conn) error {
	for {
		kind, p, err := c.Read(c.Context())
		if err != nil {
			return err
		}
		if kind == websocket.MessageText {
			err = c.SendText(string(p))
		} else {
			err = c.SendBinary(p)
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	hub := newHub()
	web.Run(hub, hub)
}
