// Push sends to rooms from an ordinary HTTP handler. Its hub has no callback for messages, so it is
// push-only: a client that sends one is refused with 1003.
//
//	go run ./examples/push
//
// Open http://localhost:8080, which listens to the room "news", and publish to it:
//
//	curl -d 'The train is late.' http://localhost:8080/publish/news
package main

import (
	"embed"
	"io"
	"net/http"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

//go:embed index.html push.css push.js
var files embed.FS

func newHub() *wsroom.Hub {
	return wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room")))
}

func handler(hub *wsroom.Hub) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /feed/{room}", hub)
	mux.HandleFunc("POST /publish/{room}", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4<<10))
		if err != nil {
			http.Error(w, "a message has at most 4 KiB", http.StatusRequestEntityTooLarge)
			return
		}
		// It only queues: neither slow listeners nor many of them hold up this request.
		if err := hub.SendTextToRoom(r.PathValue("room"), string(text)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.Handle("GET /", web.Files(files))
	// Pages of other sites may not publish in the name of a visitor's browser.
	return http.NewCrossOriginProtection().Handler(mux)
}

func main() {
	hub := newHub()
	web.Run(hub, handler(hub))
}
