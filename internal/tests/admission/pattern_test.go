package admission_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

func TestByPatternIsTheRoutesPattern(t *testing.T) {
	for _, test := range []struct {
		mounting
		target, room string
	}{
		{mounting{"ServeMux subtree", func(h http.Handler) http.Handler { return kit.MuxOf("GET /chat/", h) }}, "/chat/a/b", "/chat/"},
		{mounting{"ServeMux end", func(h http.Handler) http.Handler { return kit.MuxOf("/chat/{$}", h) }}, "/chat/", "/chat/{$}"},
		{mounting{"ServeMux rest", func(h http.Handler) http.Handler { return kit.MuxOf("127.0.0.1/files/{path...}", h) }}, "/files/a", "/files/{path...}"},
		{mounting{"ServeMux behind StripPrefix", func(h http.Handler) http.Handler {
			return http.StripPrefix("/api", kit.MuxOf("/chat/{room}", h))
		}}, "/api/chat/a", "/chat/{room}"},
		{mounting{"ServeMux in ServeMux", func(h http.Handler) http.Handler {
			return kit.MuxOf("/api/", http.StripPrefix("/api", kit.MuxOf("GET /chat/{room}", h)))
		}}, "/api/chat/a", "/chat/{room}"},
		{mounting{"StripPrefix behind ServeMux", func(h http.Handler) http.Handler {
			return kit.MuxOf("/api/{room}", http.StripPrefix("/api", h))
		}}, "/api/a", "/api/{room}"},
		{mounting{"chi Route in Route", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Route("/{org}", func(r chi.Router) {
					r.Use(passOn)
					r.Route("/chat", func(r chi.Router) { r.With(passOn).Get("/{room}", h.ServeHTTP) })
				})
			})
		}}, "/acme/chat/a", "/{org}/chat/{room}"},
		{mounting{"chi wildcard", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Handle("/files/*", h) })
		}}, "/files/a/b", "/files/*"},
		{mounting{"chi wildcard, empty", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Handle("/files/*", h) })
		}}, "/files/", "/files/*"},
		{mounting{"chi wildcard in Route", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Route("/api", func(r chi.Router) { r.Handle("/files/*", h) }) })
		}}, "/api/files/a", "/api/files/*"},
		{mounting{"chi wildcard in Route, empty", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Route("/api", func(r chi.Router) { r.Handle("/files/*", h) }) })
		}}, "/api/files/", "/api/files/*"},
		{mounting{"chi Mount of the hub", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Mount("/chat", h) })
		}}, "/chat/a", "/chat/*"},
		{mounting{"chi Mount in Mount", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Mount("/api", chiOf(func(r chi.Router) { r.Mount("/chat", h) })) })
		}}, "/api/chat/a", "/api/chat/*"},
		{mounting{"chi Mount and StripPrefix", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Mount("/chat", http.StripPrefix("/chat", h)) })
		}}, "/chat/a", "/chat/*"},
		{mounting{"chi wildcard and StripPrefix, empty", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Handle("/chat/*", http.StripPrefix("/chat", h)) })
		}}, "/chat/", "/chat/*"},
		{mounting{"chi behind StripPrefix", func(h http.Handler) http.Handler {
			return http.StripPrefix("/api", chiOf(func(r chi.Router) { r.Handle("/chat/{room}", h) }))
		}}, "/api/chat/a", "/chat/{room}"},
		{mounting{"chi in ServeMux", func(h http.Handler) http.Handler {
			return kit.MuxOf("/", chiOf(func(r chi.Router) { r.Get("/chat/{room}", h.ServeHTTP) }))
		}}, "/chat/a", "/chat/{room}"},
		{mounting{"ServeMux in chi", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Mount("/api", http.StripPrefix("/api", kit.MuxOf("GET /chat/{room}", h))) })
		}}, "/api/chat/a", "/chat/{room}"},
		{mounting{"chi regexp", func(h http.Handler) http.Handler {
			return chiOf(func(r chi.Router) { r.Handle("/chat/{room:[a-z]+}", h) })
		}}, "/chat/a", "/chat/{room:[a-z]+}"},
	} {
		t.Run(test.name, func(t *testing.T) {
			hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(wsroom.ByPattern))
			srv := kit.Serve(t, test.mount(hub), hub)
			if got := answer(t, srv, test.target); got != test.room {
				t.Errorf("got %q, want %q", got, test.room)
			}
		})
	}
}

