package main

import (
	"net/http"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// There is no page, so the server's own answer is taken for one: a script there logs in and talks.
func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
		hub := newHub()
		return hub, handler(hub)
	})
	tab := b.Person(t).Open(s.URL+"/teams/blue", "Failed to load resource")
	tab.MayLoseServer() // it complains of being refused
	say := func(team string) string {
		return browser.Eval[string](tab, `new Promise((told) => {
			const ws = new WebSocket(location.origin.replace("http", "ws") + "/teams/`+team+`");
			ws.onopen = () => ws.send(JSON.stringify({ from: "ada", text: "hello" }));
			ws.onmessage = ({ data }) => told(data);
			ws.onclose = ({ code }) => told(String(code));
		})`)
	}
	if got := say("blue"); got != "1006" {
		t.Errorf("before the login: %s", got)
	}
	if status := browser.Eval[int](tab, `fetch("/login", { method: "POST", body: new URLSearchParams({ user: "bob" }) }).then((r) => r.status)`); status != 204 {
		t.Fatalf("login: %d", status)
	}
	if got := say("blue"); got != `{"from":"bob","text":"hello"}` {
		t.Errorf("in bob's team: %s", got)
	}
	if got := say("red"); got != "1006" {
		t.Errorf("in another team: %s", got)
	}
}
