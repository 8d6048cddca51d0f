package interop_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/browser"
)

// busy is a page that does nothing else for 3 s once it has got its first message.
const busy = `<!doctype html><link rel="icon" href="data:,"><title>Busy</title><script>
const ws = new WebSocket(location.href.replace("http", "ws").replace("busy", "live"))
window.got = 0
ws.onmessage = ({ data }) => {
	for (const end = performance.now() + (got ? 0 : 3_000); performance.now() < end;);
	got++
	ws.send("got " + data)
}
</script>`

// What docs/slow-clients.md says of the answer to a ping: programs that use these libraries have been handed
// the messages before. Browsers answer for a page that is busy.
func TestWhatAnAnswerProves(t *testing.T) {
	for name, run := range map[string]func(t *testing.T, site string){
		"coder/websocket": answerInGo,
		"gorilla":         answerInGorilla,
		"ws":              answerInNode("ws"),
		"undici":          answerInNode("undici"),
	} {
		t.Run(name, func(t *testing.T) {
			if n := handledAtTheAnswer(t, run); n != messages {
				t.Errorf("at the answer the client has handled %d of %d messages", n, messages)
			}
		})
	}
	browser.Each(t, func(t *testing.T, b *browser.Browser) {
		n := handledAtTheAnswer(t, func(t *testing.T, site string) {
			tab := b.Person(t).Open(site + "/busy")
			tab.MayLoseServer()
		})
		if n == messages {
			t.Error("at the answer the page has handled all messages")
		}
	})
}

const messages = 20

// handledAtTheAnswer sends a client messages, and returns how many it has handled when it has answered the ping behind
// them. run starts the client.
func handledAtTheAnswer(t *testing.T, run func(t *testing.T, site string)) int64 {
	var got atomic.Int64
	conns := make(chan *wsroom.Conn, 1)
	hub := wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { conns <- c; return nil }),
		wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
			if err == nil {
				got.Add(1)
			}
		}))
	mux := http.NewServeMux()
	mux.Handle("/live", hub)
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, busy)
	})
	site := serve(t, mux)
	defer hub.Shutdown(context.Background())
	run(t, site)

	c := <-conns
	answered := make(chan int64, 1)
	for i := range messages {
		if err := c.SendText(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	c.Delivered(func(err error) {
		if err != nil {
			t.Error(err)
		}
		answered <- got.Load()
	})
	select {
	case n := <-answered:
		return n
	case <-time.After(patience):
		t.Fatal("there is no answer")
		return 0
	}
}

func answerInGo(t *testing.T, site string) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	ws, _, err := websocket.Dial(ctx, site+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		for {
			typ, p, err := ws.Read(ctx)
			if err != nil || ws.Write(ctx, typ, p) != nil {
				return
			}
		}
	}()
}

func answerInGorilla(t *testing.T, site string) {
	ws, res, err := gorilla.DefaultDialer.DialContext(t.Context(), socket(site)+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	done := make(chan struct{})
	t.Cleanup(func() { ws.Close(); <-done })
	go func() {
		defer close(done)
		for {
			typ, p, err := ws.ReadMessage()
			if err != nil || ws.WriteMessage(typ, p) != nil {
				return
			}
		}
	}()
}

func answerInNode(name string) func(t *testing.T, site string) {
	return func(t *testing.T, site string) {
		need(t, "clients/node_modules/"+name, "npm ci --prefix internal/tests/interop/clients")
		ctx, cancel := context.WithCancel(t.Context())
		program := exec.CommandContext(ctx, "node", "clients/answer.mjs", name, socket(site)+"/live")
		if err := program.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cancel(); _ = program.Wait() })
	}
}
