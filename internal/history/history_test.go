package history_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
)

// entry is a message of a room as the model knows it.
type entry struct {
	at   history.Position // zero: it is missing
	made int64
	size int64
}

// model is a log that keeps everything, and knows which part of that a [history.Log] must keep.
type model struct {
	limits history.Limits
	all    []entry // the room's messages from its first one on, the missing ones among them
	kept   int     // how many of the last ones are kept
}

func (m *model) bytes() (n int64) {
	for _, e := range m.keptOnes() {
		n += e.size
	}
	return n
}

func (m *model) keptOnes() []entry { return m.all[len(m.all)-m.kept:] }

func (m *model) append(e entry) {
	m.all = append(m.all, e)
	m.kept++
	for m.kept > m.limits.Messages || m.bytes() > m.limits.Bytes {
		m.kept--
	}
	m.expire(e.made)
}

func (m *model) expire(now int64) {
	for m.kept > 0 && now-m.keptOnes()[0].made > int64(m.limits.Age) {
		m.kept--
	}
}

// indexOf returns the index of the message at that position; -1: no message has it.
func (m *model) indexOf(at history.Position) int {
	return slices.IndexFunc(m.all, func(e entry) bool { return e.at == at })
}

// complete reports whether all messages after the one with that index are kept.
func (m *model) complete(index int) bool { return 0 <= index && len(m.all)-1-index <= m.kept }

// test runs a log and the model side by side. next returns the next random number below n.
func test(t *testing.T, next func(n int) int, steps int, numbered bool) {
	limits := history.Limits{Messages: 1 + next(8), Bytes: int64(20 + next(80)), Age: time.Duration(1+next(20)) * time.Second}
	var start history.Position
	var birth uint64
	if numbered {
		start.Stream, birth = uint64(1+next(1000)), 7
	} else if next(2) == 0 {
		start.Stream = uint64(1 + next(3))
	}
	log := history.New(&limits, 5, birth, start)
	m := &model{limits: limits, all: []entry{{at: start}}}
	now, last := int64(1), start

	for range steps {
		switch next(12) {
		case 0:
			number := log.Lose()
			m.all, m.kept = append(m.all, entry{}), 0
			if number != uint64(len(m.all)) {
				t.Fatalf("Lose returned %d, want %d", number, len(m.all))
			}
			if numbered {
				last.Stream++
			}
		case 1:
			log.Clear()
			m.kept = 0
		case 2:
			now += int64(next(10)) * int64(time.Second)
			log.Expire(now)
			m.expire(now)
		default:
			at := history.Position{}
			if !numbered {
				at = last
				if at.Letter++; next(2) == 0 || at.Stream == 0 {
					at = history.Position{Stream: last.Stream + 1 + uint64(next(3)), Letter: uint32(next(2))}
				}
			}
			message := frame.NewMessage(frame.Text, make([]byte, next(30)), false)
			place := log.Append(message, at, nil, now)
			if !last.Before(place.At) {
				t.Fatalf("%v comes after %v", place.At, last)
			}
			if m.indexOf(place.At) >= 0 {
				t.Fatalf("%v comes again", place.At)
			}
			last = place.At
			m.append(entry{last, now, message.Size()})
			if place.Number != uint64(len(m.all)) || place.Room != 5 || message.Tag != any(place) {
				t.Fatalf("%+v is message %d", place, len(m.all))
			}
		}
		check(t, log, m, next, numbered)
	}
}

