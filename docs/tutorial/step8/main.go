// Step 8: two nodes share the rooms, over Redis.
package main

import (
	"context"
	_ "embed"
	"encoding/hex"
	"errors"
	"flag"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/wsroomjs"
)

//go:embed page.html
var page []byte

// event is what goes over the socket, in both directions.
type event struct {
	Type string `json:"type"` // text, people or error
	From string `json:"from,omitempty"`
	Text string `json:"text,omitempty"`

	People []string `json:"people,omitempty"`
}

func main() {
	addr := flag.String("addr", "localhost:8080", "address to listen on")
	drain := flag.Duration("drain", 15*time.Second, "over what time clients are sent away at the end")
	redis := flag.String("redis", "localhost:6379", "address of the Redis server that all nodes share")
	flag.Parse()

	key, err := hex.DecodeString(os.Getenv("RESUME_KEY"))
	if err != nil {
		log.Fatal(err)
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{*redis}, DisableCache: true})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	var hub *wsroom.Hub
	hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.WithMaxRooms(1000),
		wsroom.WithRejectMode(wsroom.CloseFrame),
		wsroom.WithIdentity(name),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if name(r) == "" {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			return nil
		}),
		wsroom.WithHistory(200, 1<<20, 2*time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			if !c.Resumed() { // otherwise it is sent what it has missed
				c.Rewind(c.Room(), 50)
			}
			return c.SendJSON(people(hub, c.Room()))
		}),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { hub.SendJSONToRoom(room, people(hub, room)) }),
		wsroom.OnMemberLeave(func(room string, m wsroom.Member) { hub.SendJSONToRoom(room, people(hub, room)) }),
		wsroom.OnJSON(hear),
		wsroom.WithMaxMessageSize(4<<10),
		wsroom.WithRateLimit(5, 20),
		wsroom.WithMaxConns(20_000),
		wsroom.WithMaxConnsPer(wsroom.ByAddr, 20),
		wsroom.WithDrain(*drain),
		wsroom.WithBroker(redisbroker.New(client)),
		wsroom.WithPresenceStore(redisbroker.NewPresence(client)),
		wsroom.WithResumeKey(key),
	)

	http.Handle("GET /chat/{room}", hub)
	http.HandleFunc("POST /login", login)
	http.Handle("GET /js/", wsroomjs.Handler())
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	srv := &http.Server{Addr: *addr, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go func() {
		log.Print("open http://", *addr)
		if err := srv.ListenAndServe(); err != http.ErrServerClosed {
			log.Fatal(err)
		}
	}()

	stop, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	<-stop.Done()
	end, cancel := context.WithTimeout(context.Background(), *drain+10*time.Second)
	defer cancel()
	if err := errors.Join(hub.Shutdown(end), srv.Shutdown(end)); err != nil {
		log.Fatal(err)
	}
}

// people says who is in the room.
func people(hub *wsroom.Hub, room string) event {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	members, err := hub.Presence(ctx, room)
	if err != nil {
		log.Print(err) // those of this node are better than none
	}
	e := event{Type: "people"}
	for _, m := range members {
		e.People = append(e.People, m.Identity)
	}
	return e
}

func hear(c *wsroom.Conn, said event, err error) {
	switch text := strings.TrimSpace(said.Text); {
	case err != nil: // it wasn't JSON: the connection is ending
	case text == "" || len(text) > 1000:
		c.SendJSON(event{Type: "error", Text: "A message has 1 to 1000 bytes."})
	default:
		c.SendJSONToThisRoom(event{Type: "text", From: c.Identity(), Text: text})
	}
}

// name returns the name in the request's cookie. A real application keeps sessions, and asks for a password.
func name(r *http.Request) string {
	cookie, err := r.Cookie("name")
	if err != nil {
		return ""
	}
	name, err := url.QueryUnescape(cookie.Value)
	if err != nil || len(name) > 40 || !utf8.ValidString(name) {
		return ""
	}
	return name
}

func login(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{
		Name: "name", Value: url.QueryEscape(strings.TrimSpace(r.FormValue("name"))),
		HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
