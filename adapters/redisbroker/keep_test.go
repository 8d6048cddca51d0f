package redisbroker_test

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/internal/underrace"
)

// The keys of the topic "topic", and how many messages are kept of it.
const (
	streamKey = "wsroom:h:topic"
	idleKey   = "wsroom:l:topic"
	keptMost  = 100_000
)

// journal is what a follower has heard: messages, and "lost".
type journal struct {
	mu        sync.Mutex // guards what follows
	heard     []string
	positions []uint64
	causes    []string // of lost
}

func (l *journal) deliver(position uint64, data []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, string(data))
	l.positions = append(l.positions, position)
}

func (l *journal) lost(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.heard = append(l.heard, "lost")
	l.causes = append(l.causes, err.Error())
}

func (l *journal) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

// hears waits for a message, or for "lost".
func (l *journal) hears(t testing.TB, what string) {
	t.Helper()
	until(t, fmt.Sprintf("%.40q is heard", what), func() bool { return slices.Contains(l.all(), what) })
}

// expect checks what was heard, and that positions rose.
func (l *journal) expect(t testing.TB, want ...string) {
	t.Helper()
	if got := l.all(); !slices.Equal(got, want) {
		t.Errorf("heard %.300q, want %.300q; causes %.600q", got, want, l.causes)
	}
	l.rises(t)
}

func (l *journal) rises(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := 1; i < len(l.positions); i++ {
		if l.positions[i] <= l.positions[i-1] {
			t.Errorf("position %d comes after %d", l.positions[i], l.positions[i-1])
		}
	}
}

// last returns the last position.
func (l *journal) last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.positions[len(l.positions)-1]
}

// whole checks that the numbers from 1 on were heard, each once, and nothing was lost.
func (l *journal) whole(t testing.TB) {
	t.Helper()
	for i, m := range l.all() {
		if m != fmt.Sprint(i+1) {
			t.Errorf("%q was heard in the place of %d; causes %q", m, i+1, l.causes)
			break
		}
	}
	l.rises(t)
}

// noHole checks that numbers were heard in order, and lost was called in the place of those that are missing.
func (l *journal) noHole(t testing.TB) {
	t.Helper()
	last, known := 0, true
	for _, m := range l.all() {
		if known = known && m != "lost"; m == "lost" {
			continue
		}
		n := atoi(t, m)
		if known && n != last && n != last+1 {
			t.Errorf("%d was heard after %d, and lost wasn't called", n, last)
		}
		last, known = n, true
	}
	l.rises(t)
}

func follow(t testing.TB, b *redisbroker.Broker, topic string, n int) *journal {
	t.Helper()
	l := &journal{}
	stop, err := b.Follow(t.Context(), topic, n, l.deliver, func() {}, l.lost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return l
}

func keep(t testing.TB, b *redisbroker.Broker, topic string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := b.Keep(t.Context(), topic, []byte(m), keptMost, time.Hour); err != nil {
			t.Errorf("Keep: %v", err)
		}
	}
}

// keepNumbers keeps 1, 2, 3 and so on, each until it has been taken, while during runs. It returns the last
// one.
func keepNumbers(t testing.TB, b *redisbroker.Broker, topic string, during func()) string {
	t.Helper()
	halt, n := make(chan struct{}), 0
	var running sync.WaitGroup
	running.Go(func() {
		for {
			if b.Keep(t.Context(), topic, []byte(strconv.Itoa(n+1)), keptMost, time.Hour) == nil {
				n++
			}
			select {
			case <-halt:
				return
			case <-time.After(100 * time.Microsecond):
			}
		}
	})
	during()
	close(halt)
	running.Wait()
	return strconv.Itoa(n)
}