// check compares what the log says with the model.
func check(t *testing.T, log *history.Log, m *model, next func(n int) int, numbered bool) {
	t.Helper()
	var kept []history.Position
	log.After(0, func(_ *frame.Message, p *history.Place) { kept = append(kept, p.At) })
	want := positions(m.keptOnes())
	if !slices.Equal(kept, want) || log.Len() != len(want) || log.Bytes() != m.bytes() {
		t.Fatalf("it keeps %v of %d bytes, want %v of %d", kept, log.Bytes(), want, m.bytes())
	}
	number, at := log.End()
	if end := m.all[len(m.all)-1].at; number != uint64(len(m.all)) || at != end {
		t.Fatalf("it ends with %d at %v, want %d at %v", number, at, len(m.all), end)
	}

	i := next(len(m.all))
	n := next(12)
	if next(8) == 0 {
		n = 1 << 40
	}
	from := m.all[i].at
	got, ok := log.Find(from, uint64(n))
	index := i + n
	complete := from != (history.Position{}) && index < len(m.all) && m.complete(index) && m.all[index].at != history.Position{}
	switch {
	case ok && !complete:
		t.Fatalf("%d after %v: found, but not all of what follows is kept: %+v", n, from, m.all)
	case ok && got != uint64(index+1):
		t.Fatalf("%d after %v is %d, want %d", n, from, got, index+1)
	case !ok && complete && (numbered || i >= len(m.all)-m.kept-1):
		t.Fatalf("%d after %v: not found, but %d are kept: %+v", n, from, m.kept, m.all)
	}
	if ok {
		if p := log.PositionOf(got); p != m.all[index].at {
			t.Fatalf("%d is at %v, want %v", got, p, m.all[index].at)
		}
		var follow []history.Position
		log.After(got, func(_ *frame.Message, p *history.Place) { follow = append(follow, p.At) })
		if want := positions(m.all[index+1:]); !slices.Equal(follow, want) {
			t.Fatalf("%v follow %d, want %v", follow, got, want)
		}
	}

	upTo, most := next(len(m.all)+2), next(10)
	var tail []history.Position
	for _, message := range log.Tail(most, uint64(upTo), 0, "") {
		tail = append(tail, message.Tag.(*history.Place).At)
	}
	wantTail := positions(m.all[len(m.all)-m.kept : max(len(m.all)-m.kept, min(upTo, len(m.all)))])
	if wantTail = wantTail[max(0, len(wantTail)-most):]; !slices.Equal(tail, wantTail) {
		t.Fatalf("the last %d up to %d are %v, want %v", most, upTo, tail, wantTail)
	}

	never := history.Position{Stream: uint64(next(3000)), Letter: 1 << 31}
	if _, ok := log.Find(never, uint64(n)); ok {
		t.Fatalf("%v is found, which no message ever had", never)
	}
}

func positions(entries []entry) (list []history.Position) {
	for _, e := range entries {
		list = append(list, e.at)
	}
	return list
}

// A log of at most eight messages, of which some are missing, trimmed and expired at random, finds a position only
// if it keeps all that follows. One that numbers its messages itself always finds it then. No position comes again.
func TestLogFindsOnlyWhatIsComplete(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			test(t, rnd.IntN, 200, seed%2 == 0)
		})
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("a log of eight messages"), true)
	f.Add([]byte{3, 7, 1, 9, 5, 5, 0, 4, 1, 2, 2, 8, 200, 100, 3, 11}, false)
	f.Fuzz(func(t *testing.T, data []byte, numbered bool) {
		steps := len(data)
		test(t, func(n int) int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b) % n
		}, steps, numbered)
	})
}

// What a sender has left a connection out of, and what has no frame, isn't in what that connection is sent.
func TestTailIsForTheConnection(t *testing.T) {
	log := history.New(&history.Limits{Messages: 10, Bytes: 1 << 10, Age: time.Hour}, 1, 0, history.Position{})
	log.Append(frame.NewMessage(frame.Text, "one", false), history.Position{Stream: 1}, nil, 1)
	log.Append(frame.NewMessage(frame.Text, "two", false), history.Position{Stream: 2}, &history.Hidden{Conns: []uint64{4, 8}}, 1)
	log.Append(new(frame.Message), history.Position{Stream: 3}, nil, 1)
	for conn, want := range map[uint64]int{8: 1, 9: 2} {
		if got := log.Tail(3, 100, conn, ""); len(got) != want {
			t.Errorf("%d messages for the connection %d, want %d", len(got), conn, want)
		}
	}
}
