// Chi has rooms for teams behind a session: middleware tells who asks, WithAuthorize whether they
// may enter the room. Both answer before the upgrade, so a stranger never holds a connection.
//
//	go run ./examples/chi
//	curl -i -d user=ada http://localhost:8080/login
//	npx wscat -H 'Cookie: session=…' -c ws://localhost:8080/teams/blue
//
// ada is in the teams blue and red, bob in blue. Write {"text":"hello"}.
package main

import (
	"context"
	"crypto/rand"
	"net/http"
	"slices"
	"sync"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

var teams = map[string][]string{"ada": {"blue", "red"}, "bob": {"blue"}}

type message struct {
	From string `json:"from"`
	Text string `json:"text"`
}

func newHub() *wsroom.Hub {
	return wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("team")),
		wsroom.WithAuthorize(func(r *http.Request, team string) error {
			if !slices.Contains(teams[user(r.Context())], team) {
				return &wsroom.StatusError{Status: http.StatusForbidden, Message: "not your team"}
			}
			return nil
		}),
		wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err != nil {
				return
			}
			m.From = user(c.Context()) // never what the client says
			c.SendJSONToThisRoom(m)
		}),
	)
}

type userKey struct{}

// user is who asks. A connection's context has the values of its request's.
func user(ctx context.Context) string {
	name, _ := ctx.Value(userKey{}).(string)
	return name
}

type sessions struct{ users sync.Map } // from token to name

func (s *sessions) login(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("user") // a real one asks for more than the name
	if _, ok := teams[name]; !ok {
		http.Error(w, "unknown user", http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	s.users.Store(token, name)
	http.SetCookie(w, &http.Cookie{
		Name: "session", Value: token, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode,
	})
	w.WriteHeader(http.StatusNoContent)
}

func (s *sessions) required(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if cookie, err := r.Cookie("session"); err == nil {
			if name, ok := s.users.Load(cookie.Value); ok {
				next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, name)))
				return
			}
		}
		http.Error(w, "log in first", http.StatusUnauthorized)
	})
}

func handler(hub *wsroom.Hub) http.Handler {
	s := &sessions{}
	r := chi.NewRouter()
	r.Use(middleware.Recoverer, http.NewCrossOriginProtection().Handler)
	r.Post("/login", s.login)
	r.With(s.required).Get("/teams/{team}", hub.ServeHTTP)
	return r
}

func main() {
	hub := newHub()
	web.Run(hub, handler(hub))
}
