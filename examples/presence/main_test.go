package main

import (
	"net/url"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

type visitor struct{ *wsroomtest.Client }

// site returns what opens a connection to a room.
func site(t *testing.T) func(room, name string) visitor {
	hub, handler := newPresence()
	wsroomtest.CheckHub(t, hub)
	return func(room, name string) visitor {
		t.Helper()
		path := "/ws/" + room + "?name=" + url.QueryEscape(name)
		return visitor{wsroomtest.Dial(t, handler, path, wsroomtest.WithName(name))}
	}
}

// next is the next event of the type.
func (v visitor) next(kind string) event {
	for {
		var e event
		if v.NextJSON(&e); e.Type == kind {
			return e
		}
	}
}

func TestEveryoneSeesEveryonesLatest(t *testing.T) {
	visit := site(t)
	ada := visit("lobby", "Ada")
	if e := ada.next("hello"); e.Person.Name != "Ada" || len(e.People) != 0 {
		t.Errorf("alone, Ada hears %+v", e)
	}
	ada.next("here") // herself
	ada.SendText(`{"at":{"x":0.25,"y":7},"text":"he","typing":true}`)
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
	ada.SendText(`{}`)
	for _, v := range []visitor{ada, bob} {
		e := v.next("here")
		if e.Person.Name == "Bob" {
			e = v.next("here")
		}
		if p := e.Person; p.Name != "Ada" || *p.At != (point{0.25, 1}) || p.Text != "" || p.Typing {
			t.Errorf("heard %+v", e)
		}
	}
	bob.CloseNow()
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
		visit("lobby", name).ExpectClose(refused)
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
		eve := visit("lobby", "Eve")
		eve.SendText(c.text)
		eve.ExpectClose(c.code)
	}
	visit("lobby", "Last")
	for e := witness.next("here"); e.Person.Name != "Last"; e = witness.next("here") {
		if e.Person.Text != "" || e.Person.At != nil || e.Person.Name != "Ada" && e.Person.Name != "Eve" {
			t.Errorf("the room heard %+v", e)
		}
	}
}
