package resume_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// offering connects a client that presents these entries instead of its own positions. It returns what the client
// gets until its answer to a probe.
func offering(t *testing.T, s *server, path string, entries ...string) *v1 {
	t.Helper()
	c := newV1(t, path)
	if err := c.dial(s, -1, append([]string{"wsroom.v1"}, entries...)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.cut)
	c.rooms[path] = &cursor{}
	c.offered = make([]string, len(entries))
	for i := range entries {
		c.offered[i] = path
	}
	c.ask(1)
	return c
}

// A position that is forged, cut, of another room, hub, key or process, too old, or of before the client's first entry,
// isn't resumed. It is no error, and the client gets nothing of before.
func TestBadPositionsAreNotResumed(t *testing.T) {
	both(t, func(t *testing.T, opts ...wsroom.Option) {
		observer := &kit.Observer{Sums: map[string]float64{}}
		opts = append(opts, wsroom.WithHistory(8, 1<<20, time.Minute), wsroom.WithObserver(observer))
		hub := newHub(t, append(opts, wsroom.WithName("one"))...)
		s := serve(t, hub)
		stays := newV1(t, "/a")
		stays.connect(s)
		stays.say("join b")
		hub.SendTextToRoom("/a", "before it came")
		stays.await("/a", 1)
		before := *stays.rooms["/a"]

		c := newV1(t, "/a")
		c.connect(s)
		c.say("join b")
		hub.SendTextToRoom("/a", "had")
		c.await("/a", 1)
		good := *c.rooms["/a"]
		c.ask(1)
		ofB := *c.rooms["b"]
		c.cut()
		hub.SendTextToRoom("/a", "missed")
		stays.await("/a", 3)

		if got := offering(t, s, "/a", good.String()); got.resumed != 1 || !slices.Equal(got.got["/a"], []string{"missed"}) {
			t.Fatalf("the good position gives %q, resumed %d", got.got, got.resumed)
		}

		otherHub := newHub(t, append(opts[:len(opts):len(opts)], wsroom.WithName("two"))...)
		elsewhere := newV1(t, "/a")
		elsewhere.connect(serve(t, otherHub))
		otherHub.SendTextToRoom("/a", "x")
		elsewhere.await("/a", 1)

		flipped := []byte(good.token)
		flipped[40] ^= 1
		for what, entry := range map[string]string{
			"forged":           cursor{string(flipped), good.at, good.n}.String(),
			"cut":              cursor{good.token[:50], good.at, good.n}.String(),
			"no token":         cursor{"", good.at, good.n}.String(),
			"another room":     cursor{ofB.token, good.at, good.n}.String(),
			"another hub":      elsewhere.rooms["/a"].String(),
			"before the floor": cursor{good.token, before.at, 0}.String(),
			"long before":      cursor{good.token, "1", 0}.String(),
			"the future":       cursor{good.token, "99999999999999999", 0}.String(),
			"too far":          cursor{good.token, good.at, 1000}.String(),
			"absurd":           "resume." + good.token + "." + good.at + ".18446744073709551615",
			"more than absurd": "resume." + good.token + "." + good.at + ".99999999999999999999999",
			"zero":             cursor{good.token, "0", 0}.String(),
			"odd":              "resume....",
			"empty":            "resume.",
		} {
			got := offering(t, s, "/a", entry)
			if got.resumed != 0 || got.fresh["/a"] != 1 || len(got.got["/a"]) > 0 || len(got.gaps) > 0 {
				t.Errorf("%s: %q, resumed %d, fresh %v, gaps %v", what, got.got, got.resumed, got.fresh, got.gaps)
			}
			got.cut()
		}
		forged := observer.Sum("resumes forged")

		for i := range 20 {
			hub.SendTextToRoom("/a", fmt.Sprint(i))
		}
		stays.await("/a", 23)
		if got := offering(t, s, "/a", good.String()); got.resumed != 0 || len(got.got["/a"]) > 0 {
			t.Errorf("too old: %q, resumed %d", got.got, got.resumed)
		}
		if n := observer.Sum("resumes expired"); forged < 3 || n < 1 || observer.Sum("resumes resumed") != 1 {
			t.Errorf("forged %v, expired %v, resumed %v", forged, n, observer.Sum("resumes resumed"))
		}
	})
}

// The first 64 positions that a client presents count, of several for a room the first. A header that is too large is
// refused by the server.
func TestTooManyPositions(t *testing.T) {
	hub := newHub(t, wsroom.WithHistory(10, 1<<20, time.Minute))
	s := serve(t, hub)
	c := newV1(t, "/a")
	c.connect(s)
	hub.SendTextToRoom("/a", "had")
	c.await("/a", 1)
	c.cut()
	hub.SendTextToRoom("/a", "missed")
	good := c.rooms["/a"].String()
	var others []string
	for i := range 64 {
		others = append(others, fmt.Sprintf("resume.%068d.%d.0", i, i))
	}
	if got := offering(t, s, "/a", append(others, good)...); got.resumed != 0 {
		t.Error("the 65th position counts")
	}
	if got := offering(t, s, "/a", append(others[:63:63], good)...); got.resumed != 1 {
		t.Error("the 64th position doesn't count")
	}
	if got := offering(t, s, "/a", good, good, good); got.resumed != 1 || len(got.got["/a"]) != 1 {
		t.Errorf("the same position three times: %q", got.got)
	}
	huge := newV1(t, "/a")
	if err := huge.dial(s, -1, "wsroom.v1", "resume."+strings.Repeat("x", 2<<20)); err == nil || strings.Contains(err.Error(), "panic") {
		t.Errorf("2 MB: %v", err)
	}
}

