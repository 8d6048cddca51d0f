package docs_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomjs"
	"github.com/wsroom/wsroom/wsroomtest"
)

const resumePage = `<!doctype html><meta charset="utf-8"><title>Chat</title>
<form><input autofocus autocomplete="off"></form><ul></ul>
<script type="module">
import { Socket } from "/js/wsroom.js"
const list = document.querySelector("ul")
const add = text => list.append(Object.assign(document.createElement("li"), { textContent: text }))
const socket = new Socket("/chat/general", {
  onmessage: add,
  onroom: (room, resumed) => resumed || list.replaceChildren(), // what was missed follows, or the last messages
  ongap: () => add("(some messages are missing here)"),
})
socket.open()
document.forms[0].onsubmit = e => { e.preventDefault(); socket.send(e.target[0].value) && e.target.reset() }
</script>`

func resumableChat(opts ...wsroom.Option) (*wsroom.Hub, http.Handler) {
	hub := wsroom.New(append(opts,
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if !c.Resumed() {
				c.Rewind(c.Room(), 50) // a newcomer gets the last messages
			}
			return nil
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))...)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.Handle("GET /js/", wsroomjs.Handler())
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, resumePage) })
	return hub, mux
}

// onNodes are the page's options for several nodes. keys are the application's secrets.
func onNodes(broker wsroom.Broker, keys ...[]byte) []wsroom.Option {
	return []wsroom.Option{
		wsroom.WithBroker(broker), // redisbroker.New(client), natsbroker.New(nc), or postgresbroker.Open(ctx, pool)
		wsroom.WithResumeKey(keys...),
	}
}

// The page's chat sends a newcomer the last messages, and one that comes back what it has missed.
func TestPageOfResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub, chat := resumableChat()
		wsroomtest.CheckHub(t, hub)
		bob := wsroomtest.Dial(t, chat, "/chat/general") // a plain client
		for i := range 60 {
			bob.SendText(fmt.Sprint(i))
			bob.ExpectText(fmt.Sprint(i))
		}
		ann := wsroomtest.Dial(t, chat, "/chat/general", wsroomtest.WithCursor(""))
		for i := range 50 {
			ann.ExpectText(fmt.Sprint(10 + i))
		}
		ann.ExpectNothing()

		ann.Cut()
		bob.SendText("missed")
		bob.ExpectText("missed")
		ann = wsroomtest.Dial(t, chat, "/chat/general", wsroomtest.WithCursor(ann.Cursor()))
		ann.ExpectRoom("/chat/general", true)
		ann.ExpectText("missed")
		ann.ExpectNothing()
	})
}

// On two nodes it loses nothing when one of them goes, and none when the keys change in three steps.
func TestPageOfResumeOnNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := brokertest.NewMemory()
		before, after := []byte(strings.Repeat("1", 32)), []byte(strings.Repeat("2", 32))
		node := func(keys ...[]byte) http.Handler {
			hub, chat := resumableChat(onNodes(cloud.Open(), keys...)...)
			wsroomtest.CheckHub(t, hub)
			return chat
		}
		sender, cursor := wsroomtest.Dial(t, node(before), "/chat/general"), ""
		for i, keys := range [][][]byte{
			{before}, {before, after}, {before}, {before, after}, {after, before}, {before, after}, {after, before}, {after}, {after, before},
		} {
			ann := wsroomtest.Dial(t, node(keys...), "/chat/general", wsroomtest.WithCursor(cursor))
			ann.ExpectRoom("/chat/general", i > 0)
			if i > 0 {
				ann.ExpectText("missed")
			}
			sender.SendText("heard")
			ann.ExpectText("heard")
			cursor = ann.Cursor()
			ann.CloseNow()
			sender.SendText("missed")
		}
	})
}

// The page's example of wsroom.v1 is what a hub and a client say to each other, byte for byte but for the tokens.
func TestPagesExampleOfTheProtocolIsExact(t *testing.T) {
	text, err := os.ReadFile("resume.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```text\n# ")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	synctest.Test(t, func(t *testing.T) {
		e := newExample(t)
		for step := range strings.SplitSeq(example, "\n# ") {
			what, want, _ := strings.Cut(step, "\n")
			e.play(what, want)
		}
		if e.played < 15 {
			t.Errorf("%d steps", e.played)
		}
	})
}

