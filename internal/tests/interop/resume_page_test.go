package interop_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomjs"
)

// The page that docs/resume.md shows misses nothing while its connection is broken, and shows nothing twice.
func TestChromiumShowsThePageOfTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../../docs/resume.md")
	if err != nil {
		t.Fatal(err)
	}
	_, page, _ := strings.Cut(string(text), "const resumePage = `")
	page, _, ok := strings.Cut(page, "`\n")
	if !ok {
		t.Fatal("docs/resume.md has no page")
	}
	hub := wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if !c.Resumed() {
				c.Rewind(c.Room(), 50)
			}
			return nil
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("GET /js/", wsroomjs.Handler())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, page) })
	site := serve(t, mux)
	t.Cleanup(func() {
		if err := hub.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})

	b := browser.Start(t)
	ann := b.Person(t).Open(site+"/", "favicon.ico", "404")
	write := func(tab *browser.Tab, text string) { // once the page is connected, it takes the text
		tab.Write("input", text)
		for browser.Eval[string](tab, `document.querySelector("input").value`) != "" {
			tab.Write("input", text)
		}
		tab.WaitText("ul", text)
	}
	write(ann, "one")
	bob := b.Person(t).Open(site+"/", "favicon.ico", "404")
	bob.WaitText("ul", "one") // what came before
	write(bob, "two")
	ann.WaitText("ul", "two")

	hub.ToAll().Close(websocket.StatusServiceRestart, "")
	if err := hub.SendTextToRoom("/chat/general", "three"); err != nil {
		t.Fatal(err)
	}
	for _, tab := range []*browser.Tab{ann, bob} {
		tab.Wait(`[...document.querySelectorAll("li")].map((e) => e.textContent).join(" ") === "one two three"`)
	}
}
