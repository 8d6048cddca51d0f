package conns_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Each call that sends binary messages reaches the receivers that its sister for text reaches.
func TestBinaryMessagesReachTheirReceivers(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New())
	a, b := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
	ca := kit.Member(t, hub, "/a")
	for _, tc := range []struct {
		name string
		send func(p []byte) error
		a, b bool
	}{
		{"Conn.SendBinaryToThisRoom", ca.SendBinaryToThisRoom, true, false},
		{"Conn.SendBinaryToRoom", func(p []byte) error { return ca.SendBinaryToRoom("/b", p) }, false, true},
		{"Conn.SendBinaryToAll", ca.SendBinaryToAll, true, true},
		{"Hub.SendBinaryToRoom", func(p []byte) error { return hub.SendBinaryToRoom("/b", p) }, false, true},
		{"Hub.SendBinaryToAll", hub.SendBinaryToAll, true, true},
	} {
		if err := tc.send([]byte(tc.name)); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		hub.SendTextToAll("end of " + tc.name) // so that what shouldn't come is seen
		for client, gets := range map[*wsroomtest.Client]bool{a: tc.a, b: tc.b} {
			if gets {
				client.ExpectBinary([]byte(tc.name))
			}
			client.ExpectText("end of " + tc.name)
		}
	}
	if hub.SendBinaryToRoom("\n", nil) == nil {
		t.Error("a bad name is no error")
	}
}

// Conns gives each connection once, and the loop's body may do what it likes: no lock is held.
func TestConnsHoldsNoLock(t *testing.T) {
	closes, causes := kit.Closes()
	hub := wsroomtest.CheckHub(t, wsroom.New(closes))
	const many = 200
	clients := wsroomtest.DialN(t, many, hub, "/a")
	seen := map[*wsroom.Conn]bool{}
	for c := range hub.Conns() {
		if seen[c] {
			t.Fatal("a connection came twice")
		}
		seen[c] = true
		if c.Hub() != hub {
			t.Fatal("Hub isn't its hub")
		}
		if err := c.Join("b"); err != nil {
			t.Fatal(err)
		}
		hub.SendTextToAll("x")
	}
	if len(seen) != many || len(hub.Members("b")) != many {
		t.Errorf("%d connections, %d in b; want %d", len(seen), len(hub.Members("b")), many)
	}

	var first *wsroom.Conn
	for c := range hub.Conns() {
		if first == nil {
			first = c
			hub.To("b").Except(c).Close(4000, "")
			continue
		}
		t.Error("a connection came that was ending")
	}
	for range many - 1 {
		kit.Await(t, causes, "the others' ends")
	}
	for range hub.Conns() {
		break // it ends the loop
	}
	_ = clients
}

// A connection is among Conns once its client has the answer to the handshake, like Members.
func TestConnsLeavesOutWhoHasNoSocketYet(t *testing.T) {
	var hub *wsroom.Hub
	early := 0
	hub = wsroomtest.CheckHub(t, wsroom.New(wsroom.WithObserver(observed(func(metric string) {
		if metric == wsroom.MetricJoins {
			for range hub.Conns() {
				early++
			}
		}
	}))))
	wsroomtest.Dial(t, hub, "/a")
	n := 0
	for range hub.Conns() {
		n++
	}
	if early != 0 || n != 1 {
		t.Errorf("%d before its socket was there, %d after", early, n)
	}
}

type observed func(metric string)

func (f observed) Add(metric, _, _ string, _ int)        { f(metric) }
func (f observed) Record(metric, _, _ string, _ float64) { f(metric) }

type user struct{ name string }

var (
	signedIn wsroom.Value[*user]
	other    wsroom.Value[*user]
	count    wsroom.Value[int]
	failure  wsroom.Value[error]
)

