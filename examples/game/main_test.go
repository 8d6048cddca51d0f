package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

const keep = 30 * time.Second

// seen is a message as a page reads it.
type seen struct {
	Tick    int
	Players []player
	Stars   map[int]vector
	You     int
	Field   map[string]int
}

// visitor is a page: what it has been told of the players and stars.
type visitor struct {
	*wsroomtest.Client
	you, tick int
	players   map[int]player
	stars     map[int]vector
}

func bearer(secret string) string {
	return "bearer." + base64.RawURLEncoding.EncodeToString([]byte(secret))
}

// dial opens a connection, without waiting for the whole.
func dial(t *testing.T, handler http.Handler, room, name, secret string) *wsroomtest.Client {
	t.Helper()
	return wsroomtest.Dial(t, handler, "/ws/"+room+"?name="+url.QueryEscape(name),
		wsroomtest.WithName(name), wsroomtest.WithSubprotocols(bearer(secret)))
}

// visit opens a connection as the player of the name.
func visit(t *testing.T, handler http.Handler, room, name string) *visitor {
	t.Helper()
	v := &visitor{Client: dial(t, handler, room, name, "secret-of-player-"+name)}
	if m := v.next(); m.You == 0 || m.Field["rate"] != rate {
		t.Fatalf("%s is told %+v first", name, m)
	}
	return v
}

// next takes a message.
func (v *visitor) next() seen {
	var m seen
	v.NextJSON(&m)
	v.see(m)
	return m
}

func (v *visitor) see(m seen) {
	v.tick = m.Tick
	if m.You != 0 {
		v.you, v.players, v.stars = m.You, map[int]player{}, map[int]vector{}
	}
	for _, p := range m.Players {
		v.players[p.ID] = p
		if p.Gone {
			delete(v.players, p.ID)
		}
	}
	maps.Copy(v.stars, m.Stars)
}

// watch sees what comes in a time of the bubble, and returns how many messages that are.
func (v *visitor) watch(d time.Duration) int {
	time.Sleep(d)
	messages := v.Drain()
	for _, text := range messages {
		var m seen
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			panic(err)
		}
		v.see(m)
	}
	return len(messages)
}

func (v *visitor) steer(x, y float64) { v.SendJSON(vector{x, y}) }
func (v *visitor) me() player         { return v.players[v.you] }

// play runs a test with a game, in a bubble.
func play(t *testing.T, test func(t *testing.T, handler http.Handler)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hub, handler := newGame(keep)
		wsroomtest.CheckHub(t, hub)
		test(t, handler)
	})
}

func distance(a, b vector) float64 { return math.Hypot(a[0]-b[0], a[1]-b[1]) }

func TestPlayersSeeEachOtherMove(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada, bob := visit(t, handler, "lobby", "Ada"), visit(t, handler, "lobby", "Bob")
		cyn := visit(t, handler, "elsewhere", "Cyn")
		ada.watch(time.Second)
		if len(ada.players) != 2 || ada.players[bob.you].Name != "Bob" || len(cyn.players) != 1 {
			t.Fatalf("Ada sees %+v, Cyn %+v", ada.players, cyn.players)
		}
		bob.steer(1, 0)
		ada.watch(10 * time.Second)
		if at := ada.players[bob.you].At; at[0] != width-radius || at[1] != bob.me().At[1] {
			t.Errorf("Ada sees Bob at %v, who went right from %v", at, bob.me().At)
		}
		bob.steer(-0.5, 0)
		bob.watch(time.Second)
		ada.watch(0)
		if at := ada.players[bob.you].At; at != bob.me().At || math.Abs(width-radius-at[0]-speed/2) > 2*speed/rate {
			t.Errorf("after a second Ada sees Bob at %v, and he himself at %v", at, bob.me().At)
		}
		bob.steer(0, 0)
		bob.watch(time.Second)
		if n := bob.watch(time.Minute); n != 0 {
			t.Errorf("nobody moves, and %d messages come", n)
		}
	})
}

// collect has a player get the star that is next to it, and returns its score.
func collect(t *testing.T, v *visitor) int {
	t.Helper()
	score, to := v.me().Score, vector{}
	for range 60 * rate {
		nearest := math.Inf(1)
		for _, at := range v.stars {
			if d := distance(at, v.me().At); d < nearest {
				nearest, to = d, at
			}
		}
		v.steer((to[0]-v.me().At[0])/nearest, (to[1]-v.me().At[1])/nearest)
		if v.watch(time.Second / rate); v.me().Score > score {
			return v.me().Score
		}
	}
	t.Fatal("no star can be reached")
	return 0
}

