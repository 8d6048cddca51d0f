// Chat is a web chat: a room for each URL, who is there, the last messages for newcomers. A page that was away
// gets what it has missed; with a file, also after the server was killed.
//
//	go run ./examples/chat
//	go run ./examples/chat -history chat.log
package main

import (
	"bufio"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

const keepTexts, keepRooms, refused = 100, 256, 4400 // a room's texts, rooms with texts, "don't try again"

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
	hub  *wsroom.Hub
	mu   sync.Mutex // guards what follows, also while sending: a log has the order of the wire
	logs map[string][]event
	last int64
	file *json.Encoder // a text a line; it only grows, so a large chat takes a database
}

// newChat returns a chat that has the texts of the file, and keeps its own there.
func newChat(file io.ReadWriter) (*wsroom.Hub, http.Handler) {
	c := &chat{logs: map[string][]event{}, file: json.NewEncoder(file)}
	c.hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.OnConnect(c.enter), wsroom.OnJSON(c.say),
		wsroom.OnClose(func(conn *wsroom.Conn, _ error) { c.send(conn, "leave", "", "") }),
		wsroom.WithMaxRooms(keepRooms), wsroom.WithMaxMembers(1000), wsroom.WithMaxMessageSize(16<<10),
		wsroom.WithRateLimit(5, 20), wsroom.WithDrain(2*time.Second), wsroom.WithHistory(500, 1<<20, 2*time.Minute),
	)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil { // a crash may have cut a line
			c.remember(e)
		}
	}
	fmt.Fprintln(file) // ends such a line
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
	me.Type, me.ID, me.Log = "hello", c.last, c.logs[conn.Room()]
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
		again := func(o event) bool { return key != "" && o.Key == key && o.By == e.By }
		if slices.ContainsFunc(c.logs[e.Room], again) {
			return
		}
		if c.file.Encode(e) != nil {
			conn.Close(websocket.StatusInternalError, "") // the page will send it again
			return
		}
		c.remember(e)
	}
	conn.SendJSONToThisRoom(e)
}

func (c *chat) remember(e event) {
	texts := c.logs[e.Room]
	c.logs[e.Room], c.last = append(texts[max(0, len(texts)+1-keepTexts):], e), max(c.last, e.ID)
	for room := range c.logs { // forget a room that was left, if there are too many
		if len(c.logs) > keepRooms && room != e.Room && len(c.hub.Members(room)) == 0 {
			delete(c.logs, room)
		}
	}
}

func main() {
	name := flag.String("history", os.DevNull, "file that keeps the texts when the server ends")
	flag.Parse()
	file, err := os.OpenFile(*name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	web.Run(newChat(file))
}
