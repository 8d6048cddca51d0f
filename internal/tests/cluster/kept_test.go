package cluster_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// line is a node's way to a Keeper, which a test can make fail.
type line struct {
	*brokertest.Node

	mu     sync.Mutex                                              // guards the rest
	keep   func(data []byte) (times int, err error)                // nil: once, without error
	follow func(deliver func(uint64, []byte)) func(uint64, []byte) // nil: nothing is changed
	fails  error                                                   // of Follow, once the past has been delivered
	bound  int                                                     // of what is kept; 0: what the node asks for
}

func (l *line) set(keep func([]byte) (int, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep = keep
}

// fail has Follow fail with err once the past has been delivered; nil: it works.
func (l *line) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails = err
}

func (l *line) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	l.mu.Lock()
	fault := l.keep
	if l.bound > 0 {
		n = l.bound
	}
	l.mu.Unlock()

	times, err := 1, error(nil)
	if fault != nil {
		times, err = fault(data)
	}
	for range times {
		if kept := l.Node.Keep(ctx, topic, data, n, d); kept != nil {
			return kept
		}
	}
	return err
}

func (l *line) Follow(ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error)) (func(), error) {
	l.mu.Lock()
	if l.follow != nil {
		deliver = l.follow(deliver)
	}
	fails := l.fails
	l.mu.Unlock()

	stop, err := l.Node.Follow(ctx, topic, n, deliver, func() {
		if fails == nil {
			live()
		}
	}, lost)
	if err == nil && fails != nil {
		stop()
		return nil, fails
	}
	return stop, err
}

// entry is what a log has: a message, or a hole.
type entry struct {
	at   cluster.Position
	text string // "hole": messages are missing
	past bool
}

// noter is a node of the cluster, and what its hooks have got.
type noter struct {
	*cluster.Node
	line *line

	most  int    // messages of a log; 0: no limit
	onEnd func() // called when a log ends, if it isn't nil

	mu   sync.Mutex // guards the rest
	logs map[string][]entry
	ends map[string]int
	live []string // for members, in any room
	gaps []string
}

// newNoter starts a node over a server, whose rooms keep n envelopes.
func newNoter(t *testing.T, server *brokertest.Memory, n int) *noter {
	t.Helper()
	o := &noter{line: &line{Node: server.Open()}, logs: map[string][]entry{}, ends: map[string]int{}}
	o.Node = cluster.New(cluster.Config{
		Broker:  o.line,
		Bridge:  5 * time.Second,
		Bytes:   4 << 20,
		History: &cluster.History{Messages: n, Age: time.Hour},
		Log:     slog.New(slog.DiscardHandler),
		Hooks: cluster.Hooks{
			Receive: o.receive,
			Hole:    func(room string) { o.add(room, entry{text: "hole"}) },
			Ended:   o.ended,
			Gap: func(room string, err error) {
				o.mu.Lock()
				defer o.mu.Unlock()
				o.gaps = append(o.gaps, err.Error())
			},
			Missed: func(string) {},
			Failed: func(string) {},
			Queued: func(int) {},
		},
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		o.Close(ctx)
	})
	return o
}

func (o *noter) receive(d cluster.Delivery) {
	e := entry{at: d.At, text: string(d.Payload), past: d.Past}
	if d.Kind == frame.Close {
		e.text = "close"
	}
	for _, room := range d.Rooms {
		o.add(room, e)
	}
	if !d.Past {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.live = append(o.live, e.text)
	}
}

func (o *noter) add(room string, e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	log := append(o.logs[room], e)
	if o.most > 0 {
		log = log[max(0, len(log)-o.most):]
	}
	o.logs[room] = log
}

func (o *noter) ended(room string) {
	if o.onEnd != nil {
		o.onEnd()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.logs, room)
	o.ends[room]++
}

// log returns a copy of the room's log.
func (o *noter) log(room string) []entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.logs[room])
}

