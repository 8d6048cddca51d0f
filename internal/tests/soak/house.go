package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom"
)

// kicked is the close code with which a house throws somebody out.
const kicked = 4100

// everyone and own are the names under which messages to all and to one connection are numbered.
const everyone, own = "*", "="

// house is a hub with its books: the numbers that its messages got, room by room.
type house struct {
	name  string
	hub   *wsroom.Hub
	soak  *soak
	rooms map[string]*room // a fixed set, everyone with it

	mu     sync.RWMutex // held for reading by a send, a join or a leave; for writing by what none of them may happen beside
	closed bool         // nothing is sent any more

	connects, closes, joins, leaves atomic.Int64
}

type room struct {
	mu     sync.Mutex // orders sends, joins and leaves
	number int        // of the last message
}

// roomName is the i-th room. The first is the busy one.
func roomName(i int) string { return fmt.Sprint("r", i) }

func newHouse(s *soak, name string, policy wsroom.Overflow, rooms int) *house {
	h := &house{name: name, soak: s, rooms: map[string]*room{everyone: {}}}
	for i := range rooms {
		h.rooms[roomName(i)] = &room{}
	}
	h.hub = wsroom.New(
		wsroom.WithName(name), wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.WithAuthorize(h.admit),
		wsroom.WithOverflow(policy), wsroom.WithSendQueue(64, 64<<10), wsroom.WithRateLimit(20, 40),
		wsroom.WithHeartbeat(5*time.Second, 3*time.Second), wsroom.WithMessageTimeout(5*time.Second),
		wsroom.WithWriteTimeout(5*time.Second), wsroom.WithDrain(drainWindow), wsroom.WithLogger(slog.New(slog.NewTextHandler(s, nil))),
		wsroom.OnConnect(h.onConnect), wsroom.OnText(h.onText), wsroom.OnClose(h.onClose),
		wsroom.OnDrop(func(c *wsroom.Conn, n int) {
			a := accountOf(c)
			a.mu.Lock()
			defer a.mu.Unlock()
			a.drops += n
		}),
		wsroom.OnJoin(h.onJoin),
		wsroom.OnLeave(func(*wsroom.Conn, string) { h.leaves.Add(1) }),
	)
	return h
}

func accountOf(c *wsroom.Conn) *account {
	v, _ := c.Get(own)
	return v.(*account)
}

// admit dates the stay that begins somewhere between here and onConnect.
func (h *house) admit(r *http.Request, name string) error {
	a, known := h.soak.account(r), h.rooms[name] != nil
	if a == nil || !known {
		return &wsroom.StatusError{Status: http.StatusNotFound}
	}
	for _, name := range []string{name, everyone} {
		h.inRoom(name, func(r *room) { a.admit(name, r.number) })
	}
	return nil
}

func (h *house) onConnect(c *wsroom.Conn, r *http.Request) error {
	h.connects.Add(1)
	a := h.soak.account(r)
	c.Set(own, a)
	a.mu.Lock()
	a.opened = true
	a.mu.Unlock()
	for _, name := range []string{c.Room(), everyone} {
		h.inRoom(name, func(r *room) { a.enter(name, r.number) })
	}
	a.enter(own, 0)
	h.reply(c, a, "welcome")
	return nil
}

func (h *house) onJoin(c *wsroom.Conn, _ string) {
	h.joins.Add(1)
	if c.Context().Err() == nil {
		accountOf(c).welcome()
	}
}

// inRoom runs f while nothing else happens in the room.
func (h *house) inRoom(name string, f func(*room)) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	r := h.rooms[name]
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

// post sends a numbered message to a room, or to everyone.
func (h *house) post(name string) {
	h.inRoom(name, func(r *room) {
		if h.closed {
			return
		}
		r.number++
		text := fmt.Sprintf("%s %d %s", name, r.number, padding())
		send := func() error { return h.hub.SendTextToRoom(name, text) }
		if name == everyone {
			send = func() error { return h.hub.SendTextToAll(text) }
		}
		if err := send(); err != nil {
			h.soak.fault("send to %s: %v", name, err)
		}
	})
}

var pad = strings.Repeat("padding ", 1<<10)

