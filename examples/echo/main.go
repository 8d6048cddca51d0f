// Echo sends every message back to its sender. It is the example for Serve, which hands the reading
// to one function, in its own words and with its own state.
//
//	go run ./examples/echo
//	npx wscat -c ws://localhost:8080/
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
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
	addr := flag.String("addr", ":8080", "address to listen on")
	flag.Parse()
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	hub := newHub()
	srv := &http.Server{Handler: hub, ReadHeaderTimeout: 5 * time.Second}
	go func() { log.Print(srv.Serve(ln)); stop() }()
	log.Printf("echo is at ws://%s", ln.Addr())
	<-ctx.Done()
	stop()
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(end), srv.Shutdown(end)); err != nil {
		log.Fatal(err)
	}
}
