package admission_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// What a call returns is the caller's: to change it changes nothing for others.
func TestErrorsAreTheCallers(t *testing.T) {
	spoil := func(t *testing.T, err error) {
		t.Helper()
		refused, ok := err.(*wsroom.StatusError)
		if !ok || refused.Message == "spoilt" {
			t.Fatalf("got %#v", err)
		}
		refused.Status, refused.Message, refused.RetryAfter = 418, "spoilt", 0
	}
	full := make(chan *wsroom.Conn, 9)
	hub := wsroom.New(wsroom.WithMaxRooms(2), wsroom.WithMaxMembers(1),
		wsroom.WithRoom(func(r *http.Request) (string, error) {
			if r.URL.Path == "/bad" {
				return "\x00", nil
			}
			return wsroom.ByPath(r)
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { full <- c; return nil }))
	srv := kit.Serve(t, hub)
	kit.Dial(t, srv, "/a")
	kit.Dial(t, srv, "/b")
	c := kit.Await(t, full, "OnConnect")
	for range 3 {
		for _, room := range []string{"/a", "/b"} {
			if err := c.Join(room); err != nil {
				spoil(t, err)
			}
		}
		for _, room := range []string{"/c", "", "\x00"} {
			spoil(t, c.Join(room))
		}
		wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/a")), http.StatusServiceUnavailable, "room is full")
		wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/c")), http.StatusServiceUnavailable, "too many rooms")
		wantRefusal(t, kit.Request(t, srv, kit.UpgradeRequest("/bad")), http.StatusBadRequest, "bad room name")
	}
}

// Tracers are told why a request was refused; what errors.As gives them is their own.
func TestRefusalThatATracerSpoils(t *testing.T) {
	hub := wsroom.New(wsroom.WithMaxConns(1), wsroom.WithObserver(&spoiler{}))
	srv := kit.Serve(t, hub)
	c := kit.Dial(t, srv, "/a")
	for range 3 {
		p := kit.Request(t, srv, kit.UpgradeRequest("/a"))
		wantRefusal(t, p, http.StatusServiceUnavailable, "too many connections")
	}
	c.CloseNow()
}

// The sums are the caller's, before anything has been counted too.
func TestCausesAreTheCallers(t *testing.T) {
	hub := wsroom.New()
	for range 2 {
		got := hub.Causes()
		if len(got.Ended) != 0 || len(got.Refused) != 0 {
			t.Fatalf("got %v", got)
		}
		got.Ended["x"]++
		got.Refused["x"]++
	}
}

// spoiler is a Tracer that changes what it is told.
type spoiler struct{ trap }

func (*spoiler) Start(ctx context.Context, _, _ string) (context.Context, func(error)) {
	return ctx, func(err error) {
		if refused := (*wsroom.StatusError)(nil); errors.As(err, &refused) {
			*refused = wsroom.StatusError{Status: 418, Message: "spoilt"}
		}
	}
}

// breaking is a ResponseWriter that panics when it is to answer.
type breaking struct{ http.ResponseWriter }

func (breaking) WriteHeader(int) { panic(http.ErrAbortHandler) }

func (w breaking) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// A request that is refused counts as refused once, even if the answer panics.
func TestRefusalWhoseAnswerPanicsCountsOnce(t *testing.T) {
	for cause, headers := range map[string][]string{"authorize": nil, "handshake": {"Sec-WebSocket-Version: 12"}, "origin": {"Origin: null"}} {
		hub := wsroom.New(kit.Deny(401))
		srv := kit.Serve(t, wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return breaking{w} }), hub)
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(kit.Patience))
		if _, err := io.WriteString(conn, kit.UpgradeRequest("/", headers...)); err != nil {
			t.Fatal(err)
		}
		if p, _ := io.ReadAll(conn); len(p) > 0 {
			t.Errorf("%s: answered %q", cause, p)
		}
		conn.Close()
		want := map[string]int{cause: 1}
		if cause == "handshake" { // it panicked before it was one
			want = map[string]int{"panic": 1}
		}
		if got := hub.Causes().Refused; !maps.Equal(got, want) {
			t.Errorf("%s: refused %v", cause, got)
		}
	}
}