func numbers(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

// cutOff returns a server, a broker on it, and one behind a cable.
func cutOff(t testing.TB) (s *redisServer, b, behind *redisbroker.Broker, c *brokertest.Cable) {
	t.Helper()
	s = startRedis(t)
	c = brokertest.NewCable(t, s.Addr)
	return s, redisbroker.New(s.connect(t)), redisbroker.New(connect(t, c.Addr())), c
}

// TestCutUnderLoad: subscriptions break 8 times while messages are kept. Each of 20 followers hears all of
// them, each once, in order, and lost isn't called.
func TestCutUnderLoad(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	other := redisbroker.New(s.connect(t))
	var logs []*journal
	for range 20 {
		logs = append(logs, follow(t, b, "topic", keptMost))
	}
	quiet := follow(t, b, "quiet", keptMost) // where nothing has ever been kept
	last := keepNumbers(t, other, "topic", func() {
		for range 8 {
			before := len(logs[0].all())
			command(t, s, "CLIENT", "KILL", "TYPE", "PUBSUB")
			until(t, "more is heard", func() bool { return len(logs[0].all()) > before+20 })
		}
	})
	keep(t, other, "quiet", "1")
	quiet.hears(t, "1")
	quiet.whole(t)
	for _, l := range logs {
		l.hears(t, last)
		l.whole(t)
	}
}

// TestMuchIsMissed: what was missed is more than one read takes.
func TestMuchIsMissed(t *testing.T) {
	t.Parallel()
	_, b, behind, c := cutOff(t)
	l := follow(t, behind, "topic", 1)
	c.Cut()
	want := []string{}
	for i := range underrace.Or(500, 3000) {
		want = append(want, fmt.Sprintf("%04d %s", i, strings.Repeat("x", 2000)))
	}
	keep(t, b, "topic", want...)
	c.Heal()
	l.hears(t, want[len(want)-1])
	l.expect(t, want...)
	if past := follow(t, b, "topic", keptMost); !slices.Equal(past.all(), want) {
		t.Errorf("a follower that begins later hears %d messages", len(past.all()))
	}
	if past := follow(t, b, "topic", 1100); !slices.Equal(past.all(), want[max(0, len(want)-1100):]) {
		t.Errorf("a follower that begins with 1,100 hears %d", len(past.all()))
	}
}

// TestPartOfWhatWasMissedIsGone: lost is called before what is left. Where the position itself is gone, too.
func TestPartOfWhatWasMissedIsGone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   []string
		want []string
	}{
		"trimmed":            {[]string{"XTRIM", streamKey, "MAXLEN", "2"}, []string{"1", "2", "lost", "4", "5"}},
		"only what is known": {[]string{"XTRIM", streamKey, "MAXLEN", "3"}, []string{"1", "2", "lost", "3", "4", "5"}},
		"deleted":            {[]string{"DEL", streamKey}, []string{"1", "2", "lost"}},
		"wiped":              {[]string{"FLUSHALL"}, []string{"1", "2", "lost"}},
		"nothing":            {[]string{"PING"}, []string{"1", "2", "3", "4", "5"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, b, behind, cable := cutOff(t)
			logs := []*journal{follow(t, behind, "topic", 1), follow(t, behind, "topic", 1)}
			expect := func(want ...string) {
				for _, l := range logs {
					l.hears(t, want[len(want)-1])
					l.expect(t, want...)
				}
			}
			keep(t, b, "topic", "1", "2")
			expect("1", "2")
			cable.Cut()
			keep(t, b, "topic", "3", "4", "5")
			command(t, s, c.do...)
			cable.Heal()
			expect(c.want...)
			keep(t, b, "topic", "6")
			expect(append(c.want, "6")...)

			cable.Cut() // after lost they know where they are
			keep(t, b, "topic", "7")
			cable.Heal()
			expect(append(c.want, "6", "7")...)
		})
	}
}

// TestWipedUnderLoad: where data is lost and connections aren't, nothing is missed. Where both are, lost is
// called. Positions rise.
func TestWipedUnderLoad(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	l := follow(t, b, "topic", keptMost)
	last := keepNumbers(t, b, "topic", func() {
		for range 50 {
			command(t, s, "FLUSHALL")
		}
	})
	l.hears(t, last)
	l.whole(t)

	l = follow(t, b, "other", keptMost)
	last = keepNumbers(t, b, "other", func() {
		for range 8 {
			before := len(l.all())
			command(t, s, "CLIENT", "KILL", "TYPE", "PUBSUB")
			command(t, s, "FLUSHALL")
			until(t, "more is heard", func() bool { return len(l.all()) > before+20 })
		}
	})
	l.hears(t, last)
	l.noHole(t)
}