// A Value is a key of its own, with a type. What isn't set, or was deleted, isn't there.
func TestValueKeepsWhatWasSet(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New())
	wsroomtest.Dial(t, hub, "/a")
	c := kit.Member(t, hub, "/a")
	if u, ok := signedIn.Get(c); u != nil || ok {
		t.Errorf("nothing was set, got %v, %v", u, ok)
	}
	ann := &user{"ann"}
	signedIn.Set(c, ann)
	count.Set(c, 3)
	failure.Set(c, nil)
	if u, ok := signedIn.Get(c); u != ann || !ok {
		t.Errorf("got %v, %v", u, ok)
	}
	if u, ok := other.Get(c); u != nil || ok {
		t.Errorf("another key of the same type has %v, %v", u, ok)
	}
	if err, ok := failure.Get(c); err != nil || !ok {
		t.Errorf("nil was set, got %v, %v", err, ok)
	}
	signedIn.Delete(c)
	signedIn.Delete(c)
	if u, ok := signedIn.Get(c); u != nil || ok {
		t.Errorf("it was deleted, got %v, %v", u, ok)
	}
	if n, ok := count.Get(c); n != 3 || !ok {
		t.Errorf("got %v, %v", n, ok)
	}
	c.Set("key", 1)
	c.Delete("key")
	c.Delete("never set")
	if v, ok := c.Get("key"); v != nil || ok {
		t.Errorf("it was deleted, got %v, %v", v, ok)
	}
	if n := testing.AllocsPerRun(100, func() { signedIn.Set(c, ann); signedIn.Get(c); signedIn.Delete(c) }); n != 0 {
		t.Errorf("%v objects were allocated", n)
	}
}

// Join enters all rooms or none, whatever it is that fails.
func TestJoinIsAllOrNothing(t *testing.T) {
	var joined journal
	seen := &kit.Observer{Sums: map[string]float64{}}
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithMaxRooms(5), wsroom.WithMaxMembers(2), wsroom.WithObserver(seen),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) { joined.note("%s", room) }),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendJSON(map[string]bool{"ok": c.Join(strings.Fields(text)...) == nil})
			}
		})))
	for range 2 {
		wsroomtest.Dial(t, hub, "/full")
	}
	ann := wsroomtest.Dial(t, hub, "/a")
	c := kit.Member(t, hub, "/a")
	before := c.Rooms()
	for _, rooms := range [][]string{
		{"b", "/full", "d"}, {"/full"}, {"b", "c", "d", "e"}, {"b", "\n"}, {"b", strings.Repeat("x", 256)}, {"b", ""},
	} {
		err := c.Join(rooms...)
		if !errors.As(err, new(*wsroom.StatusError)) {
			t.Errorf("%q: %v", rooms, err)
		}
		if !slices.Equal(c.Rooms(), before) || !slices.Equal(hub.Rooms(), []string{"/a", "/full"}) {
			t.Errorf("%q: it is in %q; the hub has %q", rooms, c.Rooms(), hub.Rooms())
		}
	}
	if err := c.Join(); err != nil {
		t.Errorf("no rooms: %v", err)
	}
	ann.SendText("b /a c b")
	ann.ExpectJSON(map[string]bool{"ok": true})
	if got := c.Rooms(); !slices.Equal(got, []string{"/a", "b", "c"}) {
		t.Errorf("it is in %q", got)
	}
	if rooms, joins := seen.Sum(wsroom.MetricRooms), seen.Sum(wsroom.MetricJoins); rooms != 4 || joins != 5 {
		t.Errorf("%v rooms, %v joins were counted", rooms, joins)
	}
	ann.Close(websocket.StatusNormalClosure, "")
	if err := c.Join("d", "e"); !errors.Is(err, wsroom.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	kit.Shutdown(t, hub)
	got := strings.Split(joined.take(), ", ")
	slices.Sort(got)
	if want := []string{"/a", "/full", "/full", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("OnJoin: %q, want %q", got, want)
	}
}

