package wsroomtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// kept is a hub with a history of n messages, whose clients join the room that they name.
func kept(t testing.TB, n int, opts ...wsroom.Option) *wsroom.Hub {
	return wsroomtest.CheckHub(t, wsroom.New(append(opts,
		wsroom.WithHistory(n, 1<<20, time.Minute),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			switch room, leaves := strings.CutPrefix(text, "leave "); {
			case err != nil:
			case strings.HasPrefix(text, "\x00"):
				c.SendText(text)
			case leaves:
				c.Leave(room)
			default:
				c.Join(text)
			}
		}))...))
}

// What a test has taken isn't sent again, and what it hasn't is, in each room. Cursor is where the test is.
func TestCursorIsWhereTheTestIs(t *testing.T) {
	overLines(t, func(t *testing.T, dial dialFunc) {
		hub := kept(t, 1000)
		c := dial(t, hub, "/a", wsroomtest.WithCursor(""))
		c.SendText("b")
		c.ExpectRoom("/a", false)
		c.ExpectRoom("b", false)

		sent, got := 0, 0
		for taken := range 12 { // the positions of the next connections have counts of all kinds
			for range 12 {
				for _, room := range []string{"/a", "b"} {
					hub.To(room).SendText(fmt.Sprint(room, sent))
				}
				hub.SendTextToAll("all")
				hub.To("b").Except(hub.Members("b")...).SendText("for nobody")
				sent++
			}
			c.ExpectText("/a"+fmt.Sprint(got), "b"+fmt.Sprint(got))
			got++
			for range taken % 3 {
				c.ExpectText("all", "/a"+fmt.Sprint(got), "b"+fmt.Sprint(got))
				got++
			}
			c.ExpectText("all") // which isn't kept

			cursor := c.Cursor()
			c.CloseNow()
			c = dial(t, hub, "/a", wsroomtest.WithCursor(cursor))
			c.SendText("b")
			c.ExpectRoom("/a", true)
			c.ExpectRoom("b", true)
			want := map[string]int{"/a": got, "b": got}
			for range 2 * (sent - got) {
				text := c.NextText()
				room := strings.TrimRight(text, "0123456789")
				if text != fmt.Sprint(room, want[room]) {
					t.Fatalf("%q comes, want %d", text, want[room])
				}
				want[room]++
			}
			got = sent
			if c.Gaps("/a")+c.Gaps("b") > 0 {
				t.Error("the server says that something is missing")
			}
		}
	})
}

// A room that was left, and one that isn't entered again.
func TestCursorOfLeftAndMissedRooms(t *testing.T) {
	hub := kept(t, 1000)
	c := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(""))
	c.SendText("b")
	c.SendText("c")
	c.ExpectRoom("c", false)
	c.SendText("leave b")
	c.ExpectNothing()
	if cursor := c.Cursor(); strings.Contains(cursor, `"b"`) || !strings.Contains(cursor, `"c"`) {
		t.Errorf("after it has left b: %s", cursor)
	}

	again := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(c.Cursor()))
	again.ExpectRoom("/a", true)
	hub.SendTextToRoom("c", "missed")
	third := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(again.Cursor()))
	third.SendText("c")
	third.ExpectRoom("c", true)
	third.ExpectText("missed")
	c.ExpectText("missed")
}

// A client that is too late is told so, on another node as well, and a hole is a gap.
func TestCursorThatIsTooOldAndGaps(t *testing.T) {
	cloud := brokertest.NewMemory()
	key := wsroom.WithResumeKey(make([]byte, 32))
	one := kept(t, 4, key, wsroom.WithBroker(cloud.Open()))
	two := kept(t, 4, key, wsroom.WithBroker(cloud.Open()))
	c := wsroomtest.Dial(t, one, "/a", wsroomtest.WithCursor(""))
	c.ExpectRoom("/a", false)
	one.SendTextToRoom("/a", "0")
	c.ExpectText("0")
	cursor := c.Cursor()
	for i := range 3 {
		one.SendTextToRoom("/a", fmt.Sprint(1+i))
	}
	c.ExpectText("1", "2", "3")
	other := wsroomtest.Dial(t, two, "/a", wsroomtest.WithCursor(cursor))
	other.ExpectRoom("/a", true)
	other.ExpectText("1", "2", "3")
	for i := range 2 {
		one.SendTextToRoom("/a", fmt.Sprint(4+i))
	}
	c.ExpectText("4", "5")
	late := wsroomtest.Dial(t, two, "/a", wsroomtest.WithCursor(cursor))
	late.ExpectRoom("/a", false)

	cloud.Lose(1)
	one.SendTextToRoom("/a", "lost")
	one.SendTextToRoom("/a", "6")
	late.ExpectText("6")
	if n := late.Gaps("/a"); n != 1 {
		t.Errorf("%d gaps", n)
	}
}

// The application's subprotocol and texts are its own; a server without the protocol is a plain one.
func TestCursorLeavesTheRestAlone(t *testing.T) {
	hub := kept(t, 10, wsroom.WithSubprotocols("chat"))
	for name, want := range map[string]string{"chat": "chat", "CHAT": "CHAT", "other": ""} {
		c := wsroomtest.Dial(t, hub, "/", wsroomtest.WithCursor(""), wsroomtest.WithSubprotocols(name))
		if got := c.Subprotocol(); got != want {
			t.Errorf("offered %q, got %q", name, got)
		}
		for _, text := range []string{"\x00", "\x001", "\x00\x00x"} {
			c.SendText(text)
			c.ExpectText(text)
		}
		c.ExpectNothing()
	}

	srv := echo(wsroom.WithSubprotocols("wsroom.v2"))
	plain := wsroomtest.Dial(t, plainly{wsroomtest.CheckHub(t, srv)}, "/", wsroomtest.WithCursor(`[{"room":"/","token":"t","at":"1","n":2}]`))
	plain.SendText("3")
	plain.ExpectText("3")
	if cursor := plain.Cursor(); !strings.Contains(cursor, `"n":2`) {
		t.Errorf("a plain server has changed the cursor to %s", cursor)
	}
	plain.Close(websocket.StatusNormalClosure, "")
}

// plainly is a server that doesn't know the protocol.
type plainly struct{ http.Handler }

func (p plainly) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	r.Header.Del("Sec-WebSocket-Protocol")
	p.Handler.ServeHTTP(w, r)
}
