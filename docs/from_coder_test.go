package docs_test

import (
	"io"
	"net/http"
	"sync"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

func coderPush() http.Handler {
	var mu sync.Mutex
	subscribers := map[chan []byte]bool{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /subscribe", func(w http.ResponseWriter, r *http.Request) {
		msgs := make(chan []byte, 16)
		mu.Lock()
		subscribers[msgs] = true
		mu.Unlock()
		defer func() { mu.Lock(); delete(subscribers, msgs); mu.Unlock() }()
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		ctx := c.CloseRead(r.Context())
		for {
			select {
			case msg := <-msgs:
				if c.Write(ctx, websocket.MessageText, msg) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		msg, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 8192))
		mu.Lock()
		defer mu.Unlock()
		for msgs := range subscribers {
			select {
			case msgs <- msg:
			default: // too slow: the connection is closed
			}
		}
	})
	return mux
}

func wsroomPush() (*wsroom.Hub, http.Handler) {
	hub := wsroom.New()
	mux := http.NewServeMux()
	mux.Handle("GET /subscribe", hub)
	mux.HandleFunc("POST /publish", func(w http.ResponseWriter, r *http.Request) {
		msg, _ := io.ReadAll(http.MaxBytesReader(w, r.Body, 8192))
		hub.SendTextToAll(string(msg))
	})
	return hub, mux
}