// texts returns the log's texts. Those of the past stand in brackets.
func (o *noter) texts(room string) string {
	var b strings.Builder
	for _, e := range o.log(room) {
		if e.past {
			e.text = "(" + e.text + ")"
		}
		b.WriteString(e.text + " ")
	}
	return strings.TrimSpace(b.String())
}

func (o *noter) want(t *testing.T, who, texts string) {
	t.Helper()
	synctest.Wait()
	if got := o.texts("/a"); got != texts {
		t.Errorf("%s has %q, want %q", who, got, texts)
	}
}

func (o *noter) wantGaps(t *testing.T, who string, n int) {
	t.Helper()
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.gaps) != n {
		t.Errorf("%s: gaps %q, want %d", who, o.gaps, n)
	}
}

func (o *noter) join(t *testing.T, room string) {
	t.Helper()
	if err := o.Subscribe(t.Context, room); err != nil {
		t.Fatal(err)
	}
}

// leave waits until the room's subscription has ended.
func (o *noter) leave(room string) {
	o.Unsubscribe(room)
	time.Sleep(3 * time.Second)
	synctest.Wait()
}

func (o *noter) say(t *testing.T, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := cluster.Publish(o.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Text, text); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
}

// downed is a fault for line.set: nothing is kept.
func downed([]byte) (int, error) { return 0, kit.ErrDown }

// message is one of an envelope, as the wire has it.
type message struct {
	node           string
	sequence, back uint64
	kind           byte
	text           string
	at             cluster.Position
}

// opened returns an envelope's messages, which have no names.
func opened(position uint64, envelope []byte) (all []message) {
	node, rest := string(envelope[1:17]), envelope[17:]
	for letter := uint32(0); len(rest) > 0; letter++ {
		size, n := binary.Uvarint(rest)
		body := rest[n : n+int(size)]
		rest = rest[n+int(size):]

		m := message{node: node, at: cluster.Position{Stream: position, Letter: letter}}
		m.sequence, n = binary.Uvarint(body)
		body = body[n:]
		m.back, n = binary.Uvarint(body)
		m.kind, m.text = body[n], string(body[n+1:])
		all = append(all, m)
	}
	return all
}

// A new subscription has what is kept first, for its log, and then what comes. Positions are those of the
// nodes that were there.
func TestKeptPastComesBeforeLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		a.join(t, "/a")
		a.say(t, "1", "2", "3")

		server.Hang()
		entered := make(chan struct{})
		go func() {
			defer close(entered)
			b.join(t, "/a")
		}()
		synctest.Wait()
		select {
		case <-entered:
			t.Error("Subscribe has returned before the past has come")
		default:
		}
		server.Resume()
		<-entered
		if got := b.texts("/a"); got != "(1) (2) (3)" {
			t.Errorf("Subscribe has returned with the log %q", got)
		}

		b.say(t, "4")
		a.want(t, "the first", "1 2 3 4")
		b.want(t, "the second", "(1) (2) (3) 4")
		wantSame(t, a, b)
		b.Settle(t.Context())
		for _, o := range []*noter{a, b} {
			o.wantGaps(t, "each", 0)
		}
	})
}

// wantSame compares two logs from where the later one begins.
func wantSame(t *testing.T, a, b *noter) {
	t.Helper()
	one, other := a.log("/a"), b.log("/a")
	if len(one) == 0 || len(other) == 0 {
		return
	}
	begin := one[0].at
	if less(begin, other[0].at) {
		begin = other[0].at
	}
	since := func(log []entry) (s []string) {
		for _, e := range log {
			if !less(e.at, begin) || e.text == "hole" {
				s = append(s, fmt.Sprint(e.at, e.text))
			}
		}
		return s
	}
	x, y := since(one), since(other)
	for i := range max(len(x), len(y)) {
		if i >= len(x) || i >= len(y) || x[i] != y[i] {
			t.Errorf("logs differ at %d of %d and %d:\n%q\n%q", i, len(x), len(y), x[i:min(i+5, len(x))], y[i:min(i+5, len(y))])
			return
		}
	}
}

