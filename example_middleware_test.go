package wsroom_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
)

// page is what a browser gets that just opens the URL.
func page(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "<title>%s</title>", chi.URLParam(r, "board"))
}

// One URL for the page and for its WebSocket.
func ExampleHub_Middleware() {
	hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("board")))
	r := chi.NewRouter()
	r.With(hub.Middleware).Get("/boards/{board}", page)

	srv := httptest.NewServer(r)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	res, err := http.Get(srv.URL + "/boards/plan")
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	fmt.Println(string(body))

	ws, _, err := websocket.Dial(context.Background(), srv.URL+"/boards/plan", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	fmt.Println(hub.Rooms())
	// Output:
	// <title>plan</title>
	// [plan]
}
