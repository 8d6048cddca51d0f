package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

func site(t *testing.T) http.Handler {
	hub, handler := newBoards()
	wsroomtest.CheckHub(t, hub)
	return handler
}

// visit opens a board, which comes first.
func visit(t *testing.T, handler http.Handler, board, name string) (c *wsroomtest.Client, whole string) {
	t.Helper()
	c = wsroomtest.Dial(t, handler, "/b/"+board+"/ws", wsroomtest.WithName(name))
	return c, c.NextText()
}

// next is the next fragment for the element.
func next(t *testing.T, c *wsroomtest.Client, id string) string {
	t.Helper()
	for {
		if fragment := c.NextText(); strings.Contains(fragment, fmt.Sprintf(`id="%s"`, id)) {
			return fragment
		}
	}
}

func TestEveryoneGetsTheColumnsThatChange(t *testing.T) {
	handler := site(t)
	ada, whole := visit(t, handler, "team", "Ada")
	if strings.Count(whole, "No cards") != 3 {
		t.Errorf("a new board is %s", whole)
	}
	ada.SendText(`{"text":" Buy <b>bread</b> ","headers":{"HX-Request":"true"}}`) // as htmx does
	if column := next(t, ada, "column-0"); !strings.Contains(column, "<p dir=\"auto\">Buy &lt;b&gt;bread&lt;/b&gt;</p>") {
		t.Errorf("Ada gets %s", column)
	}
	bob, _ := visit(t, handler, "team", "Bob")
	bob.SendText(`{"card":1,"to":2}`)
	if column := next(t, ada, "column-0"); !strings.Contains(column, "No cards") {
		t.Errorf("Ada gets %s", column)
	}
	if column := next(t, ada, "column-2"); !strings.Contains(column, `id="card-1"`) {
		t.Errorf("Ada gets %s", column)
	}
	next(t, bob, "column-2")
	if _, whole = visit(t, handler, "team", "Cyn"); strings.Count(whole, `id="card-`) != 1 || strings.Count(whole, "No cards") != 2 {
		t.Errorf("Cyn gets %s", whole)
	}
	ada.SendText(`{"card":1,"to":-1}`)
	if column := next(t, bob, "column-2"); !strings.Contains(column, "No cards") {
		t.Errorf("Bob gets %s", column)
	}
	if _, whole = visit(t, handler, "other", "Eve"); strings.Contains(whole, "card-") {
		t.Errorf("another board is %s", whole)
	}
}

// What can't be done changes nothing, and whoever asked is told why.
func TestWhatCantBeDone(t *testing.T) {
	handler := site(t)
	ada, _ := visit(t, handler, "team", "Ada")
	ada.SendText(`{"text":"Buy bread"}`)
	next(t, ada, "note")
	for _, c := range []struct{ in, note string }{
		{`{"text":"  "}`, "1 to 140"},
		{`{}`, "1 to 140"},
		{`{"text":"` + strings.Repeat("é", 141) + `"}`, "1 to 140"},
		{`{"card":7,"to":1}`, "></p>"},
		{`{"card":1,"to":0}`, "></p>"}, // it is there
	} {
		eve, before := visit(t, handler, "team", "Eve")
		eve.SendText(c.in)
		if note := next(t, eve, "note"); !strings.Contains(note, c.note) {
			t.Errorf("%s: %s", c.in, note)
		}
		if _, after := visit(t, handler, "team", "Bob"); after != before {
			t.Errorf("%s: the board is %s", c.in, after)
		}
	}
	for in, code := range map[string]websocket.StatusCode{
		`{"card":"1"}`: websocket.StatusInvalidFramePayloadData,
		`{"text":"` + strings.Repeat("x", 9<<10) + `"}`: websocket.StatusMessageTooBig,
	} {
		eve, _ := visit(t, handler, "team", "Eve")
		eve.SendText(in)
		eve.ExpectClose(code)
	}
}

func TestBoardIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the rate limit takes its time
		handler := site(t)
		ada, _ := visit(t, handler, "team", "Ada")
		for i := range 101 {
			ada.SendText(`{"text":"card"}`)
			if note := next(t, ada, "note"); strings.Contains(note, "100 cards") != (i == 100) {
				t.Fatalf("after %d cards: %s", i, note)
			}
		}
		ada.SendText(`{"card":1,"to":-1}`)
		ada.SendText(`{"text":"card"}`)
		next(t, ada, "note")
		if note := next(t, ada, "note"); !strings.Contains(note, "></p>") {
			t.Errorf("in place of a card: %s", note)
		}
	})
}

func TestPeopleAreCounted(t *testing.T) {
	handler := site(t)
	ada, _ := visit(t, handler, "team", "Ada")
	bob, _ := visit(t, handler, "team", "Bob")
	for _, want := range []string{"Only you are here", "2 are here"} {
		if got := next(t, ada, "people"); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	bob.CloseNow()
	if got := next(t, ada, "people"); !strings.Contains(got, "Only you are here") {
		t.Errorf("got %s", got)
	}
}

// A page that reads nothing for a while gets each column once, as it is now.
func TestSlowPageGetsTheNewestColumns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := site(t)
		ada, _ := visit(t, handler, "team", "Ada")
		slow, _ := visit(t, handler, "team", "Slow")
		slow.Drain()
		slow.Stall()
		for i := range 50 {
			ada.SendText(fmt.Sprintf(`{"text":"card %d"}`, i))
			next(t, ada, "note")
		}
		slow.Resume()
		time.Sleep(time.Second)
		fragments := slow.Drain()
		if n := len(fragments); n > 5 || !strings.Contains(fragments[n-1], "card 49") {
			t.Errorf("it gets %d columns; the last is %s", n, fragments[n-1])
		}
	})
}

// Boards outlive their visitors, but there are no more than 256 of them.
func TestBoardsAreForgotten(t *testing.T) {
	handler := site(t)
	names := func(i int) string { return fmt.Sprint("board-", i) }
	witness, _ := visit(t, handler, "witness", "Witness") // somebody looks at this one
	witness.SendText(`{"text":"card"}`)
	for i := range 300 {
		c, _ := visit(t, handler, names(i), "Ada")
		c.SendText(`{"text":"card"}`)
		next(t, c, "note")
		c.Close(websocket.StatusNormalClosure, "")
	}
	kept := 0
	for i := range 300 {
		c, whole := visit(t, handler, names(i), "Bob")
		kept += strings.Count(whole, `id="card-`)
		c.Close(websocket.StatusNormalClosure, "")
	}
	if _, whole := visit(t, handler, "witness", "Bob"); !strings.Contains(whole, `id="card-1"`) {
		t.Error("a board is forgotten that somebody looks at")
	}
	if kept < 150 || kept > 257 {
		t.Errorf("%d boards have their cards", kept)
	}
}

// htmx and its extension are those of the npm package, unchanged.
func TestFilesOfHtmx(t *testing.T) {
	dist := filepath.Join("htmx", "node_modules", "htmx.org")
	if _, err := os.Stat(dist); err != nil {
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal(err)
		}
		t.Skip("npm ci --prefix examples/board/htmx --ignore-scripts installs what it needs")
	}
	for ours, theirs := range map[string]string{
		"htmx.min.js": "dist/htmx.min.js", "hx-ws.min.js": "dist/ext/hx-ws.min.js", "LICENSE": "LICENSE",
	} {
		want, err := os.ReadFile(filepath.Join(dist, theirs))
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("htmx", ours))
		if err != nil || string(got) != string(want) {
			t.Errorf("htmx/%s isn't %s of the package (%v)", ours, theirs, err)
		}
	}
}

func TestPage(t *testing.T) {
	handler := site(t)
	for path, has := range map[string]string{
		"/": "/b/team/", "/b/team/": `hx-ws:connect="ws"`, "/b/caf%C3%A9/": `hx-ws:connect="ws"`,
		"/htmx/htmx.min.js": "htmx", "/htmx/hx-ws.min.js": "htmx", "/board.js": "import", "/board.css": "column",
	} {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 && w.Code != 302 || !strings.Contains(w.Body.String(), has) {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}