func less(a, b cluster.Position) bool {
	return a.Stream < b.Stream || a.Stream == b.Stream && a.Letter < b.Letter
}

// Who was to be closed is closed where they were then. A log has no closes of the past, and names the other
// messages as nodes do that had them.
func TestKeptCloseIsNotOfThePast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		a.join(t, "/a")
		hold := make(chan struct{})
		a.line.set(func([]byte) (int, error) {
			<-hold
			return 1, nil
		})
		a.say(t, "1", "2")
		if err := cluster.Publish(a.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Close, string(frame.ClosePayload(4000, ""))); err != nil {
			t.Fatal(err)
		}
		a.say(t, "3")
		close(hold)
		a.want(t, "the first", "1 2 close 3")

		b.join(t, "/a")
		b.want(t, "the second", "(1) (2) (3)")
		here, there := a.log("/a"), b.log("/a")
		if here[3].at != there[2].at || here[3].at.Letter != 2 {
			t.Errorf("3 is at %v and at %v, want 2 as its letter", here[3].at, there[2].at)
		}
	})
}

// What was kept although Keep failed, and is kept again, is in each log once, at the same position.
func TestKeptRetriesDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b, c := newNoter(t, server, 1000), newNoter(t, server, 1000), newNoter(t, server, 1000)
		a.join(t, "/a")
		b.join(t, "/a")
		rnd := rand.New(rand.NewPCG(1, 2))
		a.line.set(func([]byte) (int, error) {
			if rnd.IntN(2) == 0 {
				return 1 + rnd.IntN(2), kit.ErrDown
			}
			return 1, nil
		})
		var want []string
		for i := range 30 {
			want = append(want, fmt.Sprint(i))
			a.say(t, want[i])
			time.Sleep(20 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		c.join(t, "/a")
		b.want(t, "the second", strings.Join(want, " "))
		c.want(t, "the third", "("+strings.Join(want, ") (")+")")
		wantSame(t, a, b)
		wantSame(t, a, c)
		for _, o := range []*noter{a, b, c} {
			o.wantGaps(t, "each", 0)
		}
	})
}

// holed are the ways in which messages of /a can be missing. b has "1" and gets what happens; a is the node that
// sends.
var holed = map[string]struct {
	happens func(t *testing.T, server *brokertest.Memory, a, b *noter)
	kept    bool // a node that comes later finds the hole, too
	holes   int
}{
	"a message is missing": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		a.line.set(func([]byte) (int, error) { return 0, nil })
		a.say(t, "never comes")
		a.line.set(nil)
	}, true, 1},
	"the broker has lost it": {func(t *testing.T, server *brokertest.Memory, a, b *noter) {
		b.line.Down()
		a.say(t, "gone")
		server.Trim(0)
		b.line.Up()
	}, false, 1},
	"another version": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		keepRaw(t, a, []byte("\x02 what comes after this release"))
	}, true, 1},
	"garbage": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		keepRaw(t, a, []byte("\x01 garbage garbage garbage"))
	}, true, 1},
	"text that isn't UTF-8": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		var sent []byte
		a.line.set(func(data []byte) (int, error) { sent = bytes.Clone(data); return 0, nil })
		a.say(t, "text")
		a.line.set(nil)
		keepRaw(t, a, bytes.Replace(sent, []byte("text"), []byte("te\xfft"), 1))
	}, true, 1},
	"given up": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		a.line.set(func(data []byte) (int, error) {
			if bytes.Contains(data, []byte("unwanted")) {
				return 0, rejected{kit.ErrDown}
			}
			return 1, nil
		})
		a.say(t, "unwanted")
		a.line.set(nil)
	}, true, 1},
	"a forged sequence": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
		var sent []byte
		a.line.set(func(data []byte) (int, error) { sent = bytes.Clone(data); return 0, nil })
		a.say(t, "text")
		a.line.set(nil)
		far := binary.AppendUvarint(nil, math.MaxUint64-1)
		e := append(bytes.Clone(sent[:17]), byte(len(far)+2))
		keepRaw(t, a, append(append(e, far...), 0, 0)) // a notice
	}, true, 3},
}

