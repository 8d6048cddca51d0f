package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// span is a run of message numbers, both ends included.
type span struct{ from, to int }

func (s span) len() int { return max(0, s.to-s.from+1) }

func (s span) overlap(t span) int { return span{max(s.from, t.from), min(s.to, t.to)}.len() }

// entry is one room in an account. A room's messages are numbered in the order of their sending, so
// what a connection is due is a span for each stay, and what came is as many spans as there are gaps:
// an account's size doesn't depend on how many messages there are.
type entry struct {
	stays []span // by the hub; the last one's end is open until it is known
	open  bool
	early bool   // the first stay may have begun sooner: ...
	least int    // ... after this number, the room's at admission
	came  []span // by the client
	known int    // what is missing up to here was lost while the connection lived
}

// account is what one connection is due and what its client got. The hub's callbacks write one side,
// the client the other, and when both are done it is audited and forgotten.
type account struct {
	id int64

	mu      sync.Mutex // guards all below
	rooms   map[string]*entry
	opened  bool // OnConnect ran
	held    bool // until OnConnect has returned, room messages are held back, and lost if it ends then
	drops   int  // by OnDrop
	cause   error
	ended   time.Time
	code    int       // of the close frame that the client got
	fair    bool      // the client read, over a good network, until the connection ended
	err     error     // with which its reading ended, ...
	heard   time.Time // ... and when
	faults  []string
	pending int // sides that aren't done
}

// admit notes that the route's room is about to be entered, when its last message has this number.
func (a *account) admit(room string, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entry(room)
	e.early, e.least = true, number
}

func newAccount() *account {
	return &account{rooms: map[string]*entry{}, held: true, pending: 2}
}

// welcome notes that OnConnect has returned and that the connection isn't ending.
func (a *account) welcome() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = false
}

func (a *account) isWelcome() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return !a.held
}

func (a *account) entry(room string) *entry {
	e := a.rooms[room]
	if e == nil {
		e = &entry{}
		a.rooms[room] = e
	}
	return e
}

// enter begins a stay in a room whose last message so far has this number.
func (a *account) enter(room string, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entry(room)
	if !e.open {
		e.stays, e.open = append(e.stays, span{from: number + 1}), true
	}
}

// leave ends a stay after the message of this number.
func (a *account) leave(room string, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.entry(room); e.open {
		e.stays[len(e.stays)-1].to, e.open = number, false
	}
}

// end dates the connection's end, once.
func (a *account) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended.IsZero() {
		a.ended = time.Now()
	}
}

// openRooms are the rooms of the stays that haven't ended.
func (a *account) openRooms() (names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, e := range a.rooms {
		if e.open {
			names = append(names, name)
		}
	}
	return names
}

// got notes a message that came. Numbers that don't rise are messages doubled, or in another order
// than the room's.
func (a *account) got(room string, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entry(room)
	if n := len(e.came); n == 0 || number > e.came[n-1].to+1 {
		e.came = append(e.came, span{number, number})
	} else if last := &e.came[n-1]; number == last.to+1 {
		last.to = number
	} else {
		a.fault("message %d of %s came after %d", number, room, last.to)
	}
	e.known = max(e.known, number)
}

// knows notes that everything of the room up to this number has been sent before what just came.
func (a *account) knows(room string, number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.entry(room)
	e.known = max(e.known, number)
}

const maxFaults = 20 // that an account, or a report, spells out

// fault notes what must not be; mu is locked.
func (a *account) fault(format string, args ...any) {
	if len(a.faults) < maxFaults {
		a.faults = append(a.faults, fmt.Sprintf(format, args...))
	}
}

// done ends one side and reports whether it was the last.
func (a *account) done() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending--
	return a.pending == 0
}