// Connections that came together end by their age, with 1012, spread over the last fifth of the time.
func TestMaxAgeEndsConnectionsSpreadOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []time.Duration
		begin := time.Now()
		seen := &kit.Observer{Sums: map[string]float64{}}
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithMaxAge(time.Hour), wsroom.WithObserver(seen),
			wsroom.WithAuthorize(func(r *http.Request, _ string) error { return wsroom.Until(begin.Add(2 * time.Hour)) }),
			wsroom.OnClose(func(c *wsroom.Conn, err error) {
				if !errors.Is(err, wsroom.ErrMaxAge) {
					t.Errorf("cause %v", err)
				}
			})))
		const many = 100
		clients := wsroomtest.DialN(t, many, hub, "/a")
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for hub.Len() > 0 && time.Since(begin) < 2*time.Hour {
			<-tick.C
			for range many - len(ends) - hub.Len() {
				ends = append(ends, time.Since(begin))
			}
		}
		for _, c := range clients {
			c.ExpectClose(websocket.StatusServiceRestart)
		}
		kit.WantBetween(t, "the first end", ends[0], 48*time.Minute, 52*time.Minute)
		kit.WantBetween(t, "the middle end", ends[many/2], 50*time.Minute, 58*time.Minute)
		kit.WantBetween(t, "the last end", ends[many-1], 56*time.Minute, 60*time.Minute)
		if n := seen.Sum("ended max_age"); n != many {
			t.Errorf("%v ends were counted as max_age", n)
		}
	})
}

// A connection that ends before doesn't leave the timer of its age behind.
func TestMaxAgeLeavesNoTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithMaxAge(1000*time.Hour)))
		before := kit.HeapInUse()
		for range 300 {
			c := wsroomtest.Dial(t, hub, "/a")
			kit.Member(t, hub, "/a").Set("ballast", make([]byte, 64<<10))
			c.Close(websocket.StatusNormalClosure, "")
			synctest.Wait()
		}
		if grown := kit.HeapInUse() - before; grown > 10<<20 {
			t.Errorf("300 connections that have ended hold %d bytes", grown)
		}
	})
}

// A DecodeError has the message that didn't decode, cut to 4 KiB.
func TestDecodeErrorHasTheMessage(t *testing.T) {
	got := make(chan *wsroom.DecodeError, 1)
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithBadJSON(wsroom.KeepOpen), wsroom.OnJSON(func(c *wsroom.Conn, n int, err error) {
		if bad := (*wsroom.DecodeError)(nil); errors.As(err, &bad) {
			got <- bad
		}
	})))
	c := wsroomtest.Dial(t, hub, "/a")
	long := strings.Repeat("x", 10_000)
	c.SendText(`{"a":`)
	c.SendText(long)
	c.SendText(`"no number"`) // what follows doesn't change the copy
	for _, want := range []string{`{"a":`, long[:4096], `"no number"`} {
		if bad := kit.Await(t, got, "the error"); !bytes.Equal(bad.Message, []byte(want)) {
			t.Errorf("got %d bytes: %q", len(bad.Message), kit.Short(string(bad.Message)))
		}
	}
}

// A client that is told of its rooms is told of each that it joins, under its own name, and of no other.
func TestJoinTellsEachRoomOnce(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.WithMaxRooms(4)))
	client := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithSubprotocols("wsroom.v1"))
	c := kit.Member(t, hub, "/a")
	if err := c.Join("x", "y", "z", "one too many"); err == nil {
		t.Error("it is in more rooms than there may be")
	}
	if err := c.Join("/a", "b", "/a", "c"); err != nil {
		t.Fatal(err)
	}
	c.SendText("the end")
	var rooms []string
	for {
		text := client.NextText()
		if text == "the end" {
			break
		}
		var it struct {
			In   *int
			Room string
		}
		if json.Unmarshal([]byte(text), &it) == nil && it.In != nil && it.Room != "" {
			rooms = append(rooms, it.Room)
		}
	}
	slices.Sort(rooms)
	if !slices.Equal(rooms, []string{"/a", "b", "c"}) {
		t.Errorf("it was told of %q", rooms)
	}
}
