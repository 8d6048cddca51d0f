package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

func TestTeamsAreForTheirMembers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hub := newHub()
	srv := httptest.NewServer(handler(hub))
	t.Cleanup(srv.Close)

	login := func(user string) http.Header {
		resp, err := srv.Client().PostForm(srv.URL+"/login", url.Values{"user": {user}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		header := http.Header{}
		for _, c := range resp.Cookies() {
			header.Add("Cookie", c.Name+"="+c.Value)
		}
		return header
	}
	ada, bob := login("ada"), login("bob")

	for _, c := range []struct {
		who    string
		header http.Header
		path   string
		status int
	}{
		{"a stranger", nil, "/teams/blue", 401},
		{"a stranger", login("eve"), "/teams/blue", 401},
		{"a forger", http.Header{"Cookie": {"session=ada"}}, "/teams/blue", 401},
		{"bob", bob, "/teams/red", 403},
		{"bob", bob, "/teams/%72ed", 403},
		{"bob", bob, "/teams/none", 403},
	} {
		ws, resp, err := websocket.Dial(ctx, srv.URL+c.path, &websocket.DialOptions{HTTPHeader: c.header})
		if err == nil {
			ws.CloseNow()
			t.Errorf("%s got into %s", c.who, c.path)
		} else if resp == nil || resp.StatusCode != c.status {
			t.Errorf("%s at %s: %v, want %d", c.who, c.path, err, c.status)
		}
	}

	enter := func(header http.Header, path string) *websocket.Conn {
		ws, _, err := websocket.Dial(ctx, srv.URL+path, &websocket.DialOptions{HTTPHeader: header})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return ws
	}
	a, b := enter(ada, "/teams/blue"), enter(bob, "/teams/%62lue") // one room
	red := enter(ada, "/teams/red")
	if err := wsjson.Write(ctx, b, message{From: "ada", Text: "hello"}); err != nil {
		t.Fatal(err)
	}
	if err := wsjson.Write(ctx, red, message{Text: "in red"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ws   *websocket.Conn
		want message
	}{
		{a, message{"bob", "hello"}},
		{b, message{"bob", "hello"}},
		{red, message{"ada", "in red"}},
	} {
		var got message
		if err := wsjson.Read(ctx, c.ws, &got); err != nil || got != c.want {
			t.Errorf("got %v, %v; want %v", got, err, c.want)
		}
	}
}