// TestHubBeforeTheRouterKnowsNoPattern has hubs as middleware: a room by path is fine there, while
// one by a pattern or value that the router hasn't found yet must not become one big room.
func TestHubBeforeTheRouterKnowsNoPattern(t *testing.T) {
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") }
	mountings := []struct {
		name  string
		mount func(hub *wsroom.Hub) http.Handler
	}{
		{"around ServeMux", func(hub *wsroom.Hub) http.Handler {
			return hub.Middleware(kit.MuxOf("/v1/chat/{room}", http.HandlerFunc(page)))
		}},
		{"around chi", func(hub *wsroom.Hub) http.Handler {
			return hub.Middleware(chiOf(func(r chi.Router) { r.Get("/v1/chat/{room}", page) }))
		}},
		{"chi Use", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Use(hub.Middleware)
				r.Get("/v1/chat/{room}", page)
			})
		}},
		{"chi Use in a Route", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Route("/v1", func(r chi.Router) {
					r.Use(hub.Middleware)
					r.Get("/chat/{room}", page)
				})
			})
		}},
		{"chi Use in a Route in a Route", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Route("/v1", func(r chi.Router) {
					r.Route("/chat", func(r chi.Router) {
						r.Use(hub.Middleware)
						r.Get("/{room}", page)
					})
				})
			})
		}},
		{"chi Use in a Route before a wildcard", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Route("/v1", func(r chi.Router) {
					r.Use(hub.Middleware)
					r.Get("/*", page)
				})
			})
		}},
		{"chi Use in a Mount", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Mount("/v1", chiOf(func(r chi.Router) {
					r.Use(hub.Middleware)
					r.Get("/chat/{room}", page)
				}))
			})
		}},
		{"chi Use in a Group before a Route", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.Group(func(r chi.Router) {
					r.Use(hub.Middleware)
					r.Route("/v1", func(r chi.Router) { r.Get("/chat/{room}", page) })
				})
			})
		}},
		{"chi With before a Mount", func(hub *wsroom.Hub) http.Handler {
			return chiOf(func(r chi.Router) {
				r.With(hub.Middleware).Mount("/v1", chiOf(func(r chi.Router) { r.Get("/chat/{room}", page) }))
			})
		}},
		{"chi Use in ServeMux", func(hub *wsroom.Hub) http.Handler {
			return kit.MuxOf("/", chiOf(func(r chi.Router) {
				r.Use(hub.Middleware)
				r.Get("/v1/chat/{room}", page)
			}))
		}},
	}
	for _, m := range mountings {
		for _, test := range []struct {
			room wsroom.RoomFunc
			want []string // in the answer
		}{
			{wsroom.ByPath, []string{"/v1/chat/a"}},
			{wsroom.ByPattern, []string{"500 ", "ByPattern", "mount the hub behind the router"}},
			{wsroom.ByPathValue("room"), []string{"500 ", `"room"`, "mount the hub behind the router"}},
			{wsroom.ByPathValue("roo"), []string{"500 ", `"roo"`}},
		} {
			t.Run(m.name+" "+test.want[0], func(t *testing.T) {
				hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(test.room))
				srv := kit.Serve(t, m.mount(hub), hub)
				got := answer(t, srv, "/v1/chat/a")
				for _, want := range test.want {
					if !strings.Contains(got, want) {
						t.Errorf("got %q, want it to have %q", got, want)
					}
				}
				if status, body := get(t, srv, "/v1/chat/a"); status != http.StatusOK || body != "page" {
					t.Errorf("a request that is no upgrade got %d %q", status, body)
				}
				kit.NothingLeft(t, hub)
			})
		}
	}
}

func TestHubBehindTheRouterKnowsThePattern(t *testing.T) {
	page := func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "page") }
	hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(byAll))
	mux := http.NewServeMux()
	mux.Handle("GET /a/{room}", hub.Middleware(http.HandlerFunc(page)))
	mux.Handle("/b/", chiOf(func(r chi.Router) {
		r.With(hub.Middleware).Get("/b/{room}", page)
		r.Route("/b/c/{room}", func(r chi.Router) {
			r.Use(hub.Middleware)
			r.Get("/", page)
		})
	}))
	srv := kit.Serve(t, mux, hub)
	for target, want := range map[string]string{
		"/a/%61":   "/a/a | a | /a/{room}",
		"/b/%61":   "/b/a | a | /b/{room}",
		"/b/c/%61": "/b/c/a | a | /b/c/{room}",
	} {
		if got := answer(t, srv, target); got != want {
			t.Errorf("%s: got %q, want %q", target, got, want)
		}
		if status, body := get(t, srv, target); status != http.StatusOK || body != "page" {
			t.Errorf("%s: a request that is no upgrade got %d %q", target, status, body)
		}
	}
}

// foreign is a router that sets neither patterns nor path values.
func foreign(h http.Handler, set func(r *http.Request)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set(r)
		h.ServeHTTP(w, r)
	})
}

// Behind a router that sets no path values the error says how to set one, and that works.
func TestByPathValueUnderAForeignRouter(t *testing.T) {
	hub := wsroom.New(kit.TellRoom(), wsroom.WithRoom(wsroom.ByPathValue("room")))
	p := kit.Request(t, kit.Serve(t, foreign(hub, func(*http.Request) {}), hub), kit.UpgradeRequest("/chat/a"))
	wantRefusal(t, p, http.StatusInternalServerError, `call r.SetPathValue("room", …)`)
	srv := kit.Serve(t, foreign(hub, func(r *http.Request) { r.SetPathValue("room", strings.TrimPrefix(r.URL.Path, "/chat/")) }), hub)
	p = kit.Request(t, srv, kit.UpgradeRequest("/chat/a%2Fb"))
	if got := p.ReadText(); got != "a/b" {
		t.Errorf("room %q", got)
	}
	p.Close()
	// One that sets patterns has a route that lacks the value.
	p = kit.Request(t, kit.Serve(t, kit.MuxOf("/chat/{other}", hub), hub), kit.UpgradeRequest("/chat/a"))
	if wantRefusal(t, p, http.StatusInternalServerError, "on a pattern that has it"); strings.Contains(p.Body, "SetPathValue") {
		t.Errorf("got %q", p.Body)
	}
}