func keepRaw(t *testing.T, by *noter, data []byte) {
	t.Helper()
	if err := by.line.Node.Keep(t.Context(), ":room:/a", data, 100, time.Hour); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

// A log has a hole wherever messages are missing, whether or not a member is there. Only members have missed
// something.
func TestKeptLogsHaveHoles(t *testing.T) {
	for name, tc := range holed {
		for _, member := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", member ", member), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := brokertest.NewMemory()
					a, b := newNoter(t, server, 100), newNoter(t, server, 100)
					b.join(t, "/a")
					a.say(t, "1")
					if !member {
						b.Unsubscribe("/a")
					}
					tc.happens(t, server, a, b)
					synctest.Wait()
					a.say(t, "2")

					b.want(t, "it", "1"+strings.Repeat(" hole", tc.holes)+" 2")
					b.mu.Lock()
					if member != (len(b.gaps) > 0) {
						t.Errorf("gaps %q", b.gaps)
					}
					b.mu.Unlock()
				})
			})
		}
	}
}

// A hole in the past is one in the log of a node that comes later, at the same place. Nobody there has missed
// anything.
func TestKeptPastHasHoles(t *testing.T) {
	for name, tc := range holed {
		if !tc.kept {
			continue
		}
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := brokertest.NewMemory()
				a, b, later := newNoter(t, server, 100), newNoter(t, server, 100), newNoter(t, server, 100)
				b.join(t, "/a")
				a.say(t, "1")
				tc.happens(t, server, a, b)
				a.say(t, "2")
				later.join(t, "/a")
				later.want(t, "the one that came later", "(1)"+strings.Repeat(" hole", tc.holes)+" (2)")
				wantSame(t, b, later)
				later.wantGaps(t, "the one that came later", 0)
			})
		})
	}
}

// A node that has given up a message has the hole where other nodes have it, and reports the gap at once.
func TestKeptGivenUpMessageHasOnePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		a.join(t, "/a")
		b.join(t, "/a")
		a.say(t, "1")
		hold := make(chan struct{})
		a.line.set(func(data []byte) (int, error) {
			if bytes.Contains(data, []byte("unwanted")) {
				return 0, rejected{kit.ErrDown}
			}
			<-hold
			return 1, nil
		})
		a.say(t, "unwanted")
		a.wantGaps(t, "the sender", 1)
		b.say(t, "2")
		a.line.set(nil)
		close(hold)
		a.say(t, "3")
		a.want(t, "the sender", "1 2 hole 3")
		b.want(t, "the other", "1 2 hole 3")
		a.wantGaps(t, "the sender", 1)
		b.wantGaps(t, "the other", 1)
	})
}

// If even the notice that a message was given up is, each node has the hole before the next message.
func TestKeptGivenUpNoticeHidesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		a.join(t, "/a")
		b.join(t, "/a")
		a.say(t, "1")
		a.line.set(func([]byte) (int, error) { return 0, rejected{kit.ErrDown} })
		a.say(t, "unwanted")
		a.line.set(nil)
		a.say(t, "2")
		a.want(t, "the sender", "1 hole 2")
		b.want(t, "the other", "1 hole 2")
	})
}

// A broken connection that the broker repairs from what it keeps is no gap and no hole.
func TestKeptRepairIsNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		b.join(t, "/a")
		a.say(t, "1")
		b.line.Down()
		a.say(t, "2", "3")
		b.line.Up()
		a.say(t, "4")
		b.want(t, "it", "1 2 3 4")
		b.wantGaps(t, "it", 0)
	})
}

