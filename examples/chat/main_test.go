package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/wsroom/wsroom"
)

type site struct {
	t   *testing.T
	ctx context.Context
	hub *wsroom.Hub
	url string
}

func newSite(t *testing.T) site {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	hub, handler := newChat()
	srv := httptest.NewServer(handler)
	t.Cleanup(func() {
		cancel()
		end, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := hub.Shutdown(end); err != nil {
			t.Error(err)
		}
		srv.Close()
	})
	return site{t, ctx, hub, srv.URL}
}

type visitor struct {
	site
	ws *websocket.Conn
}

func (s site) visit(room, name string) visitor {
	s.t.Helper()
	query := url.Values{"name": {name}, "me": {"secret of " + name}}
	ws, _, err := websocket.Dial(s.ctx, s.url+"/ws/"+room+"?"+query.Encode(), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { ws.CloseNow() })
	ws.SetReadLimit(1 << 20)
	return visitor{s, ws}
}

// next is the next event of one of the types.
func (v visitor) next(types ...string) event {
	v.t.Helper()
	for {
		var e event
		if err := wsjson.Read(v.ctx, v.ws, &e); err != nil {
			v.t.Fatal(err)
		}
		if strings.Contains(strings.Join(types, " "), e.Type) {
			return e
		}
	}
}

func (v visitor) say(text, key string) {
	v.t.Helper()
	if err := wsjson.Write(v.ctx, v.ws, map[string]string{"text": text, "key": key}); err != nil {
		v.t.Fatal(err)
	}
}

// end is the code with which the server ends the connection.
func (v visitor) end() (code websocket.StatusCode, reason string) {
	v.t.Helper()
	for {
		if _, _, err := v.ws.Read(v.ctx); err != nil {
			var end websocket.CloseError
			if !errors.As(err, &end) {
				v.t.Errorf("no close frame: %v", err)
			}
			return end.Code, end.Reason
		}
	}
}

func TestRoomsAreApart(t *testing.T) {
	s := newSite(t)
	ada, bob, cyn := s.visit("general", "Ada"), s.visit("general", "Bob"), s.visit("design", "Cyn")
	ada.say("hello", "1")
	var ids []int64
	for _, v := range []visitor{ada, bob} {
		e := v.next("text")
		if e.Name != "Ada" || e.Text != "hello" || e.Key != "1" {
			t.Errorf("got %+v", e)
		}
		ids = append(ids, e.ID)
	}
	if ids[0] != ids[1] {
		t.Errorf("one message has the ids %v", ids)
	}
	cyn.say("quiet here", "1")
	if e := cyn.next("text"); e.Name != "Cyn" {
		t.Errorf("design heard %+v", e)
	}
}

func TestNewcomerGetsTheLastTexts(t *testing.T) {
	s := newSite(t)
	const speakers, each = 6, 18 // below the rate limit
	first := s.visit("general", "First")
	for i := range speakers {
		v := s.visit("general", fmt.Sprint("Speaker ", i))
		for j := range each {
			v.say(fmt.Sprint(i*each+j), fmt.Sprint(j))
			v.next("text")
		}
	}
	var heard []event
	for range speakers * each {
		heard = append(heard, first.next("text"))
	}
	hello := s.visit("general", "Last").next("hello", "text", "join")
	if hello.Type != "hello" {
		t.Fatalf("the first event is %+v", hello)
	}
	heard = heard[len(heard)-keepTexts:]
	if len(hello.Log) != keepTexts {
		t.Fatalf("%d texts, want %d", len(hello.Log), keepTexts)
	}
	for i, e := range hello.Log {
		if e.ID != heard[i].ID || e.Text != heard[i].Text {
			t.Fatalf("text %d is %+v in the log and was %+v", i, e, heard[i])
		}
	}
	if hello.ID < hello.Log[keepTexts-1].ID {
		t.Errorf("hello's id %d is before its last text's", hello.ID)
	}
}

// What a newcomer is told and what it hears next have neither a gap nor, by their ids, anything twice.
func TestSnapshotThenLive(t *testing.T) {
	s := newSite(t)
	const texts = 60
	spoken := make(chan struct{})
	go func() {
		defer close(spoken)
		for i := range texts / 15 {
			v := s.visit("general", fmt.Sprint("Speaker ", i))
			for j := range 15 {
				v.say(fmt.Sprint(i*15+j), "")
				v.next("text")
			}
		}
	}()
	for i := range 20 {
		v := s.visit("general", fmt.Sprint("Newcomer ", i))
		hello := v.next("hello", "text", "join", "leave")
		seen := 0
		for seen < len(hello.Log) {
			if got := hello.Log[seen].Text; got != fmt.Sprint(seen) {
				t.Fatalf("the log has %q in place of %d", got, seen)
			}
			seen++
		}
		for seen < texts {
			e := v.next("text")
			if e.ID <= hello.ID {
				continue // a page skips it
			}
			if e.Text != fmt.Sprint(seen) {
				t.Fatalf("heard %q in place of %d", e.Text, seen)
			}
			seen++
			if i < 19 {
				break // the next newcomer, in the middle of it
			}
		}
	}
	<-spoken
}

func TestTextSentAgainCountsOnce(t *testing.T) {
	s := newSite(t)
	ada, bob := s.visit("general", "Ada"), s.visit("general", "Bob")
	ada.say("hello", "a")
	ada.next("text")
	again := s.visit("general", "Ada") // after a reconnect
	again.say("hello", "a")
	again.say("is it me?", "b")
	bob.say("hello", "a") // a key belongs to its sender
	want := map[string]int{"Ada hello": 1, "Ada is it me?": 1, "Bob hello": 1}
	for range 3 {
		e := bob.next("text")
		want[e.Name+" "+e.Text]--
	}
	for text, n := range want {
		if n != 0 {
			t.Errorf("%q was heard %d times", text, 1-n)
		}
	}
}

