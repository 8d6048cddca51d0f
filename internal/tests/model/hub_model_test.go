package model_test

import (
	"context"
	"errors"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

const (
	maxPeers    = 10
	maxMessage  = 1000 // bytes, inbound
	maxWaiting  = 8    // messages in a send queue
	waitingSize = 4000 // bytes in one
	maxRooms    = 4
	maxMembers  = 3
	busyTime    = 3 * time.Second // of a callback
	drainWindow = 10 * time.Second
)

// rules are what the hub of a game is made with.
type rules struct {
	overflow wsroom.Overflow
	drain    bool
	limits   bool
}

func readRules(s *script) rules {
	n := s.choose(12)
	return rules{overflow: wsroom.Overflow(n % 3), drain: n/3%2 == 1, limits: n/6 == 1}
}

// game is one run of FuzzHub: a hub, its peers, and the model of what is expected of both.
type game struct {
	t      *testing.T
	rules  rules
	server *kit.PipeServer
	hub    *wsroom.Hub
	trace  []string

	mu       sync.Mutex // guards the rest, and the peers' views; held for joins and sends, which never wait
	peers    []*peer
	sent     []sentMessage // by number
	shutting bool
	down     chan error // Shutdown's result
}

// view is what the model knows of a peer's connection.
type view struct {
	conn  *wsroom.Conn // nil until OnConnect
	rooms map[string]bool

	early, late []int // numbers of the messages it is to get: OnConnect's and then all others
	received    []int
	dropped     int // by OnDrop
	waiting     int // messages of this step ...
	waitingSize int // ... and their bytes

	said, handled          []string // messages that it sent, and that callbacks got
	expectedEvents, events []string // joins and leaves that callbacks should report, and those that they reported

	turn       sync.Mutex // held by a callback
	connecting bool       // OnConnect runs
	connected  bool       // it succeeded
	busy       bool       // a callback sleeps: the client isn't read
	panicked   bool       // the message callback did
	faulty     bool       // the hub may end the connection by itself
	over       bool       // it must end, as soon as the client is read
	graceful   bool       // by the hub, after all that is queued
	codes      []int      // of close frames that it may get
	closeCode  int        // the code of the close frame that it got
	closed     bool       // OnClose has returned
}

func (g *game) newHub() *wsroom.Hub {
	g.down = make(chan error, 1)
	opts := []wsroom.Option{
		wsroom.OnConnect(g.onConnect), wsroom.OnText(g.onText), wsroom.OnBinary(g.onBinary), wsroom.OnClose(g.onClose),
		wsroom.OnJoin(func(c *wsroom.Conn, room string) { g.onEvent(c, "join "+room) }),
		wsroom.OnLeave(func(c *wsroom.Conn, room string) { g.onEvent(c, "leave "+room) }),
		wsroom.OnDrop(func(c *wsroom.Conn, n int) {
			p, done := g.callback(c)
			defer done()
			p.dropped += n
		}),
		wsroom.WithMaxMessageSize(maxMessage), wsroom.WithSendQueue(maxWaiting, waitingSize), wsroom.WithOverflow(g.rules.overflow),
	}
	if g.rules.drain {
		opts = append(opts, wsroom.WithDrain(drainWindow))
	}
	if g.rules.limits {
		opts = append(opts, wsroom.WithMaxRooms(maxRooms), wsroom.WithMaxMembers(maxMembers))
	}
	g.hub = wsroom.New(opts...)
	return g.hub
}

// callback checks that no other callback of the connection runs, and locks the model until done.
func (g *game) callback(c *wsroom.Conn) (p *peer, done func()) {
	v, _ := c.Get("peer")
	p = v.(*peer)
	alone := p.turn.TryLock()
	if !alone {
		g.t.Errorf("two callbacks of peer %d at a time", p.index)
	}
	g.mu.Lock()
	return p, func() {
		g.mu.Unlock()
		if alone {
			p.turn.Unlock()
		}
	}
}

// unlocked runs f, which may wait, with the model unlocked.
func (g *game) unlocked(f func()) {
	g.mu.Unlock()
	defer g.mu.Lock()
	f()
}

func (g *game) onEvent(c *wsroom.Conn, event string) {
	p, done := g.callback(c)
	defer done()
	p.events = append(p.events, event)
}

func (g *game) onConnect(c *wsroom.Conn, r *http.Request) error {
	index, _ := strconv.Atoi(r.URL.Query().Get("peer"))
	c.Set("peer", g.peers[index])
	p, done := g.callback(c)
	defer done()
	p.conn, p.connecting, p.rooms = c, true, map[string]bool{p.room: true}
	p.expectedEvents = append(p.expectedEvents, "join "+p.room)
	defer func() { p.connecting = false }()
	if p.joinsMore {
		g.join(p, "d", false)
	}
	var greetings []sentMessage
	for range p.greeting {
		greetings = append(greetings, g.compose(0, 500, "welcome"))
		p.early = append(p.early, len(g.sent)-1)
	}
	for i, m := range greetings {
		var err error
		if g.unlocked(func() { err = m.to(c) }); err != nil {
			p.early = p.early[:i]
			if err == wsroom.ErrQueueFull { // it has waited for room for as long as it may
				p.endsBy(false, 1011)
			}
			return err
		}
	}
	if p.fails {
		p.endsBy(true, 4200)
		return websocket.CloseError{Code: 4200}
	}
	p.connected = true
	return nil
}

func (g *game) onText(c *wsroom.Conn, text string, err error) {
	p, done := g.callback(c)
	defer done()
	if err != nil {
		p.events = append(p.events, "err")
		if err != context.Cause(c.Context()) {
			g.t.Errorf("peer %d: err %v, cause %v", p.index, err, context.Cause(c.Context()))
		}
		return
	}
	p.handled = append(p.handled, text)
	g.obey(p, text)
}

// obey does in a callback what a client's message asks for.
func (g *game) obey(p *peer, text string) {
	switch text {
	case "busy":
		p.busy = true
		g.unlocked(func() { time.Sleep(busyTime) })
		p.busy = false
	case "panic", "exit":
		p.panicked = true
		p.endsBy(true, 1011)
		if text == "panic" {
			panic("on demand")
		}
		runtime.Goexit()
	case "join d":
		g.join(p, "d", false)
	case "leave d":
		g.leave(p, "d", false)
	case "leave own":
		g.leave(p, p.room, false)
	case "close":
		p.endsBy(true, 4300)
		_ = p.conn.Close(4300, "") // ErrClosed: it was ending already
	default:
		g.deliver(func(m sentMessage) error { return p.conn.SendTextToThisRoom(m.payload) }, g.members([]string{p.room}), 0, 0, text)
	}
}

func (g *game) onBinary(c *wsroom.Conn, b []byte, err error) {
	p, done := g.callback(c)
	defer done()
	if err != nil {
		g.t.Errorf("OnBinary got the err that is OnText's: %v", err)
	}
	p.handled = append(p.handled, string(b))
	g.deliverOwn(p, kindBinary, 0, string(b))
}

func (g *game) onClose(c *wsroom.Conn, err error) {
	p, done := g.callback(c)
	defer done()
	if err == nil || err != context.Cause(c.Context()) || p.closed || len(c.Rooms()) > 0 {
		g.t.Errorf("peer %d: OnClose with %v, before: %v, rooms %q", p.index, err, p.closed, c.Rooms())
	}
	for cause, possible := range map[error]bool{
		wsroom.ErrSlow: g.rules.overflow == wsroom.CloseSlow, wsroom.ErrShutdown: g.shutting,
		wsroom.ErrPanic: p.panicked, wsroom.ErrHeartbeat: p.faulty, wsroom.ErrRateLimited: p.pings > fewPings,
	} {
		if errors.Is(err, cause) && !possible {
			g.t.Errorf("peer %d: OnClose with %v", p.index, err)
		}
	}
	p.closed = true
}

// lives reports whether the connection isn't ending.
func (p *peer) lives() bool { return p.conn != nil && p.conn.Context().Err() == nil }

// says notes that the client sent a message that is whole and valid.
func (p *peer) says(text string) {
	if p.lives() && !p.over {
		p.said = append(p.said, text)
	}
}

// endsBy notes what ends the connection; graceful is the hub's own doing, after what is queued.
func (p *peer) endsBy(graceful bool, codes ...int) {
	if p.lives() && !p.over {
		p.over, p.graceful = true, graceful && !p.stalled && !p.connecting
	}
	p.allow(codes...)
}

func (p *peer) allow(codes ...int) { p.codes = append(p.codes, codes...) }

// members are the peers in any of the rooms, or all, whose connections aren't ending.
func (g *game) members(rooms []string) (in []*peer) {
	for _, p := range g.peers {
		if p.lives() && (len(rooms) == 0 || slices.ContainsFunc(rooms, func(room string) bool { return p.rooms[room] })) {
			in = append(in, p)
		}
	}
	return in
}

// busyRooms are the rooms that have a member.
func (g *game) busyRooms() (names []string) {
	for _, name := range roomNames {
		if len(g.members([]string{name})) > 0 {
			names = append(names, name)
		}
	}
	return names
}

func (g *game) mayConnect(room string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.shutting && !g.full(room)
}

// full reports whether a limit refuses every new member of the room.
func (g *game) full(room string) bool {
	n := len(g.members([]string{room}))
	return g.rules.limits && (n >= maxMembers || n == 0 && len(g.busyRooms()) >= maxRooms)
}

// join lets a peer enter a room. Where nothing else goes on, the outcome is known.
func (g *game) join(p *peer, room string, settled bool) {
	was, full, lives := p.rooms[room], g.full(room), p.lives()
	err := p.conn.Join(room)
	if err == nil && !was {
		p.rooms[room] = true
		p.expectedEvents = append(p.expectedEvents, "join "+room)
	}
	refused := errors.As(err, new(*wsroom.StatusError))
	if settled && (refused != (full && !was && lives) || (err == wsroom.ErrClosed) == lives) {
		g.t.Errorf("Join of peer %d: %v; it lives: %v, the room is full: %v", p.index, err, lives, full)
	}
}

func (g *game) leave(p *peer, room string, settled bool) {
	lives := p.lives()
	err := p.conn.Leave(room)
	if err == nil && p.rooms[room] {
		delete(p.rooms, room)
		p.expectedEvents = append(p.expectedEvents, "leave "+room)
	}
	if settled && (err == nil) != lives || err != nil && err != wsroom.ErrClosed {
		g.t.Errorf("Leave of peer %d: %v; it lives: %v", p.index, err, lives)
	}
}
