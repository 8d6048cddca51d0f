// Package web is what the examples share: it runs their servers and serves their pages, which have a
// look in common (page.css), words for the state of a connection (page.js), and the client (wsroom.js).
package web

import (
	"context"
	"embed"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomjs"
)

var addr = flag.String("addr", ":8080", "address to listen on")

// Run serves handler until the program is told to stop, then ends the hub's connections and the server.
// It parses the program's flags.
func Run(hub *wsroom.Hub, handler http.Handler) {
	RunNodes(func() (*wsroom.Hub, http.Handler) { return hub, handler })
}

// RunNodes is Run for a program with several nodes. The others than the first are at addresses of their own.
func RunNodes(node func() (*wsroom.Hub, http.Handler), addrs ...string) {
	flag.Parse()
	var all sync.WaitGroup
	for _, addr := range append(addrs, *addr) {
		hub, handler := node()
		all.Go(func() { run(addr, hub, handler) })
	}
	all.Wait()
}

func run(addr string, hub *wsroom.Hub, handler http.Handler) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() { log.Print(srv.Serve(ln)); stop() }()
	log.Printf("listening at http://%s", strings.Replace(ln.Addr().String(), "[::]", "localhost", 1))
	<-ctx.Done()
	stop() // a second signal ends it at once
	end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(end), srv.Shutdown(end)); err != nil {
		log.Fatal(err)
	}
}

//go:embed page.css page.js
var shared embed.FS

// policy lets a page load its own site's files and talk to its own site, and nothing else: no script
// or style that is written into the page, whoever wrote it there.
const policy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// Files serves the files of a page, the shared ones and the client.
func Files(own fs.FS) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /wsroom.js", wsroomjs.Handler())
	mux.Handle("GET /", http.FileServerFS(both{own}))
	return guard(mux)
}

// File serves one file of a page at whatever path it is asked for.
func File(own fs.FS, name string) http.Handler {
	return guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, own, name)
	}))
}

func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// both is a page's own files and, behind them, the shared ones.
type both struct{ own fs.FS }

// Open is fs.FS's.
func (b both) Open(name string) (fs.File, error) {
	f, err := b.own.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return shared.Open(name)
	}
	return f, err
}