// sums are what audits add up to. Each due message is delivered, dropped or lost to an end.
type sums struct {
	conns, due, delivered, dropped int
	ended                          map[string]int // messages, by the end that they were lost to
	ends                           map[string]int // connections
	late                           int            // connections that the hub closed, and whose clients were too slow for it
	wrong                          int            // things that don't add up, ...
	faults                         []string       // ... and the first of them
}

// audit checks the account and adds it to the sums.
//
// What is missing was dropped, as OnDrop said, or was lost with the connection. The second needs the
// connection's end to have come first: a message that is missing although a later one of the room came
// can only have been dropped. And where the hub closed, its close frame follows all that was queued.
func (a *account) audit(total *sums) {
	a.mu.Lock()
	defer a.mu.Unlock()
	due, came, gaps, slack := 0, 0, 0, 0
	for name, e := range a.rooms {
		slack += e.settleStart()
		inside, known := 0, 0
		for _, stay := range e.stays {
			due += stay.len()
			known += stay.overlap(span{stay.from, e.known})
			for _, run := range e.came {
				inside += run.overlap(stay)
			}
		}
		all := 0
		for _, run := range e.came {
			all += run.len()
		}
		if all > inside {
			a.fault("%d messages of %s came that it wasn't due: %v, in it %v", all-inside, name, e.came, e.stays)
		}
		came += inside
		gaps += known - inside
	}
	missing := due - came
	if gaps > a.drops || missing < a.drops-slack {
		a.fault("of %d due, %d are missing, %d of them before others that came; %d were reported", due, missing, gaps, a.drops)
	}
	if a.closedByHub() && !a.held && missing > a.drops {
		a.fault("close frame %d came, but %d of %d due didn't; %d were reported", a.code, missing, due, a.drops)
	}
	end := endName(a.cause)
	if a.fair && (end == shutdownEnd || end == kickedEnd) && !a.closedByHub() {
		if took := a.heard.Sub(a.ended); took < closeTime {
			a.fault("ended by %q, the client heard %q after %v and no close frame", a.cause, a.err, took)
		}
		total.late++
	}
	dropped := min(a.drops, missing)
	total.conns++
	total.due += due
	total.delivered += came
	total.dropped += dropped
	total.ended[end] += missing - dropped
	total.ends[end]++
	for _, fault := range a.faults {
		total.fault(fault)
	}
}

// fault notes what doesn't add up.
func (s *sums) fault(what string) {
	if s.wrong++; len(s.faults) < maxFaults {
		s.faults = append(s.faults, what)
	}
}

// settleStart dates the first stay from the first message that came, if that was sent during the
// handshake. It returns how many others, sent then, may have been due, too.
func (e *entry) settleStart() (slack int) {
	if !e.early || len(e.stays) == 0 {
		return 0
	}
	first := &e.stays[0]
	if len(e.came) > 0 && e.came[0].from > e.least {
		first.from = min(first.from, e.came[0].from)
	}
	return first.from - 1 - e.least
}

func (a *account) closedByHub() bool {
	switch a.code {
	case int(websocket.StatusGoingAway), int(websocket.StatusServiceRestart), kicked:
		return true
	}
	return false
}

// closeTime is somewhat less than a hub gives a connection to take what is queued, and the close frame.
const closeTime = 4 * time.Second

const shutdownEnd, kickedEnd = "shutdown", "kicked"

// endName says in a word or two how a connection ended.
func endName(cause error) string {
	var by websocket.CloseError
	switch {
	case cause == nil:
		return "never opened"
	case errors.Is(cause, wsroom.ErrShutdown):
		return shutdownEnd
	case errors.Is(cause, wsroom.ErrSlow):
		return "too slow"
	case errors.Is(cause, wsroom.ErrHeartbeat):
		return "silent"
	case errors.As(cause, &by):
		return cmp.Or(map[websocket.StatusCode]string{kicked: kickedEnd}[by.Code], "client closed")
	case errors.As(cause, new(net.Error)), errors.Is(cause, io.EOF):
		return "line lost"
	default:
		return "broke a rule"
	}
}
