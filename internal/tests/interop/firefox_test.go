package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// firefox is a tab of a Firefox, driven by WebDriver BiDi.
type firefox struct {
	t   *testing.T
	ctx context.Context
	ws  *websocket.Conn
	tab string
	id  int
}

// startFirefox starts a headless Firefox, which ends with the test.
func startFirefox(t *testing.T) *firefox {
	t.Helper()
	const path = "/usr/bin/firefox-esr"
	need(t, path, "apt-get install firefox-esr")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	program := exec.CommandContext(ctx, path, "--headless", "--no-remote", "--profile", t.TempDir(), "--remote-debugging-port", "0")
	stderr, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	t.Cleanup(func() {
		cancel()
		<-read
		_ = program.Wait() // it was killed
	})

	url := make(chan string, 1)
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, found, ok := strings.Cut(lines.Text(), "WebDriver BiDi listening on "); ok {
				url <- found
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
	}()
	f := &firefox{t: t, ctx: ctx}
	f.ws, _, err = websocket.Dial(ctx, await(t, url, "Firefox")+"/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.ws.CloseNow() })
	f.ws.SetReadLimit(1 << 20)
	f.call("session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	var tree struct{ Contexts []struct{ Context string } }
	f.call("browsingContext.getTree", map[string]any{}, &tree)
	f.tab = tree.Contexts[0].Context
	return f
}

// call calls a command of WebDriver BiDi.
func (f *firefox) call(method string, params map[string]any, result any) {
	f.t.Helper()
	f.id++
	if err := wsjson.Write(f.ctx, f.ws, map[string]any{"id": f.id, "method": method, "params": params}); err != nil {
		f.t.Fatal(err)
	}
	for {
		var answer struct {
			ID      int
			Message string
			Result  json.RawMessage
		}
		if err := wsjson.Read(f.ctx, f.ws, &answer); err != nil {
			f.t.Fatalf("%s: %v", method, err)
		}
		if answer.ID != f.id {
			continue // an event
		}
		if answer.Message != "" {
			f.t.Fatalf("%s: %s", method, answer.Message)
		}
		if result != nil {
			if err := json.Unmarshal(answer.Result, result); err != nil {
				f.t.Fatal(err)
			}
		}
		return
	}
}

func (f *firefox) open(url string) {
	f.t.Helper()
	f.call("browsingContext.navigate", map[string]any{"context": f.tab, "url": url, "wait": "complete"}, nil)
}

// back goes back to the page before.
func (f *firefox) back() {
	f.t.Helper()
	f.call("browsingContext.traverseHistory", map[string]any{"context": f.tab, "delta": -1}, nil)
}

// eval returns the value of a JavaScript expression as JSON, once it has one.
func (f *firefox) eval(expression string) string {
	f.t.Helper()
	var got struct {
		Type   string
		Result struct{ Value any }
	}
	expression = fmt.Sprintf("Promise.resolve(%s).then(JSON.stringify)", expression)
	f.call("script.evaluate", map[string]any{"expression": expression, "target": map[string]any{"context": f.tab}, "awaitPromise": true}, &got)
	if got.Type != "success" {
		f.t.Fatalf("%s: %+v", expression, got)
	}
	return fmt.Sprint(got.Result.Value)
}

// wait waits until the JavaScript expression is truthy. While it throws, it isn't.
func (f *firefox) wait(expression string) {
	f.t.Helper()
	f.eval(fmt.Sprintf(`new Promise((found) => {
		const look = () => {
			try {
				if (%s) return found(true)
			} catch {}
			setTimeout(look, 10)
		}
		look()
	})`, expression))
}

// In Firefox too a page goes on after a reload, and after the back button: Firefox keeps no page with a
// WebSocket that is open when its user leaves, and loads it again.
func TestFirefoxPageMissesNothing(t *testing.T) {
	k := newCounter(t)
	f := startFirefox(t)
	complete := func() {
		t.Helper()
		f.wait(fmt.Sprintf("got.at(-1) === %d", k.last))
		if n := f.eval("got.length"); n != fmt.Sprint(k.last+1) {
			t.Errorf("the page has %s", f.eval("got"))
		}
	}
	check := func(expression, want string) {
		t.Helper()
		if got := f.eval(expression); got != want {
			t.Errorf("%s is %s, want %s; states: %s", expression, got, want, f.eval("states"))
		}
	}

	f.open(k.site + "/page")
	f.wait(`socket.state === "open" && socket.resumable`)
	k.count(5)
	complete()
	f.open(k.site + "/other")
	k.count(5)
	f.back()
	f.wait(`location.pathname === "/page"`)
	complete()
	check("rooms", "[true]")

	f.call("browsingContext.reload", map[string]any{"context": f.tab, "wait": "complete"}, nil)
	f.wait(`socket.state === "open"`)
	k.count(5)
	complete()
	check("rooms", "[true]")

	k.line.goDead() // and nobody tells the page, but that it is online again
	k.count(5)
	f.eval(`dispatchEvent(new Event("online"))`)
	complete()
	check("rooms", "[true,true]")
}