// When a room's subscription ends, so does its log. The next one fills it again: with what members here have had,
// too, and nothing comes twice to them.
func TestKeptLogEndsAndIsFilledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		b.join(t, "/a")
		a.say(t, "1")
		var first []byte
		a.line.set(func(data []byte) (int, error) { first = bytes.Clone(data); return 1, nil })
		a.say(t, "2")
		a.line.set(nil)
		b.want(t, "it", "1 2")

		b.Unsubscribe("/a")
		time.Sleep(time.Second)
		a.say(t, "3") // within the time in which an unused subscription is kept
		b.want(t, "it", "1 2 3")
		time.Sleep(2 * time.Second)
		b.want(t, "it", "")
		if b.ends["/a"] != 1 {
			t.Errorf("Ended was called %d times", b.ends["/a"])
		}

		a.say(t, "4")
		b.join(t, "/a")
		keepRaw(t, a, first)
		a.say(t, "5")
		b.want(t, "it", "(1) (2) (3) (4) 5")
		b.wantGaps(t, "it", 0)

		b.leave("/a")
		server.Trim(1)
		b.join(t, "/a")
		keepRaw(t, a, first) // the node has had it, and the copy that it had isn't kept any more
		a.say(t, "6")
		b.want(t, "it", "(5) 6")
		b.wantGaps(t, "it", 0)
		if got := strings.Join(b.live, " "); got != "1 2 3 5 6" {
			t.Errorf("members got %q", got)
		}
	})
}

// What a node has had of a room before is compared with what is kept of it.
func TestKeptPastIsComparedWithWhatWasSeen(t *testing.T) {
	for name, tc := range map[string]struct {
		between func(t *testing.T, server *brokertest.Memory, a, b *noter)
		want    string
	}{
		"all is kept": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
			a.say(t, "4")
		}, "(1) (2) (3) (4) 5"},
		"one is missing among those that came meanwhile": {func(t *testing.T, _ *brokertest.Memory, a, _ *noter) {
			a.line.set(func([]byte) (int, error) { return 0, nil })
			a.say(t, "never comes")
			a.line.set(nil)
			a.say(t, "4")
		}, "(1) (2) (3) hole (4) 5"},
		"the log begins behind what was missed": {func(t *testing.T, server *brokertest.Memory, a, _ *noter) {
			a.say(t, "x", "4")
			server.Trim(1)
		}, "(4) 5"},
		"all is gone": {func(t *testing.T, server *brokertest.Memory, a, _ *noter) {
			a.say(t, "x")
			server.Wipe()
		}, "5"},
		"one is missing of a node whose others are trimmed": {func(t *testing.T, server *brokertest.Memory, a, b *noter) {
			other := newNoter(t, server, 100)
			b.join(t, "/a")
			other.say(t, "other")
			b.leave("/a")
			server.Trim(1)
			a.line.set(func([]byte) (int, error) { return 0, nil })
			a.say(t, "never comes")
			a.line.set(nil)
			a.say(t, "4")
		}, "(other) hole (4) 5"},
		"the broker has lost the last": {func(t *testing.T, server *brokertest.Memory, a, b *noter) {
			b.line.follow = func(deliver func(uint64, []byte)) func(uint64, []byte) {
				return func(position uint64, data []byte) {
					if !bytes.HasSuffix(data, []byte("3")) {
						deliver(position, data)
					}
				}
			}
		}, "(1) (2) hole 5"},
		"the broker has lost the last, and others have come": {func(t *testing.T, server *brokertest.Memory, a, b *noter) {
			newNoter(t, server, 100).say(t, "4")
			b.line.follow = func(deliver func(uint64, []byte)) func(uint64, []byte) {
				return func(position uint64, data []byte) {
					if !bytes.HasSuffix(data, []byte("3")) {
						deliver(position, data)
					}
				}
			}
		}, "(1) (2) hole (4) 5"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := brokertest.NewMemory()
				a, b := newNoter(t, server, 100), newNoter(t, server, 100)
				b.join(t, "/a")
				a.say(t, "1", "2", "3")
				b.leave("/a")
				tc.between(t, server, a, b)
				b.join(t, "/a")
				a.say(t, "5")
				b.want(t, "it", tc.want)
				b.wantGaps(t, "it", 0)
			})
		})
	}
}

