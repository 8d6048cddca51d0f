package interop_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomjs"
)

// What docs/browsers.md says of the engines is what they do. Cells in parentheses weren't seen: the docs say where
// they were read.
func TestEngines(t *testing.T) {
	text, err := os.ReadFile("../../../docs/browsers.md")
	if err != nil {
		t.Fatal(err)
	}
	table := engineTable(string(text))
	columns := table["what"]
	browser.Each(t, func(t *testing.T, b *browser.Browser) {
		seen := seeEngine(t, b)
		if got := len(table) - 1; got != len(seen) {
			t.Errorf("the docs have %d rows, the test sees %d", got, len(seen))
		}
		for row, got := range seen {
			cells := table[row]
			for i, name := range columns {
				if !strings.EqualFold(name, b.Name) || len(cells) != len(columns) || strings.HasPrefix(cells[i], "(") && got == "" {
					continue
				}
				if cells[i] != got {
					t.Errorf("%s: the docs say %q of %s, which is %q", row, cells[i], name, got)
				}
			}
			if cells == nil {
				t.Errorf("the docs don't have the row %q: %q", row, got)
			}
		}
	})
}

// engineTable returns the table's rows, its head as the row "what".
func engineTable(text string) map[string][]string {
	_, text, _ = strings.Cut(text, "\n| what | ")
	text, _, _ = strings.Cut("| what | "+text, "\n\n")
	table := map[string][]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i, cell := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cell), "`")
		}
		if !strings.HasPrefix(cells[0], "---") {
			table[cells[0]] = cells[1:]
		}
	}
	return table
}

// lab is a server whose connections do what their path says, and that tells what it sees.
type lab struct {
	site  string
	ends  chan string // how a connection to /end has ended
	offer chan string // the extensions that one to /offer was offered
	pongs chan string // whether one to /busy answers pings
}

const labPage = `<!doctype html><link rel="icon" href="data:,"><title>Lab</title><script>
const socket = (path) => new WebSocket(location.origin.replace("http", "ws") + path)
const ended = (path) => new Promise((tell) => { socket(path).onclose = ({ code, reason }) => tell((code + " " + reason).trim()) })
</script>`

// keptPage is one that the browser may keep while its user is elsewhere: the client closes its connection then.
const keptPage = `<!doctype html><link rel="icon" href="data:,"><title>Kept</title><script type="module">
import { Socket } from "/wsroom.js"
addEventListener("pageshow", (e) => { window.persisted = e.persisted })
window.client = new Socket("/end", { resume: false })
client.open()
</script>`

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{ends: make(chan string, 16), offer: make(chan string, 16), pongs: make(chan string, 16)}
	mux := http.NewServeMux()
	mux.Handle("/wsroom.js", wsroomjs.Handler())
	for path, page := range map[string]string{"/lab": labPage, "/kept": keptPage} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, page)
		})
	}
	handle := func(path string, f func(ctx context.Context, ws *websocket.Conn)) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return // the page is gone
			}
			defer ws.CloseNow()
			f(r.Context(), ws)
		})
	}
	handle("/close", func(_ context.Context, ws *websocket.Conn) { ws.Close(4401, "expired") })
	handle("/cut", func(_ context.Context, ws *websocket.Conn) { ws.CloseNow() })
	handle("/end", func(ctx context.Context, ws *websocket.Conn) {
		_, _, err := ws.Read(ctx)
		code := int(websocket.CloseStatus(err))
		if code < 0 {
			code = 1006
		}
		l.ends <- strconv.Itoa(code)
	})
	handle("/ticks", func(ctx context.Context, ws *websocket.Conn) {
		for ws.Write(ctx, websocket.MessageText, []byte("tick")) == nil {
			time.Sleep(50 * time.Millisecond) // the pace of its messages
		}
	})
	handle("/busy", l.busy)
	mux.HandleFunc("GET /offer", func(w http.ResponseWriter, r *http.Request) {
		l.offer <- strings.Join(r.Header.Values("Sec-WebSocket-Extensions"), ", ")
		w.WriteHeader(http.StatusForbidden)
	})
	l.site = serve(t, mux)
	return l
}

// busy pings a page that says when its script begins to be busy, and when it has ended.
func (l *lab) busy(ctx context.Context, ws *websocket.Conn) {
	said := make(chan time.Time, 2)
	go func() {
		for {
			if _, _, err := ws.Read(ctx); err != nil {
				close(said)
				return
			}
			said <- time.Now()
		}
	}()
	begun := <-said
	for answered := "no"; ; {
		sent := time.Now()
		if ws.Ping(ctx) != nil {
			l.pongs <- "the connection has ended"
			return
		}
		select {
		case <-said:
			l.pongs <- answered
			return
		default:
		}
		if sent.Sub(begun) > time.Second { // the page has been busy for a while then
			answered = "yes"
		}
	}
}

