package wsroomjs_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomjs"
)

// A page that loads the client under its hashed path, so that a browser asks for each version once.
func Example() {
	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			c.SendTextToThisRoom(text)
		}
	}))
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("GET /js/", wsroomjs.Handler())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `<!doctype html><script type="module">
import { Socket } from "/js/%s"
new Socket("/chat/general", { onmessage: (data) => document.body.append(data) }).open()
</script>`, wsroomjs.Path())
	})

	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest("GET", "/js/"+wsroomjs.Path(), nil))
	fmt.Println(w.Code, w.Header().Get("Cache-Control"))
	// Output: 200 public, max-age=31536000, immutable
}
