package admission_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// A connection keeps pieces of its request's header, not all of it: one with a long header costs what one
// with a short header does, whatever the options.
func TestLongHeaderCostsAnIdleConnectionNothing(t *testing.T) {
	type key struct{}
	piece := func(r *http.Request) string { return r.URL.Path[1:] } // of the request line
	lastOffer := func(r *http.Request) string {
		list := r.Header.Get("Sec-WebSocket-Protocol")
		return list[strings.LastIndex(list, ",")+1:]
	}
	withContext := wsroom.WithAuthorize(func(r *http.Request, _ string) error {
		*r = *r.WithContext(context.WithValue(r.Context(), key{}, "value"))
		return nil
	})
	waiting := wsroom.WithAuthorize(func(r *http.Request, _ string) error {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		*r = *r.WithContext(context.WithValue(ctx, key{}, "value"))
		return r.Context().Err()
	})
	mux := func(pattern string) func(http.Handler) http.Handler {
		return func(h http.Handler) http.Handler { return kit.MuxOf(pattern, h) }
	}
	router := func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Route("/{a}", func(r chi.Router) { r.Handle("/{room}", h) })
		return r
	}
	before := func(h http.Handler) http.Handler {
		r := chi.NewRouter()
		r.Use(func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "value")))
			})
		})
		r.With(h.(*wsroom.Hub).Middleware).Get("/{a}/*", http.NotFound)
		return r
	}
	forwarded := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.RemoteAddr = strings.TrimSpace(lastOffer(r))
			h.ServeHTTP(w, r)
		})
	}
	byPiece := wsroom.WithRoom(func(r *http.Request) (string, error) { return piece(r), nil })
	perPiece := wsroom.WithMaxConnsPer(piece, 1000)
	named := wsroom.WithIdentity(lastOffer)
	joins := wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return c.Join(piece(r)) })
	ofProtocol := wsroom.WithSubprotocols("chat")
	all := func(opts ...wsroom.Option) []wsroom.Option {
		return append(opts, withContext, perPiece, named, joins, ofProtocol, wsroom.WithCompression(0), wsroom.WithBroker(kit.NewWire()),
			wsroom.WithObserver(&trap{}), wsroom.WithTrustedProxies("127.0.0.1"), wsroom.WithHosts("127.0.0.1"),
			wsroom.WithOrigins("app.example"), wsroom.WithRejectMode(wsroom.CloseFrame))
	}
	for _, test := range []struct {
		what  string
		mount func(http.Handler) http.Handler
		opts  []wsroom.Option
	}{
		{"ServeMux", mux("/"), nil},
		{"chi", router, nil},
		{"chi, before its endpoint", before, nil},
		{"a RoomFunc's piece of the path", mux("/"), []wsroom.Option{byPiece}},
		{"ByPathValue, ServeMux", mux("/{a}/{room}"), []wsroom.Option{wsroom.WithRoom(wsroom.ByPathValue("room"))}},
		{"ByPathValue, ServeMux's wildcard", mux("/{room...}"), []wsroom.Option{wsroom.WithRoom(wsroom.ByPathValue("room"))}},
		{"ByPathValue, chi", router, []wsroom.Option{wsroom.WithRoom(wsroom.ByPathValue("room"))}},
		{"ByPathValue, chi's wildcard", before, []wsroom.Option{wsroom.WithRoom(wsroom.ByPathValue("*"))}},
		{"ByPattern, ServeMux", mux("/{a}/{room}"), []wsroom.Option{wsroom.WithRoom(wsroom.ByPattern)}},
		{"ByPattern, chi", router, []wsroom.Option{wsroom.WithRoom(wsroom.ByPattern)}},
		{"WithSubprotocols", mux("/"), []wsroom.Option{ofProtocol}},
		{"WithMaxConnsPer", mux("/"), []wsroom.Option{perPiece}},
		{"ByAddr", mux("/"), []wsroom.Option{wsroom.WithMaxConnsPer(wsroom.ByAddr, 1000)}},
		{"RemoteAddr of a header", forwarded, []wsroom.Option{wsroom.WithMaxConnsPer(wsroom.ByAddr, 1000)}},
		{"WithTrustedProxies", mux("/"), []wsroom.Option{wsroom.WithTrustedProxies("127.0.0.1")}},
		{"WithIdentity", mux("/"), []wsroom.Option{named}},
		{"a context", mux("/"), []wsroom.Option{withContext}},
		{"a context that was waited for", mux("/"), []wsroom.Option{waiting}},
		{"Join", mux("/"), []wsroom.Option{joins}},
		{"WithCompression", mux("/"), []wsroom.Option{wsroom.WithCompression(0)}},
		{"Serve", mux("/"), []wsroom.Option{wsroom.Serve(func(c *wsroom.Conn) error { _, err := c.ReadText(context.Background()); return err })}},
		{"everything", mux("/"), all(byPiece)},
		{"everything, chi", router, all(wsroom.WithRoom(wsroom.ByPathValue("room")))},
	} {
		t.Run(test.what, func(t *testing.T) {
			held := func(long int) (bytes int64) {
				hub := wsroom.New(test.opts...)
				srv := kit.Serve(t, test.mount(hub), hub)
				return heldByIdle(t, hub, func(i int) {
					p := kit.Request(t, srv, kit.UpgradeRequest(fmt.Sprintf("/a/b%03d?%s", i, strings.Repeat("q", long)), "Connection: Upgrade",
						"Cookie: "+strings.Repeat("c", long), "X-Forwarded-For: "+strings.Repeat("1.2.3.4, ", long/9)+"192.0.2.1",
						"Sec-WebSocket-Protocol: "+strings.Repeat("x, ", long/3)+"chat", strings.TrimSpace(kit.OfferDeflate)))
					if p.Res.StatusCode != http.StatusSwitchingProtocols {
						t.Fatalf("got %d %s", p.Res.StatusCode, p.Body)
					}
					p.R, p.Res = nil, nil
				})
			}
			var short, long int64
			for range 5 { // what earlier tests left may be freed meanwhile
				short, long = held(0), held(100<<10)
				if short > 0 && long > 0 && long-short <= 1<<10 {
					return
				}
			}
			t.Errorf("a connection with a long header holds %d bytes, one with a short one %d", long, short)
		})
	}
}

// heldByIdle returns the bytes of heap that a connection holds, of those that connect makes one by one.
func heldByIdle(t *testing.T, hub *wsroom.Hub, connect func(i int)) int64 {
	const conns = 32
	heap := func() int64 {
		for range 3 { // pools keep what they have for two
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	connect(999) // what comes once
	before := heap()
	for i := range conns {
		connect(i)
		runtime.GC() // so that no pool hands on what belonged to the one before
	}
	kit.Until(t, "all are in", func() bool { return hub.Len() == conns+1 })
	return (heap() - before) / conns
}