// A client that isn't let in any more is refused as ever. One that isn't let into a room any more gets nothing of
// what it has missed there.
func TestBannedGetsNothing(t *testing.T) {
	var banned, outOfB atomic.Bool
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHistory(10, 1<<20, time.Minute),
		wsroom.WithAuthorize(func(*http.Request, string) error {
			if banned.Load() {
				return &wsroom.StatusError{Status: http.StatusForbidden, Message: "banned"}
			}
			return nil
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if outOfB.Load() {
				return nil
			}
			return c.Join("b")
		})))
	s := serve(t, hub)
	c := newV1(t, "/a")
	c.connect(s)
	c.until("it is in both", func() bool { return c.fresh["b"] == 1 })
	hub.SendTextToRoom("/a", "a")
	hub.SendTextToRoom("b", "b")
	c.ask(1)
	c.cut()

	outOfB.Store(true)
	hub.SendTextToRoom("b", "secret")
	hub.SendTextToRoom("/a", "a")
	c.connect(s)
	c.ask(1)
	if len(c.got["b"]) != 1 || len(c.got["/a"]) != 2 || len(c.got[""]) > 0 {
		t.Errorf("got %q", c.got)
	}
	c.cut()

	banned.Store(true)
	hub.SendTextToRoom("/a", "secret")
	err := c.dial(s, -1)
	if err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("it is let in: %v", err)
	}
}

// A position isn't good for the client's room under another name, and an application's own subprotocol stays its own.
func TestOwnSubprotocol(t *testing.T) {
	hub := newHub(t, wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.WithSubprotocols("chat"))
	s := serve(t, hub)
	for _, test := range []struct{ offer, chosen, own string }{
		{"chat+wsroom.v1", "chat+wsroom.v1", "chat"},
		{"CHAT+WSROOM.V1", "CHAT+WSROOM.V1", "chat"},
		{"other+wsroom.v1", "", ""},
		{"wsroom.v1", "wsroom.v1", ""},
		{"chat", "chat", "chat"},
	} {
		ws := newV1(t, "/a")
		if err := ws.dial(s, -1, test.offer); err != nil {
			t.Fatal(err)
		}
		conn := kit.Member(t, hub, "/a")
		if got := ws.ws.Subprotocol(); got != test.chosen || conn.Subprotocol() != test.own {
			t.Errorf("%s: chosen %q, own %q", test.offer, got, conn.Subprotocol())
		}
		ws.ws.Close(websocket.StatusNormalClosure, "")
		kit.NothingLeft(t, hub)
	}
}

// Without a history a client of wsroom.v1 is told of rooms, gets beats and answers, and has no positions.
func TestWithoutHistory(t *testing.T) {
	both(t, func(t *testing.T, opts ...wsroom.Option) {
		if len(opts) > 0 {
			opts = opts[:1] // a key is for histories
		}
		hub := newHub(t, opts...)
		s := serve(t, hub)
		for round := range 2 {
			c := newV1(t, "/a")
			c.connect(s)
			c.say("join b")
			c.until("it is in both", func() bool { return c.fresh["b"] == 1 })
			hub.SendTextToRoom("/a", "a")
			hub.To("b", "/a").SendText("both")
			hub.SendTextToAll("all")
			c.until("all has come", func() bool { return len(c.got["/a"]) == 1 && len(c.got["b"]) == 1 && len(c.got[""]) == 1 })
			c.say("leave b")
			c.ask(1)
			hub.SendTextToRoom("b", "nobody gets it")
			hub.SendTextToRoom("/a", "a2")
			c.await("/a", 2)
			if c.rooms["/a"].at != "" || c.rooms["/a"].token != "" || c.rooms["b"] != nil || c.hello.Keep != 0 || c.beats != 1 {
				t.Errorf("round %d: %v, hello %+v, %d beats", round, c.rooms, c.hello, c.beats)
			}
			c.cut()
		}
	})
}

// A position of another process isn't resumed, even where both have the same key, and numbered their messages alike.
func TestPositionOfAnotherProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var servers []*server
		var clients []*v1
		for range 2 { // in the bubble both begin at the same time
			hub := newHub(t, wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.WithResumeKey(key))
			s := serve(t, hub)
			c := newV1(t, "/a")
			c.connect(s)
			hub.SendTextToRoom("/a", "one")
			hub.SendTextToRoom("/a", "two")
			c.await("/a", 2)
			servers, clients = append(servers, s), append(clients, c)
		}
		c := clients[0]
		if c.rooms["/a"].at != clients[1].rooms["/a"].at {
			t.Fatalf("the positions are %v and %v", c.rooms["/a"], clients[1].rooms["/a"])
		}
		c.cut()
		c.connect(servers[1])
		c.ask(1)
		if c.resumed != 0 || c.fresh["/a"] != 2 {
			t.Errorf("resumed %d, fresh %v", c.resumed, c.fresh)
		}
	})
}
