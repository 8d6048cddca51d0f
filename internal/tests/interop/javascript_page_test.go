package interop_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomjs"
)

// counting is a page that shows the numbers of one room, from 1 on: it counts in got what it has got of them, and keeps
// that, with the cursor, for a reload.
const counting = `<!doctype html><link rel="icon" href="data:,"><title>Counting</title><script type="module">
import { Socket } from "/wsroom.js"
const { got = [], cursor } = JSON.parse(sessionStorage.saved ?? "{}")
Object.assign(window, { got, rooms: [], states: [], shown: [] })
addEventListener("pageshow", (e) => shown.push(e.persisted))
const paths = ["/live/a", ...(new URLSearchParams(location.search)).getAll("first")]
window.socket = new Socket(() => paths.length > 1 ? paths.pop() : paths[0], {
	cursor,
	timeout: 2_000,
	onmessage(data, room) {
		if (room === undefined) got.length = 0 // a snapshot
		got.push(Number(data))
		sessionStorage.saved = JSON.stringify({ got, cursor: socket.cursor })
	},
	onroom: (_, resumed) => rooms.push(resumed),
	onstate: (state, why) => states.push(state + " " + (why?.reason ?? "")),
})
socket.open()
</script>`

// countingWorker counts for several pages, that ask it what it has got.
const countingWorker = `import { Socket } from "/wsroom.js"
const got = []
new Socket("/live/a", { onmessage: (data) => got.push(Number(data)) }).open()
onconnect = ({ ports: [port] }) => { port.onmessage = () => port.postMessage(got) }`

// counter serves the page, and a hub that sends it numbers.
type counter struct {
	t    *testing.T
	site string
	line *wire
	hub  *wsroom.Hub
	mu   sync.Mutex
	last int
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	k := &counter{t: t}
	// Beats are so rare that no page notices by them that its connection has died.
	k.hub = wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.OnConnect(k.enter),
		wsroom.WithHistory(100, 1<<20, time.Minute), wsroom.WithHeartbeat(time.Hour, 10*time.Second))
	mux := http.NewServeMux()
	mux.Handle("/live/{room}", k.hub)
	mux.Handle("/wsroom.js", wsroomjs.Handler())
	mux.HandleFunc("/worker.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, countingWorker)
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for path, text := range map[string]string{"/page": counting, "/other": `<!doctype html><link rel="icon" href="data:,"><title>Other</title>`} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, text)
		})
	}
	site := serve(t, mux)
	t.Cleanup(func() {
		if err := k.hub.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	k.line = newWire(t, site[len("http://"):])
	k.site = "http://" + k.line.ln.Addr().String()
	return k
}

func (k *counter) enter(c *wsroom.Conn, _ *http.Request) error {
	if c.Resumed() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.DropHeld()
	return c.SendText(strconv.Itoa(k.last))
}

// count sends n more numbers.
func (k *counter) count(n int) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for range n {
		k.last++
		if err := k.hub.SendTextToRoom("a", strconv.Itoa(k.last)); err != nil {
			k.t.Fatal(err)
		}
	}
}

// complete waits until the page has the last number, and checks that it has all of them.
func (k *counter) complete(tab *browser.Tab) {
	k.t.Helper()
	tab.Wait(fmt.Sprintf("got.at(-1) === %d", k.last))
	if got := browser.Eval[[]int](tab, "got"); len(got) != k.last+1 {
		k.t.Errorf("the page has %v", got)
	}
}

// open opens the page. It has some numbers then.
func (k *counter) open() *browser.Tab {
	k.t.Helper()
	tab := browser.Start(k.t).Person(k.t).Open(k.site + "/page")
	tab.MayLoseServer()
	tab.Wait(`socket.state === "open" && socket.resumable`)
	k.count(5)
	k.complete(tab)
	return tab
}

// check wants these values of resumed in onroom, in the page as it is now.
func (k *counter) check(tab *browser.Tab, resumed ...bool) {
	k.t.Helper()
	if rooms := browser.Eval[[]bool](tab, "rooms"); fmt.Sprint(rooms) != fmt.Sprint(resumed) {
		k.t.Errorf("resumed: %v, want %v; states: %v", rooms, resumed, browser.Eval[[]string](tab, "states"))
	}
}

// wire is a TCP proxy before a server, whose connections can go dead: nothing passes, and nobody is told.
type wire struct {
	ln    net.Listener
	mu    sync.Mutex
	conns []net.Conn
	dead  map[net.Conn]bool
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &wire{ln: ln, dead: map[net.Conn]bool{}}
	var all sync.WaitGroup
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		for p := make([]byte, 1<<14); ; {
			n, err := from.Read(p)
			if err != nil {
				return
			}
			if !l.isDead(to, from) {
				_, _ = to.Write(p[:n]) // it may be gone
			}
		}
	}
	all.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", server)
			if err != nil {
				near.Close()
				continue
			}
			l.mu.Lock()
			l.conns = append(l.conns, near, far)
			l.mu.Unlock()
			all.Go(func() { pass(near, far) })
			all.Go(func() { pass(far, near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		l.mu.Lock()
		for _, c := range l.conns {
			c.Close()
		}
		l.mu.Unlock()
		all.Wait()
	})
	return l
}

