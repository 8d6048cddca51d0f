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

// The test client of libwebsockets opens two connections, with a subprotocol each. On one of them it
// draws circles at its own pace, which come back to it; on the other it takes what comes. It ends when
// it is killed, in the middle of all.
func TestLibwebsocketsTestClientTalksToAHub(t *testing.T) {
	const path = "/usr/bin/libwebsockets-test-client"
	need(t, path, "apt-get install libwebsockets-test-server")
	for name, compression := range map[string]wsroom.Option{"plain": nil, "compressed": wsroom.WithCompression(0)} {
		t.Run(name, func(t *testing.T) {
			drawn, taken, ends := make(chan string, 100), make(chan string, 1), make(chan error, 2)
			hub := wsroom.New(compression,
				wsroom.WithSubprotocols("lws-mirror-protocol", "dumb-increment-protocol"),
				wsroom.WithOrigins("127.0.0.1"), // it leaves the port out
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
					if c.Subprotocol() != "dumb-increment-protocol" {
						return nil
					}
					for i := range 100 {
						if err := c.SendText(strconv.Itoa(i)); err != nil {
							return err
						}
					}
					err := c.SendText(strings.Repeat("123456789 ", 1<<20/10))
					taken <- c.Subprotocol()
					return err
				}),
				wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
					if err == nil {
						drawn <- text
						c.SendText(text)
					}
				}),
				wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err }))
			site, err := url.Parse(serve(t, hub))
			if err != nil {
				t.Fatal(err)
			}
			ctx, kill := context.WithTimeout(t.Context(), patience)
			defer kill()
			client := exec.CommandContext(ctx, path, site.Hostname(), "--port="+site.Port())
			out := new(strings.Builder)
			client.Stdout, client.Stderr = out, out
			if err := client.Start(); err != nil {
				t.Fatal(err)
			}
			await(t, taken, "its second connection")
			for range 2 {
				if circle := await(t, drawn, "a circle"); !strings.HasPrefix(circle, "c #") {
					t.Errorf("it drew %q", circle)
				}
			}
			for begin := time.Now(); hub.Stats().Sent < 103 && time.Since(begin) < patience; {
				runtime.Gosched()
			}
			if s := hub.Stats(); s.Sent < 103 || s.Closed > 0 {
				t.Errorf("of 103 messages %d are sent, and %d connections have ended", s.Sent, s.Closed)
			}
			kill()
			_ = client.Wait()
			for range 2 {
				if err := await(t, ends, "OnClose"); websocket.CloseStatus(err) != -1 {
					t.Errorf("the cause is %v, want none of the peer's", err)
				}
			}
			if compressed := strings.Contains(out.String(), "instantiating client ext permessage-deflate"); compressed != (compression != nil) {
				t.Errorf("it has negotiated compression: %v\n%s", compressed, out)
			}
		})
	}
}
