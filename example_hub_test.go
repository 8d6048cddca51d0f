package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// newSite has rooms below /chat/, and a page from which a notice goes to one of them.
func newSite() (*wsroom.Hub, http.Handler) {
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.HandleFunc("POST /notice/{room}", func(w http.ResponseWriter, r *http.Request) {
		if err := hub.SendTextToRoom("/chat/"+r.PathValue("room"), r.FormValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	return hub, mux
}

// A hub is an http.Handler, and sends from anywhere.
func ExampleHub() {
	hub, site := newSite()
	srv := httptest.NewServer(site)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	fmt.Println(hub.Rooms(), hub.Len())

	http.PostForm(srv.URL+"/notice/general", url.Values{"text": {"Lunch is ready."}})
	_, p, err := ann.Read(ctx)
	fmt.Println(string(p), err)
	// Output:
	// [/chat/general] 1
	// Lunch is ready. <nil>
}
