package attack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// place is a position as a client keeps it.
type place struct {
	Room  string `json:"room"`
	Token string `json:"token"`
	At    string `json:"at"`
	N     int    `json:"n"`
}

// placeOf returns where a client is, which is in one room.
func placeOf(t *testing.T, c *wsroomtest.Client) place {
	t.Helper()
	var all []place
	if err := json.Unmarshal([]byte(c.Cursor()), &all); err != nil || len(all) != 1 {
		t.Fatalf("%s, %v", c.Cursor(), err)
	}
	return all[0]
}

func (p place) cursor() string {
	text, _ := json.Marshal([]place{p})
	return string(text)
}

// A position that the hub hasn't given for this room isn't resumed. There is no error, and nothing comes of what was
// said before.
func TestForgedPositionsResumeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newHub := func(key string, name string) *wsroom.Hub {
			return wsroomtest.CheckHub(t, wsroom.New(wsroom.WithName(name), wsroom.WithHistory(100, 1<<20, time.Minute),
				wsroom.WithResumeKey([]byte(strings.Repeat(key, 32)))))
		}
		hub, otherKey, otherHub := newHub("k", "a"), newHub("x", "a"), newHub("k", "b")
		wsroomtest.Dial(t, hub, "/a") // so that the room has a history
		hub.SendTextToRoom("/a", "before it came")
		enter := func(hub *wsroom.Hub, path string) place {
			c := wsroomtest.Dial(t, hub, path, wsroomtest.WithCursor(""))
			hub.SendTextToRoom(path, "heard")
			c.ExpectText("heard")
			return placeOf(t, c)
		}
		own := enter(hub, "/a")
		hub.SendTextToRoom("/a", "missed")

		with := func(change func(*place)) place {
			p := own
			change(&p)
			return p
		}
		forged := map[string]place{
			"another room's":      enter(hub, "/b"),
			"another hub's":       enter(otherHub, "/a"),
			"another key's":       enter(otherKey, "/a"),
			"a changed floor":     with(func(p *place) { p.Token = p.Token[:25] + "A" + p.Token[26:]; p.At = "1" }),
			"of before it came":   with(func(p *place) { p.At, p.N = decrement(t, p.At, 1), 0 }),
			"far before":          with(func(p *place) { p.At = "1" }),
			"of the future":       with(func(p *place) { p.N = 1000 }),
			"far in the future":   with(func(p *place) { p.N = 1 << 62 }),
			"a cut token":         with(func(p *place) { p.Token = p.Token[:60] }),
			"no token":            with(func(p *place) { p.Token = strings.Repeat("A", 68) }),
			"a changed signature": with(func(p *place) { p.Token = p.Token[:66] + "AA" }),
			"no number":           with(func(p *place) { p.At = "x" }),
		}
		for what, p := range forged {
			c := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(p.cursor()), wsroomtest.WithName(what))
			c.ExpectRoom("/a", false)
			c.ExpectNothing()
		}
		c := wsroomtest.Dial(t, hub, "/a", wsroomtest.WithCursor(own.cursor()))
		c.ExpectRoom("/a", true)
		c.ExpectText("missed")
		c.ExpectNothing()
	})
}

func decrement(t *testing.T, at string, by uint64) string {
	t.Helper()
	var n uint64
	if _, err := fmt.Sscan(at, &n); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(n - by)
}

// A position opens nothing: who may come is asked again, and of a room that the application doesn't let the client
// into nothing comes.
func TestTokensOpenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var banned atomic.Bool
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithHistory(100, 1<<20, time.Minute),
			wsroom.WithAuthorize(func(_ *http.Request, room string) error {
				if room == "/door" && banned.Load() {
					return &wsroom.StatusError{Status: http.StatusForbidden}
				}
				return nil
			}),
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				if banned.Load() {
					return nil
				}
				return c.Join("secret")
			})))
		c := wsroomtest.Dial(t, hub, "/door", wsroomtest.WithCursor(""))
		c.ExpectRoom("secret", false)
		c.CloseNow()
		banned.Store(true)
		hub.SendTextToRoom("secret", "between us")
		hub.SendTextToRoom("/door", "come in")

		wsroomtest.Refused(t, hub, "/door", http.StatusForbidden, wsroomtest.WithCursor(c.Cursor()))
		again := wsroomtest.Dial(t, hub, "/lobby", wsroomtest.WithCursor(c.Cursor()))
		again.ExpectRoom("/lobby", false)
		again.ExpectNothing()
	})
}

// What the rooms keep is bounded, in each and in all, however many rooms a client opens; it goes with the time.
func TestHistoriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const each, total = 10, 64 << 10
		o := &kit.Observer{Sums: map[string]float64{}}
		hub := wsroomtest.CheckHub(t, wsroom.New(
			wsroom.WithHistory(each, 8<<10, time.Minute), wsroom.WithHistoryTotal(total), wsroom.WithObserver(o),
			wsroom.OnText(func(c *wsroom.Conn, room string, err error) {
				if err == nil {
					c.Join(room)
				}
			})))
		c := wsroomtest.Dial(t, hub, "/")
		text := strings.Repeat("x", 1000)
		most := 0.0
		for i := range 500 {
			room := fmt.Sprint(i)
			c.SendText(room)
			synctest.Wait()
			for range each {
				hub.SendTextToRoom(room, text)
			}
			most = max(most, o.Sum(wsroom.MetricHistory))
			if i == 0 && most > 8<<10+each*160 { // what a message takes besides its frame
				t.Errorf("a room keeps %v bytes", most)
			}
			c.Drain()
		}
		if most > total || most < total/2 {
			t.Errorf("the rooms keep %v bytes, want %d at most", most, total)
		}
		time.Sleep(2 * time.Minute)
		if n := o.Sum(wsroom.MetricHistory); n != 0 {
			t.Errorf("the rooms keep %v bytes of long ago", n)
		}
	})
}
