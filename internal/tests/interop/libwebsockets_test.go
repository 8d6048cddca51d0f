package interop_test

import (
	"context"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// lws is what a hub sees of libwebsockets' test client, which opens two connections, with a subprotocol
// each: on one it draws circles, which come back to it, on the other it takes the messages it is sent.
type lws struct {
	circles chan string
	ends    chan error
}

// given is how many messages the hub sends on the second connection. They are short, as the client's
// demonstration expects; version 4.1.6 hangs up on long ones that are compressed.
const given = 20

func (l *lws) hub(compression wsroom.Option) *wsroom.Hub {
	return wsroom.New(compression,
		wsroom.WithSubprotocols("lws-mirror-protocol", "dumb-increment-protocol"),
		wsroom.WithOrigins("127.0.0.1"), // it leaves the port out
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) (err error) {
			for n := range given {
				if c.Subprotocol() == "dumb-increment-protocol" && err == nil {
					err = c.SendText(strconv.Itoa(n))
				}
			}
			return err
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendText(text)
				select {
				case l.circles <- text:
				default: // it draws many
				}
			}
		}),
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { l.ends <- err }))
}

// start runs the client; kill ends it, in the middle of all, and returns what it has printed.
func (l *lws) start(t *testing.T, site string) (kill func() string) {
	const path = "/usr/bin/libwebsockets-test-client"
	need(t, path, "apt-get install libwebsockets-test-server")
	at, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	client, out := exec.CommandContext(ctx, path, at.Hostname(), "--port="+at.Port()), new(strings.Builder)
	client.Stdout, client.Stderr = out, out
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	return func() string {
		cancel()
		_ = client.Wait()
		return out.String()
	}
}

func TestLibwebsocketsTestClientTalksToAHub(t *testing.T) {
	for name, compression := range map[string]wsroom.Option{"plain": nil, "compressed": wsroom.WithCompression(0)} {
		t.Run(name, func(t *testing.T) {
			client := &lws{make(chan string, 100), make(chan error, 2)}
			hub := client.hub(compression)
			kill := client.start(t, serve(t, hub))
			for range 2 {
				if circle := await(t, client.circles, "a circle"); !strings.HasPrefix(circle, "c #") {
					t.Errorf("it drew %q", circle)
				}
			}
			all := func() bool { return hub.Stats().Sent >= given+2 }
			for begin := time.Now(); !all() && time.Since(begin) < patience; {
				runtime.Gosched()
			}
			if s := hub.Stats(); !all() || s.Closed > 0 {
				t.Errorf("of %d messages %d are sent, and %d connections have ended", given+2, s.Sent, s.Closed)
			}
			out := kill()
			for range 2 {
				if err := await(t, client.ends, "OnClose"); websocket.CloseStatus(err) != -1 {
					t.Errorf("the cause is %v, want none of the peer's", err)
				}
			}
			if strings.Contains(out, "instantiating client ext permessage-deflate") != (compression != nil) {
				t.Errorf("compression is to be negotiated: %v; it says\n%s", compression != nil, out)
			}
		})
	}
}