// TestServerMayLackSome: a server that has started again, with its data or without, or that was a replica
// meanwhile, may lack messages that it had taken. So lost is called, once, and then what is there is delivered.
func TestServerMayLackSome(t *testing.T) {
	t.Parallel()
	again := func(t testing.TB, s *redisServer) {
		s.Stop()
		s.Start(t)
	}
	for name, c := range map[string]struct {
		args []string
		do   func(testing.TB, *redisServer)
	}{
		"started again without data": {nil, again},
		"started again with data":    {[]string{"--appendonly", "yes"}, again},
		"was a replica": {nil, func(t testing.TB, s *redisServer) {
			command(t, s, "REPLICAOF", "127.0.0.1", "1") // where nothing listens
			command(t, s, "REPLICAOF", "NO", "ONE")
			command(t, s, "CLIENT", "KILL", "TYPE", "PUBSUB")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startRedis(t, c.args...)
			l := follow(t, redisbroker.New(s.connect(t)), "topic", keptMost)
			last := keepNumbers(t, redisbroker.New(s.connect(t)), "topic", func() {
				for range 3 {
					before := len(l.all())
					until(t, "more is heard", func() bool { return len(l.all()) > before+20 })
					c.do(t, s)
					before = len(l.all())
					until(t, "more is heard", func() bool { return len(l.all()) > before+20 })
				}
			})
			l.hears(t, last)
			l.noHole(t)
			if len(l.causes) != 3 {
				t.Errorf("lost was called for %q", l.causes)
			}
		})
	}
}

// future returns the id of an entry, an hour ahead of Redis' clock.
func future(t testing.TB, s *redisServer, number int) string {
	t.Helper()
	return fmt.Sprintf("%d-%d", (atoi(t, command(t, s, "TIME")[0])+3600)*1000, number)
}

// TestClockIsSetBack: positions rise nevertheless, also where all data is lost at the same time.
func TestClockIsSetBack(t *testing.T) {
	t.Parallel()
	s, b, behind, cable := cutOff(t)
	set := func() { // as if the clock had been an hour ahead
		command(t, s, "XADD", streamKey, future(t, s, 0), "d", "before")
		command(t, s, "PEXPIRE", streamKey, "3600000")
	}
	set()
	l := follow(t, b, "topic", 1)
	far := l.last()
	other := redisbroker.New(s.connect(t))
	keep(t, other, "topic", "stays")
	l.hears(t, "stays")
	command(t, s, "FLUSHALL")
	keep(t, other, "topic", "from one that kept")
	l.hears(t, "from one that kept")
	command(t, s, "FLUSHALL")
	keep(t, b, "topic", "from one that heard")
	l.hears(t, "from one that heard")
	l.expect(t, "before", "stays", "from one that kept", "from one that heard")
	if l.last() <= far {
		t.Errorf("position %d comes after %d", l.last(), far)
	}

	command(t, s, "FLUSHALL")
	late := redisbroker.New(s.connect(t))
	keep(t, late, "topic", "from one that doesn't")
	l.hears(t, "lost")
	keep(t, late, "topic", "higher again")
	l.hears(t, "higher again")
	l.expect(t, "before", "stays", "from one that kept", "from one that heard", "lost", "higher again")

	command(t, s, "FLUSHALL")
	set()
	l = follow(t, behind, "topic", 1)
	cable.Cut()
	command(t, s, "FLUSHALL")
	keep(t, late, "topic", "lost with the data")
	cable.Heal()
	l.hears(t, "lost")
	cable.Cut()
	keep(t, late, "topic", "while away")
	cable.Heal()
	keep(t, late, "topic", "end")
	l.hears(t, "end")
	if all := l.all(); !slices.Contains(all, "while away") || len(l.causes) != 1 {
		t.Errorf("heard %q; causes %q", all, l.causes)
	}
	l.rises(t)
}

