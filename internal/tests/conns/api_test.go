package conns_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// As soon as a client's dial returns it is in its room, and everyone can reach it.
func TestConnectedMeansInTheRoom(t *testing.T) {
	hub := wsroom.New()
	srv := kit.Serve(t, hub)
	for i := range 50 {
		room := fmt.Sprint("/", i)
		c := kit.Dial(t, srv, room)
		if err := hub.SendTextToRoom(room, "hello"); err != nil {
			t.Fatal(err)
		}
		kit.Member(t, hub, room).SendText("own")
		got := []string{c.NextText(), c.NextText()}
		if slices.Sort(got); !slices.Equal(got, []string{"hello", "own"}) {
			t.Errorf("got %q", got)
		}
	}
}

func TestWhoGetsWhat(t *testing.T) {
	hub := wsroom.New()
	srv := kit.Serve(t, hub)
	a, b, both := kit.Dial(t, srv, "/a"), kit.Dial(t, srv, "/b"), kit.Dial(t, srv, "/c")
	ca, cb, cboth := kit.Member(t, hub, "/a"), kit.Member(t, hub, "/b"), kit.Member(t, hub, "/c")
	for _, room := range []string{"/a", "/b"} {
		if err := cboth.Join(room); err != nil {
			t.Fatal(err)
		}
	}
	type to struct{ a, b, both bool }
	for _, tc := range []struct {
		name string
		send func(text string) error
		want to
	}{
		{"Conn.SendText", ca.SendText, to{a: true}},
		{"Conn.SendTextToThisRoom", ca.SendTextToThisRoom, to{a: true, both: true}},
		{"Conn.SendTextToRoom", func(s string) error { return ca.SendTextToRoom("/b", s) }, to{b: true, both: true}},
		{"Conn.SendTextToAll", ca.SendTextToAll, to{true, true, true}},
		{"Hub.SendTextToRoom", func(s string) error { return hub.SendTextToRoom("/a", s) }, to{a: true, both: true}},
		{"Hub.SendTextToAll", hub.SendTextToAll, to{true, true, true}},
		{"To several, once each", hub.To("/a", "/b", "/a").SendText, to{true, true, true}},
		{"To all", hub.ToAll().SendText, to{true, true, true}},
		{"Except", hub.To("/a", "/b").Except(ca).Except(cboth).SendText, to{b: true}},
		{"All except", hub.ToAll().Except(cb, ca).SendText, to{both: true}},
		{"To nobody", hub.To([]string{}...).SendText, to{}},
		{"An empty room", hub.To("/nobody").SendText, to{}},
	} {
		text := "for " + tc.name
		if err := tc.send(text); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		hub.SendTextToAll("end of " + tc.name) // so that what shouldn't come is seen
		for _, got := range []struct {
			c    *wsroomtest.Client
			want bool
		}{{a, tc.want.a}, {b, tc.want.b}, {both, tc.want.both}} {
			if got.want {
				got.c.ExpectText(text)
			}
			got.c.ExpectText("end of " + tc.name)
		}
	}
}

func TestJSONAndBinary(t *testing.T) {
	type message struct{ N int }
	hub := wsroom.New(
		wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err == nil {
				c.SendJSON(message{m.N + 1})
				c.SendJSONToThisRoom(message{m.N + 2})
				c.SendJSONToRoom("/a", message{m.N + 3})
				c.SendJSONToAll(message{m.N + 4})
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) {
			if err != nil {
				t.Error("OnBinary got the err that is OnJSON's")
				return
			}
			c.SendBinary(p)
			hubOf(c).SendBinary(append(p, '!'))
		}))
	hubOf = func(c *wsroom.Conn) wsroom.Target { return hub.To(c.Room()) }
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.SendText(`{"N":1}`)
	c.ExpectText(`{"N":2}`, `{"N":3}`, `{"N":4}`, `{"N":5}`)
	c.SendBinary([]byte{0, 0xff})
	c.ExpectBinary([]byte{0, 0xff})
	c.ExpectBinary([]byte{0, 0xff, '!'})
	if err := hub.SendJSONToAll(func() {}); err == nil || !strings.HasPrefix(err.Error(), "wsroom: encode JSON: ") {
		t.Errorf("JSON of a function: %v", err)
	}
}

var hubOf func(*wsroom.Conn) wsroom.Target

