// Step 1: what one client says reaches all.
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

	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	}))

	http.Handle("GET /chat", hub)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	log.Print("open http://", *addr)
	log.Fatal(http.ListenAndServe(*addr, nil))
}
