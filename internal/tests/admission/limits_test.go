package admission_test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestLimitsRefuseAndAreFreed(t *testing.T) {
	byUser := func(r *http.Request) string { return r.URL.Query().Get("u") }
	for _, test := range []struct {
		what      string
		opt       wsroom.Option
		fill      []string
		over, fit string // the latter still has room
		status    int
	}{
		{"WithMaxConns", wsroom.WithMaxConns(2), []string{"/a", "/b"}, "/a", "", 503},
		{"WithMaxRooms", wsroom.WithMaxRooms(2), []string{"/a", "/b"}, "/c", "/a", 503},
		{"WithMaxMembers", wsroom.WithMaxMembers(2), []string{"/a", "/a"}, "/a", "/b", 503},
		{"WithMaxConnsPer", wsroom.WithMaxConnsPer(byUser, 2), []string{"/a?u=1", "/b?u=1"}, "/c?u=1", "/c?u=2", 429},
	} {
		t.Run(test.what, func(t *testing.T) {
			hub := wsroom.New(kit.TellRoom(), test.opt)
			srv := kit.Serve(t, hub)
			var peers []*kit.Peer
			join := func(path string) {
				p := kit.Request(t, srv, kit.UpgradeRequest(path))
				if p.Res.StatusCode != 101 {
					t.Fatalf("%s: got %d %s", path, p.Res.StatusCode, p.Body)
				}
				peers = append(peers, p)
			}
			for _, path := range test.fill {
				join(path)
			}
			for range 3 {
				p := kit.Request(t, srv, kit.UpgradeRequest(test.over, "Sec-WebSocket-Protocol: x"))
				wantRefusal(t, p, test.status)
				wantRetryAfter(t, p)
			}
			if n := hub.Len(); n != len(test.fill) {
				t.Errorf("%d connections after the refusals", n)
			}
			if test.fit != "" {
				join(test.fit)
			}
			for _, p := range peers {
				p.Close()
			}
			kit.Until(t, "what was over the limit fits", func() bool {
				p := kit.Request(t, srv, kit.UpgradeRequest(test.over))
				p.Close()
				return p.Res.StatusCode == 101
			})
			kit.NothingLeft(t, hub)
		})
	}
}

func TestLimitsHoldUnderConcurrency(t *testing.T) {
	const limit, tries = 5, 40
	for _, test := range []struct {
		what string
		opt  wsroom.Option
		path func(i int) string
	}{
		{"WithMaxConns", wsroom.WithMaxConns(limit), func(i int) string { return fmt.Sprint("/", i) }},
		{"WithMaxRooms", wsroom.WithMaxRooms(limit), func(i int) string { return fmt.Sprint("/", i) }},
		{"WithMaxMembers", wsroom.WithMaxMembers(limit), func(int) string { return "/" }},
		{"WithMaxConnsPer", wsroom.WithMaxConnsPer(func(r *http.Request) string { return "" }, limit), func(i int) string { return fmt.Sprint("/", i) }},
	} {
		t.Run(test.what, func(t *testing.T) {
			hub := wsroom.New(test.opt)
			srv := kit.Serve(t, hub)
			ctx, cancel := context.WithTimeout(t.Context(), kit.Patience)
			defer cancel()
			var in atomic.Int32
			var wg sync.WaitGroup
			for i := range tries {
				wg.Go(func() {
					if conn, _, err := websocket.Dial(ctx, srv.URL+test.path(i), nil); err == nil {
						in.Add(1)
						t.Cleanup(func() { conn.CloseNow() })
					}
				})
			}
			wg.Wait()
			if n := int(in.Load()); n != limit || hub.Len() != limit {
				t.Errorf("%d were let in, the hub has %d, the limit is %d", n, hub.Len(), limit)
			}
		})
	}
}