// padding is mostly short, and sometimes 8 KiB.
func padding() string {
	if rand.IntN(50) == 0 {
		return pad
	}
	return pad[:rand.IntN(500)]
}

// reply sends a numbered message to one connection. It belongs to the connection's callbacks.
func (h *house) reply(c *wsroom.Conn, a *account, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	stays := a.entry(own).stays
	stay := &stays[len(stays)-1]
	switch err := c.SendText(fmt.Sprintf("%s %d %s", own, stay.to+1, text)); {
	case err == nil, errors.Is(err, wsroom.ErrQueueFull): // which OnDrop reports, too
		stay.to++
	case errors.Is(err, wsroom.ErrClosed), errors.Is(err, wsroom.ErrSlow):
	default:
		a.fault("reply: %v", err)
	}
}

// onText does what a client asks for.
func (h *house) onText(c *wsroom.Conn, text string, err error) {
	if err != nil {
		return
	}
	a := accountOf(c)
	verb, name, _ := strings.Cut(text, " ")
	switch verb {
	case "say":
		h.post(c.Room())
	case "join":
		h.inRoom(name, func(r *room) {
			if c.Join(name) == nil {
				a.enter(name, r.number)
			}
		})
	case "leave":
		left := 0
		h.inRoom(name, func(r *room) {
			if c.Leave(name) == nil {
				left = r.number
				a.leave(name, left)
			}
		})
		h.reply(c, a, fmt.Sprintf("left %s %d", name, left))
	case "ask":
		h.reply(c, a, "answer")
	}
}

func (h *house) onClose(c *wsroom.Conn, err error) {
	h.closes.Add(1)
	a := accountOf(c)
	a.end()
	for _, name := range a.openRooms() {
		if name != own {
			h.inRoom(name, func(r *room) { a.leave(name, r.number) })
		}
	}
	a.mu.Lock()
	if a.cause != nil || err == nil || err != context.Cause(c.Context()) {
		a.fault("OnClose with %v, after %v", err, a.cause)
	}
	a.cause = err
	a.mu.Unlock()
	h.soak.sideDone(a)
}

// kick throws a member of the room out, while nothing is sent, so that what it is due is known exactly.
func (h *house) kick(name string) {
	members := h.hub.Members(name)
	if len(members) == 0 {
		return
	}
	c := members[rand.IntN(len(members))]
	h.mu.Lock()
	defer h.mu.Unlock()
	v, ok := c.Get(own)
	if !ok {
		return // not in OnConnect yet
	}
	a := v.(*account)
	if !a.isWelcome() || c.Close(kicked, "out") != nil { // in OnConnect, or ending
		return
	}
	a.end()
	for _, name := range a.openRooms() {
		if name != own {
			a.leave(name, h.rooms[name].number)
		}
	}
}

// work posts to every room, to the busy one more often, and kicks now and then, until ctx is done.
func (h *house) work(ctx context.Context, busy time.Duration) {
	var wg sync.WaitGroup
	every := func(d time.Duration, f func()) {
		wg.Go(func() {
			t := time.NewTicker(d)
			defer t.Stop()
			for {
				select {
				case <-t.C:
					f()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	n := len(h.rooms) - 1
	every(busy, func() { h.post(roomName(0)) })
	every(time.Second, func() { h.post(everyone) })
	every(time.Second, func() { h.kick(roomName(rand.IntN(n))) })
	every(time.Second/time.Duration(n), func() { h.post(roomName(rand.IntN(n))) })
	wg.Wait()
}

// stop ends all sending, shuts the hub down and checks that nothing is left of it.
func (h *house) stop(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	if err := h.hub.Shutdown(ctx); err != nil {
		h.soak.fault("%s: %v", h.name, err)
	}
	s := h.hub.Stats()
	opened := int64(s.Opened)
	if s.Conns != 0 || s.Rooms != 0 || s.Opened != s.Closed || h.connects.Load() != opened || h.closes.Load() != opened || h.joins.Load() != h.leaves.Load() {
		h.soak.fault("%s is left with %+v; %d OnConnect, %d OnClose, %d OnJoin, %d OnLeave", h.name, s,
			h.connects.Load(), h.closes.Load(), h.joins.Load(), h.leaves.Load())
	}
}
