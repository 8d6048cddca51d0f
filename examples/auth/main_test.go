package main

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

const (
	own     = "http://example.com" // where the pages of the site under test are
	partner = "https://partner.example"
)

// user is someone's browser, with the cookies that it has got.
type user struct {
	t       *testing.T
	site    http.Handler
	cookies []*http.Cookie
}

// site returns what makes a user.
func site(t *testing.T, lifetime time.Duration) func() *user {
	hub, handler := newServer(lifetime, partner)
	wsroomtest.CheckHub(t, hub)
	return func() *user { return &user{t: t, site: handler} }
}

func (u *user) post(path, origin string, form url.Values) (status int, body string) {
	r := httptest.NewRequest("POST", path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", origin)
	for _, c := range u.cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	u.site.ServeHTTP(w, r)
	u.cookies = append(u.cookies, w.Result().Cookies()...)
	return w.Code, w.Body.String()
}

func (u *user) login(name, password string) int {
	status, _ := u.post("/login", own, url.Values{"user": {name}, "password": {password}})
	return status
}

// connection shows a session.
type connection struct{ *wsroomtest.Client }

// connect connects as the user's browser would, from a page of origin; "" is a program.
func (u *user) connect(query, origin string) connection {
	u.t.Helper()
	opts := []wsroomtest.Option{wsroomtest.WithName("/live" + query + " from " + origin), wsroomtest.WithCookies(u.cookies...)}
	if origin != "" {
		opts = append(opts, wsroomtest.WithOrigin(origin))
	}
	return connection{wsroomtest.Dial(u.t, u.site, "/live"+query, opts...)}
}

type shown struct {
	You   string
	User  string
	Ends  int64
	Links map[string]bool
}

// links waits until the session is shown with so many connections.
func (c connection) links(n int) shown {
	for {
		var s shown
		if c.NextJSON(&s); len(s.Links) == n {
			return s
		}
	}
}

func TestOnlyWhoIsLoggedInConnects(t *testing.T) {
	visit := site(t, time.Hour)
	u := visit()
	for _, query := range []string{"", "?ticket=", "?ticket=guess"} {
		u.connect(query, "").ExpectClose(4401)
	}
	for name, password := range map[string]string{"ada": "compiler", "eve": "", "": ""} {
		if status := u.login(name, password); status != http.StatusForbidden {
			t.Errorf("%s logs in by %q: %d", name, password, status)
		}
	}
	for _, path := range []string{"/ticket", "/extend", "/logout"} {
		if status, _ := u.post(path, own, nil); status != http.StatusUnauthorized {
			t.Errorf("%s without a login: %d, want 401", path, status)
		}
	}
	if status := u.login("ada", "engine"); status != http.StatusOK {
		t.Fatalf("ada's login: %d", status)
	}
	if s := u.connect("", own).links(1); s.User != "ada" || time.Until(time.UnixMilli(s.Ends)) < 50*time.Minute {
		t.Errorf("ada sees %+v", s)
	}
	other := visit()
	other.login("grace", "compiler")
	if s := other.connect("", own).links(1); s.User != "grace" {
		t.Errorf("grace sees %+v", s)
	}
}

// A cookie is good for pages of ours only, and no other page may post with it.
func TestPagesOfOtherOriginsAreRefused(t *testing.T) {
	u := site(t, time.Hour)()
	u.login("ada", "engine")
	const evil = "https://evil.example"
	wsroomtest.Refused(t, u.site, "/live", http.StatusForbidden, wsroomtest.WithCookies(u.cookies...), wsroomtest.WithOrigin(evil))
	if status, _ := u.post("/logout", evil, nil); status != http.StatusForbidden {
		t.Errorf("it logs ada out: %d", status)
	}
}

func TestTicketWorksOnce(t *testing.T) {
	visit := site(t, time.Hour)
	u, program := visit(), visit() // the program has no cookie
	u.login("ada", "engine")
	for _, origin := range []string{"", partner} {
		_, ticket := u.post("/ticket", own, nil)
		c := program.connect("?ticket="+ticket, origin)
		s := c.links(1)
		for _, by := range s.Links {
			if s.User != "ada" || !by {
				t.Errorf("from %q: %+v", origin, s)
			}
		}
		program.connect("?ticket="+ticket, origin).ExpectClose(4401) // a second time
		c.Close(websocket.StatusNormalClosure, "")
	}
	// It is no cookie, and opens nothing but a connection.
	_, ticket := u.post("/ticket", own, nil)
	if status, _ := program.post("/ticket?ticket="+ticket, own, nil); status != http.StatusUnauthorized {
		t.Errorf("a ticket for a ticket: %d, want 401", status)
	}
	program.cookies = []*http.Cookie{{Name: "session", Value: ticket}}
	program.connect("", "").ExpectClose(4401)
}

func TestLogoutEndsAllOfTheSession(t *testing.T) {
	visit := site(t, time.Hour)
	u, program, other := visit(), visit(), visit()
	u.login("ada", "engine")
	other.login("ada", "engine") // at another computer
	_, ticket := u.post("/ticket", own, nil)
	_, unused := u.post("/ticket", own, nil)
	page, byTicket, elsewhere := u.connect("", own), program.connect("?ticket="+ticket, ""), other.connect("", own)
	page.links(2)
	if status, _ := u.post("/logout", own, nil); status != http.StatusOK {
		t.Errorf("logout: %d", status)
	}
	for _, c := range []connection{page, byTicket} {
		if reason := c.ExpectClose(loggedOut.Code); reason != loggedOut.Reason {
			t.Errorf("ended with %q", reason)
		}
	}
	for _, query := range []string{"", "?ticket=" + unused} {
		u.connect(query, "").ExpectClose(4401)
	}
	if status, _ := u.post("/extend", own, nil); status != http.StatusUnauthorized {
		t.Errorf("extending it after the logout: %d, want 401", status)
	}
	elsewhere.links(1)
	if s := other.connect("", own).links(2); s.User != "ada" {
		t.Errorf("at the other computer: %+v", s)
	}
}

func TestSessionEndsUnlessExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		u := site(t, time.Hour)()
		u.login("ada", "engine")
		c := u.connect("", own)
		c.links(1)
		time.Sleep(50 * time.Minute)
		if status, _ := u.post("/extend", own, nil); status != http.StatusOK {
			t.Fatalf("extend: %d", status)
		}
		extended := begin.Add(110 * time.Minute)
		if ends := time.UnixMilli(c.links(1).Ends); !ends.Equal(extended) {
			t.Errorf("extended, it ends at %v, want %v", ends, extended)
		}
		time.Sleep(time.Until(extended) - time.Second)
		c.ExpectNothing()
		time.Sleep(2 * time.Second)
		c.ExpectClose(4401)
		if status, _ := u.post("/ticket", own, nil); status != http.StatusUnauthorized {
			t.Errorf("a ticket of a session that is over: %d, want 401", status)
		}
	})
}
