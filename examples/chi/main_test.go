package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

func TestTeamsAreForTheirMembers(t *testing.T) {
	hub := wsroomtest.CheckHub(t, newHub())
	h := handler(hub)
	login := func(user string) wsroomtest.Option {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/login?user="+user, nil))
		return wsroomtest.WithCookies(w.Result().Cookies()...)
	}
	ada, bob := login("ada"), login("bob")

	forged := wsroomtest.WithCookies(&http.Cookie{Name: "session", Value: "ada"})
	for _, c := range []struct {
		who    string
		login  wsroomtest.Option
		path   string
		status int
	}{
		{"a stranger", nil, "/teams/blue", 401},
		{"an unknown user", login("eve"), "/teams/blue", 401},
		{"a forger", forged, "/teams/blue", 401},
		{"bob", bob, "/teams/red", 403},
		{"bob", bob, "/teams/%72ed", 403},
		{"bob", bob, "/teams/none", 403},
	} {
		wsroomtest.Refused(t, h, c.path, c.status, c.login, wsroomtest.WithName(c.who+" at "+c.path))
	}

	blue := []*wsroomtest.Client{
		wsroomtest.Dial(t, h, "/teams/blue", ada),
		wsroomtest.Dial(t, h, "/teams/%62lue", bob), // one room
	}
	red := wsroomtest.Dial(t, h, "/teams/red", ada)
	blue[1].SendJSON(message{From: "ada", Text: "hello"})
	red.SendJSON(message{Text: "in red"})
	for _, c := range blue {
		c.ExpectJSON(message{"bob", "hello"})
		c.ExpectNothing()
	}
	red.ExpectJSON(message{"ada", "in red"})
}
