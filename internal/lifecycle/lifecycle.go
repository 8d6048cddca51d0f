// Package lifecycle calls what an application wants to know of rooms: that one opens, its messages, that it
// closes. The calls for one room come one at a time and in order, with no lock held. Calls for different
// rooms run concurrently. It knows rooms and their users by their names, and doesn't know what users are.
//
// The life of a room:
//
//	(none) ──first user──> opening ──> open ──last user has gone, no message waits──> closing ──> (none)
//	                          ^                                                          │
//	                          └───────────────── a user has come meanwhile ──────────────┘
package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/lookup"
)

// Config configures [Rooms]. A nil function isn't called.
type Config struct {
	Open    func(room string)
	Close   func(room string)
	Message func(room string, m *frame.Message, trace string)
	Lost    func(room string, messages int) // in the place of messages for which there was no space

	Messages int   // that may wait for a room's calls
	Bytes    int64 // of the frames that may wait; a message is taken whatever its size when nothing waits
}

// Rooms calls the functions of its Config. [New] makes it. All methods may be called concurrently. Except for
// Use and Wait they never wait, so they may be called with a lock held.
type Rooms struct {
	cfg Config

	mu    sync.Mutex // guards the rest, and what is in the lives
	rooms map[string]*life
	held  map[string][]string // rooms that users have left and still need, by user
	idle  chan struct{}       // closed when there is no room; nil if nobody waits for that

	mostRooms, mostHeld int // see lookup.Delete
}

// life is one room. It exists while it has users or something is to be called.
type life struct {
	room    string
	users   int
	open    bool
	opened  chan struct{} // closed when it is open
	running bool          // a goroutine makes its calls

	waiting []item
	bytes   int64 // of waiting
	full    bool  // messages are dropped until half of what may wait is free
}

// item is a message that waits, or, with no message, how many were dropped there.
type item struct {
	message *frame.Message
	trace   string
	lost    int
}

// New returns Rooms without rooms.
func New(cfg Config) *Rooms {
	return &Rooms{cfg: cfg, rooms: map[string]*life{}, held: map[string][]string{}}
}

// Use adds a user to each of the rooms, and returns once they are open: Config.Open has returned. It calls
// ctx for its context if it has to wait. If that is done first, it adds no user and returns an error with the
// context's cause.
func (r *Rooms) Use(ctx func() context.Context, rooms ...string) error {
	for _, opened := range r.use(rooms) {
		select {
		case <-opened:
			continue
		default:
		}
		select {
		case <-opened:
		case <-ctx().Done():
			r.Release(rooms...)
			return fmt.Errorf("wsroom: waiting for OnRoomOpen: %w", context.Cause(ctx()))
		}
	}
	return nil
}

func (r *Rooms) use(rooms []string) (opened []chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, room := range rooms {
		l := r.rooms[room]
		if l == nil {
			l = &life{room: room, opened: make(chan struct{})}
			r.rooms[room] = l
			if r.cfg.Open == nil {
				l.open = true
				close(l.opened)
			}
		}
		l.users++
		if !l.open {
			r.start(l)
		}
		opened = append(opened, l.opened)
	}
	return opened
}

// Release undoes Use.
func (r *Rooms) Release(rooms ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, room := range rooms {
		l := r.rooms[room]
		if l.users--; l.users > 0 || l.running {
			continue
		}
		if r.cfg.Close == nil {
			r.remove(l)
		} else {
			r.start(l)
		}
	}
}

// Hold notes that a user has left the room and still needs it, until Let or LetAll.
func (r *Rooms) Hold(user, room string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[user] = append(r.held[user], room)
}

// Let undoes one Hold, and reports whether there was one. The caller then releases the room.
func (r *Rooms) Let(user, room string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	rooms := r.held[user]
	i := slices.Index(rooms, room)
	if i < 0 {
		return false
	}
	if r.held[user] = slices.Delete(rooms, i, i+1); len(rooms) == 1 {
		r.held = lookup.Delete(r.held, user, &r.mostHeld)
	}
	return true
}

