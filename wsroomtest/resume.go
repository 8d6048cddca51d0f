package wsroomtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/coder/websocket"
)

const (
	v1     = "wsroom.v1"
	offers = 64 // positions that a client presents at most
)

// WithCursor has the client speak wsroom.v1, as the JavaScript client does: a hub with WithHistory sends it what it
// has missed. cursor is what [Client.Cursor] of the client returned that has gone, or "" for one that comes for the
// first time. The test doesn't see the protocol's own messages. A hub without a history works, too, and so does a
// server that doesn't know the protocol.
func WithCursor(cursor string) Option {
	return func(c *config) { c.cursor = &cursor }
}

// Cursor returns where the client is in each room: what the test has taken counts, and what the client was only sent
// doesn't. A client that [WithCursor] gets it, on any node, is sent what follows. Cursor has the form of the
// JavaScript client's. Without WithCursor the test fails.
func (c *Client) Cursor() string {
	c.t.Helper()
	r := c.resumes("Cursor")
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unread) == 0 {
		r.move(r.after)
		r.after = nil
	}
	list := []position{}
	for _, name := range slices.Sorted(maps.Keys(r.positions)) {
		if p := r.positions[name]; p.Token != "" && p.At != "" {
			list = append(list, *p)
		}
	}
	text, _ := json.Marshal(list) // strings and numbers can be encoded
	return string(text)
}

// ExpectRoom waits until the client is in the room, and fails the test unless resumed says whether it is sent there
// what it has missed: it was there before, and the server still knows its position. Without [WithCursor] the test
// fails.
func (c *Client) ExpectRoom(room string, resumed bool) {
	c.t.Helper()
	r := c.resumes("ExpectRoom")
	was, in := false, false
	problem := c.wait(func() bool {
		was, in = r.resumed[room]
		return in
	})
	if !in {
		c.fail("want it in the room %q, %s", room, problem)
	}
	if was != resumed {
		c.fail("it came to the room %q with resumed %t, want %t", room, was, resumed)
	}
}

// Gaps returns how many times the server has said that messages of the room are missing. Without [WithCursor] the
// test fails.
func (c *Client) Gaps(room string) int {
	c.t.Helper()
	r := c.resumes("Gaps")
	c.mu.Lock()
	defer c.mu.Unlock()
	return r.gaps[room]
}

func (c *Client) resumes(caller string) *resumption {
	c.t.Helper()
	if c.resumption == nil {
		c.t.Fatalf("%s: %s needs WithCursor", c.name, caller)
	}
	return c.resumption
}

// position is where a client stands in a room: the nth message after the one at At is the last that it has.
type position struct {
	Room  string `json:"room"`
	Token string `json:"token"`
	At    string `json:"at"`
	N     int    `json:"n"`
}

// move changes a client's positions.
type move func(map[string]*position)

// resumption is what a client with WithCursor knows. docs/resume.md specifies the protocol.
type resumption struct {
	speaks    bool                 // the server has chosen the protocol
	positions map[string]*position // by room, with regard to what the test has taken
	resumed   map[string]bool      // the rooms that the client is in
	gaps      map[string]int       // by room
	after     []move               // since the last message that was read

	rooms map[int]string // by the room's number in this connection
	runs  []run          // what the next messages are
	last  run
}

// run announces messages of one room.
type run struct {
	count int
	room  string // "": messages to this connection alone
	at    string // position of the first; "": it follows on the one before
}

func newResumption(cursor string) (*resumption, error) {
	r := &resumption{
		positions: map[string]*position{}, resumed: map[string]bool{}, gaps: map[string]int{}, rooms: map[int]string{},
	}
	if cursor == "" {
		return r, nil
	}
	var list []*position
	if err := json.Unmarshal([]byte(cursor), &list); err != nil {
		return nil, fmt.Errorf("the cursor %q isn't one of Client.Cursor: %w", cursor, err)
	}
	for _, p := range list {
		r.positions[p.Room] = p
	}
	return r, nil
}

