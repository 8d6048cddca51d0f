// Chat is a web chat: a room for each URL, who is there, the last messages for newcomers. A page that was away
// gets what it has missed; with a file for the SQLite database, also after the server was killed.
//
//	go run ./examples/chat
//	go run ./examples/chat -history chat.db
package main

import (
	"crypto/sha256"
	"embed"
	"flag"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

const refused = 4400 // "don't try again"

//go:embed index.html chat.css chat.js
var files embed.FS

type event struct {
	Type   string  `json:"type"` // text, join, leave; hello to a newcomer
	Room   string  `json:"room"`
	ID     int64   `json:"id"`   // grows; microseconds since 1970
	By     string  `json:"by"`   // a browser
	Conn   string  `json:"conn"` // one of its connections
	Name   string  `json:"name"`
	Text   string  `json:"text,omitempty"`
	Key    string  `json:"key,omitempty"`    // the sender's; sent again after a reconnect, a text counts once
	Log    []event `json:"log,omitempty"`    // with hello: the last texts up to ID
	People []event `json:"people,omitempty"` // with hello: who is there
}

type chat struct {
	hub     *wsroom.Hub
	mu      sync.Mutex // guards what follows, also while sending: the history has the order of the wire
	history *history
	last    int64
}

func newChat(h *history) (*wsroom.Hub, http.Handler) {
	c := &chat{history: h, last: h.last}
	c.hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.OnConnect(c.enter), wsroom.OnJSON(c.say),
		wsroom.OnClose(func(conn *wsroom.Conn, _ error) { c.send(conn, "leave", "", "") }),
		wsroom.WithMaxRooms(256), wsroom.WithMaxMembers(1000), wsroom.WithMaxMessageSize(16<<10),
		wsroom.WithRateLimit(5, 20), wsroom.WithDrain(2*time.Second), wsroom.WithHistory(500, 1<<20, 2*time.Minute),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /ws/{room}", c.hub)
	mux.Handle("GET /r/{rooms}", web.File(files, "index.html"))
	mux.Handle("GET /{$}", http.RedirectHandler("/r/general", http.StatusFound))
	mux.Handle("GET /", web.Files(files))
	return c.hub, mux
}

func (c *chat) enter(conn *wsroom.Conn, r *http.Request) error {
	name := strings.TrimSpace(r.FormValue("name"))
	if name == "" || len([]rune(name)) > 32 || strings.ContainsFunc(name, unicode.IsControl) {
		return websocket.CloseError{Code: refused, Reason: "A name has 1 to 32 characters."}
	}
	// A browser is known by a secret of its own. Others see the hash, and can't pose as it.
	hash := sha256.Sum256([]byte(r.FormValue("me")))
	me := event{By: fmt.Sprintf("%.8x", hash), Conn: conn.ID(), Name: name}
	conn.Set("me", me)
	c.send(conn, "join", "", "")
	if conn.Resumed() {
		return nil // the page is sent what it has missed: texts, and who came and went
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.DropHeld() // the hello has these
	me.Type, me.ID = "hello", c.last
	var err error
	if me.Log, err = c.history.texts(conn.Room()); err != nil {
		return err
	}
	for _, m := range c.hub.Members(conn.Room()) {
		if v, ok := m.Get("me"); ok {
			me.People = append(me.People, v.(event))
		}
	}
	return conn.SendJSON(me)
}

func (c *chat) say(conn *wsroom.Conn, in struct{ Text, Key string }, err error) {
	text := strings.TrimSpace(in.Text)
	switch {
	case err != nil:
	case text == "" || len([]rune(text)) > 1000 || len(in.Key) > 40:
		conn.Close(refused, "A message has 1 to 1000 characters.")
	default:
		c.send(conn, "text", text, in.Key)
	}
}

// send gives what conn does its place in the room's order.
func (c *chat) send(conn *wsroom.Conn, kind, text, key string) {
	me, ok := conn.Get("me")
	if !ok {
		return // refused
	}
	e := me.(event)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, time.Now().UnixMicro())
	e.Type, e.Room, e.ID, e.Text, e.Key = kind, conn.Room(), c.last, text, key
	if kind == "text" { // it is kept before it is sent: what somebody has seen isn't lost
		isNew, err := c.history.keep(e)
		if err != nil {
			conn.Close(websocket.StatusInternalError, "") // the page will send it again
		}
		if !isNew {
			return
		}
	}
	conn.SendJSONToThisRoom(e)
}

func main() {
	name := flag.String("history", ":memory:", "file of the SQLite database that keeps the texts when the server ends")
	flag.Parse()
	h, err := openHistory(*name)
	if err != nil {
		log.Fatal(err)
	}
	web.Run(newChat(h))
}