func TestBinaryIsTheSendersToReuse(t *testing.T) {
	hub := wsroom.New()
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	p := []byte("first")
	hub.To("/a").SendBinary(p)
	kit.Member(t, hub, "/a").SendBinary(p)
	copy(p, "XXXXX")
	c.ExpectBinary([]byte("first"))
	c.ExpectBinary([]byte("first"))
}

func TestConnKeepsItsOwn(t *testing.T) {
	conns := make(chan *wsroom.Conn, 2)
	type key struct{}
	hub := wsroom.New(wsroom.WithSubprotocols("v2", "v1"), wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
		c.Set("name", r.URL.Query().Get("name"))
		conns <- c
		return nil
	}))
	srv := kit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(context.WithValue(r.Context(), key{}, "value"))
		defer cancel()
		hub.ServeHTTP(w, r.WithContext(ctx))
	}), hub)
	kit.Dial(t, srv, "/a?name=ann", wsroomtest.WithSubprotocols("v1", "v0"))
	ann := kit.Await(t, conns, "ann")
	kit.Dial(t, srv, "/a?name=bob")
	bob := kit.Await(t, conns, "bob")
	if ann.ID() == bob.ID() || len(ann.ID()) < 20 {
		t.Errorf("IDs %q, %q", ann.ID(), bob.ID())
	}
	if name, ok := ann.Get("name"); !ok || name != "ann" {
		t.Errorf("Get: %v, %v", name, ok)
	}
	if _, ok := ann.Get("other"); ok {
		t.Error("Get of what wasn't Set")
	}
	if ann.Subprotocol() != "v1" || bob.Subprotocol() != "" {
		t.Errorf("subprotocols %q, %q", ann.Subprotocol(), bob.Subprotocol())
	}
	if ann.Room() != "/a" || !strings.HasPrefix(ann.RemoteAddr(), "127.0.0.1:") || ann.WebSocket() == nil {
		t.Errorf("room %q, address %q", ann.Room(), ann.RemoteAddr())
	}
	if v := ann.Context().Value(key{}); v != "value" || ann.Context().Err() != nil {
		t.Errorf("context: %v, %v", v, ann.Context().Err())
	}
	ann.Join("z")
	ann.Join("b")
	ann.Join("b")
	if got := ann.Rooms(); !slices.Equal(got, []string{"/a", "b", "z"}) {
		t.Errorf("Rooms: %q", got)
	}
	ann.Leave("/a")
	ann.Leave("never joined")
	if got := ann.Rooms(); !slices.Equal(got, []string{"b", "z"}) || ann.Room() != "/a" {
		t.Errorf("Rooms: %q, Room: %q", got, ann.Room())
	}
	if got := hub.Rooms(); !slices.Equal(got, []string{"/a", "b", "z"}) || hub.Len() != 2 {
		t.Errorf("hub: %q, %d", got, hub.Len())
	}
	for _, bad := range []string{"", "\n", "\xff", strings.Repeat("x", 256)} {
		if ann.Join(bad) == nil || hub.SendTextToRoom(bad, "x") == nil || hub.To(bad).Close(4000, "") == nil {
			t.Errorf("%q names a room", bad)
		}
	}
}

func TestLimitsOfJoin(t *testing.T) {
	hub := wsroom.New(wsroom.WithMaxRooms(3), wsroom.WithMaxMembers(2))
	srv := kit.Serve(t, hub)
	for _, room := range []string{"/a", "/b", "/c"} {
		kit.Dial(t, srv, room)
	}
	a, b, c := kit.Member(t, hub, "/a"), kit.Member(t, hub, "/b"), kit.Member(t, hub, "/c")
	refused := new(wsroom.StatusError)
	if err := a.Join("fourth"); !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("a fourth room: %v", err)
	}
	if err := b.Join("/a"); err != nil {
		t.Error(err)
	}
	if err := c.Join("/a"); !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("a third member: %v", err)
	}
	b.Leave("/a")
	if err := c.Join("/a"); err != nil {
		t.Errorf("after one left: %v", err)
	}
	c.Leave("/c")
	if err := a.Join("fourth"); err != nil {
		t.Errorf("after a room is gone: %v", err)
	}
}