func TestLateJoinerSeesAllAtOnce(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada, bob := visit(t, handler, "lobby", "Ada"), visit(t, handler, "lobby", "Bob")
		collect(t, ada)
		bob.steer(0, 1)
		bob.watch(500 * time.Millisecond) // it still moves
		ada.watch(0)
		cyn := visit(t, handler, "lobby", "Cyn")
		for _, v := range []*visitor{ada, bob} {
			if seen := cyn.players[v.you]; seen.Score != v.me().Score || distance(seen.At, v.me().At) > 2*speed/rate {
				t.Errorf("at first Cyn sees %+v, which is %+v", seen, v.me())
			}
		}
		if !maps.Equal(cyn.stars, ada.stars) || len(cyn.stars) == 0 {
			t.Errorf("Cyn sees the stars %v, Ada %v", cyn.stars, ada.stars)
		}
		bob.watch(10 * time.Second)
		cyn.watch(0)
		if at := cyn.players[bob.you].At; at != bob.me().At || at[1] != height-radius {
			t.Errorf("then Cyn sees Bob at %v, who is at %v", at, bob.me().At)
		}
	})
}

func TestPlayerIsKeptFor30Seconds(t *testing.T) {
	for _, c := range []struct {
		name  string
		alone bool // then the room closes meanwhile
	}{{"others stay", false}, {"nobody else is there", true}} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(t *testing.T, handler http.Handler) {
				if !c.alone {
					visit(t, handler, "lobby", "Bob").steer(1, 1)
				}
				ada := visit(t, handler, "lobby", "Ada")
				score := collect(t, ada)
				ada.steer(1, 0)
				ada.watch(100 * time.Millisecond)
				before := ada.me()
				ada.CloseNow()
				time.Sleep(keep - time.Second)
				ada = visit(t, handler, "lobby", "Ada")
				if now := ada.me(); now.ID != before.ID || now.Score != score || now.Away || distance(now.At, before.At) > 2*speed/rate {
					t.Errorf("in time, %+v is back as %+v", before, now)
				}
				ada.CloseNow()
				time.Sleep(keep + time.Second)
				ada = visit(t, handler, "lobby", "Ada")
				if now := ada.me(); now.Score != 0 || !c.alone && now.ID == before.ID {
					t.Errorf("too late, %+v is back as %+v", before, now)
				}
			})
		})
	}
}

func TestOthersSeeWhoIsAwayAndWhoIsGone(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada, bob := visit(t, handler, "lobby", "Ada"), visit(t, handler, "lobby", "Bob")
		bob.steer(1, 0)
		bob.Cut() // nobody says that it is gone
		ada.watch(15 * time.Second)
		if p, ok := ada.players[bob.you]; !ok || !p.Away {
			t.Fatalf("after 15 s of silence Ada sees %+v", ada.players)
		}
		ada.watch(keep)
		if p, ok := ada.players[bob.you]; ok {
			t.Errorf("Ada still sees %+v", p)
		}
	})
}

// A line that is dead for the page may be alive for the server: the new one counts.
func TestNewestConnectionHasThePlayer(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		old := visit(t, handler, "lobby", "Ada")
		ada := visit(t, handler, "lobby", "Ada")
		old.ExpectClose(4409)
		if ada.you != old.you {
			t.Errorf("player %d is back as %d", old.you, ada.you)
		}
		ada.watch(time.Minute)
		if len(ada.players) != 1 || ada.me().Away {
			t.Errorf("Ada sees %+v", ada.players)
		}
	})
}

// Whatever a page sends, its player goes as fast as others do, and scores by stars alone.
func TestHostilePages(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		for _, text := range []string{
			`[1e9,1e9]`, `[1.7e308,-1.7e308]`, `[-1e-320,5e-324]`, `[1,1,1e9]`, `[]`, `null`, `[null,-1]`,
			` [0, -1e300] `, `[-1]`,
		} {
			eve := visit(t, handler, "lobby", "Eve")
			before := eve.me()
			for range 30 {
				eve.SendText(text)
			}
			eve.watch(time.Second)
			now := eve.me()
			if d := distance(before.At, now.At); d > 1.1*speed || now.At[0] < radius || now.At[0] > width-radius || now.At[1] < radius || now.At[1] > height-radius {
				t.Errorf("%s: from %v to %v in a second", text, before.At, now.At)
			}
			eve.CloseNow()
		}
		for text, code := range map[string]websocket.StatusCode{
			`[1e999,0]`:                   websocket.StatusInvalidFramePayloadData,
			`{"at":[1,1],"score":7}`:      websocket.StatusInvalidFramePayloadData,
			`["1","1"]`:                   websocket.StatusInvalidFramePayloadData,
			strings.Repeat(" ", 300) + "": websocket.StatusMessageTooBig,
		} {
			eve := visit(t, handler, "lobby", "Eve")
			eve.SendText(text)
			eve.ExpectClose(code)
		}
	})
}

