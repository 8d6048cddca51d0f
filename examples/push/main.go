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
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wsroom/wsroom"
)

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>News</title>
<style>:root { color-scheme: light dark } body { font: 1rem/1.5 system-ui; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }</style>
<h1>News</h1>
<ul id="news" aria-live="polite"></ul>
<script>
const show = (text) => document.querySelector("#news").appendChild(document.createElement("li")).textContent = text;
const ws = new WebSocket(location.origin.replace("http", "ws") + "/feed/news");
ws.onmessage = (e) => show(e.data);
ws.onclose = () => show("The connection has ended. Reload to listen again.");
</script>
</html>
`

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
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		io.WriteString(w, page)
	})
	// Pages of other sites may not publish in the name of a visitor's browser.
	return http.NewCrossOriginProtection().Handler(mux)
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
	srv := &http.Server{Handler: handler(hub), ReadHeaderTimeout: 5 * time.Second}
	go func() { log.Print(srv.Serve(ln)); stop() }()
	log.Printf("push is at http://%s", ln.Addr())
	<-ctx.Done()
	stop()
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(end), srv.Shutdown(end)); err != nil {
		log.Fatal(err)
	}
}
