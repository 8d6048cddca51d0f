package admission_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// Whichever limit a request is over refuses it, before any callback that comes after, and what it had
// reserved under the others is free again.
func TestLimitsWorkTogether(t *testing.T) {
	var calls []string
	called := func(what string) { calls = append(calls, what) }
	hub := wsroom.New(kit.TellRoom(),
		wsroom.WithTrustedProxies("127.0.0.1"),
		wsroom.WithMaxConns(5), wsroom.WithMaxConnsPer(wsroom.ByAddr, 3), wsroom.WithMaxRooms(3), wsroom.WithMaxMembers(2),
		wsroom.WithRoom(func(r *http.Request) (string, error) { called("room"); return wsroom.ByPath(r) }),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			called("authorize")
			if room == "/closed" {
				return errors.New("no")
			}
			return nil
		}))
	srv := kit.Serve(t, hub)
	early, all := []string(nil), []string{"room", "authorize"}
	peers := map[string]*kit.Peer{}
	for _, step := range []struct {
		client, room string
		status       int
		calls        []string
		leaves       string // who goes before
	}{
		{client: "2001:db8::1", room: "/a", status: 101, calls: all},
		{client: "2001:db8::2", room: "/closed", status: 403, calls: all},
		{client: "2001:db8::3", room: "/a", status: 101, calls: all},
		{client: "2001:db8::4", room: "/a", status: 503, calls: all}, // members
		{client: "2001:db8::5", room: "/b", status: 101, calls: all},
		{client: "2001:db8::6", room: "/b", status: 429, calls: early}, // the /64
		{client: "2001:db8::7, 2001:db8::6", room: "/b", status: 429, calls: early},
		{client: "2001:db8:0:1::1", room: "/b", status: 101, calls: all}, // another
		{client: "203.0.113.1", room: "/closed", status: 403, calls: all},
		{client: "203.0.113.2", room: "/c", status: 101, calls: all},
		{client: "203.0.113.3", room: "/d", status: 503, calls: early},                        // connections
		{client: "2001:db8::8", room: "/d", status: 503, calls: early},                        // both
		{client: "2001:db8::9", room: "/d", status: 503, calls: all, leaves: "2001:db8::1"},   // rooms
		{client: "2001:db8::a", room: "/a", status: 101, calls: all},                          // in its place
		{client: "203.0.113.4", room: "/c", status: 503, calls: early, leaves: "nobody"},      // connections
		{client: "203.0.113.5", room: "/d", status: 101, calls: all, leaves: "203.0.113.2"},   // /c is gone
		{client: "203.0.113.2", room: "/d", status: 101, calls: all, leaves: "2001:db8::3"},   // anyone may
		{client: "203.0.113.2", room: "/x/../d", status: 503, calls: early, leaves: "nobody"}, // connections
	} {
		if p := peers[step.leaves]; p != nil {
			n := hub.Stats().Closed
			p.Close()
			kit.Until(t, step.leaves+" is gone", func() bool { return hub.Stats().Closed == n+1 })
		}
		calls = nil
		p := kit.Request(t, srv, kit.UpgradeRequest(step.room, "X-Forwarded-For: "+step.client))
		what := step.client + " in " + step.room
		if p.Res.StatusCode == 101 {
			p.ReadText() // the calls are over
			peers[step.client] = p
		} else {
			wantRefusal(t, p, step.status)
		}
		if p.Res.StatusCode != step.status || !slices.Equal(calls, step.calls) {
			t.Errorf("%s: got %d after %q, want %d after %q", what, p.Res.StatusCode, calls, step.status, step.calls)
		}
	}
	for _, p := range peers {
		p.Close()
	}
	kit.NothingLeft(t, hub)
}

