package inspector_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/inspector"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// site is a hub at /ROOM?name=NAME and an inspector at /look/.
type site struct {
	t   *testing.T
	hub *wsroom.Hub
	mux *http.ServeMux
}

func newSite(t *testing.T, opts ...inspector.Option) site {
	t.Helper()
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithMaxConns(100),
		wsroom.OnText(func(*wsroom.Conn, string, error) {}),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { c.Set("name", r.FormValue("name")); return nil })))
	name := func(c *wsroom.Conn) string { v, _ := c.Get("name"); s, _ := v.(string); return s }
	in := inspector.New(hub, append(opts, inspector.WithLabel(name))...)
	mux := http.NewServeMux()
	mux.Handle("/look/", in)
	mux.Handle("/", hub)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := in.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return site{t, hub, mux}
}

func (s site) dial(path string, opts ...wsroomtest.Option) *wsroomtest.Client {
	s.t.Helper()
	return wsroomtest.Dial(s.t, s.mux, path, opts...)
}

// report is what the tests look at in stats.json.
type report struct {
	At             time.Time
	Actions        bool
	Conns, Rooms   int
	Ended, Refused map[string]int
	Queued         struct{ Messages, Bytes int }
	Rates          *struct{ Sent, SentBytes int }
	History        map[string][]int
	Slowest        []struct{ ID, Label string }
	Found          struct {
		Total, Page, Pages int
		Rows               []struct {
			Name    string
			Members int
		}
	}
	Members struct {
		Total, Page, Pages int
		Rows               []struct{ ID, Label, Address, Room string }
	}
	Events []struct {
		Kind, Room, Conn, Label, Detail string
		Count                           int
	}
	Done, Failed string // of an answer
}

func (s site) stats(query string) (r report) {
	s.t.Helper()
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, httptest.NewRequest("GET", "/look/stats.json?"+query, nil))
	if err := json.NewDecoder(w.Body).Decode(&r); err != nil || w.Code != http.StatusOK {
		s.t.Fatalf("stats.json?%s: status %d, %v", query, w.Code, err)
	}
	return r
}

// ask sends a page's command and returns the answer.
func (s site) ask(page *wsroomtest.Client, command map[string]any) (r report) {
	s.t.Helper()
	page.SendJSON(command)
	for r.Done == "" && r.Failed == "" {
		page.NextJSON(&r)
	}
	return r
}

// Wherever it is mounted, the page finds its files, and nothing it serves may be framed, sniffed or run
// scripts of others.
func TestPageUnderAnyPath(t *testing.T) {
	in := inspector.New(wsroom.New())
	for at, h := range map[string]http.Handler{
		"":             in,
		"/debug/hub":   in,
		"/a%2Fb/(x) y": in,
		"/deep/down":   http.StripPrefix("/deep/down", in),
	} {
		srv := httptest.NewServer(h)
		defer srv.Close()
		base := srv.URL + (&url.URL{Path: at}).EscapedPath()
		for file, kind := range map[string]string{
			"": "text/html; charset=utf-8", "/": "text/html; charset=utf-8", "/style.css": "text/css; charset=utf-8",
			"/inspector.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml", "/stats.json": "application/json",
		} {
			res, err := http.Get(base + file)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			h := res.Header
			if res.StatusCode != http.StatusOK || h.Get("Content-Type") != kind {
				t.Errorf("%s%s: status %d, %s", at, file, res.StatusCode, h.Get("Content-Type"))
			}
			if got := res.Request.URL.Path; file == "" && at != "" && got != at+"/" {
				t.Errorf("%s leads to %s", at, got)
			}
			policy := h.Get("Content-Security-Policy")
			for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
				if !strings.Contains(policy, want) {
					t.Errorf("%s%s: no %s in %q", at, file, want, policy)
				}
			}
			if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%s%s: %v", at, file, h)
			}
		}
	}
	w := httptest.NewRecorder()
	in.ServeHTTP(w, httptest.NewRequest("POST", "/stats.json", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d", w.Code)
	}
}

// A page of another origin can't look, nor act, in the name of who visits it.
func TestPageOfAnotherOriginIsRefused(t *testing.T) {
	s := newSite(t, inspector.WithActions())
	wsroomtest.Refused(t, s.mux, "/look/live", http.StatusForbidden, wsroomtest.WithOrigin("https://evil.example"))
}

