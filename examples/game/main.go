// Game is a room of players that collect stars. The server decides where everyone is, 30 times a second; pages
// only say where they want to go. A page that is slow gets the newest of each player, and a player whose
// connection broke is kept for 30 s. A room lives on one node: with several, lead its pages to the same one.
//
//	go run ./examples/game   # then open http://localhost:8080 in two windows
package main

import (
	"embed"
	"flag"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/web"
)

const (
	rate, speed   = 30, 300    // ticks, and units that a player goes, a second
	width, height = 1600, 1200 // of the field
	radius, reach = 24, 44     // of a player, and to a star
)

//go:embed index.html game.css game.js
var files embed.FS
var players wsroom.Value[*player] // of the connections

type vector [2]float64

type player struct {
	ID      int          `json:"id"`
	At      vector       `json:"at"`
	Name    string       `json:"name"`
	Score   int          `json:"score"`
	Away    bool         `json:"away,omitempty"` // its connection broke,
	Gone    bool         `json:"gone,omitempty"` // and it wasn't back in time
	want    vector       // where it goes; 1 long at most
	conn    *wsroom.Conn // its newest
	left    time.Time
	changed bool // since the last tick
}

type message map[string]any // the players and stars that have changed by a tick; for a newcomer all, and more

type world struct {
	room      wsroom.Target
	end       chan struct{}
	mu        sync.Mutex // guards what follows, also while sending: what comes after the whole is newer
	tick, ids int
	players   map[string]*player // by a secret of their pages
	stars     map[int]vector
}

type game struct {
	hub    *wsroom.Hub
	keep   time.Duration // a player whose connection broke
	worlds sync.Map      // by room, of *world; when a room closes, for as long as its last player
}

func newGame(keep time.Duration) (*wsroom.Hub, http.Handler) {
	g := &game{keep: keep}
	g.hub = wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.OnRoomOpen(g.open), wsroom.OnRoomClose(g.close),
		wsroom.OnConnect(g.enter),
		wsroom.OnJSON(func(c *wsroom.Conn, want vector, _ error) { g.steer(c, want, false) }),
		wsroom.OnClose(func(c *wsroom.Conn, _ error) { g.steer(c, vector{}, true) }),
		wsroom.WithRateLimit(40, 60), wsroom.WithMaxMessageSize(256), wsroom.WithDrain(time.Second),
		wsroom.WithMaxMembers(32), wsroom.WithMaxRooms(256),
		// At most 16 KiB are on their way to a page. What is later waits here, and gives way to what is newer.
		wsroom.WithFreshness(16<<10), wsroom.WithHeartbeat(5*time.Second, 5*time.Second),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /ws/{room}", g.hub)
	mux.Handle("GET /", web.Files(files))
	return g.hub, mux
}

func (g *game) world(room string) *world {
	w, _ := g.worlds.Load(room)
	return w.(*world)
}

// open starts the room's world, where the last one ended if that is kept.
func (g *game) open(room string) {
	kept, _ := g.worlds.LoadOrStore(room, &world{players: map[string]*player{}, stars: map[int]vector{}})
	last := kept.(*world)
	w := &world{room: g.hub.To(room), end: make(chan struct{}), players: last.players, stars: last.stars}
	w.tick, w.ids = last.tick, last.ids
	for id := len(w.stars); id < 14; id++ {
		w.stars[id] = somewhere()
	}
	g.worlds.Store(room, w)
	w.step(g.keep) // whoever comes too late comes anew
	go func() {
		for tick := time.Tick(time.Second / rate); ; {
			select {
			case <-tick:
				w.step(g.keep)
			case <-w.end:
				return
			}
		}
	}()
}

func (g *game) close(room string) {
	w := g.world(room)
	w.end <- struct{}{}
	time.AfterFunc(g.keep, func() { g.worlds.CompareAndDelete(room, w) })
}

// enter gives the connection its page's player: the one that is kept, or a new one.
func (g *game) enter(c *wsroom.Conn, r *http.Request) error {
	secret, _ := wsroom.BearerToken(r)
	name := strings.TrimSpace(r.FormValue("name"))
	if len(secret) < 16 || name == "" || len([]rune(name)) > 20 {
		return websocket.CloseError{Code: 4400, Reason: "A player has a secret, and a name of 1 to 20 characters."}
	}
	w := g.world(c.Room())
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.players[secret]
	switch {
	case p != nil && !p.Away:
		p.conn.Close(4409, "You play in another tab.")
	case p == nil && len(w.players) == 64: // with those that are kept
		return websocket.CloseError{Code: 4429, Reason: "The room is full."} // the page tries again
	case p == nil:
		w.ids++
		p = &player{ID: w.ids, At: somewhere()}
		w.players[secret] = p
	}
	p.conn, p.Name, p.Away, p.changed = c, name, false, true
	players.Set(c, p)
	return c.SendJSON(message{
		"tick": w.tick, "players": slices.Collect(maps.Values(w.players)), "stars": w.stars, "you": p.ID,
		"field": message{"width": width, "height": height, "radius": radius, "speed": speed, "rate": rate},
	})
}

// steer takes where a page wants its player to go, or that its connection is over.
func (g *game) steer(c *wsroom.Conn, want vector, over bool) {
	p, ok := players.Get(c)
	if !ok {
		return // refused
	}
	w := g.world(c.Room())
	w.mu.Lock()
	defer w.mu.Unlock()
	if by := max(1, math.Hypot(want[0], want[1])); p.conn == c { // otherwise it has a newer one
		p.want, p.Away, p.left, p.changed = vector{want[0] / by, want[1] / by}, over, time.Now(), p.changed || over
	}
}

func somewhere() vector {
	return vector{float64(radius + rand.IntN(width-2*radius)), float64(radius + rand.IntN(height-2*radius))}
}

// step is a tick: everyone goes on, and collects the stars in reach.
func (w *world) step(keep time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick++
	for secret, p := range w.players {
		before := *p
		for i, size := range [2]float64{width, height} { // in tenths, which are short on the wire
			p.At[i] = min(max(math.Round(10*(p.At[i]+p.want[i]*speed/rate))/10, radius), size-radius)
		}
		for id, at := range w.stars {
			if !p.Away && math.Hypot(at[0]-p.At[0], at[1]-p.At[1]) < reach {
				p.Score++
				w.stars[id] = somewhere()
				w.room.Latest(fmt.Sprint("star ", id)).SendJSON(message{"tick": w.tick, "stars": map[int]vector{id: w.stars[id]}})
			}
		}
		if p.Gone = p.Away && time.Since(p.left) > keep; p.Gone {
			delete(w.players, secret)
		}
		if p.changed || *p != before {
			p.changed = false
			w.room.Latest(fmt.Sprint("player ", p.ID)).SendJSON(message{"tick": w.tick, "players": []*player{p}})
		}
	}
}

func main() {
	keep := flag.Duration("keep", 30*time.Second, "how long a player whose connection broke is kept")
	flag.Parse()
	web.Run(newGame(*keep))
}
