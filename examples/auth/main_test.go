package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

const partner = "https://partner.example"

type user struct {
	t      *testing.T
	url    string
	client *http.Client
}

// site returns what makes a user of a server that ends with the test.
func site(t *testing.T, lifetime time.Duration) func() user {
	hub, handler := newServer(lifetime, partner)
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return func() user {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return user{t, srv.URL, &http.Client{Jar: jar}}
	}
}

func (u user) post(path string, form url.Values) (status int, body string) {
	u.t.Helper()
	resp, err := u.client.PostForm(u.url+path, form)
	if err != nil {
		u.t.Fatal(err)
	}
	defer resp.Body.Close()
	p, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(p)
}

func (u user) login(name, password string) int {
	status, _ := u.post("/login", url.Values{"user": {name}, "password": {password}})
	return status
}

// connect connects as the user's browser would, from a page of origin; "" is a program.
func (u user) connect(query, origin string) *websocket.Conn {
	u.t.Helper()
	header := http.Header{}
	if origin != "" {
		header.Set("Origin", origin)
	}
	ws, _, err := websocket.Dial(u.t.Context(), u.url+"/live"+query, &websocket.DialOptions{HTTPClient: u.client, HTTPHeader: header})
	if err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { ws.CloseNow() })
	return ws
}

type shown struct {
	You   string
	User  string
	Ends  int64
	Links map[string]bool
}

// links waits until the session is shown with so many connections.
func (u user) links(ws *websocket.Conn, n int) shown {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	for {
		var s shown
		if err := wsjson.Read(ctx, ws, &s); err != nil {
			u.t.Fatal(err)
		}
		if len(s.Links) == n {
			return s
		}
	}
}

// end is how the server ends the connection.
func (u user) end(ws *websocket.Conn) websocket.CloseError {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			var end websocket.CloseError
			if !errors.As(err, &end) {
				u.t.Fatalf("no close frame: %v", err)
			}
			return end
		}
	}
}

func TestOnlyWhoIsLoggedInConnects(t *testing.T) {
	visit := site(t, time.Hour)
	u := visit()
	for _, query := range []string{"", "?ticket=", "?ticket=guess"} {
		if end := u.end(u.connect(query, "")); end.Code != 4401 {
			t.Errorf("%q ended with %v, want 4401", query, end)
		}
	}
	for name, password := range map[string]string{"ada": "compiler", "eve": "", "": ""} {
		if status := u.login(name, password); status != http.StatusForbidden {
			t.Errorf("%s logs in by %q: %d", name, password, status)
		}
	}
	for _, path := range []string{"/ticket", "/extend", "/logout"} {
		if status, _ := u.post(path, nil); status != http.StatusUnauthorized {
			t.Errorf("%s without a login: %d, want 401", path, status)
		}
	}
	if status := u.login("ada", "engine"); status != http.StatusOK {
		t.Fatalf("ada's login: %d", status)
	}
	ws := u.connect("", u.url)
	if s := u.links(ws, 1); s.User != "ada" || time.Until(time.UnixMilli(s.Ends)) < 50*time.Minute {
		t.Errorf("ada sees %+v", s)
	}
	other := visit()
	other.login("grace", "compiler")
	if s := other.links(other.connect("", other.url), 1); s.User != "grace" {
		t.Errorf("grace sees %+v", s)
	}
}

// A cookie is good for pages of ours only, and no other page may post with it.
func TestPagesOfOtherOriginsAreRefused(t *testing.T) {
	u := site(t, time.Hour)()
	u.login("ada", "engine")
	header := http.Header{"Origin": {"https://evil.example"}}
	ws, resp, err := websocket.Dial(t.Context(), u.url+"/live", &websocket.DialOptions{HTTPClient: u.client, HTTPHeader: header})
	if err == nil {
		ws.CloseNow()
		t.Error("a page of another origin connected")
	} else if resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("it got %v, want 403", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", u.url+"/logout", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://evil.example")
	resp, err = u.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("it logs ada out: %d", resp.StatusCode)
	}
}