// TestNumbersOfIDsHaveRoom: in a millisecond that doesn't end there is no end of positions.
func TestNumbersOfIDsHaveRoom(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	command(t, s, "XADD", streamKey, future(t, s, 999_998), "d", "1")
	command(t, s, "PEXPIRE", streamKey, "3600000")
	l := follow(t, b, "topic", 1)
	keep(t, b, "topic", numbers(2, 5)...)
	l.hears(t, "5")
	l.whole(t)
	if first, last := l.positions[0]>>20, l.last()>>20; last != first+1 {
		t.Errorf("the first is of the millisecond %d, and the last of %d: it should be the next one", first, last)
	}
	if past := follow(t, b, "topic", 4); !slices.Equal(past.positions, l.positions[1:]) {
		t.Errorf("positions are %d, and later %d", l.positions, past.positions)
	}
}

// TestSlowFollower: what is too much for a follower's backlog is read again, so that it misses nothing that is
// still kept.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		most int
		lost bool
	}{"all is kept": {keptMost, false}, "most has gone": {5, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := redisbroker.New(startRedis(t).connect(t))
			l, opened := &journal{}, make(chan struct{})
			stop, err := b.Follow(t.Context(), "topic", 1, func(p uint64, data []byte) {
				<-opened
				l.deliver(p, data[:4])
			}, func() {}, l.lost)
			if err != nil {
				t.Fatal(err)
			}
			filler := strings.Repeat("x", 1<<20)
			for i := range 40 {
				if err := b.Keep(t.Context(), "topic", fmt.Appendf(nil, "%04d%s", i, filler), c.most, time.Hour); err != nil {
					t.Error(err)
				}
			}
			other := follow(t, b, "other", 1) // when it hears, all else has been received
			keep(t, b, "other", "fence")
			other.hears(t, "fence")
			close(opened)
			l.hears(t, "0039")
			stop()
			all := l.all()
			if slices.Contains(all, "lost") != c.lost || !c.lost && len(all) != 40 {
				t.Errorf("heard %d: %q", len(all), all)
			}
			l.rises(t)
			last := -1
			for _, m := range slices.DeleteFunc(all, func(m string) bool { return m == "lost" }) {
				if n := atoi(t, m); n != last+1 && !c.lost {
					t.Errorf("%d was heard after %d", n, last)
				} else {
					last = n
				}
			}
		})
	}
}

// TestKeyOfAnotherType: where a topic's key is something else, Keep and Follow say so. For a follower that was
// cut off, lost is called.
func TestKeyOfAnotherType(t *testing.T) {
	t.Parallel()
	s, b, behind, cable := cutOff(t)
	l := follow(t, behind, "topic", 1)
	keep(t, b, "topic", "1")
	l.hears(t, "1")
	cable.Cut()
	command(t, s, "SET", streamKey, "no stream")
	err := b.Keep(t.Context(), "topic", []byte("2"), 1, time.Hour)
	if err == nil || !strings.Contains(err.Error(), "redisbroker: keep: WRONGTYPE") {
		t.Errorf("Keep: %v", err)
	}
	_, err = b.Follow(t.Context(), "topic", 1, func(uint64, []byte) {}, func() {}, func(error) {})
	if err == nil || !strings.Contains(err.Error(), "redisbroker: follow: WRONGTYPE") {
		t.Errorf("Follow: %v", err)
	}
	cable.Heal()
	l.hears(t, "lost")
	if !strings.Contains(l.causes[0], "WRONGTYPE") {
		t.Errorf("lost was called for %q", l.causes)
	}
	command(t, s, "DEL", streamKey)
	keep(t, b, "topic", "3")
	l.hears(t, "3")
	l.expect(t, "1", "lost", "3")

	command(t, s, "XADD", streamKey, "99999999999999-9999999", "d", "no position has room for that")
	_, err = b.Follow(t.Context(), "topic", 1, func(uint64, []byte) {}, func() {}, func(error) {})
	if err == nil || !strings.Contains(err.Error(), "its id is 99999999999999-9999999") {
		t.Errorf("Follow: %v", err)
	}
	command(t, s, "PUBLISH", "wsroom:topic", "of Publish")
	until(t, "lost is called", func() bool { return len(l.all()) == 4 })
	l.expect(t, "1", "lost", "3", "lost")
}

