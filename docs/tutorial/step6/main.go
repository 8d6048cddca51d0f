// Step 6: who is away for a moment misses nothing.
package main

import (
	"context"
	_ "embed"
	"flag"
	"log"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wsroom/wsroom"
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
	flag.Parse()

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
	)

	http.Handle("GET /chat/{room}", hub)
	http.HandleFunc("POST /login", login)
	http.Handle("GET /js/", wsroomjs.Handler())
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { w.Write(page) })
	log.Print("open http://", *addr)
	log.Fatal(http.ListenAndServe(*addr, nil))
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
