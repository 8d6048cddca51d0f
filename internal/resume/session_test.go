package resume_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/resume"
)

var keys = [][]byte{[]byte("0123456789abcdef0123456789abcdef"), []byte("fedcba9876543210fedcba9876543210")}

// log is a room of the model: all messages that it ever had.
type log struct {
	id      uint64
	name    string
	at      []history.Position // by number, from 1; zero: the position isn't known
	in      bool
	told    uint64 // the last number that the client has, or that was accounted for
	lossDue bool   // messages are missing since
	gaps    int    // that the client must have been told of
	starts  bool   // its positions begin with a Start that is due
}

func (l *log) last() uint64 { return uint64(len(l.at) - 1) }

func (l *log) next(known bool) uint64 {
	var p history.Position
	if known {
		p = history.Position{Stream: 1000 + uint64(len(l.at)), Letter: uint32(len(l.at) % 3)}
	}
	l.at = append(l.at, p)
	return l.last()
}

func (l *log) place(number uint64) *history.Place {
	return &history.Place{Room: l.id, Number: number, At: l.at[number], Prev: l.at[number-1], Made: int64(number) * int64(time.Second)}
}

// numberOf returns the number of the message that stands n after the one at that position.
func (l *log) numberOf(at string, n int) uint64 {
	for i, p := range l.at {
		text := fmt.Sprint(p.Stream)
		if p.Letter > 0 {
			text += fmt.Sprint("-", p.Letter)
		}
		if p != (history.Position{}) && text == at {
			return uint64(i + n)
		}
	}
	return 0
}

// A client's state is always that of the message that it was given last, whatever is written to it and in which
// batches. It is told of each loss once, and of nothing else as a loss. What is announced follows at once.
func TestSessionAgainstAClient(t *testing.T) {
	for seed := range uint64(400) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			testSession(t, rand.New(rand.NewPCG(seed, 3)).IntN, 300)
		})
	}
}

func FuzzSession(f *testing.F) {
	f.Add([]byte(strings.Repeat("what is announced follows", 20)))
	f.Fuzz(func(t *testing.T, data []byte) {
		steps := len(data)
		testSession(t, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		}, steps)
	})
}

func testSession(t *testing.T, next func(int) int, steps int) {
	limits := &history.Limits{Messages: 1 + next(600), Bytes: 1 << 10, Age: time.Duration(1+next(400)) * time.Second}
	s := resume.NewSession(resume.NewKey("hub", keys), "", nil, time.Second, limits)
	c := newClient(t)
	rooms := map[string]*log{}
	var list []*log
	for i := range 3 {
		l := &log{id: uint64(10 + i), name: fmt.Sprint("room ", i), at: []history.Position{{}, {Stream: uint64(1 + i)}}}
		rooms[l.name], list = l, append(list, l)
	}

	var batch []*frame.Message
	var want []got
	write := func() {
		switch {
		case len(batch) == 1 && len(batch[0].Bytes(false)) > 0 && next(2) == 0:
			b := s.Announce(nil, batch[0])
			c.read(append(b, batch[0].Bytes(false)...))
		default:
			c.read(s.Append(nil, batch, false))
		}
		batch = batch[:0]
		compare(t, c, rooms, want)
		want = nil
	}

	for i := range steps {
		l := list[next(len(list))]
		text := fmt.Sprint("message ", i)
		switch op := next(20); {
		case op < 2: // to this connection alone
			batch = append(batch, frame.NewMessage(frame.Text, text, false))
			want = append(want, got{text: text})
		case op == 2:
			batch = append(batch, resume.Beat)
		case op == 3: // through Conn.WebSocket
			write()
			c.read(frame.Append(s.Foreign(), frame.Text, []byte(text)))
			if len(c.got) != 1 || c.got[0].text != text || c.got[0].room != "" {
				t.Fatalf("%v", c.got)
			}
			c.got = nil
		case op == 4:
			write()
		case !l.in:
			l.enter(next(3) == 0)
			e := &resume.Enter{Room: l.id, Name: l.name, Number: l.last(), At: l.at[l.last()], Was: next(3) - 1, Pending: l.starts}
			batch = append(batch, &frame.Message{Tag: e})
		case l.starts && op < 12:
			l.starts, l.told = false, l.last()
			claim := &resume.Claim{Holder: 3}
			batch = append(batch, &frame.Message{Tag: &resume.Start{Room: l.id, Number: l.told, At: l.at[l.told], Claim: claim}})
		case l.starts: // held back
		case op < 12:
			m := frame.NewMessage(frame.Binary, text, false)
			l.tell(l.next(true))
			m.Tag = l.place(l.last())
			batch = append(batch, m)
			want = append(want, got{text: text, room: l.name})
		case op < 15: // for others, several at once
			first := l.next(true)
			for range next(3) {
				l.next(true)
			}
			l.skip(first, l.last())
			batch = append(batch, &frame.Message{Tag: &resume.Skip{First: first, Place: l.place(l.last())}})
		case op == 15: // dropped
			l.next(true)
			l.lossDue = true
		case op == 16: // the broker's gap
			l.next(false)
			l.tellGap(l.last())
			batch = append(batch, &frame.Message{Tag: &resume.Gap{Room: l.id, Number: l.last()}})
		case op == 17:
			l.in = false
			batch = append(batch, &frame.Message{Tag: &resume.Leave{Room: l.id}})
			write() // what is compared after it needs the room
		case op == 18: // a snapshot has what was held back
			l.next(true)
			l.told, l.lossDue = l.last(), false
			batch = append(batch, &frame.Message{Tag: &resume.Start{Room: l.id, Number: l.told, At: l.at[l.told]}})
		}
		if len(batch) > 300 {
			write()
		}
	}
	write()
}