// TestIdleTopic: a follower that was cut off knows that it has missed nothing also when nothing is kept any
// more. Once nobody follows the topic, Redis has nothing of it.
func TestIdleTopic(t *testing.T) {
	t.Parallel()
	const hold = 2 * time.Second // a busy machine may take a second
	s, b, behind, cable := cutOff(t)
	redisbroker.SetHold(b, hold)
	redisbroker.SetHold(behind, hold)
	l := &journal{}
	stop, err := behind.Follow(t.Context(), "topic", 1, l.deliver, func() {}, l.lost)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Keep(t.Context(), "topic", []byte("1"), 1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	l.hears(t, "1")
	until(t, "only the id is kept", func() bool { return slices.Equal(command(t, s, "KEYS", "*"), []string{idleKey}) })
	<-time.After(2*hold + hold/4) // longer than the id would be kept without a follower
	cable.Cut()
	cable.Heal()
	keep(t, b, "topic", "2")
	l.hears(t, "2")
	l.expect(t, "1", "2")
	if command(t, s, "EXISTS", idleKey)[0] != "0" {
		t.Error("the id is kept beside the message")
	}

	stop()
	if err := b.Keep(t.Context(), "topic", []byte("3"), 1, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if late := follow(t, b, "topic", 1); len(late.all()) != 1 && len(late.all()) != 0 {
		t.Errorf("heard %q", late.all())
	}
	until(t, "all has lapsed", func() bool {
		return !slices.Contains(command(t, s, "KEYS", "*"), streamKey)
	})
}

// TestNoMemoryLeft: Keep fails, and topics can be followed nevertheless.
func TestNoMemoryLeft(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	keep(t, b, "kept", "1")
	command(t, s, "CONFIG", "SET", "maxmemory", "1")
	if err := b.Keep(t.Context(), "topic", nil, 1, time.Hour); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Keep: %v", err)
	}
	l := follow(t, b, "topic", 1)
	follow(t, b, "kept", 1).expect(t, "1")
	command(t, s, "CONFIG", "SET", "maxmemory", "0")
	keep(t, b, "topic", "1")
	l.hears(t, "1")
	l.expect(t, "1")
}

// TestFollowLeavesNothing: when a follower has been stopped, the server has no subscription of it, and the
// process no goroutine.
func TestFollowLeavesNothing(t *testing.T) { // alone: it counts goroutines
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	subscribed := func() int { return len(command(t, s, "PUBSUB", "CHANNELS")) }
	round := func() {
		stop, err := b.Follow(t.Context(), "topic", 1, func(uint64, []byte) {}, func() {}, func(error) {})
		if err != nil || subscribed() != 1 {
			t.Fatalf("%v, %d channels are subscribed to", err, subscribed())
		}
		stop()
		until(t, "no subscription is left", func() bool { return subscribed() == 0 })
	}
	round() // the client keeps its connections
	before := runtime.NumGoroutine()
	for range 20 {
		round()
	}
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
}

// TestKeepsNothing: what Keep can't mean is an error.
func TestKeepsNothing(t *testing.T) {
	t.Parallel()
	b := redisbroker.New(startRedis(t).connect(t))
	for _, c := range []struct {
		n int
		d time.Duration
	}{{0, time.Hour}, {-1, time.Hour}, {1, 0}, {1, -1}} {
		if err := b.Keep(t.Context(), "topic", nil, c.n, c.d); err == nil || !strings.Contains(err.Error(), "greater than 0") {
			t.Errorf("Keep of %d for %v: %v", c.n, c.d, err)
		}
	}
}