func TestRoomKnowsWhoIsThere(t *testing.T) {
	s := newSite(t)
	ada := s.visit("general", "Ada")
	hello := ada.next("hello")
	if len(hello.People) != 1 || hello.People[0].Name != "Ada" || hello.People[0].By != hello.By {
		t.Errorf("alone, Ada sees %+v", hello.People)
	}
	bob := s.visit("general", "Bob")
	you := bob.next("hello")
	if len(you.People) != 2 || you.By == hello.By {
		t.Errorf("Bob is %s and sees %+v", you.By, you.People)
	}
	for e := ada.next("join"); ; e = ada.next("join") {
		if e.By == hello.By {
			continue // her own
		}
		if e.Name != "Bob" || e.By != you.By {
			t.Errorf("Ada hears %+v", e)
		}
		break
	}
	bob.ws.CloseNow()
	if e := ada.next("leave"); e.By != you.By || e.Conn != you.Conn {
		t.Errorf("Ada hears %+v", e)
	}
	if tab := s.visit("design", "Ada").next("hello"); tab.By != hello.By || tab.Conn == hello.Conn {
		t.Errorf("Ada's second tab is %s", tab.By)
	}
}

func TestHostileNames(t *testing.T) {
	s := newSite(t)
	for _, name := range []string{"", "  ", strings.Repeat("x", 33), "a\x00b", "two\nlines", "\x1b[31mred"} {
		if code, reason := s.visit("general", name).end(); code != refused || reason == "" {
			t.Errorf("%q ended with %d %q", name, code, reason)
		}
	}
	for _, name := range []string{`<script>alert(1)</script>`, `"}],"x":[{"`, "\u202eevil", strings.Repeat("é", 32)} {
		if e := s.visit("general", name).next("hello"); e.Name != name {
			t.Errorf("%q became %q", name, e.Name)
		}
	}
	// Nobody was told of the names that were refused.
	if e := s.visit("general", "Ada").next("hello"); len(e.People) > 5 {
		t.Errorf("%d people", len(e.People))
	}
}

func TestHostileMessages(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct {
		frame string
		code  websocket.StatusCode
	}{
		{`{"text":"  "}`, refused},
		{`{"text":"` + strings.Repeat("x", 1001) + `"}`, refused},
		{`{"text":"x","key":"` + strings.Repeat("k", 41) + `"}`, refused},
		{`{"text":`, websocket.StatusInvalidFramePayloadData},
		{`{"text":"` + strings.Repeat("x", 20<<10) + `"}`, websocket.StatusMessageTooBig},
	} {
		v := s.visit("general", "Eve")
		if err := v.ws.Write(s.ctx, websocket.MessageText, []byte(c.frame)); err != nil {
			t.Fatal(err)
		}
		if code, _ := v.end(); code != c.code {
			t.Errorf("%.30s ended with %d, want %d", c.frame, code, c.code)
		}
	}
	v := s.visit("general", "Ada")
	if e := v.next("hello"); len(e.Log) != 0 {
		t.Errorf("the room heard %+v", e.Log)
	}
	if v.say("", ""); v.next("alive", "text").Type != "alive" {
		t.Error("no answer to the page's question")
	}
	text := strings.Repeat("é", 998) + "\u2028"
	if v.say("\n "+text+"x", "k"); v.next("text").Text != text+"x" {
		t.Error("a text of 1000 characters doesn't arrive as it was")
	}
}

func TestRoomsWithHistoryAreBounded(t *testing.T) {
	s := newSite(t)
	const rooms = keepRooms + 20
	for i := range rooms {
		v := s.visit(fmt.Sprint("room-", i), "Ada")
		v.say("here", "")
		v.next("text")
		v.ws.Close(websocket.StatusNormalClosure, "")
	}
	remembered := 0
	for i := range rooms {
		v := s.visit(fmt.Sprint("room-", i), "Bob")
		remembered += len(v.next("hello").Log)
		v.ws.Close(websocket.StatusNormalClosure, "")
	}
	// Those that Ada was about to leave weren't to be forgotten yet.
	if remembered > keepRooms+5 || remembered < keepRooms-5 {
		t.Errorf("%d rooms are remembered, want about %d", remembered, keepRooms)
	}
}

func TestShutdownTellsEveryoneToComeBack(t *testing.T) {
	s := newSite(t)
	ada, bob := s.visit("general", "Ada"), s.visit("design", "Bob")
	stopped := make(chan error, 1)
	go func() { stopped <- s.hub.Shutdown(s.ctx) }()
	for _, v := range []visitor{ada, bob} {
		if code, _ := v.end(); code != websocket.StatusServiceRestart {
			t.Errorf("ended with %d, want 1012", code)
		}
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := s.hub.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	_, resp, err := websocket.Dial(s.ctx, s.url+"/ws/general?name=Late", nil)
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a late visitor got %v", err)
	}
}

func TestPage(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct{ path, kind, has string }{
		{"/", "text/html", "<title>Chat"},
		{"/r/general", "text/html", "<title>Chat"},
		{"/r/caf%C3%A9+design", "text/html", "<title>Chat"},
		{"/chat.css", "text/css", "dvh"},
		{"/chat.js", "text/javascript", "import"},
		{"/connection.js", "text/javascript", "export"},
	} {
		resp, err := http.Get(s.url + c.path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), c.kind) || !strings.Contains(string(body), c.has) {
			t.Errorf("%s: %d %s", c.path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
	}
}