func TestRefusals(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		witness := visit(t, handler, "lobby", "Ada")
		for _, name := range []string{"", "  ", strings.Repeat("é", 21)} {
			dial(t, handler, "lobby", name, "0123456789abcdef").ExpectClose(4400)
		}
		for _, secret := range []string{"", "short"} {
			dial(t, handler, "lobby", "Eve", secret).ExpectClose(4400)
		}
		if witness.watch(time.Second); len(witness.players) != 1 {
			t.Errorf("the room has %+v", witness.players)
		}
	})
}

// However many secrets somebody has, a room has 64 players, and who was there before is kept.
func TestRoomIsFull(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada := visit(t, handler, "lobby", "Ada")
		for i := range 63 {
			dial(t, handler, "lobby", "Eve", fmt.Sprint("secret-of-player-Eve-", i)).CloseNow()
			synctest.Wait() // until the hub knows
		}
		dial(t, handler, "lobby", "Bob", "secret-of-player-Bob").ExpectClose(4429)
		id := ada.you
		ada.CloseNow()
		synctest.Wait()
		if ada = visit(t, handler, "lobby", "Ada"); ada.you != id || len(ada.players) != 64 {
			t.Errorf("%d is back as %d of %d", id, ada.you, len(ada.players))
		}
		time.Sleep(keep + time.Second)
		visit(t, handler, "lobby", "Bob")
	})
}

// A page that reads nothing for 5 s is then sent the newest of each player, and not all that was.
func TestSlowReaderGetsWhatIsNew(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		slow, bob := visit(t, handler, "lobby", "Ada"), visit(t, handler, "lobby", "Bob")
		slow.watch(time.Second)
		slow.Stall()
		for i := range 5 {
			bob.steer(float64(1-i%2*2), 0)
			bob.watch(time.Second)
		}
		slow.Resume()
		if n := slow.watch(0); n > 30 || n == 0 {
			t.Errorf("%d messages came, of 150", n)
		}
		if seen := slow.players[bob.you]; seen.At != bob.me().At {
			t.Errorf("Ada sees %+v, Bob is %+v", seen, bob.me())
		}
	})
}

// The kernels hold no more than a moment: over TCP, 30 players move for a second, and a page that has read nothing
// meanwhile reads a part of that until it is up to date.
func TestFreshOverTCP(t *testing.T) {
	t.Parallel()
	hub, handler := newGame(keep)
	wsroomtest.CheckHub(t, hub)
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	var players []*visitor
	for i := range 30 {
		players = append(players, visit(t, handler, "lobby", fmt.Sprint("Player", i)))
	}
	slow, _, err := websocket.Dial(t.Context(), server.URL+"/ws/lobby?name=Slow", &websocket.DialOptions{
		Subprotocols: []string{bearer("secret-of-player-Slow")},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer slow.CloseNow()
	first := players[0]
	for turned, until := -rate, first.tick+rate; first.tick < until; first.next() {
		if first.tick < turned+rate/6 {
			continue
		}
		turned = first.tick
		for _, v := range players { // in circles, so that all move all the time
			v.steer(math.Cos(float64(turned)/10), math.Sin(float64(turned)/10))
		}
	}

	read := 0
	for tick := 0; tick < first.tick; read++ {
		_, p, err := slow.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var m seen
		if err := json.Unmarshal(p, &m); err != nil {
			t.Fatal(err)
		}
		tick = m.Tick
	}
	if read > 450 {
		t.Errorf("it read %d messages to be up to date, of some 900", read)
	}
}

// The room closes after one player has left, and is open again when its time is over.
func TestWhoIsTooLateInARoomThatIsKept(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada, bob := visit(t, handler, "lobby", "Ada"), visit(t, handler, "lobby", "Bob")
		score := collect(t, ada)
		ada.CloseNow()
		time.Sleep(keep - time.Second)
		bob.CloseNow()
		time.Sleep(keep - time.Second)
		now := visit(t, handler, "lobby", "Ada")
		if now.you == ada.you || now.me().Score == score || len(now.players) != 2 {
			t.Errorf("too late, %d is back as %d of %+v", ada.you, now.you, now.players)
		}
	})
}

// A room's ticks end with it: its world stands still.
func TestRoomStandsStillWithoutMembers(t *testing.T) {
	play(t, func(t *testing.T, handler http.Handler) {
		ada := visit(t, handler, "lobby", "Ada")
		time.Sleep(10 * time.Second)
		ada.CloseNow()
		time.Sleep(keep - time.Second)
		if ada = visit(t, handler, "lobby", "Ada"); ada.tick > 12*rate {
			t.Errorf("%d ticks in the 10 s of a member", ada.tick)
		}
		ada.CloseNow()
		time.Sleep(2 * keep)
		if ada = visit(t, handler, "lobby", "Ada"); ada.tick > rate {
			t.Errorf("after %v a room has its tick %d", 2*keep, ada.tick)
		}
	})
}