func TestCloseRefusesWhatCantBeSent(t *testing.T) {
	hub := wsroom.New()
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	m := kit.Member(t, hub, "/a")
	for _, code := range []websocket.StatusCode{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000} {
		if m.Close(code, "") == nil || hub.ToAll().Close(code, "") == nil {
			t.Errorf("code %d is taken", code)
		}
	}
	if m.Close(4000, "\xff") == nil || hub.To().Close(4000, "\xff") == nil {
		t.Error("a reason that isn't UTF-8 is taken")
	}
	m.SendText("still here")
	c.ExpectText("still here")
	if err := hub.ToAll().Except(m).Close(4000, ""); err != nil || hub.Len() != 1 {
		t.Errorf("Except: %v, %d left", err, hub.Len())
	}
	if err := m.Close(4999, strings.Repeat("x", 123)); err != nil {
		t.Error(err)
	}
	if reason := c.ExpectClose(4999); len(reason) != 123 {
		t.Errorf("reason %q", reason)
	}
}

// What was queued before Close is delivered before the close frame.
func TestCloseFollowsWhatIsQueued(t *testing.T) {
	hub := wsroom.New()
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	m := kit.Member(t, hub, "/a")
	for i := range 1000 {
		m.SendText(fmt.Sprint(i))
	}
	m.Close(4000, "done")
	for i := range 1000 {
		c.ExpectText(fmt.Sprint(i))
	}
	c.ExpectClose(4000)
}

// With compression negotiated, messages are compressed for those who did, and stay what they are.
func TestCompression(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(100))
	srv := kit.Serve(t, hub)
	plain := kit.Dial(t, srv, "/a")
	deflated := kit.Dial(t, srv, "/a", wsroomtest.WithCompression())
	long := strings.Repeat("compressible ", 1000)
	for range 10 {
		for _, text := range []string{"short", long, ""} {
			deflated.SendText(text)
			plain.ExpectText(text)
			deflated.ExpectText(text)
			plain.SendText(text)
			plain.ExpectText(text)
			deflated.ExpectText(text)
		}
	}
	before := hub.Stats().SentBytes
	hub.SendTextToAll(long)
	plain.ExpectText(long)
	deflated.ExpectText(long)
	kit.Until(t, "it is counted", func() bool { return hub.Stats().SentBytes > before+int64(len(long)) })
	if sent := hub.Stats().SentBytes - before; sent > int64(len(long))*3/2 {
		t.Errorf("%d bytes sent for two copies of %d, one compressed", sent, len(long))
	}
}

// A deflate bomb is stopped at the message limit, which counts what is inflated.
func TestDeflateBomb(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(100))
	c := kit.Dial(t, kit.Serve(t, hub), "/a", wsroomtest.WithCompression())
	c.SendText(strings.Repeat("0", 10<<20))
	c.ExpectClose(websocket.StatusMessageTooBig)
}

func TestLargestMessage(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithMaxMessageSize(3<<20))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	text := strings.Repeat("0123456789abcdef", 3<<20/16)
	c.SendText(text)
	c.ExpectText(text)
	c.SendText(text + "x")
	c.ExpectClose(websocket.StatusMessageTooBig)
}

func TestStatsCount(t *testing.T) {
	seen := &kit.Observer{Sums: map[string]float64{}}
	onClose, closed := kit.Closes()
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithObserver(seen), onClose)
	srv := kit.Serve(t, hub)
	a, b := kit.Dial(t, srv, "/a"), kit.Dial(t, srv, "/a")
	a.SendText("12345")
	a.ExpectText("12345")
	b.ExpectText("12345")
	kit.Until(t, "all is counted", func() bool { return hub.Stats().Sent == 2 })
	got := hub.Stats()
	want := wsroom.Stats{Conns: 2, Rooms: 1, Opened: 2, Received: 1, Sent: 2, ReceivedBytes: 5, SentBytes: 14}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	a.Close(websocket.StatusNormalClosure, "")
	kit.Await(t, closed, "OnClose")
	kit.Until(t, "it is released", func() bool { return hub.Stats().Closed == 1 && hub.Stats().Conns == 1 })
	wsroomtest.Refused(t, nil, srv.URL+"/a", http.StatusForbidden, wsroomtest.WithOrigin("https://evil.example"))
	kit.Until(t, "the observer has seen it", func() bool { return seen.Sum("conns") == 1 && seen.Sum("ended peer") == 1 })
	for metric, want := range map[string]float64{
		"messages_in": 1, "bytes_in": 5, "messages_out": 2, "refused origin": 1, "fan_out": 2,
	} {
		if got := seen.Sum(metric); got != want {
			t.Errorf("%s: %v, want %v", metric, got, want)
		}
	}
	if seen.Sum("queue_time") <= 0 {
		t.Error("no queue_time")
	}
}