// Past the handshake's time a request gets 503, whatever the application says then, and leaves
// nothing behind.
func TestHandshakeTimeoutRefuses(t *testing.T) {
	heed := func(r *http.Request) error {
		<-r.Context().Done()
		return r.Context().Err()
	}
	dawdle := func(*http.Request) error {
		time.Sleep(time.Minute)
		return nil
	}
	deny := func(r *http.Request) error {
		_ = heed(r)
		return &wsroom.StatusError{Status: 401}
	}
	for _, test := range []struct {
		what  string
		do    func(r *http.Request) error
		limit time.Duration // 0: the default
		after time.Duration
	}{
		{"heeds the context", heed, 0, 10 * time.Second},
		{"heeds the context", heed, time.Second, time.Second},
		{"dawdles", dawdle, 0, time.Minute},
		{"refuses too late", deny, 0, 10 * time.Second},
	} {
		for where := range 3 {
			maybe := func(here int, r *http.Request) error {
				if deadline, ok := r.Context().Deadline(); !ok || time.Until(deadline) > max(test.limit, 10*time.Second) {
					t.Errorf("the deadline is %v, %v", deadline, ok)
				}
				if here == where && r.URL.Path == "/slow" {
					return test.do(r)
				}
				return nil
			}
			opts := []wsroom.Option{
				wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1),
				wsroom.WithMaxConnsPer(func(r *http.Request) string { maybe(0, r); return "" }, 1),
				wsroom.WithRoom(func(r *http.Request) (string, error) { return "a", maybe(1, r) }),
				wsroom.WithAuthorize(func(r *http.Request, _ string) error { return maybe(2, r) }),
				wsroom.OnConnect(func(_ *wsroom.Conn, r *http.Request) error {
					if r.URL.Path == "/slow" {
						t.Error("OnConnect")
					}
					return nil
				}),
			}
			seen := &kit.Observer{Sums: map[string]float64{}}
			opts = append(opts, wsroom.WithObserver(seen))
			if test.limit > 0 {
				opts = append(opts, wsroom.WithHandshakeTimeout(test.limit))
			}
			kit.InBubble(t, func() *wsroom.Hub { return wsroom.New(opts...) }, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				begin := time.Now()
				conn, _ := s.Ln.Dial(t.Context(), "", "")
				defer conn.Close()
				fmt.Fprintf(conn, kit.Handshake, "/slow", "")
				p := kit.ReadAnswer(t, conn)
				wantRefusal(t, p, http.StatusServiceUnavailable, "handshake took too long")
				wantRetryAfter(t, p)
				kit.WantBetween(t, test.what, time.Since(begin), test.after, test.after)
				if n := seen.Sum("refused timeout"); n != 1 {
					t.Errorf("%v refused for the time", n)
				}
				s.DialRaw("/fast").Close() // the one place is free
			})
		}
	}
}

// A client that doesn't take the answer that upgrades it is cut off in time.
func TestHandshakeTimeoutBoundsTheAnswer(t *testing.T) {
	newHub := func() *wsroom.Hub {
		return wsroom.New(wsroom.WithMaxConns(1),
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { t.Error("OnConnect"); return nil }))
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		for range 2 {
			begin := time.Now()
			conn, _ := s.Ln.Dial(t.Context(), "", "")
			fmt.Fprintf(conn, kit.Handshake, "/a", "")
			synctest.Wait()
			if hub.Len() != 1 {
				t.Errorf("%d connections before the answer is out", hub.Len())
			}
			io.Copy(conn, endless{}) // until it is closed
			kit.WantBetween(t, "cut off", time.Since(begin), 10*time.Second, 10*time.Second)
			synctest.Wait()
			if n := hub.Stats(); n != (wsroom.Stats{}) {
				t.Errorf("something is left: %+v", n)
			}
		}
	})
}

type ctxKey string

