package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

func TestInTheBrowser(t *testing.T) { browser.Each(t, testInTheBrowser) }

func testInTheBrowser(t *testing.T, b *browser.Browser) {
	t.Run("login, and logout in one tab ends the other", func(t *testing.T) { testLogin(t, b) })
	t.Run("a page of another origin", func(t *testing.T) { testOrigins(t, b) })
	if b.Name != browser.Chromium {
		return // the rest takes long
	}
	t.Run("the session ends", func(t *testing.T) { testEnd(t, b) })
}

func login(tab *browser.Tab, user, password string) {
	tab.Fill("#user", user)
	tab.Write("#password", password)
}

// tell connects to url and evaluates to the code with which that ends, or to "open".
func tell(url string) string {
	return `new Promise((tell) => {
		const ws = new WebSocket("` + url + `");
		ws.onmessage = () => tell("open");
		ws.onclose = ({ code }) => tell(String(code));
	})`
}

func testLogin(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) { return newServer(time.Hour) })
	ada := b.Person(t)
	one := ada.Open(s.URL)
	one.WaitText("#why", "You aren't logged in.")
	one.CheckLook()
	if at := browser.Eval[[]float64](one, `[".bar .mark", "#login .card"].map((s) => document.querySelector(s).getBoundingClientRect().left)`); at[0] != at[1] {
		t.Errorf("the heading begins at %v, the card at %v", at[0], at[1])
	}
	one.Forgive("status of 403")
	login(one, "ada", "compiler")
	one.WaitText("#error", "is wrong")
	login(one, "ada", "engine")
	one.WaitText("#name", "ada")
	one.WaitText("#state", "Connected")
	two := ada.Open(s.URL)
	two.WaitText("#name", "ada")
	one.Wait(`document.querySelectorAll("#links li").length === 2`)
	one.WaitText("#links", "Another page")

	one.Click("#get")
	one.WaitText("#fate", "Good for")
	one.Picture("auth")
	one.CheckLook()
	one.Resize(390, 844) // on a phone the button to copy is on the first screen, and the command in one line
	one.Wait(`document.querySelector("#copy").getBoundingClientRect().bottom < 844 && document.querySelector("#command").getClientRects().length === 1`)
	one.Wait(`document.querySelector("#command").clientHeight < 50`)
	one.Resize(1200, 760)
	live := "ws" + s.URL[len("http"):] + "/live"
	ticket := browser.Eval[string](one, `document.querySelector("#command").innerText.match(/"(.*)"/)[1]`)
	// Whoever else has the ticket connects with it, once. That page has no cookie.
	guest := b.Person(t).Open(s.URL)
	for _, c := range []struct{ url, want string }{{live, "4401"}, {ticket, "open"}, {ticket, "4401"}} {
		if got := browser.Eval[string](guest, tell(c.url)); got != c.want {
			t.Errorf("%s: %s, want %s", c.url, got, c.want)
		}
	}
	one.WaitText("#links", "By a ticket")
	one.WaitText("#fate", "It has been used.")

	one.Click("#logout")
	for _, tab := range []*browser.Tab{one, two} {
		tab.WaitText("#why", "You have logged out.")
		tab.Wait(`document.querySelector("#home").hidden`)
	}
	two.MayLoseServer()
	login(two, "grace", "compiler")
	two.WaitText("#name", "grace")
	s.Stop()
	two.Wait(`document.querySelector("#state").dataset.state !== "open"`)
	s.Start() // which has forgotten all sessions
	two.WaitText("#why", "You aren't logged in.")
}

func testOrigins(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	foreign := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `<!doctype html><link rel="icon" href="data:,"><p>Another site`)
	}))
	t.Cleanup(foreign.Close)
	for origins, want := range map[string]string{"": "1006", foreign.URL: "open"} {
		s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) {
			return newServer(time.Hour, strings.Fields(origins)...)
		})
		tab := b.Person(t).Open(s.URL)
		tab.WaitText("#why", "You aren't logged in.")
		login(tab, "ada", "engine")
		tab.WaitText("#name", "ada")
		ticket := browser.Eval[string](tab, `fetch("/ticket", { method: "POST" }).then((response) => response.text())`)
		page := b.Person(t).Open(foreign.URL)
		page.MayLoseServer() // it complains of being refused
		if got := browser.Eval[string](page, tell("ws"+s.URL[len("http"):]+"/live?ticket="+ticket)); got != want {
			t.Errorf("with the origins %q allowed, a page of %s: %s, want %s", origins, foreign.URL, got, want)
		}
	}
}

func testEnd(t *testing.T, b *browser.Browser) {
	b.Parallel(t)
	s := browser.Serve(t, func() (*wsroom.Hub, http.Handler) { return newServer(6 * time.Second) })
	tab := b.Person(t).Open(s.URL)
	tab.WaitText("#why", "You aren't logged in.")
	login(tab, "ada", "engine")
	tab.WaitText("#left", "0:06")
	tab.WaitText("#left", "0:05")
	tab.Click("#extend")
	tab.WaitText("#left", "0:06")
	tab.WaitText("#why", "Your session has ended.")
}