func (l *log) enter(starts bool) {
	l.in, l.starts, l.told, l.lossDue, l.gaps = true, starts, l.last(), false, 0
}

func (l *log) tell(number uint64) {
	if l.lossDue {
		l.gaps++
	}
	l.told, l.lossDue = number, false
}

func (l *log) skip(_, last uint64) { l.tell(last) }

func (l *log) tellGap(number uint64) {
	l.gaps++
	l.told, l.lossDue = number, false
}

// compare checks what the client got, and where it is in each room that is told of.
func compare(t *testing.T, c *client, rooms map[string]*log, want []got) {
	t.Helper()
	if len(c.got) != len(want) {
		t.Fatalf("got %v, want %v", c.got, want)
	}
	for i, g := range c.got {
		if g.text != want[i].text || g.room != want[i].room {
			t.Fatalf("got %v, want %v", g, want[i])
		}
	}
	c.got = nil

	for name, l := range rooms {
		r := c.named(name)
		if (r != nil) != l.in {
			t.Fatalf("%q: the client is in it %t, want %t", name, r != nil, l.in)
		}
		if r == nil || l.starts {
			continue
		}
		if r.at == "" {
			if l.at[l.told] != (history.Position{}) {
				t.Fatalf("%q: the client has no position, want %v", name, l.at[l.told])
			}
		} else if n := l.numberOf(r.at, r.n); n != l.told {
			t.Fatalf("%q: the client is at %s+%d, which is %d, want %d", name, r.at, r.n, n, l.told)
		}
		if r.gaps != l.gaps {
			t.Fatalf("%q: the client knows of %d gaps, want %d", name, r.gaps, l.gaps)
		}
	}
}

// To say which room a message belongs to allocates nothing.
func TestAppendAllocatesNothing(t *testing.T) {
	limits := &history.Limits{Messages: 256, Bytes: 1 << 20, Age: time.Minute}
	s := resume.NewSession(resume.NewKey("hub", keys), "", nil, 0, limits)
	s.Append(nil, []*frame.Message{{Tag: &resume.Enter{Room: 1, Name: "a", Number: 1, Was: -1}}}, false)

	l := &log{id: 1, at: []history.Position{{}, {Stream: 1}}}
	var batches [][]*frame.Message
	for range 1000 {
		m := frame.NewMessage(frame.Text, "message", false)
		m.Tag = l.place(l.next(true))
		batches = append(batches, []*frame.Message{m, frame.NewMessage(frame.Text, "own", false)})
	}
	buf := make([]byte, 0, 1<<10)
	i := 0
	n := testing.AllocsPerRun(len(batches)-1, func() {
		s.Append(buf, batches[i], false)
		i++
	})
	if n > 0 {
		t.Errorf("%.1f objects for two messages", n)
	}
}

// Of a room's messages each 64th at least has a position.
func TestPositionsComeOftenEnough(t *testing.T) {
	limits := &history.Limits{Messages: 10_000, Bytes: 1 << 30, Age: time.Hour}
	s := resume.NewSession(resume.NewKey("hub", keys), "", nil, 0, limits)
	c := newClient(t)
	l := &log{id: 1, name: "a", at: []history.Position{{}, {Stream: 1}}}
	c.read(s.Append(nil, []*frame.Message{{Tag: &resume.Enter{Room: 1, Name: "a", Number: 1, At: l.at[1], Was: -1, Claim: claim}}}, false))
	most := 0
	for range 300 {
		m := frame.NewMessage(frame.Text, "message", false)
		m.Tag = l.place(l.next(true))
		c.read(s.Append(nil, []*frame.Message{m}, false)) // which fails for a 65th
		most = max(most, c.named("a").n)
	}
	if most != 64 {
		t.Errorf("at most %d messages follow a position, want 64", most)
	}
}

// A loss that the client's position is behind already isn't told.
func TestGapThatIsOverIsntTold(t *testing.T) {
	s := resume.NewSession(resume.NewKey("hub", keys), "", nil, 0, new(history.Limits))
	c := newClient(t)
	at := history.Position{Stream: 9}
	c.read(s.Append(nil, []*frame.Message{
		{Tag: &resume.Enter{Room: 1, Name: "a", Number: 1, Was: -1}},
		{Tag: &resume.Start{Room: 1, Number: 9, At: at}},
		{Tag: &resume.Gap{Room: 1, Number: 8}},
	}, false))
	if r := c.named("a"); r.gaps != 0 || r.at != "9" {
		t.Errorf("%d gaps, it is at %q", r.gaps, r.at)
	}
}
