package admission_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// TestConnectionOutlivesTimeout lets the request's deadline pass, before OnConnect returns and after.
func TestConnectionOutlivesTimeout(t *testing.T) {
	for _, slow := range []bool{false, true} {
		requests, conns := make(chan context.Context, 1), make(chan *wsroom.Conn, 1)
		hub := wsroom.New(kit.Echo(), wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			requests <- r.Context()
			conns <- c
			if slow {
				<-r.Context().Done()
			}
			return nil
		}))
		h := middleware.Timeout(20 * time.Millisecond)(hub)
		srv := kit.ServeConfigured(t, h, (*httptest.Server).Start, hub)
		c := kit.Dial(t, srv, "/")
		request, conn := kit.Await(t, requests, "OnConnect"), kit.Await(t, conns, "OnConnect")
		deadline, ok := request.Deadline()
		if !ok {
			t.Fatal("Timeout isn't in front")
		}
		past, cancel := context.WithDeadline(t.Context(), deadline.Add(time.Millisecond))
		kit.Await(t, past.Done(), "the deadline")
		cancel()
		kit.Await(t, request.Done(), "the end of the request")
		if slow && request.Err() != context.DeadlineExceeded {
			t.Errorf("the request's context ended with %v", request.Err())
		}
		if _, has := conn.Context().Deadline(); has || conn.Context().Err() != nil {
			t.Errorf("the connection's context has a deadline: %t; error: %v", has, conn.Context().Err())
		}
		c.SendText("still here")
		c.ExpectText("still here")
		if err := conn.SendText("and back"); err != nil {
			t.Error(err)
		}
		c.ExpectText("and back")
	}
}

// TestContextKeepsTheRoute hammers the router while connections ask their contexts: chi reuses its
// route contexts for other requests.
func TestContextKeepsTheRoute(t *testing.T) {
	const conns, rounds = 6, 20
	type key struct{}
	hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("room")),
		wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
			if err != nil {
				return
			}
			ctx := c.Context()
			route := chi.RouteContext(ctx)
			c.SendText(fmt.Sprint(chi.URLParamFromCtx(ctx, "room"), " ", chi.URLParamFromCtx(ctx, "user"), " ",
				route.RoutePattern(), " ", ctx.Value(key{}), " ", ctx.Err()))
		}))
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, chi.URLParam(r, "room")) }
	r := chi.NewRouter()
	r.Use(func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, "value of "+r.URL.Path))
			defer cancel()
			next.ServeHTTP(w, r.WithContext(ctx))
		})
	})
	r.Route("/{room}", func(r chi.Router) {
		r.With(hub.Middleware).Get("/{user}", page)
		r.Get("/", page)
	})
	srv := kit.Serve(t, r, hub)

	var clients []*wsroomtest.Client
	for i := range conns {
		clients = append(clients, kit.Dial(t, srv, fmt.Sprintf("/room%d/user%d", i, i)))
	}
	for round := range rounds {
		var others sync.WaitGroup
		for i := range 4 {
			others.Go(func() {
				for n := range 10 {
					w := httptest.NewRecorder()
					room := fmt.Sprint("other", round, "-", i, "-", n)
					r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/"+room+[]string{"", "/someone"}[n%2], nil))
					if w.Body.String() != room {
						t.Errorf("the page of %s got %q", room, w.Body)
					}
				}
			})
		}
		for i, c := range clients {
			c.SendText("?")
			c.ExpectText(fmt.Sprintf("room%d user%d /{room}/{user} value of /room%d/user%d <nil>", i, i, i, i))
		}
		others.Wait()
	}
}