// The handshake's time is over with the handshake: what OnConnect and Conn.Context get are the request's
// own values, deadline and cancellation, and what WithAuthorize added.
func TestHandshakeTimeoutEndsWithTheHandshake(t *testing.T) {
	for _, adds := range []bool{false, true} {
		for _, outer := range []time.Duration{0, time.Hour} {
			var ends chan kit.End
			var contexts chan context.Context
			var deadline time.Time
			opts := []wsroom.Option{
				wsroom.WithHeartbeat(0, 0),
				wsroom.WithAuthorize(func(r *http.Request, _ string) error {
					if adds {
						*r = *r.WithContext(context.WithValue(r.Context(), ctxKey("user"), "ann"))
					}
					return nil
				}),
				wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
					time.Sleep(time.Minute)
					if d, ok := r.Context().Deadline(); r.Context().Err() != nil || ok != (outer > 0) || !d.Equal(deadline) {
						t.Errorf("OnConnect's context: %v, deadline %v", r.Context().Err(), d)
					}
					for _, ctx := range []context.Context{r.Context(), c.Context()} {
						if ctx.Value(ctxKey("outer")) != "yes" || ctx.Value(ctxKey("user")) != map[bool]any{true: "ann"}[adds] {
							t.Errorf("values %v and %v", ctx.Value(ctxKey("outer")), ctx.Value(ctxKey("user")))
						}
					}
					contexts <- c.Context()
					return nil
				}),
			}
			synctest.Test(t, func(t *testing.T) {
				hub := kit.HubWithEnds(&ends, opts...)()
				s := &kit.PipeServer{T: t, Ln: kit.NewPipeListener()}
				contexts = make(chan context.Context, 1)
				srv := &http.Server{
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						ctx, cancel := r.Context(), context.CancelFunc(func() {})
						if outer > 0 {
							ctx, cancel = context.WithTimeout(ctx, outer)
							deadline, _ = ctx.Deadline()
						}
						defer cancel()
						hub.ServeHTTP(w, r.WithContext(ctx))
					}),
					BaseContext: func(net.Listener) context.Context {
						return context.WithValue(context.Background(), ctxKey("outer"), "yes")
					},
				}
				go srv.Serve(s.Ln)
				defer srv.Close()
				defer kit.Shutdown(t, hub)
				c := s.DialRaw("/a")
				ctx := <-contexts
				time.Sleep(2 * time.Hour)
				if _, ok := ctx.Deadline(); ok || ctx.Err() != nil {
					t.Errorf("the connection's context has a deadline, or %v", ctx.Err())
				}
				c.Close()
				<-ends
			})
		}
	}
}

func TestWithAuthorizeDecides(t *testing.T) {
	for _, test := range []struct {
		what       string
		err        error
		status     int
		body       string
		retryAfter string
	}{
		{"allow", nil, 101, "", ""},
		{"any error", errors.New("hunter2"), 403, "Forbidden", ""},
		{"StatusError", &wsroom.StatusError{Status: 401, Message: "log in"}, 401, "log in", ""},
		{"wrapped StatusError", fmt.Errorf("hunter2: %w", &wsroom.StatusError{Status: 402, Message: "pay"}), 402, "pay", ""},
		{"without a message", &wsroom.StatusError{Status: 404}, 404, "Not Found", ""},
		{"to come again", &wsroom.StatusError{Status: 429, RetryAfter: time.Minute}, 429, "Too Many Requests", "60"},
		{"to upgrade", &wsroom.StatusError{Status: 426}, 426, "Upgrade Required", ""},
		{"no error status", &wsroom.StatusError{Status: 101}, 500, "Internal Server Error", ""},
	} {
		t.Run(test.what, func(t *testing.T) {
			var asked []string
			hub := wsroom.New(
				wsroom.WithRoom(wsroom.ByPathValue("room")),
				wsroom.WithSubprotocols("x"),
				wsroom.WithCompression(0),
				wsroom.WithAuthorize(func(r *http.Request, room string) error {
					asked = append(asked, r.URL.String()+" "+room)
					return test.err
				}))
			srv := kit.Serve(t, kit.MuxOf("/chat/{room}", hub), hub)
			p := kit.Request(t, srv, kit.UpgradeRequest("/chat/%61?token=1", "Sec-WebSocket-Protocol: x", "Sec-WebSocket-Extensions: permessage-deflate"))
			if !slices.Equal(asked, []string{"/chat/%61?token=1 a"}) {
				t.Errorf("asked for %q", asked)
			}
			if test.err == nil {
				if p.Res.StatusCode != 101 {
					t.Errorf("got %d %s", p.Res.StatusCode, p.Body)
				}
				return
			}
			wantRefusal(t, p, test.status)
			if got := strings.TrimSpace(p.Body); got != test.body {
				t.Errorf("got %q, want %q", got, test.body)
			}
			if got := p.Res.Header.Get("Retry-After"); got != test.retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, test.retryAfter)
			}
			kit.NothingLeft(t, hub)
		})
	}
}