// New reports every mistake at once.
func TestNewPanicsWithEveryMistake(t *testing.T) {
	opts := map[string]wsroom.Option{
		"WithRoom": wsroom.WithRoom(nil), "WithAuthorize": wsroom.WithAuthorize(nil), "WithOrigins": wsroom.WithOrigins("*"),
		"WithHosts": wsroom.WithHosts("https://x.example"), "WithSubprotocols": wsroom.WithSubprotocols("a b"),
		"WithMaxMessageSize": wsroom.WithMaxMessageSize(0), "WithMessageTimeout": wsroom.WithMessageTimeout(0),
		"WithSendQueue": wsroom.WithSendQueue(0, -1), "WithOverflow": wsroom.WithOverflow(7),
		"WithHeartbeat": wsroom.WithHeartbeat(time.Second, 0), "WithWriteTimeout": wsroom.WithWriteTimeout(-1),
		"WithCompression": wsroom.WithCompression(-1), "WithMaxConns": wsroom.WithMaxConns(0), "WithMaxRooms": wsroom.WithMaxRooms(0),
		"WithMaxMembers": wsroom.WithMaxMembers(0), "WithMaxConnsPer": wsroom.WithMaxConnsPer(nil, 1),
		"WithRateLimit": wsroom.WithRateLimit(0, 1), "WithRateLimitAction": wsroom.WithRateLimitAction(9),
		"WithDrain": wsroom.WithDrain(-1), "WithBadJSON": wsroom.WithBadJSON(5), "WithJSON": wsroom.WithJSON(nil, nil),
		"WithLogger": wsroom.WithLogger(nil), "WithObserver": wsroom.WithObserver(nil), "Serve": wsroom.Serve(nil),
		"OnJSON": wsroom.OnJSON[int](nil), "OnText": wsroom.OnText(nil), "OnBinary": wsroom.OnBinary(nil),
		"OnConnect": wsroom.OnConnect(nil), "OnClose": wsroom.OnClose(nil), "OnJoin": wsroom.OnJoin(nil),
		"OnLeave": wsroom.OnLeave(nil), "OnDrop": wsroom.OnDrop(nil), "OnExpire": wsroom.OnExpire(nil),
		"WithTrustedProxies": wsroom.WithTrustedProxies("x"), "WithByteRateLimit": wsroom.WithByteRateLimit(0, -1),
		"WithRejectMode": wsroom.WithRejectMode(2), "WithHandshakeTimeout": wsroom.WithHandshakeTimeout(0),
	}
	mistakes := func(opts ...wsroom.Option) (text string) {
		defer func() {
			if v := recover(); v != nil {
				text = fmt.Sprint(v)
			}
		}()
		wsroom.New(opts...)
		return ""
	}
	var all []wsroom.Option
	for name, opt := range opts {
		all = append(all, opt, nil)
		if text := mistakes(opt); !strings.Contains(text, "wsroom: "+name+":") {
			t.Errorf("%s: %q", name, text)
		}
	}
	text := mistakes(all...)
	for name := range opts {
		if !strings.Contains(text, name+":") {
			t.Errorf("%s isn't among all mistakes", name)
		}
	}
	for what, opt := range map[string]wsroom.Option{
		"WithRateLimit or WithByteRateLimit": wsroom.WithRateLimitAction(wsroom.Disconnect),
		"WithAuthorize":                      wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { return time.Time{}, nil }),
	} {
		if text := mistakes(opt); !strings.Contains(text, "no effect without "+what) {
			t.Errorf("alone: %q lacks %s", text, what)
		}
	}
	if text := mistakes(nil, wsroom.WithHeartbeat(0, 0)); text != "" {
		t.Errorf("no mistake: %s", text)
	}
}

func TestTwoHubsShareNoRoom(t *testing.T) {
	one, two := wsroom.New(), wsroom.New()
	srvOne, srvTwo := kit.Serve(t, one), kit.Serve(t, two)
	a, b := kit.Dial(t, srvOne, "/a"), kit.Dial(t, srvTwo, "/a")
	one.SendTextToRoom("/a", "of one")
	two.SendTextToRoom("/a", "of two")
	a.ExpectText("of one")
	b.ExpectText("of two")
}
