package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// A Member is one connection in one room. The poller owns all fields but the atomic ones.
type Member struct {
	fd      int
	secure  *secure // nil: without TLS
	fleet   *Fleet
	room    *Room
	number  int  // in the room; the first ones send
	stalled bool // reads the first message and then no more

	rest     []byte // of the last read: a frame that isn't whole yet
	partial  []byte // of a fragmented message, what came so far
	packed   bool   // whether that message is compressed
	now      int64  // when the last read returned
	measured bool   // whether that was in the measured interval
	count    uint64 // messages seen
	// checkers has one for each sender: of n senders, sender i sends the room's messages i+n, i+2n and so on,
	// which are its first, its second and so on.
	checkers  []Checker
	place     int // in the room's order, of the last message
	reordered int // came in another order than to others
	latency   Histogram
	own       Histogram // of the messages that it sent
	foreign   int       // messages of other rooms
	err       error
	answered  []byte // scratch

	delivered atomic.Uint64 // count, published once a read
	last      atomic.Uint64 // all up to this message have come, or were skipped; 0 before each sender was heard
	want      atomic.Uint64 // the room's sender waits for this one, 0 for none
	gone      atomic.Bool
}

var clientMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

func newMember(r *Room, number int) *Member {
	return &Member{number: number, fleet: r.fleet, room: r, checkers: make([]Checker, r.senders)}
}

// publish tells the other goroutines how far this member is.
func (m *Member) publish() {
	m.delivered.Store(m.count)
	last := m.reached()
	if last == 0 {
		return
	}
	m.last.Store(last)
	if want := m.want.Load(); want != 0 && last >= want {
		m.want.Store(0)
		m.room.notify()
	}
}

// reached is the number of the room's last message before the first that may still come.
func (m *Member) reached() uint64 {
	reached := uint64(math.MaxUint64)
	for i := range m.checkers {
		next := m.checkers[i].next
		if next == 0 {
			return 0
		}
		reached = min(reached, next*uint64(len(m.checkers))+uint64(i)-1)
	}
	return reached
}

// parse handles the whole frames in p and keeps the rest.
func (m *Member) parse(p []byte) error {
	for {
		f, size, ok, err := parseFrame(p)
		if err != nil {
			return err
		}
		if !ok {
			m.rest = append(m.rest[:0], p...)
			return nil
		}
		p = p[size:]
		if err := m.frame(f); err != nil {
			return err
		}
	}
}

func (m *Member) frame(f frame) error {
	switch f.opcode {
	case opPing:
		return m.answer(opPong, f.payload)
	case opPong:
		return nil
	case opClose:
		return fmt.Errorf("load: closed by the server: % x: %w", f.payload, io.EOF)
	case opText, opBinary:
		m.partial, m.packed = m.partial[:0], f.compressed
	case opContinuation:
	default:
		return fmt.Errorf("load: opcode %d", f.opcode)
	}
	if f.fin && len(m.partial) == 0 {
		return m.text(f.payload)
	}
	m.partial = append(m.partial, f.payload...)
	if !f.fin {
		return nil
	}
	return m.text(m.partial)
}

// text takes the payload of a whole message apart.
func (m *Member) text(payload []byte) error {
	if m.packed {
		var err error
		if payload, err = m.fleet.inflater.text(payload); err != nil {
			return err
		}
	}
	if !m.fleet.dialect.Lines {
		return m.line(payload)
	}
	for line := range bytes.SplitSeq(payload, []byte("\n")) {
		if err := m.line(line); err != nil {
			return err
		}
	}
	return nil
}

func (m *Member) line(line []byte) error {
	s, ok := readStamp(line)
	switch {
	case ok:
		m.saw(s)
	case m.fleet.dialect.Controls:
	case m.fleet.dialect.Ping == "":
		return errors.New("load: not a message of this run")
	case string(line) == m.fleet.dialect.Ping:
		return m.answer(opText, []byte(m.fleet.dialect.Pong))
	case bytes.Contains(line, []byte(`"error"`)):
		return fmt.Errorf("load: the server answers %s", line)
	}
	return nil
}

func (m *Member) saw(s stamp) {
	if s.room != m.room.id {
		m.foreign++
		return
	}
	m.count++
	n := uint64(len(m.checkers))
	m.checkers[s.seq%n].Saw(s.seq / n)
	if n > 1 {
		place := m.room.order.placeOf(s.seq)
		if place < m.place {
			m.reordered++
		}
		m.place = place
	}
	if m.measured {
		m.latency.Record(time.Duration(m.now - s.at))
		if s.seq%n == uint64(m.number) {
			m.own.Record(time.Duration(m.now - s.at))
		}
	}
}

// answer sends a frame of the member's own. A room's sender may write at the same time; frames
// this short go out in one piece.
func (m *Member) answer(opcode byte, payload []byte) error {
	m.answered = appendFrame(m.answered[:0], opcode, clientMask, payload)
	return m.write(m.answered)
}