// LetAll undoes all Holds of the user and returns the rooms, which the caller releases.
func (r *Rooms) LetAll(user string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	rooms := r.held[user]
	r.held = lookup.Delete(r.held, user, &r.mostHeld)
	return rooms
}

// Take has Config.Message called with a message to the room and its trace, after all that were taken before.
// A room without users has no messages.
func (r *Rooms) Take(room string, m *frame.Message, trace string) {
	if r.cfg.Message == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.rooms[room]
	if l == nil || l.users == 0 {
		return
	}
	r.add(l, item{message: m, trace: trace})
	r.start(l)
}

// add appends the message to those that wait or, if they are too many, counts it as lost in their place.
func (r *Rooms) add(l *life, it item) {
	n, size := len(l.waiting), it.message.Size()
	if l.full {
		l.full = n > r.cfg.Messages/2 || l.bytes > r.cfg.Bytes/2
	}
	if l.full || n > 0 && (n >= r.cfg.Messages || l.bytes+size > r.cfg.Bytes) {
		l.full = true
		if n == 0 || l.waiting[n-1].message != nil {
			l.waiting = append(l.waiting, item{})
			n++
		}
		l.waiting[n-1].lost++
		return
	}
	l.waiting = append(l.waiting, it)
	l.bytes += size
}

// Wait returns once there is no room any more, or when ctx is done.
func (r *Rooms) Wait(ctx context.Context) {
	r.mu.Lock()
	if len(r.rooms) > 0 && r.idle == nil {
		r.idle = make(chan struct{})
	}
	idle := r.idle
	r.mu.Unlock()
	if idle == nil {
		return
	}
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// remove forgets a room without users. mu is locked.
func (r *Rooms) remove(l *life) {
	r.rooms = lookup.Delete(r.rooms, l.room, &r.mostRooms)
	if len(r.rooms) == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

// start has the calls made that are due. mu is locked.
func (r *Rooms) start(l *life) {
	if !l.running {
		l.running = true
		go r.run(l)
	}
}

// run makes calls until none is due.
func (r *Rooms) run(l *life) {
	over := false
	defer func() {
		if !over { // a call has ended the goroutine
			go r.run(l)
		}
	}()
	for r.step(l) {
	}
	over = true
}

// step makes the call that is due, and reports whether there was one.
func (r *Rooms) step(l *life) bool {
	call, after := r.next(l)
	if call == nil {
		return false
	}
	if after != nil {
		defer after()
	}
	call()
	return true
}

// next returns the call that is due and what follows it, even if the call ends the goroutine. It returns nil
// if none is due; then the goroutine ends.
func (r *Rooms) next(l *life) (call, after func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !l.open && l.users > 0:
		return callOf(r.cfg.Open, l.room), func() { r.setOpen(l) }
	case !l.open: // what waits came for users that have gone
		r.remove(l)
	case len(l.waiting) > 0:
		return r.first(l), nil
	case l.users == 0:
		l.open, l.opened = false, make(chan struct{})
		return callOf(r.cfg.Close, l.room), nil
	}
	l.running = false
	return nil, nil
}

func callOf(f func(string), room string) func() {
	if f == nil {
		return func() {}
	}
	return func() { f(room) }
}

func (r *Rooms) setOpen(l *life) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l.open = true
	close(l.opened)
}

// first removes the first of what waits, and returns the call for it.
func (r *Rooms) first(l *life) func() {
	it := l.waiting[0]
	l.waiting[0] = item{}
	if l.waiting = l.waiting[1:]; len(l.waiting) == 0 {
		l.waiting = nil
	}
	if it.message == nil {
		return func() { r.cfg.Lost(l.room, it.lost) }
	}
	l.bytes -= it.message.Size()
	return func() { r.cfg.Message(l.room, it.message, it.trace) }
}
