// Command shutdown is a server behind a load balancer. When it stops, it loses no message that it has
// taken.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

func main() {
	addr := flag.String("addr", ":8080", "address to listen on")
	lag := flag.Duration("lag", 5*time.Second, "what the load balancer takes to send newcomers elsewhere")
	drain := flag.Duration("drain", 15*time.Second, "over what time clients are sent away")
	redis := flag.String("redis", "", "address of the Redis server by which several of these share their rooms")
	flag.Parse()

	var broker wsroom.Option // none for a single server
	if *redis != "" {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{*redis}, DisableCache: true})
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		broker = wsroom.WithBroker(redisbroker.New(client))
	}
	hub := wsroom.New(
		broker,
		wsroom.WithDrain(*drain),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	var leaving atomic.Bool
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			http.Error(w, "leaving", http.StatusServiceUnavailable)
		}
	})

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ln, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	log.Print("listening on ", ln.Addr())
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() {
		if err := srv.Serve(ln); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()

	<-ctx.Done()
	stop() // a second signal ends the process at once
	leaving.Store(true)
	time.Sleep(*lag)
	end, cancel := context.WithTimeout(context.Background(), *drain+10*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(end), srv.Shutdown(end)); err != nil {
		log.Fatal(err)
	}
}
