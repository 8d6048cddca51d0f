package watch_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// traces is a Tracer that keeps the name of each span that has ended, and how.
type traces struct {
	mu    sync.Mutex
	begun int
	ended []string
}

type upgradeKey struct{}

func (o *traces) Start(ctx context.Context, name, route string) (context.Context, func(error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.begun++
	if name == "upgrade" {
		ctx = context.WithValue(ctx, upgradeKey{}, o.begun)
	} else if ctx.Value(upgradeKey{}) == nil {
		name += " without upgrade"
	}
	return ctx, func(err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if err != nil {
			name += ": " + errorName(err)
		}
		o.ended = append(o.ended, name)
	}
}

func errorName(err error) string {
	switch {
	case errors.Is(err, wsroom.ErrPanic):
		return "panic"
	case errors.As(err, new(*wsroom.DecodeError)):
		return "decode"
	case errors.As(err, new(*wsroom.StatusError)):
		return "refused"
	default:
		return "error"
	}
}

// A Tracer gets a span for each upgrade and each callback, with how it ended. What it puts in the upgrade's context is
// in the contexts of all callbacks.
func TestTracerGetsUpgradesAndCallbacks(t *testing.T) {
	fails := errors.New("no")
	all := []wsroom.Option{
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			if r.Context().Value(upgradeKey{}) == nil || c.Context().Value(upgradeKey{}) == nil {
				return fails
			}
			return nil
		}),
		wsroom.OnJoin(func(*wsroom.Conn, string) {}), wsroom.OnLeave(func(*wsroom.Conn, string) {}),
		wsroom.OnClose(func(*wsroom.Conn, error) {}), wsroom.OnBinary(func(*wsroom.Conn, []byte, error) {}),
	}
	text, binary, bye := kit.RawFrame(0x81, "x"), kit.RawFrame(0x82, "x"), kit.RawFrame(0x88, "\x03\xe8")
	for _, test := range []struct {
		what string
		opts []wsroom.Option
		send []byte
		want string
	}{
		{"a life", append(all, wsroom.OnText(kit.DiscardText)), slices.Concat(text, binary, text, bye),
			"upgrade, OnConnect, OnJoin, OnText, OnBinary, OnText, OnLeave, OnText, OnClose"},
		{"no JSON", append(all, wsroom.OnJSON(func(*wsroom.Conn, int, error) {})), text,
			"upgrade, OnConnect, OnJoin, OnJSON: decode, OnLeave, OnJSON, OnClose"},
		{"a panic", append(all, wsroom.OnText(func(*wsroom.Conn, string, error) { panic("boom") })), text,
			"upgrade, OnConnect, OnJoin, OnText: panic, OnLeave, OnClose"},
		{"Serve", append(all, wsroom.Serve(func(c *wsroom.Conn) error { _, err := c.ReadText(c.Context()); return err })), bye,
			"upgrade, OnConnect, OnJoin, Serve, OnLeave, OnClose"},
		{"Serve that fails", []wsroom.Option{wsroom.Serve(func(*wsroom.Conn) error { return fails })}, nil,
			"upgrade, Serve: error"},
		{"OnConnect", []wsroom.Option{wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return fails })}, nil,
			"upgrade, OnConnect: error"},
		{"OnExpire and OnDrop", []wsroom.Option{
			kit.AdmitFor(time.Second), wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { return time.Time{}, nil }),
			wsroom.WithSendQueue(1, 1), wsroom.WithOverflow(wsroom.DropNewest), wsroom.OnDrop(func(*wsroom.Conn, int) {}),
		}, nil, "upgrade, OnDrop, OnExpire"},
		{"presence", []wsroom.Option{
			wsroom.WithIdentity(func(*http.Request) string { return "ann" }), wsroom.OnMemberJoin(func(string, wsroom.Member) {}),
		}, nil, "OnMemberJoin without upgrade, upgrade"},
		{"a bad room", nil, nil, "upgrade: refused"},
		{"an aborted upgrade", []wsroom.Option{
			wsroom.WithAuthorize(func(*http.Request, string) error { panic(http.ErrAbortHandler) })}, nil, "upgrade: error"},
		{"values for WithAuthorize", []wsroom.Option{wsroom.WithAuthorize(func(r *http.Request, _ string) error {
			if r.Context().Value(upgradeKey{}) != nil {
				return wsroom.Until(time.Time{})
			}
			return fails
		})}, bye, "upgrade"},
	} {
		t.Run(test.what, func(t *testing.T) {
			o := &traces{}
			both := struct {
				wsroom.Observer
				wsroom.Tracer
			}{&routes{seen: map[string]bool{}}, o}
			newHub := func() *wsroom.Hub { return wsroom.New(append(test.opts, wsroom.WithObserver(both))...) }
			kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				conn, _ := s.Ln.Dial(t.Context(), "", "")
				target := "/a"
				if test.want == "upgrade: refused" {
					target = "/%01"
				}
				fmt.Fprintf(conn, kit.Handshake, target, "")
				conn.Read(make([]byte, 1<<10)) // the answer, if there is one
				if strings.Contains(test.want, "OnDrop") {
					fill(hub, 3)
				}
				conn.Write(test.send)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				conn.Close()
			})
			if test.what == "presence" { // it is reported beside the upgrade
				slices.Sort(o.ended)
			}
			if got := strings.Join(o.ended, ", "); got != test.want || o.begun != len(o.ended) {
				t.Errorf("got  %s\nwant %s; %d begun", got, test.want, o.begun)
			}
		})
	}
}