// A subscription that fails after a part of the past begins anew: its log ends, and has everything once.
func TestKeptPastThatFailsBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		b.join(t, "/a")
		a.say(t, "1", "2")
		b.leave("/a")
		a.say(t, "3")
		b.line.fail(kit.ErrDown)
		time.AfterFunc(time.Second, func() { b.line.fail(nil) })
		b.join(t, "/a")
		a.say(t, "4")
		b.want(t, "it", "(1) (2) (3) 4")
		if b.ends["/a"] < 3 {
			t.Errorf("Ended was called %d times", b.ends["/a"])
		}
		if got := strings.Join(b.live, " "); got != "1 2 4" {
			t.Errorf("members got %q", got)
		}
	})
}

// What a node has had of a room isn't forgotten by a subscription that never comes to be.
func TestKeptPastThatNeverComesForgetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		b.join(t, "/a")
		a.say(t, "1")
		var last []byte
		a.line.set(func(data []byte) (int, error) { last = bytes.Clone(data); return 1, nil })
		a.say(t, "2")
		b.leave("/a")

		server.Trim(0)
		b.line.fail(kit.ErrDown)
		if err := b.Subscribe(t.Context, "/a"); !errors.Is(err, cluster.ErrAway) {
			t.Errorf("Subscribe: %v", err)
		}
		time.Sleep(3 * time.Second)
		b.line.fail(nil)
		b.join(t, "/a")
		keepRaw(t, a, last)
		b.want(t, "it", "")
		if got := strings.Join(b.live, " "); got != "1 2" {
			t.Errorf("members got %q", got)
		}
	})
}

// Nothing comes after the end of a log, or into the next one, from the subscription that has ended or failed.
func TestKeptLogThatEndedGetsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		var old func(uint64, []byte)
		b.line.follow = func(deliver func(uint64, []byte)) func(uint64, []byte) {
			if old == nil {
				old = deliver
			}
			return deliver
		}
		b.join(t, "/a")
		var sent []byte
		a.line.set(func(data []byte) (int, error) { sent = bytes.Clone(data); return 1, nil })
		a.say(t, "1", "2")
		server.Trim(0)

		b.leave("/a")
		old(math.MaxUint64, sent)
		b.want(t, "it", "")
		b.join(t, "/a")
		old(math.MaxUint64, append(sent, 4, 9, 0, 1, 'x'))
		b.want(t, "it", "")
		b.Close(t.Context())
		old(math.MaxUint64, append(sent, 4, 9, 0, 1, 'x'))
		b.want(t, "it", "")
	})
}

// A node that has missed the first copy of a message, which isn't kept any more, has the second, with a hole before
// it: other nodes have the message elsewhere. It doesn't matter whether the node has had others of the sender.
func TestKeptSecondCopyHasAHoleBefore(t *testing.T) {
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprint("known ", known), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := brokertest.NewMemory()
				var nodes []*noter
				for range 7 {
					nodes = append(nodes, newNoter(t, server, 100))
				}
				a, other, all, cut, again, later, last := nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], nodes[5], nodes[6]
				for _, o := range []*noter{all, cut, again} {
					o.join(t, "/a")
				}
				first := ""
				if known {
					a.say(t, "0")
					first = "0 "
				}

				cut.line.Down()
				again.line.Down()
				a.line.set(func([]byte) (int, error) { return 1, kit.ErrDown })
				a.say(t, "1")
				a.line.set(downed)
				other.say(t, "2", "3")
				server.Trim(1)
				cut.line.Up()
				again.line.Up()
				synctest.Wait()
				again.leave("/a")
				again.join(t, "/a")
				later.join(t, "/a")
				a.line.set(nil)
				time.Sleep(time.Minute)
				last.join(t, "/a")
				a.say(t, "4")

				all.want(t, "one that was there", first+"1 2 3 4")
				cut.want(t, "one that was cut off", first+"hole 3 hole 1 4")
				again.want(t, "one that was cut off, and came again", "(3) hole 1 4")
				later.want(t, "one that came in between", "(3) hole 1 4")
				last.want(t, "one that came later", "(3) hole (1) 4")
				all.wantGaps(t, "one that was there", 0)
				cut.wantGaps(t, "one that was cut off", 1)
				later.wantGaps(t, "one that came in between", 0)
				last.wantGaps(t, "one that came later", 0)
			})
		})
	}
}