func TestStatsForScripts(t *testing.T) {
	s := newSite(t)
	for i := range 45 {
		s.dial(fmt.Sprintf("/Room-%02d?name=Guest", i))
	}
	for range 22 {
		s.dial("/busy?name=Ann+1") // no ID has a space
	}
	s.dial("/busy?name=" + url.QueryEscape(hostile))
	r := s.stats("")
	if r.Conns != 68 || r.Rooms != 46 || r.Actions || r.Rates != nil {
		t.Errorf("%+v", r)
	}
	if first := r.Found.Rows[0]; first.Name != "/busy" || first.Members != 23 {
		t.Errorf("the first room is %+v", first)
	}
	for _, tc := range []struct {
		query                                string
		rooms, page, pages, members, rows    int
		firstRoom, firstLabel, firstOfMember string
	}{
		{query: "page=2", rooms: 46, page: 2, pages: 3, firstRoom: "/Room-19"},
		{query: "page=99", rooms: 46, page: 3, pages: 3, firstRoom: "/Room-39"},
		{query: "page=two", rooms: 46, page: 1, pages: 3, firstRoom: "/busy"},
		{query: "page=-1", rooms: 46, page: 1, pages: 3, firstRoom: "/busy"},
		{query: "search=ROOM-4", rooms: 5, page: 1, pages: 1, firstRoom: "/Room-40"},
		{query: "search=nothing", rooms: 0, page: 1, pages: 1},
		{query: "search=ann+1", rooms: 0, page: 1, pages: 1, members: 22, rows: 20, firstLabel: "Ann 1"},
		{query: "search=192.0.2.1", rooms: 0, page: 1, pages: 1, members: 68, rows: 20},
		{query: "search=onerror", rooms: 0, page: 1, pages: 1, members: 1, rows: 1, firstLabel: hostile},
		{query: "room=/busy&membersPage=2", rooms: 46, page: 1, pages: 3, members: 23, rows: 3, firstRoom: "/busy"},
		{query: "room=/empty", rooms: 46, page: 1, pages: 3, firstRoom: "/busy"},
	} {
		r := s.stats(tc.query)
		if f := r.Found; f.Total != tc.rooms || f.Page != tc.page || f.Pages != tc.pages || tc.firstRoom != "" && f.Rows[0].Name != tc.firstRoom {
			t.Errorf("%s: rooms %+v", tc.query, f)
		}
		if m := r.Members; m.Total != tc.members || len(m.Rows) != tc.rows || tc.firstLabel != "" && m.Rows[0].Label != tc.firstLabel {
			t.Errorf("%s: members %+v", tc.query, m)
		}
	}
}

const hostile = "<img src=x onerror=\"document.title='pwned'\">\u202egnp.exe"

func TestActionsAreRefusedUnlessSwitchedOn(t *testing.T) {
	s := newSite(t)
	s.dial("/a")
	id := s.hub.Members("/a")[0].ID()
	page := s.dial("/look/live")
	for _, do := range []map[string]any{
		{"do": "kick", "conn": id, "code": 1008}, {"do": "close", "room": "/a", "code": 1008}, {"do": "notice", "text": "x"},
	} {
		if a := s.ask(page, do); a.Failed != "actions are switched off" {
			t.Errorf("%v: %+v", do, a)
		}
	}
	if s.hub.Len() != 1 || s.hub.Stats().Sent != 0 {
		t.Error("it was done all the same")
	}
}

func TestActions(t *testing.T) {
	s := newSite(t, inspector.WithActions())
	a, b, c := s.dial("/a"), s.dial("/b"), s.dial("/b")
	id := s.hub.Members("/a")[0].ID()
	page := s.dial("/look/live")
	for _, tc := range []struct {
		command      map[string]any
		done, failed string
	}{
		{map[string]any{"do": "notice", "text": "to all"}, "sent a notice to all", ""},
		{map[string]any{"do": "notice", "room": "/b", "text": "to b"}, "sent a notice", ""},
		{map[string]any{"do": "notice"}, "", "a notice needs a text"},
		{map[string]any{"do": "kick", "conn": id, "code": 1005}, "", "close code 1005 can't be sent"},
		{map[string]any{"do": "kick", "conn": "nobody", "code": 1008}, "", "the connection has gone already"},
		{map[string]any{"do": "kick", "conn": id, "code": 4001, "text": "enough"}, "kicked with 4001", ""},
		{map[string]any{"do": "kick", "conn": id, "code": 4001}, "", "the connection has gone already"},
		{map[string]any{"do": "close", "code": 1008}, "", "refused: bad room name: it must have 1 to 255 bytes of UTF-8 without control characters"},
		{map[string]any{"do": "close", "room": "/b", "code": 1012}, "closed the room with 1012", ""},
		{map[string]any{"do": "format"}, "", "there is no such action"},
	} {
		if got := s.ask(page, tc.command); got.Done != tc.done || got.Failed != tc.failed {
			t.Errorf("%v: %q, %q", tc.command, got.Done, got.Failed)
		}
	}
	a.ExpectText("to all")
	a.ExpectClose(4001)
	for _, ws := range []*wsroomtest.Client{b, c} {
		ws.ExpectText("to all", "to b")
		ws.ExpectClose(websocket.StatusServiceRestart)
	}
}

