// Board is a board of cards for everyone who opens it, with htmx. The server sends HTML: the columns that have
// changed. Forms and buttons come over the same socket.
//
//	go run ./examples/board   # then open http://localhost:8080 in two windows
package main

import (
	"embed"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

//go:embed fragments.html index.html board.css board.js htmx/htmx.min.js htmx/hx-ws.min.js
var files embed.FS
var add = template.FuncMap{"add": func(a, b int) int { return a + b }}
var fragments = template.Must(template.New("").Funcs(add).ParseFS(files, "fragments.html")) // escape what is written

type card struct {
	ID   int
	Text string
}

type column struct {
	N     int
	Title string
	Cards []card
}

type board struct {
	Name    string
	Columns []column
	ids     int
}

// request is what the form or a button sends. Card 0 is a new one. One that goes to no column is removed.
type request struct {
	Card, To int
	Text     string
}

type boards struct {
	hub *wsroom.Hub
	mu  sync.Mutex // guards what follows, also while sending: a page has the last state of each column
	all map[string]*board
}

func newBoards() (*wsroom.Hub, http.Handler) {
	b := &boards{all: map[string]*board{}}
	b.hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("board")), wsroom.OnConnect(b.enter), wsroom.OnJSON(b.do),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) { b.count(c.Room()) }),
		wsroom.WithMaxRooms(256), wsroom.WithMaxMembers(500), wsroom.WithMaxMessageSize(8<<10),
		wsroom.WithRateLimit(10, 40), wsroom.WithDrain(2*time.Second),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /b/{board}/ws", b.hub)
	mux.Handle("GET /b/{board}/{$}", web.File(files, "index.html"))
	mux.Handle("GET /{$}", http.RedirectHandler("/b/team/", http.StatusFound))
	mux.Handle("GET /", web.Files(files))
	return b.hub, mux
}

// board is the one of a room. If there are too many, one that nobody looks at is forgotten.
func (b *boards) board(room string) *board {
	if b.all[room] == nil {
		b.all[room] = &board{Name: room, Columns: []column{{N: 0, Title: "To do"}, {N: 1, Title: "Doing"}, {N: 2, Title: "Done"}}}
		for other := range b.all {
			if len(b.all) > 256 && len(b.hub.Members(other)) == 0 {
				delete(b.all, other)
			}
		}
	}
	return b.all[room]
}

func html(fragment string, data any) string {
	var text strings.Builder
	if err := fragments.ExecuteTemplate(&text, fragment, data); err != nil {
		panic(err)
	}
	return text.String()
}

// enter sends the whole board. What comes later is sent to all.
func (b *boards) enter(c *wsroom.Conn, _ *http.Request) error {
	b.count(c.Room())
	b.mu.Lock()
	defer b.mu.Unlock()
	return c.SendText(html("board", b.board(c.Room())))
}

// count tells how many look at the board.
func (b *boards) count(room string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hub.To(room).Latest("people").SendText(html("people", len(b.hub.Members(room))))
}

// do changes the board, and shows everyone the columns that it changes.
func (b *boards) do(c *wsroom.Conn, in request, err error) {
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	board := b.board(c.Room())
	changed, note := board.change(in)
	for _, n := range changed {
		b.hub.To(c.Room()).Latest(board.Columns[n].Title).SendText(html("column", board.Columns[n]))
	}
	c.SendText(html("note", note))
}

// change returns the columns that it changes, or what is wrong with the request.
func (b *board) change(in request) (changed []int, note string) {
	cards, text := 0, strings.TrimSpace(in.Text)
	for n := range b.Columns {
		from := &b.Columns[n].Cards
		at := slices.IndexFunc(*from, func(c card) bool { return c.ID == in.Card })
		if cards += len(*from); at < 0 || in.To == n {
			continue
		}
		moved := (*from)[at]
		*from = slices.Delete(*from, at, at+1)
		if in.To < 0 || in.To >= len(b.Columns) {
			return []int{n}, ""
		}
		b.Columns[in.To].Cards = append(b.Columns[in.To].Cards, moved)
		return []int{n, in.To}, ""
	}
	switch {
	case in.Card != 0: // somebody was faster
		return nil, ""
	case text == "" || len([]rune(text)) > 140 || cards == 100:
		return nil, "A card has 1 to 140 characters, and a board 100 cards."
	}
	b.ids++
	b.Columns[0].Cards = append(b.Columns[0].Cards, card{b.ids, text})
	return []int{0}, ""
}

func main() { web.Run(newBoards()) }
