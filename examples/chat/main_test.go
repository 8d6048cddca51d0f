package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// opened is a history in the file, which the test closes.
func opened(t *testing.T, name string) *history {
	t.Helper()
	h, err := openHistory(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.db.Close() })
	return h
}

type site struct {
	t   *testing.T
	hub *wsroom.Hub
	http.Handler
}

func newSite(t *testing.T) site {
	t.Parallel()
	hub, handler := newChat(opened(t, ":memory:"))
	return site{t, wsroomtest.CheckHub(t, hub), handler}
}

type visitor struct{ *wsroomtest.Client }

func (s site) visit(room, name string, opts ...wsroomtest.Option) visitor {
	s.t.Helper()
	query := url.Values{"name": {name}, "me": {"secret of " + name}}
	opts = append(opts, wsroomtest.WithName(name))
	return visitor{wsroomtest.Dial(s.t, s, "/ws/"+room+"?"+query.Encode(), opts...)}
}

// next is the next event of one of the types.
func (v visitor) next(types ...string) event {
	for {
		var e event
		if v.NextJSON(&e); slices.Contains(types, e.Type) {
			return e
		}
	}
}

func (v visitor) say(text, key string) { v.SendJSON(map[string]string{"text": text, "key": key}) }

func TestRoomsAreApart(t *testing.T) {
	s := newSite(t)
	ada, bob, cyn := s.visit("general", "Ada"), s.visit("general", "Bob"), s.visit("design", "Cyn")
	bob.next("hello") // what comes later isn't in it
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
	if hello := s.visit("design", "Dan").next("hello"); len(hello.Log) != 1 || hello.Log[0].Text != "quiet here" {
		t.Errorf("a newcomer in design is told %+v", hello.Log)
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
	heard = heard[len(heard)-told:]
	if len(hello.Log) != told {
		t.Fatalf("%d texts, want %d", len(hello.Log), told)
	}
	for i, e := range hello.Log {
		if e.ID != heard[i].ID || e.Text != heard[i].Text {
			t.Fatalf("text %d is %+v in the log and was %+v", i, e, heard[i])
		}
	}
	if hello.ID < hello.Log[told-1].ID {
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

// A page that was away for a moment gets what it has missed, and no hello.
func TestReturnGetsWhatItHasMissed(t *testing.T) {
	s := newSite(t)
	ada, bob := s.visit("general", "Ada", wsroomtest.WithCursor("")), s.visit("general", "Bob")
	ada.next("hello")
	bob.say("before", "")
	ada.next("text")
	ada.CloseNow()
	bob.say("missed", "")
	bob.next("text")
	bob.next("text")
	ada = s.visit("general", "Ada", wsroomtest.WithCursor(ada.Cursor()))
	for _, want := range []string{"missed", "after"} {
		if e := ada.next("hello", "text"); e.Text != want {
			t.Errorf("got %+v, want %s", e, want)
		}
		if want == "missed" {
			bob.say("after", "")
		}
	}
}

// The next process knows the texts, and which have been sent before.
func TestTextsOutliveTheProcess(t *testing.T) {
	name := filepath.Join(t.TempDir(), "chat.db")
	for i := range 3 {
		hub, handler := newChat(opened(t, name))
		s := site{t, wsroomtest.CheckHub(t, hub), handler}
		ada := s.visit("general", "Ada")
		hello := ada.next("hello")
		if len(hello.Log) != i {
			t.Fatalf("process %d knows %+v", i, hello.Log)
		}
		for j, e := range hello.Log {
			if e.Text != fmt.Sprint(j) || e.Type != "text" || e.Room != "general" || e.Name != "Ada" || e.By != hello.By || e.Conn == "" || e.Key != fmt.Sprint(j) || hello.ID < e.ID {
				t.Errorf("process %d knows %+v", i, e)
			}
		}
		for j := range i + 1 {
			ada.say(fmt.Sprint(j), fmt.Sprint(j)) // all but one again
		}
		if e := ada.next("text"); e.Text != fmt.Sprint(i) || i > 0 && e.ID <= hello.Log[i-1].ID {
			t.Errorf("process %d says %+v", i, e)
		}
	}
}

// The clock may go back, but the texts' order doesn't.
func TestOrderDoesNotNeedTheClock(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "chat.db")
	const future = 1 << 52
	if _, err := opened(t, name).keep(event{ID: future, Room: "general", Text: "tomorrow"}); err != nil {
		t.Fatal(err)
	}
	hub, handler := newChat(opened(t, name))
	s := site{t, wsroomtest.CheckHub(t, hub), handler}
	ada := s.visit("general", "Ada")
	if hello := ada.next("hello"); len(hello.Log) != 1 || hello.ID < future {
		t.Errorf("Ada is told %+v", hello)
	}
	ada.say("today", "")
	if e := ada.next("text"); e.ID <= future {
		t.Errorf("the next text is %+v", e)
	}
}

// A text that can't be kept isn't sent; the page sends it again.
func TestWhatIsNotKeptIsNotSent(t *testing.T) {
	t.Parallel()
	h := opened(t, ":memory:")
	hub, handler := newChat(h)
	s := site{t, wsroomtest.CheckHub(t, hub), handler}
	ada, bob := s.visit("general", "Ada"), s.visit("general", "Bob")
	bob.next("hello")
	if _, err := h.db.Exec("DROP TABLE texts"); err != nil {
		t.Fatal(err)
	}
	ada.say("hello", "1")
	if reason := ada.ExpectClose(websocket.StatusInternalError); reason != "" {
		t.Errorf("Ada is told %q", reason)
	}
	if e := bob.next("text", "leave"); e.Type != "leave" {
		t.Errorf("Bob hears %+v", e)
	}
}

func TestTextSentAgainCountsOnce(t *testing.T) {
	s := newSite(t)
	ada, bob := s.visit("general", "Ada"), s.visit("general", "Bob")
	bob.next("hello") // what comes later isn't in it
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
	bob.CloseNow()
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
		if s.visit("general", name).ExpectClose(refused) == "" {
			t.Errorf("%q is refused without a reason", name)
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
		{`{}`, refused},
		{`{"text":`, websocket.StatusInvalidFramePayloadData},
		{`{"text":"` + strings.Repeat("x", 20<<10) + `"}`, websocket.StatusMessageTooBig},
	} {
		v := s.visit("general", "Eve")
		v.SendText(c.frame)
		v.ExpectClose(c.code)
	}
	v := s.visit("general", "Ada")
	if e := v.next("hello"); len(e.Log) != 0 {
		t.Errorf("the room heard %+v", e.Log)
	}
	text := strings.Repeat("é", 998) + "\u2028"
	if v.say("\n "+text+"x", "k"); v.next("text").Text != text+"x" {
		t.Error("a text of 1000 characters doesn't arrive as it was")
	}
}

// The newest texts of all rooms are kept, and not many more.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := opened(t, ":memory:")
	_, err := h.db.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
		INSERT INTO texts SELECT i, 'room ' || i % 300, 'b', 'c', 'Ada', 'text ' || i, '' FROM n`, most)
	if err != nil {
		t.Fatal(err)
	}
	id := int64(most)
	for range 3 * step {
		id++
		if isNew, err := h.keep(event{ID: id, Room: "general", Text: "new"}); err != nil || !isNew {
			t.Fatal(isNew, err)
		}
	}
	var count, oldest int64
	if err := h.db.QueryRow("SELECT count(*), min(id) FROM texts").Scan(&count, &oldest); err != nil {
		t.Fatal(err)
	}
	if count < most || count > most+step || oldest != id-count+1 {
		t.Errorf("%d texts are kept, from %d to %d", count, oldest, id)
	}
}

func TestShutdownTellsEveryoneToComeBack(t *testing.T) {
	s := newSite(t)
	ada, bob := s.visit("general", "Ada"), s.visit("design", "Bob")
	if err := s.hub.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, v := range []visitor{ada, bob} {
		v.ExpectClose(websocket.StatusServiceRestart)
	}
	if n := s.hub.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	wsroomtest.Refused(t, s, "/ws/general?name=Late", http.StatusServiceUnavailable)
}

func TestPage(t *testing.T) {
	s := newSite(t)
	for _, c := range []struct{ path, kind, has string }{
		{"/", "text/html", "/r/general"},
		{"/r/general", "text/html", "<title>Chat"},
		{"/r/caf%C3%A9+design", "text/html", "<title>Chat"},
		{"/chat.css", "text/css", "dvh"},
		{"/chat.js", "text/javascript", "import"},
		{"/wsroom.js", "text/javascript", "export"},
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		kind := w.Header().Get("Content-Type")
		if w.Code != 200 && w.Code != 302 || !strings.HasPrefix(kind, c.kind) || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s: %d %s", c.path, w.Code, kind)
		}
	}
}
