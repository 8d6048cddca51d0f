// Step 3: messages are JSON, and what isn't good is answered.
package main

import (
	_ "embed"
	"flag"
	"log"
	"net/http"
	"strings"

	"github.com/wsroom/wsroom"
)

//go:embed page.html
var page []byte

// event is what goes over the socket, in both directions.
type event struct {
	Type string `json:"type"` // text or error
	Text string `json:"text"`
}

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	flag.Parse()

	hub := wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithMaxRooms(1000),
		wsroom.OnJSON(hear),
	)

	http.Handle("GET /chat/{room}", hub)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	log.Print("open http://", *addr)
	log.Fatal(http.ListenAndServe(*addr, nil))
}

func hear(c *wsroom.Conn, said event, err error) {
	switch text := strings.TrimSpace(said.Text); {
	case err != nil: // it wasn't JSON: the connection is ending
	case text == "" || len(text) > 1000:
		c.SendJSON(event{Type: "error", Text: "A message has 1 to 1000 bytes."})
	default:
		c.SendJSONToThisRoom(event{Type: "text", Text: text})
	}
}