// protocolExample plays the steps of the page's example.
type protocolExample struct {
	t      *testing.T
	hub    *wsroom.Hub
	conn   *wsroom.Conn // of the latest connection
	client *wsroomtest.Client
	token  string // the latest of room 0
	played int
}

func newExample(t *testing.T) *protocolExample {
	e := &protocolExample{t: t}
	e.hub = wsroomtest.CheckHub(t, wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.WithSendQueue(1, 1<<20), wsroom.WithOverflow(wsroom.DropOldest),
		wsroom.OnText(func(_ *wsroom.Conn, text string, err error) {
			if err == nil {
				t.Errorf("the application gets %q", text)
			}
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if e.conn = c; c.Resumed() {
				return nil
			}
			return c.SendText("welcome")
		})))
	return e
}

var shownToken = regexp.MustCompile(`"in":0.*"token":"([\w-]{68})"|"start":0.*"token":"([\w-]{68})"`)

// play does what the step says, and compares what is said with the rest of the step.
func (e *protocolExample) play(what, want string) {
	e.t.Helper()
	e.played++
	e.act(what, want)
	synctest.Wait()
	got := ""
	for line := range strings.Lines(want) {
		if strings.HasPrefix(line, "C: ") {
			got += strings.TrimSuffix(line, "\n") + "\n"
		}
	}
	for _, text := range e.client.Drain() {
		if m := shownToken.FindStringSubmatch(text); m != nil {
			e.token = m[1] + m[2]
		}
		text = regexp.MustCompile(`"[\w-]{68}"`).ReplaceAllString(text, `"…"`)
		if len(text) == 300 && text == strings.Repeat("x", 300) {
			text = "a long text"
		}
		got += "S: " + text + "\n"
	}
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		e.t.Errorf("%s: got\n%swant\n%s", what, got, want)
	}
}

func (e *protocolExample) act(what, want string) {
	e.t.Helper()
	room := e.hub.To("/chat/a")
	switch first, _, _ := strings.Cut(want, "\n"); what {
	case "a client comes; OnConnect sends it a text", "it comes back":
		list := strings.Split(strings.TrimPrefix(first, "C: Sec-WebSocket-Protocol: "), ", ")
		for i := range list {
			list[i] = strings.Replace(list[i], "…", e.token, 1)
		}
		e.client = wsroomtest.Dial(e.t, e.hub, "/chat/a", wsroomtest.WithSubprotocols(list...))
	case "a message to the room":
		room.SendText("hi")
	case "another one":
		room.SendText("you")
	case `the connection breaks; "one" and "three" are sent to the room, and "two" to the room but for this client`:
		gone := e.conn
		e.client.CloseNow()
		synctest.Wait()
		room.SendText("one")
		room.Except(gone).SendText("two")
		room.SendText("three")
	case "the application has it join another room":
		e.conn.Join("news")
	case "a message to that room":
		e.hub.To("news").SendText("extra")
	case "one to both rooms":
		e.hub.To("news", "/chat/a").SendText("both")
	case "one to that room but for this client":
		e.hub.To("news").Except(e.conn).SendText("not for it")
	case "one to this client":
		e.conn.SendText("psst")
	case "one to all connections":
		e.hub.SendTextToAll("all of you")
	case "it leaves that room":
		e.conn.Leave("news")
	case "it reads too slowly, and DropOldest drops a message":
		e.client.Stall()
		room.SendText(strings.Repeat("x", 300))
		synctest.Wait()
		room.SendText("dropped")
		room.SendText("newest")
		synctest.Wait()
		e.client.Resume()
	case "it asks whether the server is there":
		e.client.SendText("\x00")
	case "what a hub doesn't understand has no effect":
		e.client.SendText("\x007")
		e.client.SendText("\x00x")
	case "25 s pass in silence":
		time.Sleep(25 * time.Second)
	default:
		e.t.Fatalf("what to do? %q", what)
	}
}
