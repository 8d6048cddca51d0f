package interop_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomtest"
)

// inspected serves an inspector of a hub at a path of its own and returns both and the page's URL.
func inspected(t *testing.T, opts ...inspector.Option) (*wsroom.Hub, string) {
	t.Helper()
	hub := wsroomtest.CheckHub(t, wsroom.New(
		wsroom.WithHeartbeat(0, 0), wsroom.WithWriteTimeout(patience), wsroom.WithSendQueue(4096, 64<<20),
		wsroom.WithRoom(func(r *http.Request) (string, error) { return r.FormValue("room"), nil }),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { c.Set("name", r.FormValue("name")); return nil }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		})))
	name := func(c *wsroom.Conn) string { v, _ := c.Get("name"); s, _ := v.(string); return s }
	in := inspector.New(hub, append(opts, inspector.WithLabel(name))...)
	mux := http.NewServeMux()
	mux.Handle("/debug/hub/", in)
	mux.Handle("/ws", hub)
	site := serve(t, mux)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := in.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return hub, site + "/debug/hub/"
}

func address(room, name string) string {
	return "/ws?" + url.Values{"room": {room}, "name": {name}}.Encode()
}

// open opens the page, and waits until it shows something.
func open(t *testing.T, page string) *browser.Tab {
	t.Helper()
	tab := browser.Start(t).Person(t).Open(page)
	tab.Wait("report !== null")
	return tab
}

// holds waits until an expression of the page's is true.
func holds(expression string, args ...any) chromedp.Action {
	quoted := make([]any, len(args))
	for i, arg := range args {
		p, _ := json.Marshal(arg)
		quoted[i] = string(p)
	}
	expression = fmt.Sprintf(expression, quoted...)
	return chromedp.ActionFunc(func(ctx context.Context) error {
		if err := chromedp.Poll(expression, nil, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second)).Do(ctx); err != nil {
			return fmt.Errorf("waited for %s: %w", expression, err)
		}
		return nil
	})
}

// The page stays quick with 10,000 connections in 1,000 rooms (1,000 in 100 with -short), and has no more
// rows than it shows.
func TestInspectorShowsManyConnections(t *testing.T) {
	hub, page := inspected(t)
	rooms := 1000
	if testing.Short() {
		rooms = 100
	}
	for i := range rooms {
		for j := range 10 {
			wsroomtest.Dial(t, hub, address(fmt.Sprintf("/chat/room-%d", i), fmt.Sprint("Guest ", i*10+j)))
		}
	}
	tab := open(t, page)
	var elements int
	tab.Do(holds(`document.getElementById("conns").textContent.replace(",", "") === %s`, fmt.Sprint(rooms*10)),
		chromedp.Evaluate(`document.querySelectorAll("*").length`, &elements))
	begin := time.Now()
	tab.Do(chromedp.SendKeys("#search", fmt.Sprintf("ROOM-%d", rooms-1)), holds(`document.getElementById("rooms-rows").children.length === 1`))
	t.Logf("%d elements; a search took %v", elements, time.Since(begin))
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("a search took %v", took)
	}
	if elements > 1000 {
		t.Errorf("%d elements", elements)
	}
}

