package main

import (
	"net/http"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// There is no page, so the server's own answer is taken for one: a script there talks to it.
func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
		hub := newHub()
		return hub, hub
	})
	tab := b.Person(t).Open(s.URL, "Failed to load resource")
	if got := browser.Eval[string](tab, `new Promise((told) => {
		const ws = new WebSocket(location.origin.replace("http", "ws"));
		ws.onopen = () => ws.send("κόσμε 😀");
		ws.onmessage = ({ data }) => told(data);
		ws.onclose = ({ code }) => told(String(code));
	})`); got != "κόσμε 😀" {
		t.Errorf("got %q", got)
	}
}