// An application's mistake in its label stays on the page.
func TestLabelThatPanics(t *testing.T) {
	s := newSite(t)
	in := inspector.New(s.hub, inspector.WithLabel(func(*wsroom.Conn) string { panic("no user") }))
	defer in.Shutdown(t.Context())
	s.mux.Handle("/look/again/", in)
	s.dial("/a")
	page := s.dial("/look/again/live")
	page.SendJSON(map[string]any{"look": map[string]any{"room": "/a"}})
	var r report
	for len(r.Members.Rows) == 0 { // of before
		page.NextJSON(&r)
	}
	if got := r.Members.Rows[0].Label; got != "WithLabel panicked: no user" {
		t.Errorf("the label is %q", got)
	}
}

// What happens between two samples is told, with its cause, and who did it.
func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, inspector.WithActions())
		s.dial("/before")
		synctest.Wait() // it is counted, too
		s.stats("")
		s.dial("/a?name=Ann")
		id := s.hub.Members("/a")[0].ID()
		time.Sleep(time.Second)
		s.stats("")
		s.ask(s.dial("/look/live"), map[string]any{"do": "kick", "conn": id, "code": 4001, "text": "enough"})
		s.dial("/brief").CloseNow()
		for range 30 {
			s.dial("/crowd")
		}
		time.Sleep(time.Second)
		var got []string
		for _, e := range s.stats("").Events {
			got = append(got, strings.Trim(fmt.Sprint(e.Kind, " ", e.Count, " ", e.Label, " ", e.Room, " ", e.Detail), " "))
		}
		slices.Sort(got)
		want := []string{
			"action 1   kicked with 4001, by 192.0.2.1:1234", "brief 1", "empty 1  /a",
			"ended 1 Ann /a code 4001 enough", "opened 1 Ann /a 192.0.2.1:1234", "opened 30", "room 1  /a", "room 1  /crowd",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
	})
}

// A client that doesn't read is among the slowest, with what waits for it.
func TestSlowest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.dial("/a?name=Slow").Stall()
		s.dial("/a?name=Quick")
		s.hub.SendTextToAll(strings.Repeat("being written", 100))
		synctest.Wait()
		s.hub.SendTextToAll("12345")
		s.hub.SendTextToAll("12345")
		synctest.Wait()
		r := s.stats("")
		if len(r.Slowest) != 1 || r.Slowest[0].Label != "Slow" || r.Queued.Messages != 2 || r.Queued.Bytes != 14 {
			t.Errorf("%+v, %+v", r.Slowest, r.Queued)
		}
	})
}

// However many look, there is one sample a second; when nobody does there is none, no goroutine, and what
// was sampled is forgotten.
func TestCostsNothingWhileNobodyLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		member := s.dial("/a")
		running := func() bool {
			synctest.Wait()
			buf := make([]byte, 1<<20)
			return strings.Contains(string(buf[:runtime.Stack(buf, true)]), "adapters/inspector.(*")
		}
		conn := weak.Make(s.hub.Members("/a")[0])

		pages := wsroomtest.DialN(t, 3, s.mux, "/look/live")
		time.Sleep(10*time.Second + time.Millisecond)
		if n := len(s.stats("").History["conns"]); n != 10 {
			t.Errorf("%d samples in 10 s", n)
		}
		if !running() {
			t.Error("nothing runs while somebody looks")
		}
		for _, page := range pages {
			page.CloseNow()
		}
		if running() {
			t.Error("a goroutine is left")
		}
		time.Sleep(time.Second)
		if n := len(s.stats("").History["conns"]); n != 11 { // a reload keeps the charts
			t.Errorf("%d samples after a moment", n)
		}
		time.Sleep(time.Hour)
		if r := s.stats(""); len(r.History["conns"]) != 0 || r.Rates != nil {
			t.Errorf("after an hour: %v", r.History)
		}
		member.CloseNow()
		time.Sleep(time.Hour)
		runtime.GC()
		runtime.GC() // what pools held
		if conn.Value() != nil {
			t.Error("a connection that ended is kept")
		}
	})
}

// A page that stays has to pass the application's authentication from time to time.
func TestPageIsAuthenticatedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		page := s.dial("/look/live", wsroomtest.WithTimeout(time.Hour))
		begin := time.Now()
		page.ExpectClose(4401)
		if took := time.Since(begin); took != 15*time.Minute {
			t.Errorf("after %v", took)
		}
	})
}
