package resume_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
)

// client is what a client of the protocol makes of the bytes that it gets.
type client struct {
	t       testing.TB
	hello   bool
	rooms   map[int]*cursor // by the room's number in this connection
	runs    []pending
	last    *cursor // that the last run was of
	begun   bool
	unnamed map[*cursor]int // messages since the last position
	got     []got           // since the last call of take
}

// cursor is where a client is in a room.
type cursor struct {
	name, token, at string
	n               int
	gaps            int
}

type pending struct {
	count int
	room  *cursor // nil: messages to this connection alone
	at    string
}

// got is a message, and where its room then was.
type got struct {
	text string
	room string
	at   string
	n    int
}

func newClient(t testing.TB) *client {
	return &client{t: t, rooms: map[int]*cursor{}, unnamed: map[*cursor]int{}}
}

// read takes whole frames. Each run that they begin must end in them.
func (c *client) read(b []byte) {
	c.t.Helper()
	for len(b) > 0 {
		n, head := uint64(b[1]), 2
		switch n {
		case 126:
			n, head = uint64(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, head = binary.BigEndian.Uint64(b[2:]), 10
		}
		c.message(b[0], string(b[head:head+int(n)]))
		b = b[head+int(n):]
	}
	if len(c.runs) > 0 {
		c.t.Fatalf("%d messages are announced and don't follow", c.runs[0].count)
	}
}

func (c *client) message(first byte, text string) {
	c.t.Helper()
	if len(c.runs) == 0 {
		if first != 0x81 {
			c.t.Fatalf("a frame %#x %.100q that isn't announced", first, text)
		}
		c.control(text)
		return
	}
	r := &c.runs[0]
	g := got{text: text}
	if r.room != nil {
		c.step(r)
		g.room, g.at, g.n = r.room.name, r.room.at, r.room.n
	}
	c.got = append(c.got, g)
	r.count--
	c.settle()
}

func (c *client) step(r *pending) {
	c.t.Helper()
	if r.at != "" {
		r.room.at, r.room.n, r.at = r.at, 0, ""
		c.unnamed[r.room] = 0
		return
	}
	if r.room.token != "" && r.room.at == "" {
		c.t.Fatalf("a message of %q goes on where no position is known", r.room.name)
	}
	r.room.n++
	if c.unnamed[r.room]++; c.unnamed[r.room] > 64 {
		c.t.Fatalf("%d messages of %q without a position", c.unnamed[r.room], r.room.name)
	}
}

func (c *client) settle() {
	c.t.Helper()
	for len(c.runs) > 0 && c.runs[0].count == 0 {
		if c.runs[0].at != "" {
			c.step(&c.runs[0])
		}
		c.runs = c.runs[1:]
	}
}

func (c *client) control(text string) {
	c.t.Helper()
	if !c.hello && !json.Valid([]byte(text)) || !c.hello && text[:5] != `{"v":` {
		c.t.Fatalf("the first message is %q", text)
	}
	c.hello = true
	switch text[0] {
	case '{':
		c.object(text)
	case '[':
		var runs [][]any
		if err := json.Unmarshal([]byte(text), &runs); err != nil || len(runs) == 0 {
			c.t.Fatalf("%q: %v", text, err)
		}
		for _, r := range runs {
			c.announce(r)
		}
		c.settle()
	default:
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > 128 || n > 0 && !c.begun {
			c.t.Fatalf("%q goes on with nothing", text)
		}
		if n > 0 {
			c.runs = append(c.runs, pending{count: n, room: c.last})
		}
	}
}

func (c *client) announce(r []any) {
	c.t.Helper()
	p := pending{count: int(r[0].(float64))}
	if p.count < 0 || p.count > 128 {
		c.t.Fatalf("a run of %d", p.count)
	}
	if len(r) > 1 {
		if p.room = c.rooms[int(r[1].(float64))]; p.room == nil {
			c.t.Fatalf("a run of the room %v, which it isn't in", r[1])
		}
	}
	if len(r) > 2 {
		p.at = r[2].(string)
	}
	c.runs, c.last, c.begun = append(c.runs, p), p.room, true
}

func (c *client) object(text string) {
	c.t.Helper()
	var m struct {
		V, Beat, Keep       int
		In, Out, Start, Gap *int
		Room, At, Token     string
		Ack                 *int
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		c.t.Fatalf("%q: %v", text, err)
	}
	begin := func(r *cursor) {
		if r == nil {
			c.t.Fatalf("%s: it isn't in that room", text)
		}
		r.at, r.n = m.At, 0
		c.unnamed[r] = 0
		if m.Token != "" {
			r.token = m.Token
		}
	}
	switch {
	case m.V == 1 || m.Ack != nil:
	case m.In != nil:
		if c.rooms[*m.In] != nil {
			c.t.Fatalf("%s: the number is taken", text)
		}
		c.rooms[*m.In] = &cursor{name: m.Room}
		begin(c.rooms[*m.In])
	case m.Start != nil:
		begin(c.rooms[*m.Start])
	case m.Gap != nil:
		begin(c.rooms[*m.Gap])
		c.rooms[*m.Gap].gaps++
	case m.Out != nil:
		if c.rooms[*m.Out] == nil {
			c.t.Fatalf("%s: it isn't in that room", text)
		}
		if c.last == c.rooms[*m.Out] {
			c.last, c.begun = nil, false // a number alone doesn't go on with a room that was left
		}
		delete(c.rooms, *m.Out)
	default:
		c.t.Fatalf("%s isn't understood", text)
	}
}

// named returns the cursor of a room by its name.
func (c *client) named(name string) *cursor {
	for _, r := range c.rooms {
		if r.name == name {
			return r
		}
	}
	return nil
}

func (g got) String() string { return fmt.Sprintf("%q of %q at %s+%d", g.text, g.room, g.at, g.n) }