func (l *wire) isDead(a, b net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead[a] || l.dead[b]
}

// goDead makes the connections go dead that there are now.
func (l *wire) goDead() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		l.dead[c] = true
	}
}

// A handshake that hangs is given up, and doesn't hold up the next one: a browser makes one at a time with an address.
func TestPageGoesOnAfterAHandshakeThatHangs(t *testing.T) {
	k := newCounter(t)
	tab := browser.Start(t).Person(t).Open(k.site + "/page?first=/hang")
	tab.MayLoseServer()
	tab.Wait(`socket.state === "open" && socket.resumable`)
	if states := fmt.Sprint(browser.Eval[[]string](tab, "states")); states != "[connecting  waiting timeout connecting  open ]" {
		t.Errorf("states: %s", states)
	}
}

// The client needs no page: in a SharedWorker it has one connection for all tabs.
func TestSharedWorkerCountsForTwoTabs(t *testing.T) {
	k := newCounter(t)
	somebody := browser.Start(t).Person(t)
	tabs := []*browser.Tab{somebody.Open(k.site + "/other"), somebody.Open(k.site + "/other")}
	await := func(tab *browser.Tab, last int) []int {
		return browser.Eval[[]int](tab, fmt.Sprintf(`new Promise((tell) => {
			const { port } = new SharedWorker("/worker.js", { type: "module" })
			port.onmessage = ({ data }) => data.at(-1) === %d ? tell(data) : setTimeout(() => port.postMessage(0), 10)
			port.postMessage(0)
		})`, last))
	}
	await(tabs[0], 0)
	k.count(5)
	for _, tab := range tabs {
		if got := await(tab, 5); len(got) != 6 {
			t.Errorf("got %v", got)
		}
	}
	if n := k.hub.Len(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A page that is reloaded goes on where it was.
func TestPageGoesOnAfterAReload(t *testing.T) {
	k := newCounter(t)
	tab := k.open()
	tab.Do(chromedp.Navigate(k.site + "/other"))
	k.count(5)
	tab.Do(chromedp.Navigate(k.site + "/page"))
	k.complete(tab)
	k.check(tab, true)
	tab.Do(chromedp.Reload())
	tab.Wait(`socket.state === "open"`)
	k.count(5)
	k.complete(tab)
	k.check(tab, true)
}

// A page that comes back by the browser's back button, as it was left, gets what it has missed.
func TestPageComesBackFromTheBackForwardCache(t *testing.T) {
	k := newCounter(t)
	tab := k.open()
	tab.Do(chromedp.Navigate(k.site + "/other"))
	k.count(5)
	tab.Back()
	tab.Wait(`location.pathname === "/page"`)
	k.complete(tab)
	k.check(tab, false, true)
	if shown := browser.Eval[[]bool](tab, "shown"); fmt.Sprint(shown) != "[false true]" {
		t.Errorf("the page wasn't kept: persisted is %v", shown)
	}
}

// A page that was offline comes back at once when it is online, and gets what it has missed.
func TestPageComesBackFromOffline(t *testing.T) {
	k := newCounter(t)
	tab := k.open()
	tab.Do(network.Enable(), network.EmulateNetworkConditions(true, 0, 0, 0))
	k.line.goDead() // where the browser doesn't cut open WebSockets
	tab.Wait(`socket.state === "waiting" || socket.state === "connecting"`)
	k.count(5)
	tab.Wait(`states.length > 8`) // it has tried a few times
	tab.Do(network.EmulateNetworkConditions(false, 0, -1, -1))
	k.complete(tab)
	k.check(tab, false, true)
}

// A page that was hidden, and whose connection has died meanwhile, notices when it is shown again.
func TestHiddenPageComesBack(t *testing.T) {
	k := newCounter(t)
	tab := k.open()
	tab.Hide()
	k.line.goDead()
	k.count(5)
	tab.Show()
	k.complete(tab)
	k.check(tab, false, true)
	if states := browser.Eval[[]string](tab, "states"); states[2] != "waiting silence" {
		t.Errorf("states: %q", states)
	}
}

// A page that was frozen, which ends its connection, comes back when it isn't any more.
func TestFrozenPageComesBack(t *testing.T) {
	k := newCounter(t)
	tab := k.open()
	tab.Hide()
	tab.Do(page.SetWebLifecycleState(page.SetWebLifecycleStateStateFrozen))
	k.count(5)
	tab.Do(page.SetWebLifecycleState(page.SetWebLifecycleStateStateActive))
	k.complete(tab)
	tab.Show()
	k.count(5)
	k.complete(tab)
}
