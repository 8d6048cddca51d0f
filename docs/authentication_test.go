package docs_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

type session struct {
	user    string
	expires time.Time
}

// sessions are those of a site's logins.
type sessions struct{ sync.Map }

func (s *sessions) of(r *http.Request) (session, error) {
	cookie, err := r.Cookie("__Host-session")
	if err != nil {
		return session{}, err
	}
	if found, ok := s.Load(cookie.Value); ok && time.Now().Before(found.(session).expires) {
		return found.(session), nil
	}
	return session{}, errors.New("no such session")
}

type userKey struct{}

// newChat is the page's hub for cookies.
func newChat(logins *sessions) *wsroom.Hub {
	hub := wsroom.New(
		wsroom.WithRejectMode(wsroom.CloseFrame), // so that scripts see 4401
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			login, err := logins.of(r)
			if err != nil {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			*r = *r.WithContext(context.WithValue(r.Context(), userKey{}, login.user))
			return wsroom.Until(login.expires) // then 4401, unless OnExpire renews
		}),
		wsroom.WithIdentity(func(r *http.Request) string { return r.Context().Value(userKey{}).(string) }),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			if _, err := logins.of(r); err != nil { // the user has logged out meanwhile
				return websocket.CloseError{Code: 4401, Reason: "logged out"}
			}
			return nil
		}),
	)
	return hub
}

func logout(hub *wsroom.Hub, logins *sessions, id, user string) error {
	logins.Delete(id)                                     // first, so that new requests are refused
	return hub.ToIdentity(user).Close(4401, "logged out") // all connections, on all nodes
}

func loggedIn(id string) wsroomtest.Option {
	return wsroomtest.WithCookies(&http.Cookie{Name: "__Host-session", Value: id})
}

func TestCookiesAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logins := &sessions{}
		logins.Store("s1", session{"ann", time.Now().Add(time.Hour)})
		logins.Store("s2", session{"bob", time.Now().Add(time.Minute)})
		hub := wsroomtest.CheckHub(t, newChat(logins))

		wsroomtest.Dial(t, hub, "/chat/a").ExpectClose(4401)
		wsroomtest.Dial(t, hub, "/chat/a", loggedIn("guess")).ExpectClose(4401)
		wsroomtest.Refused(t, hub, "/chat/a", http.StatusForbidden, loggedIn("s1"), wsroomtest.WithOrigin("https://evil.example"))

		tabs := wsroomtest.DialN(t, 2, hub, "/chat/a", loggedIn("s1"), wsroomtest.WithOrigin("http://example.com"))
		bob := wsroomtest.Dial(t, hub, "/chat/b", loggedIn("s2"))
		if err := logout(hub, logins, "s1", "ann"); err != nil {
			t.Error(err)
		}
		for _, tab := range tabs {
			tab.ExpectClose(4401)
		}
		bob.ExpectNothing()
		time.Sleep(time.Minute)
		bob.ExpectClose(4401)
	})
}

// tickets are for one connection each, soon.
type tickets struct{ issued sync.Map }

func (t *tickets) issue(user string) string {
	ticket := rand.Text()
	t.issued.Store(ticket, user)
	time.AfterFunc(30*time.Second, func() { t.issued.Delete(ticket) })
	return ticket
}

func (t *tickets) redeem(r *http.Request, room string) error {
	user, ok := t.issued.LoadAndDelete(r.FormValue("ticket"))
	if !ok {
		return &wsroom.StatusError{Status: http.StatusUnauthorized}
	}
	*r = *r.WithContext(context.WithValue(r.Context(), userKey{}, user))
	return nil
}

func TestTicketsAdmitOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tickets tickets
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithAuthorize(tickets.redeem),
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				return c.SendText(c.Context().Value(userKey{}).(string))
			}),
		))
		first, second := tickets.issue("ann"), tickets.issue("ann")
		wsroomtest.Dial(t, hub, "/chat/a?ticket="+first).ExpectText("ann")
		wsroomtest.Refused(t, hub, "/chat/a?ticket="+first, http.StatusUnauthorized)
		time.Sleep(31 * time.Second)
		wsroomtest.Refused(t, hub, "/chat/a?ticket="+second, http.StatusUnauthorized)
	})
}

// What the page's script makes of a token is what BearerToken reads, and a status is a close code.
func TestBearerTokenAdmits(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(
		wsroom.WithSubprotocols("chat"),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if token, ok := wsroom.BearerToken(r); !ok || token != "s3cret?>" {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			return nil
		}),
	))
	entry := "bearer." + base64.RawURLEncoding.EncodeToString([]byte("s3cret?>"))
	if c := wsroomtest.Dial(t, hub, "/", wsroomtest.WithSubprotocols("chat", entry)); c.Subprotocol() != "chat" {
		t.Errorf("chose %q", c.Subprotocol())
	}
	res := wsroomtest.Refused(t, hub, "/", http.StatusUnauthorized, wsroomtest.WithSubprotocols("chat"))
	if body, _ := io.ReadAll(res.Body); string(body) != "Unauthorized\n" {
		t.Errorf("answered %q", body)
	}
}