// The first message of a room may be one that is published again. Nothing is missing before it.
func TestKeptFirstMessageMayBePublishedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a, b := newNoter(t, server, 100), newNoter(t, server, 100)
		b.join(t, "/a")
		a.line.set(downed)
		a.say(t, "1")
		a.line.set(nil)
		time.Sleep(time.Minute)
		b.want(t, "one that was there", "1")
	})
}

// No log begins before the room's last one has ended.
func TestKeptLogBeginsWhenTheLastHasEnded(t *testing.T) {
	t.Parallel() // nothing is short here: the subscription ends by itself, in real time
	server := brokertest.NewMemory()
	o := newNoter(t, server, 100)
	entered, begun := make(chan error, 1), make(chan struct{}, 10)
	ended := make(chan bool, 10)
	o.onEnd = func() {
		go func() { entered <- o.Subscribe(t.Context, "/a") }()
		select {
		case <-begun:
			ended <- false
		case <-time.After(200 * time.Millisecond):
			ended <- true
		}
	}
	o.join(t, "/a")
	if err := cluster.Publish(o.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Text, "1"); err != nil {
		t.Fatal(err)
	}
	kit.Until(t, "the message has come", func() bool { return o.texts("/a") == "1" })
	o.line.follow = func(deliver func(uint64, []byte)) func(uint64, []byte) {
		begun <- struct{}{}
		return deliver
	}
	o.Unsubscribe("/a")
	if !kit.Await(t, ended, "the log's end") {
		t.Error("the next log has begun before")
	}
	if err := kit.Await(t, entered, "the next subscription"); err != nil {
		t.Fatal(err)
	}
	if got := o.texts("/a"); got != "(1)" {
		t.Errorf("the next log is %q", got)
	}
	o.onEnd = nil
}

// Settle waits until what this node has sent is in its log.
func TestKeptMessagesSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newNoter(t, brokertest.NewMemory(), 100)
		a.line.follow = func(deliver func(uint64, []byte)) func(uint64, []byte) {
			return func(position uint64, data []byte) {
				time.Sleep(100 * time.Millisecond)
				deliver(position, data)
			}
		}
		a.join(t, "/a")
		a.say(t, "1", "2")
		a.Settle(t.Context())
		if got := a.texts("/a"); got != "1 2" {
			t.Errorf("the log is %q", got)
		}
	})
}

// Close ends each log, once.
func TestKeptLogsEndWithTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a := newNoter(t, server, 100)
		a.join(t, "/a")
		a.join(t, "/b")
		a.join(t, "/b")
		a.say(t, "1")
		a.Close(t.Context())
		if len(a.logs) > 0 || a.ends["/a"] != 1 || a.ends["/b"] != 1 {
			t.Errorf("logs %v are left, and ends were %v", a.logs, a.ends)
		}
	})
}

// Messages to all connections aren't kept, and belong to no log.
func TestMessagesToAllAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		a := newNoter(t, server, 100)
		a.join(t, cluster.EveryRoom)
		if err := cluster.Publish(a.Node, cluster.Labels{}, cluster.Audience{All: true}, frame.Text, "1"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.line.Down()
		a.line.Up()
		synctest.Wait()
		if got := strings.Join(a.live, " "); got != "1" || len(a.logs) > 0 || len(a.ends) > 0 {
			t.Errorf("got %q, logs %v", got, a.logs)
		}
		a.wantGaps(t, "it", 1)
		a.leave(cluster.EveryRoom)
		if len(a.ends) > 0 {
			t.Errorf("Ended was called: %v", a.ends)
		}
	})
}
