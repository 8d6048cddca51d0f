// Package yproto reads and writes the messages of y-protocols. By them, clients of Yjs tell each other of changes
// of a document, and of the people at it. What is in a change, only Yjs knows.
package yproto

import (
	"encoding/binary"
	"encoding/json"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// Kind is what a message is for.
type Kind int

const (
	AskDocument  Kind = iota // with a state, "\x00" for none: asks for what the state lacks
	Document                 // with changes: all that the state lacks
	Change                   // with changes
	Awareness                // with what is said of people; see People
	AskAwareness             // without data: asks for what is known of people
)

// Nothing is changes of a document that change nothing.
const Nothing = "\x00\x00"

// ErrMessage ends a connection whose message isn't one of y-protocols. After 44xx the client stays away.
var ErrMessage = websocket.CloseError{Code: 4400, Reason: "That isn't a message of y-protocols."}

// begins has the numbers with which messages of each kind begin.
var begins = [...][]uint64{{0, 0}, {0, 1}, {0, 2}, {1}, {3}}

// Message returns a message.
func Message(kind Kind, data string) []byte {
	p := numbers(nil, begins[kind]...)
	if kind == AskAwareness {
		return p
	}
	return append(numbers(p, uint64(len(data))), data...)
}

// Parse returns what a message is for, and its data.
func Parse(p []byte) (kind Kind, data string, err error) {
	r := reader{p: p}
	switch about := r.number(); about {
	case 0:
		n := r.number()
		if kind = Kind(n); n > uint64(Change) {
			return 0, "", ErrMessage
		}
	case 1:
		kind = Awareness
	case 3:
		return AskAwareness, "", r.err
	default:
		return 0, "", ErrMessage
	}
	data = r.bytes()
	return kind, data, r.err
}

// Person is what is said of a client, in JSON; "null" if it has gone. The clock grows each time.
type Person struct {
	ID, Clock uint64
	State     string
}

// Message returns the message that says it.
func (p Person) Message() []byte {
	data := numbers(nil, 1, p.ID, p.Clock, uint64(len(p.State)))
	return Message(Awareness, string(data)+p.State)
}

// People returns what the data of a message of awareness says.
func People(data string) (people []Person, err error) {
	if data == "" {
		return nil, nil
	}
	r := reader{p: []byte(data)}
	for count := r.number(); count > 0 && r.err == nil; count-- {
		p := Person{r.number(), r.number(), r.bytes()}
		if r.err == nil && (!utf8.ValidString(p.State) || !json.Valid([]byte(p.State))) {
			return nil, ErrMessage
		}
		people = append(people, p)
	}
	return people, r.err
}

// numbers appends numbers, which have 7 bits in each byte, the lowest first.
func numbers(p []byte, ns ...uint64) []byte {
	for _, n := range ns {
		p = binary.AppendUvarint(p, n)
	}
	return p
}

// reader reads a message. Once something isn't there, all that follows is 0.
type reader struct {
	p   []byte
	err error
}

func (r *reader) number() uint64 {
	n, size := binary.Uvarint(r.p)
	if size <= 0 || n >= 1<<53 { // JavaScript has no larger ones
		r.p, r.err = nil, ErrMessage
		return 0
	}
	r.p = r.p[size:]
	return n
}

func (r *reader) bytes() string {
	n := r.number()
	if n > uint64(len(r.p)) {
		r.p, r.err = nil, ErrMessage
		return ""
	}
	data := string(r.p[:n])
	r.p = r.p[n:]
	return data
}
