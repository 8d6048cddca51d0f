// Step 2: each URL is a room.
package main

import (
	_ "embed"
	"flag"
	"log"
	"net/http"

	"github.com/wsroom/wsroom"
)

//go:embed page.html
var page []byte

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()

	hub := wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithMaxRooms(1000),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)

	http.Handle("GET /chat/{room}", hub)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	log.Print("open http://", *addr, "/#kitchen and http://", *addr, "/#garden")
	log.Fatal(http.ListenAndServe(*addr, nil))
}