// Names that clients choose are shown as text, whatever they hold, and characters that hide or turn text
// around are spelled out.
func TestInspectorShowsHostileNamesAsText(t *testing.T) {
	hub, page := inspected(t, inspector.WithActions())
	names := []string{
		`<img src=x onerror="document.title='pwned'">`, `"><script>document.title='pwned'</script>`,
		"javascript:document.title='pwned'", "__proto__", strings.Repeat("W", 255), strings.Repeat("e\u0301", 85),
		"&amp;&lt;b&gt;", "/chat/%3Cb%3E#room=x&search=y",
	}
	for _, name := range append(names, "/a/\u202egnp.exe") {
		wsroomtest.Dial(t, hub, address(name, name))
	}
	tab := open(t, page)
	for _, name := range names {
		tab.Do(
			holds(`[...document.querySelectorAll("#rooms-rows a")].some(a => a.textContent === %s && a.clientWidth > 0)`, name),
			chromedp.Evaluate(fmt.Sprintf(`[...document.querySelectorAll("#rooms-rows a")].find(a => a.title === %q).click()`, name), nil),
			holds(`document.getElementById("members-name").textContent === %s`, name),
			holds(`document.querySelector("#members-rows .name")?.textContent === %s`, name),
			chromedp.Click("#members-rows button"), holds(`document.getElementById("dialog-about").textContent.includes(%s)`, name),
			chromedp.Click("#cancel"), chromedp.Click("#back"))
	}
	tab.Do(holds(`[...document.querySelectorAll("#rooms-rows a")].some(a => a.textContent === "/a/U+202Egnp.exe")`))
	var title string
	var images, wide int
	tab.Do(chromedp.Title(&title), chromedp.Evaluate(`document.querySelectorAll("main img, main script").length`, &images),
		chromedp.EmulateViewport(390, 844), chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
	if title != "wsroom inspector" || images != 0 || wide > 390 {
		t.Errorf("title %q, %d images and scripts, %d pixels wide", title, images, wide)
	}
}

// Each action is asked about first; cancelled, it isn't done. All of it works by keyboard.
func TestInspectorActs(t *testing.T) {
	hub, page := inspected(t, inspector.WithActions())
	dial := func(room string) *wsroomtest.Client { return wsroomtest.Dial(t, hub, address(room, "Ann")) }
	kicked, closed := dial("/first"), dial("/second")
	tab := open(t, page)
	toast := func(text string) chromedp.Action {
		return holds(`!document.getElementById("dialog").open && !document.getElementById("toast").hidden && document.getElementById("toast").textContent === %s`, text)
	}
	enter, open := chromedp.KeyEvent(kb.Enter), holds(`document.getElementById("dialog").open`)
	focus := func(selector string) chromedp.Action {
		return holds(`(document.querySelector(%s)?.focus(), document.activeElement.matches(%s))`, selector, selector)
	}

	tab.Do(focus("#notice-all"), enter, open, chromedp.KeyEvent("hello"), focus("#confirm"), enter, toast("Sent a notice to all."))
	kicked.ExpectText("hello")
	closed.ExpectText("hello")
	tab.Do(focus("#rooms-rows tr:first-child a"), enter, holds(`document.activeElement.id === "members-title"`),
		focus("#members-rows button"), enter, open, holds(`document.activeElement.id === "cancel"`), enter,
		holds(`!document.getElementById("dialog").open`))
	if hub.Len() != 2 {
		t.Error("it was done all the same")
	}
	tab.Do(focus("#members-rows button"), enter, open, focus("#text"), chromedp.KeyEvent("enough"), focus("#confirm"), enter,
		toast("Kicked with 1008."), holds(`document.getElementById("events").textContent.includes("kicked with 1008, by ")`))
	if reason := kicked.ExpectClose(websocket.StatusPolicyViolation); reason != "enough" {
		t.Errorf("the reason is %q", reason)
	}
	tab.Do(focus("#back"), enter, holds(`document.querySelector("#rooms-rows a")?.textContent === "/second"`),
		focus("#rooms-rows a"), enter, focus("#close-room"), enter, open, chromedp.SetValue("#code", "1005"), focus("#confirm"), enter,
		holds(`document.getElementById("dialog-error").textContent === "Close code 1005 can't be sent."`),
		chromedp.SetValue("#code", "4002"), focus("#confirm"), enter, toast("Closed the room with 4002."))
	closed.ExpectClose(4002)
}

// Without WithActions there is nothing to press.
func TestInspectorIsReadOnly(t *testing.T) {
	hub, page := inspected(t)
	wsroomtest.Dial(t, hub, address("/a", "Ann"))
	tab := open(t, page+"#room=%2Fa")
	tab.Do(holds(`!document.getElementById("members").hidden && document.getElementById("members-rows").children.length === 1`))
	var buttons int
	tab.Do(chromedp.Evaluate(`[...document.querySelectorAll("button")].filter(b => b.checkVisibility()).length`, &buttons))
	if buttons != 0 {
		t.Errorf("%d buttons", buttons)
	}
}

// The page comes back after a restart, and says so when it isn't let in any more.
func TestInspectorComesBack(t *testing.T) {
	var at atomic.Pointer[http.Handler]
	use := func(h http.Handler) { at.Store(&h) }
	site := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*at.Load()).ServeHTTP(w, r) }))
	down := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	signedOut := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	first, second := wsroom.New(), wsroom.New()
	wsroomtest.Dial(t, second, "/second")
	in, again := inspector.New(first), inspector.New(second)
	use(in)
	tab := open(t, site+"/")
	status := func(text string) chromedp.Action {
		return holds(`document.getElementById("status").textContent === %s`, text)
	}
	stop := func(in *inspector.Inspector) {
		if err := in.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	tab.Forgive("WebSocket connection to ", "Failed to load resource")
	tab.Do(status("Live"))
	use(down)
	stop(in)
	tab.Do(status("Reconnecting…"))
	use(again)
	tab.Do(status("Live"), holds(`document.querySelector("#rooms-rows a")?.textContent === "/second"`))
	use(signedOut)
	stop(again)
	tab.Do(status("Signed out. Reload the page."))
}

// What can be pressed or filled in has a name and an outline, text can be read in both schemes, and a phone needn't
// scroll sideways.
func TestInspectorIsAccessible(t *testing.T) {
	hub, page := inspected(t, inspector.WithActions())
	for i := range 25 {
		guest := wsroomtest.Dial(t, hub, address("/room", fmt.Sprint("Guest ", i)))
		if i == 0 {
			guest.Stall()
		}
	}
	for range 3 {
		hub.SendTextToAll(strings.Repeat("waits ", 100))
	}
	tab := open(t, page)
	for _, at := range []string{"", "#search=guest", "#room=%2Froom"} {
		tab.Go(page + at)
		tab.Wait(`report?.view.room === look().room && report.view.search === look().search`)
		tab.CheckLook()
		if at != "" {
			tab.Click("#members-rows button")
			tab.Wait(`document.getElementById("dialog").open`)
			tab.CheckLook()
			tab.Click("#cancel")
		}
	}
}

// A hub that nobody uses yet has a page that says so.
func TestInspectorShowsAnEmptyHub(t *testing.T) {
	browser.Each(t, func(t *testing.T, b *browser.Browser) {
		_, page := inspected(t)
		tab := b.Person(t).Open(page)
		tab.WaitText("#rooms-empty", "There are no rooms.")
		tab.WaitText("#slowest-empty", "Everybody keeps up.")
		tab.WaitText("#events-empty", "Nothing has happened")
		tab.CheckLook()
		tab.Picture("inspector-empty")
	})
}