func TestTicketWorksOnce(t *testing.T) {
	visit := site(t, time.Hour)
	u, program := visit(), visit() // the program has no cookie
	u.login("ada", "engine")
	for _, origin := range []string{"", partner} {
		_, ticket := u.post("/ticket", nil)
		ws := program.connect("?ticket="+ticket, origin)
		s := program.links(ws, 1)
		for _, by := range s.Links {
			if s.User != "ada" || !by {
				t.Errorf("from %q: %+v", origin, s)
			}
		}
		if end := program.end(program.connect("?ticket="+ticket, origin)); end.Code != 4401 {
			t.Errorf("from %q a second time: %v, want 4401", origin, end)
		}
		if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
	}
	// It is no cookie, and opens nothing but a connection.
	_, ticket := u.post("/ticket", nil)
	if status, _ := program.post("/ticket?ticket="+ticket, nil); status != http.StatusUnauthorized {
		t.Errorf("a ticket for a ticket: %d, want 401", status)
	}
	header := http.Header{"Cookie": {"session=" + ticket}}
	ws, _, err := websocket.Dial(t.Context(), u.url+"/live", &websocket.DialOptions{HTTPHeader: header})
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if end := u.end(ws); end.Code != 4401 {
		t.Errorf("a ticket as a cookie: %v, want 4401", end)
	}
}

func TestLogoutEndsAllOfTheSession(t *testing.T) {
	visit := site(t, time.Hour)
	u, program, other := visit(), visit(), visit()
	u.login("ada", "engine")
	other.login("ada", "engine") // at another computer
	_, ticket := u.post("/ticket", nil)
	_, unused := u.post("/ticket", nil)
	page, byTicket, elsewhere := u.connect("", u.url), program.connect("?ticket="+ticket, ""), other.connect("", other.url)
	u.links(page, 2)
	if status, _ := u.post("/logout", nil); status != http.StatusOK {
		t.Errorf("logout: %d", status)
	}
	for _, ws := range []*websocket.Conn{page, byTicket} {
		if end := u.end(ws); end != loggedOut {
			t.Errorf("ended with %v", end)
		}
	}
	for _, query := range []string{"", "?ticket=" + unused} {
		if end := u.end(u.connect(query, "")); end.Code != 4401 {
			t.Errorf("%q after the logout: %v, want 4401", query, end)
		}
	}
	if status, _ := u.post("/extend", nil); status != http.StatusUnauthorized {
		t.Errorf("extending it after the logout: %d, want 401", status)
	}
	other.links(elsewhere, 1)
	if s := other.links(other.connect("", other.url), 2); s.User != "ada" {
		t.Errorf("at the other computer: %+v", s)
	}
}

func TestSessionEndsUnlessExtended(t *testing.T) {
	t.Parallel()
	const lifetime = 3 * time.Second
	u := site(t, lifetime)()
	u.login("ada", "engine")
	ws := u.connect("", u.url)
	first := u.links(ws, 1)
	<-time.After(100 * time.Millisecond) // the session grows older
	if status, _ := u.post("/extend", nil); status != http.StatusOK {
		t.Fatalf("extend: %d", status)
	}
	extended := u.links(ws, 1)
	if extended.Ends <= first.Ends {
		t.Errorf("it ends at %d, and at %d when extended", first.Ends, extended.Ends)
	}
	if end := u.end(ws); end.Code != 4401 {
		t.Errorf("ended with %v, want 4401", end)
	}
	if early := time.Until(time.UnixMilli(extended.Ends)); early > 0 {
		t.Errorf("ended %v early", early)
	}
	if status, _ := u.post("/ticket", nil); status != http.StatusUnauthorized {
		t.Errorf("a ticket of a session that is over: %d, want 401", status)
	}
}
