package main

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

type visitor struct {
	t  *testing.T
	ws *websocket.Conn
}

// site returns what opens a connection to a room, of a server that ends with the test.
func site(t *testing.T) func(room, name string) visitor {
	hub, handler := newPresence()
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := hub.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return func(room, name string) visitor {
		t.Helper()
		ws, _, err := websocket.Dial(t.Context(), srv.URL+"/ws/"+room+"?name="+url.QueryEscape(name), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return visitor{t, ws}
	}
}

// next is the next event of the type.
func (v visitor) next(kind string) event {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), 20*time.Second)
	defer cancel()
	for {
		var e event
		if err := wsjson.Read(ctx, v.ws, &e); err != nil {
			v.t.Fatalf("waiting for %s: %v", kind, err)
		}
		if e.Type == kind {
			return e
		}
	}
}

func (v visitor) send(text string) {
	v.t.Helper()
	if err := v.ws.Write(v.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		v.t.Fatal(err)
	}
}

func TestEveryoneSeesEveryonesLatest(t *testing.T) {
	visit := site(t)
	ada := visit("lobby", "Ada")
	if e := ada.next("hello"); e.Person.Name != "Ada" || len(e.People) != 0 {
		t.Errorf("alone, Ada hears %+v", e)
	}
	ada.next("here") // herself
	ada.send(`{"at":{"x":0.25,"y":7},"text":"he","typing":true}`)
	ada.next("here")

	bob := visit("lobby", "Bob")
	hello := bob.next("hello")
	if len(hello.People) != 1 {
		t.Fatalf("Bob sees %+v", hello.People)
	}
	if p := hello.People[0]; p.Name != "Ada" || *p.At != (point{0.25, 1}) || p.Text != "he" || !p.Typing {
		t.Errorf("Bob sees %+v at %v", p, p.At)
	}
	if e := ada.next("here"); e.Person.Name != "Bob" || e.Person.At != nil {
		t.Errorf("Ada hears %+v", e)
	}

	// A message without a place leaves the cursor where it is.
	ada.send(`{}`)
	for _, v := range []visitor{ada, bob} {
		e := v.next("here")
		if e.Person.Name == "Bob" {
			e = v.next("here")
		}
		if p := e.Person; p.Name != "Ada" || *p.At != (point{0.25, 1}) || p.Text != "" || p.Typing {
			t.Errorf("heard %+v", e)
		}
	}
	bob.ws.CloseNow()
	if e := ada.next("gone"); e.Person.ID != hello.Person.ID {
		t.Errorf("Ada hears %+v", e)
	}
	if e := visit("elsewhere", "Cyn").next("hello"); len(e.People) != 0 {
		t.Errorf("elsewhere, Cyn sees %+v", e.People)
	}
}

func TestWhatCantBeIsRefused(t *testing.T) {
	visit := site(t)
	witness := visit("lobby", "Ada")
	for _, name := range []string{"", "  ", strings.Repeat("x", 25), "two\nlines"} {
		v := visit("lobby", name)
		if _, _, err := v.ws.Read(t.Context()); websocket.CloseStatus(err) != refused {
			t.Errorf("%q: %v, want %d", name, err, refused)
		}
	}
	for _, c := range []struct {
		text string
		code websocket.StatusCode
	}{
		{`{"text":"` + strings.Repeat("x", 81) + `"}`, refused},
		{`{"text":"a\u0007"}`, refused},
		{`{"at":{"x":1e999}}`, websocket.StatusInvalidFramePayloadData},
		{`{"at":[1,2]}`, websocket.StatusInvalidFramePayloadData},
		{`{"text":"` + strings.Repeat("x", 2000) + `"}`, websocket.StatusMessageTooBig},
	} {
		v := visit("lobby", "Eve")
		v.next("hello")
		v.send(c.text)
		for {
			if _, _, err := v.ws.Read(t.Context()); err != nil {
				if websocket.CloseStatus(err) != c.code {
					t.Errorf("%.20s: %v, want %d", c.text, err, c.code)
				}
				break
			}
		}
	}
	visit("lobby", "Last")
	for e := witness.next("here"); e.Person.Name != "Last"; e = witness.next("here") {
		if e.Person.Text != "" || e.Person.At != nil || e.Person.Name != "Ada" && e.Person.Name != "Eve" {
			t.Errorf("the room heard %+v", e)
		}
	}
}