// seeEngine sees what an engine does, by the table's rows.
func seeEngine(t *testing.T, b *browser.Browser) map[string]string {
	l := newLab(t)
	somebody := b.Person(t)
	tab := somebody.Open(l.site + "/lab")
	tab.MayLoseServer()
	tab.Forgive("Failed to load resource")
	seen := map[string]string{}
	for row, path := range map[string]string{
		"the hub closes with 4401 and a reason: the page sees": "/close",
		"the line is cut: the page sees":                       "/cut",
		"the handshake is refused: the page sees":              "/offer",
	} {
		seen[row] = browser.Eval[string](tab, fmt.Sprintf("ended(%q)", path))
	}
	seen["it offers to compress"] = await(t, l.offer, "a handshake")

	end := func(how func()) string {
		browser.Eval[bool](tab, `new Promise((tell) => { (window.ws = socket("/end")).onopen = () => tell(true) })`)
		how()
		return await(t, l.ends, "an end")
	}
	seen["the page calls close(4000): the hub sees"] = end(func() { browser.Eval[bool](tab, `(ws.close(4000), true)`) })
	seen["the user goes to another page: the hub sees"] = end(func() { tab.Go(l.site + "/lab") })

	browser.Eval[bool](tab, `new Promise((tell) => {
		const ws = socket("/busy");
		ws.onopen = () => {
			ws.send("busy");
			setTimeout(() => {
				for (const until = Date.now() + 3000; Date.now() < until;);
				ws.send("over");
				tell(true);
			}, 100);
		};
	})`)
	seen["a ping is answered while the page's script is busy"] = await(t, l.pongs, "the busy page")

	l.seeLeft(t, tab, seen)
	l.seeHidden(t, b, somebody, seen)
	return seen
}

// seeLeft sees a page to which the user comes back.
func (l *lab) seeLeft(t *testing.T, tab *browser.Tab, seen map[string]string) {
	t.Helper()
	tab.Go(l.site + "/kept")
	tab.Wait(`client.state === "open"`)
	tab.Go(l.site + "/lab")
	await(t, l.ends, "the end of the page that was left")
	tab.Back()
	tab.Wait(`location.pathname === "/kept" && client.state === "open"`)
	seen["the back button finds the page as it was left"] = "no"
	if browser.Eval[bool](tab, "persisted") {
		seen["the back button finds the page as it was left"] = "yes"
	}
}

// seeHidden sees a page that is hidden, offline and closed.
func (l *lab) seeHidden(t *testing.T, b *browser.Browser, somebody *browser.Person, seen map[string]string) {
	t.Helper()
	other := somebody.Open(l.site + "/lab")
	other.Forgive("WebSocket")
	browser.Eval[bool](other, `new Promise((tell) => { window.ticks = 0; socket("/ticks").onmessage = () => tell(ticks++ >= 0) })`)
	other.Hide()
	before := browser.Eval[int](other, "ticks")
	other.Wait(fmt.Sprintf("document.hidden && ticks > %d", before+10))
	seen["messages reach a hidden page"] = "yes"
	// Chromium's timers run as asked because its driver wants it, not as its users have them.
	seen["timers of a hidden page run"] = ""
	took := browser.Eval[int](other, `new Promise((tell) => {
		const begin = Date.now();
		const again = (n) => (n ? setTimeout(again, 10, n - 1) : tell(Date.now() - begin));
		again(10);
	})`)
	switch {
	case b.Name == browser.Chromium:
	case took > 5000:
		seen["timers of a hidden page run"] = "once a second"
	default:
		seen["timers of a hidden page run"] = "as asked"
	}
	other.Show()
	other.Wait("ticks > 0")
	const cut = "the browser is told to be offline: an open connection"
	browser.Eval[bool](other, `new Promise((tell) => {
		addEventListener("offline", () => { window.told = true });
		const ws = socket("/end");
		ws.onopen = () => tell(true);
		window.pending = new Promise((tell) => { ws.onclose = ({ code, reason }) => tell((code + " " + reason).trim()) });
	})`)
	if seen[cut] = ""; other.Offline(true) {
		other.Wait("told && !navigator.onLine")
		before := browser.Eval[int](other, "ticks")
		seen[cut] = browser.Eval[string](other, fmt.Sprintf(`new Promise((tell) => {
			pending.then((code) => tell("ends with " + code));
			const look = () => (ticks > %d ? tell("goes on") : setTimeout(look, 20));
			look();
			setTimeout(tell, 5000, "is silent");
		})`, before+10))
		other.Offline(false)
	}
	other.Close()
	seen["the user closes the tab: the hub sees"] = await(t, l.ends, "the end of a closed tab")
}