// subprotocols returns what the client offers; own are the application's.
func (r *resumption) subprotocols(own []string) []string {
	var list []string
	for _, name := range own {
		list = append(list, name+"+"+v1)
	}
	list = append(append(list, v1), own...)
	for i, name := range slices.Sorted(maps.Keys(r.positions)) {
		if p := r.positions[name]; i < offers {
			list = append(list, fmt.Sprintf("resume.%s.%s.%d", p.Token, p.At, p.N))
		}
	}
	return list
}

func (r *resumption) move(moves []move) {
	for _, m := range moves {
		m(r.positions)
	}
}

// read takes a message of the server. It reports whether that is the application's, and how the positions move
// when the test takes it.
func (r *resumption) read(m message) (moves []move, isApplications bool) {
	if !r.speaks {
		return nil, true
	}
	if len(r.runs) == 0 {
		r.control(m.data)
		return nil, false
	}
	next := &r.runs[0]
	moves = append(r.after, next.step())
	r.after = nil
	next.count, next.at = next.count-1, ""
	r.settle()
	return moves, true
}

// step returns how the position moves by one message of the run, or by none to where the run begins.
func (r run) step() move {
	return func(all map[string]*position) {
		p := all[r.room]
		switch {
		case p == nil:
		case r.at != "":
			p.At, p.N = r.at, 0
		default:
			p.N++
		}
	}
}

// settle takes off the runs that are over. A run of no message takes effect in its turn.
func (r *resumption) settle() {
	for len(r.runs) > 0 && r.runs[0].count == 0 {
		if r.runs[0].at != "" {
			r.after = append(r.after, r.runs[0].step())
		}
		r.runs = r.runs[1:]
	}
}

// control takes a message of the protocol. It ignores what it doesn't know.
func (r *resumption) control(text []byte) {
	var count int
	var runs [][]any
	switch {
	case json.Unmarshal(text, &count) == nil && count > 0:
		r.runs = append(r.runs, run{count: count, room: r.last.room})
	case json.Unmarshal(text, &runs) == nil:
		for _, one := range runs {
			r.announce(one)
		}
	default:
		r.tell(text)
	}
	r.settle()
}

func (r *resumption) announce(one []any) {
	var next run
	if len(one) > 0 {
		count, _ := one[0].(float64)
		next.count = int(count)
	}
	if len(one) > 1 {
		number, _ := one[1].(float64)
		next.room = r.rooms[int(number)]
	}
	if len(one) > 2 {
		next.at, _ = one[2].(string)
	}
	r.runs, r.last = append(r.runs, next), next
}

// tell takes a control message that is an object.
func (r *resumption) tell(text []byte) {
	var m struct {
		In, Start, Gap, Out *int
		Room, At, Token     string
		Resumed             bool
	}
	if json.Unmarshal(text, &m) != nil {
		return
	}
	switch {
	case m.In != nil:
		r.rooms[*m.In], r.resumed[m.Room] = m.Room, m.Resumed
		r.after = append(r.after, begin(m.Room, m.At, m.Token, !m.Resumed))
	case m.Start != nil:
		r.after = append(r.after, begin(r.rooms[*m.Start], m.At, m.Token, false))
	case m.Gap != nil:
		room := r.rooms[*m.Gap]
		r.gaps[room]++
		r.after = append(r.after, begin(room, m.At, "", false))
	case m.Out != nil:
		room := r.rooms[*m.Out]
		delete(r.resumed, room)
		delete(r.rooms, *m.Out)
		r.after = append(r.after, func(all map[string]*position) { delete(all, room) })
	}
}

// begin returns the move to a position that the server has named, or to none. A client that is new in the room
// forgets its token.
func begin(room, at, token string, isNew bool) move {
	return func(all map[string]*position) {
		p := all[room]
		if p == nil || isNew {
			p = &position{Room: room}
			all[room] = p
		}
		p.At, p.N = at, 0
		if token != "" {
			p.Token = token
		}
	}
}

// applications returns the application's own subprotocol.
func (r *resumption) applications(chosen string) string {
	if r == nil || !r.speaks {
		return chosen
	}
	return strings.TrimSuffix(strings.TrimSuffix(chosen, v1), "+")
}

// choose notes which subprotocol the server has chosen.
func (r *resumption) choose(ws *websocket.Conn) {
	chosen := strings.ToLower(ws.Subprotocol())
	r.speaks = chosen == v1 || strings.HasSuffix(chosen, "+"+v1)
}
