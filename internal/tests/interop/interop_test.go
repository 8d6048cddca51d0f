// Package interop lets other people's WebSocket clients talk to a hub. README.md lists them.
package interop_test

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// session is what a client is to do: connect to url, have the extension negotiated, go through
// script, getting back what it sends, and end with a close frame of 1000 and "done" or without any.
type session struct {
	url       string
	extension string // "" or "permessage-deflate"
	clean     bool
}

// args is the session for a program's command line.
func (s session) args() []string {
	end := "abrupt"
	if s.clean {
		end = "clean"
	}
	return []string{s.url, s.extension, end}
}

// message is one of a script. Clients that can send its parts as fragments.
type message struct {
	text  bool
	parts []string
}

func (m message) String() string {
	p := strings.Join(m.parts, "")
	return fmt.Sprintf("text %v, %d bytes, %08x", m.text, len(p), crc32.ChecksumIEEE([]byte(p)))
}

// script is what every client sends, one message after the answer to the other. Programs in other
// languages have it in clients/script.mjs and clients/script.py.
func script() (all []message) {
	for _, n := range []int{1, 125, 126, 65535, 65536, 1 << 20} {
		p := strings.Repeat("0123456789abcdef", n/16+1)[:n]
		all = append(all, message{true, []string{p}}, message{false, []string{strings.ReplaceAll(p, "0", "\xff")}})
	}
	return append(all, message{true, []string{"κόσμε", "", " ", "😀"}}, message{false, []string{"\x00\xfe", "", "\xff"}})
}

// clients are those that go through the script; run fails the test if the client does.
var clients = []struct {
	name string
	run  func(t *testing.T, s session)
}{
	{"gorilla", goClient(dialGorilla)},
	{"gobwas", goClient(dialGobwas)},
	{"gws", goClient(dialGws)},
	{"node-ws", nodeClient("ws")},
	{"node-websocket", nodeClient("websocket")},
	{"node-undici", nodeClient("undici")},
	{"python-websockets", pythonClient("websockets")},
	{"python-wsproto", pythonClient("wsproto")},
	{"chromium", runChromium},
}

// Every client gets back what it sends, compressed or not, and the hub hears how it ended.
func TestClientsTalkToAHub(t *testing.T) {
	for _, c := range clients {
		for name, s := range map[string]session{
			"plain, clean":       {"", "", true},
			"plain, abrupt":      {"", "", false},
			"compressed, clean":  {"", "permessage-deflate", true},
			"compressed, abrupt": {"", "permessage-deflate", false},
		} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				heard := newHearing(s.extension != "")
				s.url = serve(t, heard.hub) + "/room"
				if c.name == "node-websocket" {
					s.extension = "" // it knows none
				}
				c.run(t, s)
				end := websocket.CloseError{Code: -1}
				switch {
				case s.clean:
					end = websocket.CloseError{Code: 1000, Reason: "done"}
				case c.name == "chromium":
					end.Code = 1001 // of a tab that is closed
				}
				heard.check(t, end)
			})
		}
	}
}

// hearing is a hub that sends every message to the sender's room, and what it heard.
type hearing struct {
	hub      *wsroom.Hub
	messages []string // complete once end has come
	end      chan error
}

func newHearing(compression bool) *hearing {
	h := &hearing{end: make(chan error, 1)}
	opts := []wsroom.Option{
		wsroom.WithMaxMessageSize(1 << 20),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				h.messages = append(h.messages, message{true, []string{text}}.String())
				c.SendTextToThisRoom(text)
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, _ error) {
			h.messages = append(h.messages, message{false, []string{string(p)}}.String())
			h.hub.To(c.Room()).SendBinary(p)
		}),
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { h.end <- err }),
	}
	if compression {
		opts = append(opts, wsroom.WithCompression(100))
	}
	h.hub = wsroom.New(opts...)
	return h
}

// check wants the hub to have heard the whole script, and the peer's close frame; none where its code
// is -1.
func (h *hearing) check(t *testing.T, end websocket.CloseError) {
	err := await(t, h.end, "OnClose")
	var want []string
	for _, m := range script() {
		want = append(want, m.String())
	}
	if !slices.Equal(h.messages, want) {
		t.Errorf("the hub heard %q, want %q", h.messages, want)
	}
	var got websocket.CloseError
	if !errors.As(err, &got) {
		got.Code = -1
	}
	if got != end {
		t.Errorf("the cause is %v, want %v", err, end)
	}
}

// serve starts a server of h, and of the files that a browser loads, and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/clients/", http.FileServer(http.Dir(".")))
	mux.Handle("/", h)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	if hub, ok := h.(*wsroom.Hub); ok {
		wsroomtest.CheckHub(t, hub)
	}
	return srv.URL
}

func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// need skips the test where a file is missing that how installs. With WSROOM_INTEROP=all it fails.
func need(t *testing.T, file, how string) {
	t.Helper()
	if _, err := os.Stat(file); err == nil {
		return
	}
	if os.Getenv("WSROOM_INTEROP") == "all" {
		t.Fatalf("%s is missing: %s", file, how)
	}
	t.Skipf("%s is missing: %s", file, how)
}