func TestAfterShutdownRequestsGet503(t *testing.T) {
	hub := wsroom.New(kit.TellRoom())
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") }
	srv := kit.Serve(t, hub.Middleware(http.HandlerFunc(page)), hub)
	p := kit.Request(t, srv, kit.UpgradeRequest("/a"))
	p.ReadText()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.CloseCode()
		p.Close()
	}()
	kit.Shutdown(t, hub)
	kit.Await(t, done, "the close frame")
	for range 3 {
		p := kit.Request(t, srv, kit.UpgradeRequest("/a"))
		wantRefusal(t, p, http.StatusServiceUnavailable, "shutting down")
		wantRetryAfter(t, p)
	}
	wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/a", "Sec-WebSocket-Version: 12")), http.StatusBadRequest)
	if status, body := get(t, srv, "/a"); status != http.StatusOK || body != "page" {
		t.Errorf("a request that is no upgrade got %d %q", status, body)
	}
	kit.NothingLeft(t, hub)
}

// TestPanicBeforeTheUpgradeFreesWhatWasReserved leaves the panic to net/http, and the one place that
// the limits allow to the next request.
func TestPanicBeforeTheUpgradeFreesWhatWasReserved(t *testing.T) {
	trap := func(where string, r *http.Request) {
		switch r.URL.Query().Get("do") {
		case where + " panic":
			panic("boom in " + where)
		case where + " exit":
			runtime.Goexit()
		}
	}
	hub := wsroom.New(kit.TellRoom(), wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1), wsroom.WithMaxMembers(1),
		wsroom.WithMaxConnsPer(func(r *http.Request) string { trap("key", r); return "k" }, 1),
		wsroom.WithRoom(func(r *http.Request) (string, error) { trap("room", r); return "r", nil }),
		wsroom.WithAuthorize(func(r *http.Request, _ string) error { trap("authorize", r); return nil }))
	logged := &kit.LockedBuffer{}
	srv := kit.ServeConfigured(t, hub, func(srv *httptest.Server) {
		srv.Config.ErrorLog = log.New(logged, "", 0)
		srv.Start()
	}, hub)
	for _, where := range []string{"key", "room", "authorize"} {
		for _, what := range []string{"panic", "exit"} {
			conn := kit.Connect(t, srv)
			io.WriteString(conn, kit.UpgradeRequest("/?do="+where+"%20"+what))
			if rest, err := io.ReadAll(conn); len(rest) > 0 || err != nil {
				t.Errorf("%s in %s: the client got %q, %v", what, where, rest, err)
			}
		}
		if !strings.Contains(logged.String(), "boom in "+where) {
			t.Errorf("net/http didn't see the panic in %s", where)
		}
	}
	kit.NothingLeft(t, hub)
	if p := kit.Request(t, srv, kit.UpgradeRequest("/")); p.Res.StatusCode != 101 {
		t.Errorf("the next request got %d %s", p.Res.StatusCode, p.Body)
	}
}
