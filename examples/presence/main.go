// Presence shows who else is on a page: their cursors, and what they type while they type it. The hub's
// connections are all the state there is: each keeps its person, and who comes gets those of the room.
//
//	go run ./examples/presence   # then open http://localhost:8080 in two windows
package main

import (
	"embed"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

const refused = 4400 // "don't try again"

//go:embed index.html presence.css presence.js
var files embed.FS

type person struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	At     *point `json:"at,omitempty"` // nil until it has pointed at something
	Text   string `json:"text,omitempty"`
	Typing bool   `json:"typing,omitempty"`
}

// point is a place on the page, from 0 to 1 both ways.
type point struct {
	X float64 `json:"x"`
	Y float64 `json:"y"`
}

type event struct {
	Type   string   `json:"type"` // hello to a newcomer; here, with all there is to know; gone
	Person person   `json:"person"`
	People []person `json:"people,omitempty"` // with hello
}

func newPresence() (*wsroom.Hub, http.Handler) {
	var hub *wsroom.Hub
	hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return enter(hub, c, r) }),
		wsroom.OnJSON(move),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) {
			if me, ok := c.Get("person"); ok {
				c.SendJSONToThisRoom(event{Type: "gone", Person: me.(person)})
			}
		}),
		// A cursor that moves sends 20 messages a second, to everyone: rooms are small. A page that can't
		// keep up is ended after a while (1013), comes back, and gets the room as it is then.
		wsroom.WithMaxMembers(50), wsroom.WithMaxRooms(256), wsroom.WithRateLimit(30, 60),
		wsroom.WithMaxMessageSize(1<<10), wsroom.WithSendQueue(512, 128<<10), wsroom.WithDrain(2*time.Second),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /ws/{room}", hub)
	mux.Handle("GET /r/{room}", web.File(files, "index.html"))
	mux.Handle("GET /{$}", http.RedirectHandler("/r/lobby", http.StatusFound))
	mux.Handle("GET /", web.Files(files))
	return hub, mux
}

func enter(hub *wsroom.Hub, c *wsroom.Conn, r *http.Request) error {
	me := person{ID: c.ID(), Name: strings.TrimSpace(r.FormValue("name"))}
	if me.Name == "" || len([]rune(me.Name)) > 24 || strings.ContainsFunc(me.Name, unicode.IsControl) {
		return websocket.CloseError{Code: refused, Reason: "A name has 1 to 24 characters."}
	}
	hello := event{Type: "hello", Person: me}
	for _, other := range hub.Members(c.Room()) {
		if p, ok := other.Get("person"); ok {
			hello.People = append(hello.People, p.(person))
		}
	}
	if err := c.SendJSON(hello); err != nil {
		return err
	}
	c.Set("person", me)
	return c.SendJSONToThisRoom(event{Type: "here", Person: me})
}

// move tells everyone what the page sends of its person, the sender too.
func move(c *wsroom.Conn, in person, err error) {
	v, ok := c.Get("person")
	if err != nil || !ok {
		return
	}
	if len([]rune(in.Text)) > 80 || strings.ContainsFunc(in.Text, unicode.IsControl) {
		c.Close(refused, "A text has up to 80 characters.")
		return
	}
	me := v.(person)
	me.Text, me.Typing = in.Text, in.Typing
	if in.At != nil {
		me.At = &point{min(max(in.At.X, 0), 1), min(max(in.At.Y, 0), 1)}
	}
	c.Set("person", me)
	c.SendJSONToThisRoom(event{Type: "here", Person: me})
}

func main() {
	web.Run(newPresence())
}
