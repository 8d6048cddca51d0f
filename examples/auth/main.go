// Auth admits a user's pages by the login's cookie, and what has no cookie, a program or a page of another
// origin, by a ticket that works once. Logging out, or the session's end, ends the connections of both.
//
//	go run ./examples/auth [further origins]   # then open http://localhost:8080
package main

import (
	"context"
	"crypto/rand"
	"embed"
	"flag"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

//go:embed index.html auth.css auth.js
var files embed.FS
var passwords = map[string]string{"ada": "engine", "grace": "compiler"} // yours are hashed, and tries limited
var loggedOut = websocket.CloseError{Code: 4401, Reason: "You have logged out."}

type session struct {
	user, room string       // the room is that of its connections
	ends       atomic.Int64 // in milliseconds since 1970
	forget     *time.Timer
}

func (a *server) of(c *wsroom.Conn) *session { return c.Context().Value(a).(*session) }
func (s *session) end() time.Time            { return time.UnixMilli(s.ends.Load()) }
func (s *session) isOver() bool              { return !s.end().After(time.Now()) }

type server struct {
	hub              *wsroom.Hub
	lifetime         time.Duration // of a login
	cookies, tickets sync.Map      // from the secret to its *session
	showing          sync.Mutex    // what is shown last is the latest
}

func newServer(lifetime time.Duration, origins ...string) (*wsroom.Hub, http.Handler) {
	a := &server{lifetime: lifetime}
	a.hub = wsroom.New(
		wsroom.WithOrigins(origins...), wsroom.WithAuthorize(a.admit), wsroom.OnConnect(a.enter),
		wsroom.OnExpire(func(c *wsroom.Conn) (time.Time, error) { return a.of(c).end(), nil }), // later, if extended
		wsroom.OnClose(func(c *wsroom.Conn, _ error) { a.show(a.of(c)) }),
		wsroom.WithRejectMode(wsroom.CloseFrame), wsroom.WithMaxConnsPer(wsroom.ByAddr, 100), wsroom.WithDrain(2*time.Second),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /live", a.hub)
	mux.HandleFunc("POST /login", a.login)
	mux.HandleFunc("POST /{do}", a.do) // ticket, extend, logout
	mux.Handle("GET /", web.Files(files))
	return a.hub, http.NewCrossOriginProtection().Handler(mux) // no other site posts with our cookie
}

// living is what was found, if it is a session that isn't over.
func living(found any, _ bool) *session {
	if s, ok := found.(*session); ok && !s.isOver() {
		return s
	}
	return nil
}

func (a *server) byCookie(r *http.Request) (s *session) {
	if cookie, err := r.Cookie("session"); err == nil {
		s = living(a.cookies.Load(cookie.Value))
	}
	return s
}

func (a *server) admit(r *http.Request, _ string) error {
	s := a.byCookie(r)
	if query := r.URL.Query(); query.Has("ticket") {
		s = living(a.tickets.LoadAndDelete(query.Get("ticket")))
	}
	if s == nil {
		return &wsroom.StatusError{Status: http.StatusUnauthorized, Message: "You aren't logged in."}
	}
	*r = *r.WithContext(context.WithValue(r.Context(), a, s))
	return wsroom.Until(s.end())
}

func (a *server) enter(c *wsroom.Conn, r *http.Request) error {
	s := a.of(c)
	c.Set("ticket", r.URL.Query().Has("ticket"))
	c.SendJSON(map[string]string{"you": c.ID()})
	c.Join(s.room)
	if s.isOver() { // a logout since admit didn't find it in the room
		return loggedOut
	}
	return a.show(s)
}

// show tells the session's connections of each other.
func (a *server) show(s *session) error {
	a.showing.Lock()
	defer a.showing.Unlock()
	links := map[string]any{} // from a connection's ID to whether it came by a ticket
	for _, c := range a.hub.Members(s.room) {
		links[c.ID()], _ = c.Get("ticket")
	}
	return a.hub.SendJSONToRoom(s.room, map[string]any{"user": s.user, "ends": s.ends.Load(), "links": links})
}

func (a *server) login(w http.ResponseWriter, r *http.Request) {
	user := r.PostFormValue("user")
	if password, ok := passwords[user]; !ok || r.PostFormValue("password") != password {
		http.Error(w, "The user or the password is wrong.", http.StatusForbidden)
		return
	}
	cookie, s := rand.Text(), &session{user: user, room: rand.Text()}
	s.forget = time.AfterFunc(a.lifetime, func() { a.cookies.Delete(cookie) })
	s.ends.Store(time.Now().Add(a.lifetime).UnixMilli())
	a.cookies.Store(cookie, s)
	http.SetCookie(w, &http.Cookie{Name: "session", Value: cookie, Path: "/", HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteLaxMode})
}

func (a *server) do(w http.ResponseWriter, r *http.Request) {
	s, do := a.byCookie(r), r.PathValue("do")
	switch {
	case s == nil:
		http.Error(w, "You aren't logged in.", http.StatusUnauthorized)
	case do == "ticket":
		ticket := rand.Text()
		a.tickets.Store(ticket, s)
		time.AfterFunc(30*time.Second, func() { a.tickets.Delete(ticket) })
		io.WriteString(w, ticket)
	case do == "extend":
		if old := s.ends.Load(); old > 0 && s.ends.CompareAndSwap(old, time.Now().Add(a.lifetime).UnixMilli()) {
			s.forget.Reset(a.lifetime)
			a.show(s)
		}
	case do == "logout":
		s.ends.Store(0) // for good
		s.forget.Reset(0)
		a.hub.To(s.room).Close(loggedOut.Code, loggedOut.Reason)
	}
}

func main() {
	lifetime := flag.Duration("session", 15*time.Minute, "how long a login lasts")
	flag.Parse()
	web.Run(newServer(*lifetime, flag.Args()...))
}
