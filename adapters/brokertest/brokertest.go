// Package brokertest checks that a broker keeps the promises of [wsroom.Broker], that one which is a
// [wsroom.Keeper] keeps those too, and that a store keeps the promises of [wsroom.PresenceStore]. [Memory]
// is all of them, within one process, for tests of programs.
//
//	func TestBroker(t *testing.T) {
//		brokertest.Run(t, func(t testing.TB) brokertest.Setup {
//			server, cables := startServer(t), map[wsroom.Broker]*brokertest.Cable{}
//			return brokertest.Setup{
//				Open: func(t testing.TB) wsroom.Broker {
//					c := brokertest.NewCable(t, server.Addr())
//					b := mybroker.New(connect(t, c.Addr()))
//					cables[b] = c
//					return b
//				},
//				Down: func(testing.TB) { server.Stop() },
//				Up:   func(testing.TB) { server.Start() },
//				Cut:  func(_ testing.TB, b wsroom.Broker) { cables[b].Cut() },
//				Heal: func(_ testing.TB, b wsroom.Broker) { cables[b].Heal() },
//				Wipe: func(testing.TB) { server.DropAllData() },
//			}
//		})
//	}
//
// A failure says what has happened, and then which promise is broken and how to mend it. Where a check holds several
// promises, it names each. The promises of a Keeper are
// checked below the subtest Keeper: first those of a Broker, with Keep for Publish and Follow for Subscribe,
// then its own. Most of these need Cut and Heal; those about lost data need Wipe, too. Those of SubscribeDirect
// and FollowDirect are checked below the subtest Direct, if the broker has these methods.
package brokertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/underrace"
)

// patience bounds each wait of the suite. Nothing takes that long unless it is broken.
var patience = time.Minute

// reduced makes the checks smaller, as under the race detector, which slows a server within the test down, too.
var reduced = underrace.On()

// Setup gives the suite access to a server, and to brokers on it. One goroutine at a time calls its
// functions. What they start must be ended by t.Cleanup.
type Setup struct {
	// Open returns a broker like that of a separate node, with connections of its own. All brokers opened
	// by one Setup are on the same server.
	Open func(t testing.TB) wsroom.Broker

	// Down makes the server unreachable: all connections break, and no new one succeeds until Up. If they
	// are nil, the promises about outages aren't checked, and the test says so.
	Down, Up func(t testing.TB)

	// Cut does the same to one broker that Open returned, until Heal; see [Cable]. If they are nil, the
	// promises about one node's outage aren't checked, and the test says so.
	Cut, Heal func(t testing.TB, b wsroom.Broker)

	// Hang stops the server from answering, on existing and on new connections, until Resume; see [Cable].
	// If they are nil, the suite doesn't check whether calls end with their context, and the test says so.
	Hang, Resume func(t testing.TB)

	// Wipe makes the server lose all that it keeps. Connections may break by that; brokers that are cut off
	// stay cut off. If it is nil, a Keeper's promises about lost data aren't checked, and the test says so.
	Wipe func(t testing.TB)

	// Retain, if it isn't nil, is called before a check of a Keeper opens brokers, with the n and d of the
	// messages that it keeps. It is for a server whose settings say how much is kept of all topics.
	Retain func(t testing.TB, n int, d time.Duration)
}

type check struct {
	name  string
	needs need
	run   func(t testing.TB, s Setup)
	kept  bool // it is of Keep and Follow
}

// need is what a check needs of a Setup besides Open.
type need int

const (
	nothing need = iota
	downAndUp
	cutAndHeal
	hangAndResume
	wipe
	cutAndWipe
)

// has reports whether the Setup has that, and returns its name.
func (s Setup) has(n need) (ok bool, name string) {
	switch n {
	case downAndUp:
		return s.Down != nil && s.Up != nil, "Down and Up"
	case cutAndHeal:
		return s.Cut != nil && s.Heal != nil, "Cut and Heal"
	case hangAndResume:
		return s.Hang != nil && s.Resume != nil, "Hang and Resume"
	case wipe:
		return s.Wipe != nil, "Wipe"
	case cutAndWipe:
		return s.Cut != nil && s.Heal != nil && s.Wipe != nil, "Cut, Heal and Wipe"
	}
	return true, ""
}

// Run checks each promise of [wsroom.Broker] in a subtest of its own, for which it calls setup. If the
// brokers are Keepers, it also checks each promise of [wsroom.Keeper], in subtests of the subtest Keeper. If they
// have SubscribeDirect, it checks that in subtests of the subtest Direct.
// Setups may share a server if nobody else uses it, because no topic is used twice. Messages have up to as
// many bytes as the broker's MaxData allows, but at most 16 MiB, and up to 1 MiB if the broker has no
// MaxData. Under the race detector there are fewer topics and messages.
func Run(t *testing.T, setup func(t testing.TB) Setup) {
	for _, c := range append(deliveryChecks, outageChecks...) {
		t.Run(c.name, func(t *testing.T) { c.try(t, setup(t)) })
	}

	t.Run("Keeper", func(t *testing.T) {
		if _, ok := setup(t).Open(t).(wsroom.Keeper); !ok {
			t.Skip("the broker is no wsroom.Keeper: not checked")
		}
		for _, c := range allKeeperChecks() {
			t.Run(c.name, func(t *testing.T) { c.try(t, setup(t)) })
		}
	})

	t.Run("Direct", func(t *testing.T) { runDirect(t, setup) })
}

// try runs the check if the Setup has what it needs.
func (c check) try(t testing.TB, s Setup) {
	if ok, name := s.has(c.needs); !ok {
		t.Skipf("the Setup has no %s: not checked", name)
	}
	t.Cleanup(func() { explain(t, c.name, c.kept) })
	c.run(t, s)
}

// scaled returns how many of something there are in a check: a quarter of n under the race detector.
func scaled(n int) int {
	if reduced {
		return n / 4
	}
	return n
}

// maxData returns the size of the largest messages that the suite sends through a broker.
func maxData(b wsroom.Broker) int {
	if limit, ok := limitOf(b); ok {
		return min(limit(), 16<<20)
	}
	return 1 << 20
}

// limitOf returns the broker's method MaxData, if it has one.
func limitOf(b wsroom.Broker) (limit func() int, ok bool) {
	if k, ok := b.(*keptBroker); ok {
		b = k.Broker
	}
	limited, ok := b.(interface{ MaxData() int })
	if !ok {
		return nil, false
	}
	return limited.MaxData, true
}

// open returns n brokers.
func (s Setup) open(t testing.TB, n int) []wsroom.Broker {
	t.Helper()
	nodes := make([]wsroom.Broker, n)
	for i := range nodes {
		nodes[i] = s.Open(t)
	}
	return nodes
}

// newTopic returns a topic that nobody has used.
func newTopic() string { return "brokertest " + rand.Text() }

// event is a message, or a report that some messages may have been missed. For a follower it may be the end
// of what was kept.
type event struct {
	position uint64
	data     string
	live     bool
	lost     bool
}

// ear is a subscriber or follower that records what it receives.
type ear struct {
	t        testing.TB
	steady   string // if it isn't "", nothing may be lost, for this reason
	inside   chan struct{}
	stop     func()
	mu       sync.Mutex // guards what follows
	events   []event
	position uint64 // the last one
	lives    int    // how often live was called
	finished bool
}

func (ev event) String() string {
	switch {
	case ev.live:
		return "live"
	case ev.lost:
		return "lost"
	}
	return "the message " + short(ev.data)
}

func newEar(t testing.TB, steady string) *ear {
	return &ear{t: t, steady: steady, inside: make(chan struct{}, 1)}
}

// noOutage is why nothing may be lost, where nothing goes wrong.
const noOutage = "without an outage"

// listen subscribes to a topic of which no message may be lost.
func listen(t testing.TB, b wsroom.Broker, topic string) *ear {
	t.Helper()
	return subscribe(t, b, topic, true)
}

func subscribe(t testing.TB, b wsroom.Broker, topic string, steady bool) *ear {
	t.Helper()
	e := newEar(t, "")
	if steady {
		e.steady = noOutage
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop, err := b.Subscribe(ctx, topic, e.deliver, e.lost)
	if err != nil {
		t.Fatalf("Subscribe to %s: %v", short(topic), err)
	}
	e.ends(stop)
	return e
}

// ends sets how the ear ends, at the test's end at the latest.
func (e *ear) ends(stop func()) {
	e.stop = func() {
		stop()
		e.mu.Lock()
		e.finished = true
		e.mu.Unlock()
	}
	e.t.Cleanup(e.stop)
}

func (e *ear) deliver(data []byte) { e.note(event{data: string(data)}) }

func (e *ear) lost(err error) {
	if e.steady != "" {
		e.t.Errorf("lost is called %s: %v", e.steady, err)
	}
	if err == nil {
		e.t.Error("lost is called with no error")
	}
	e.note(event{lost: true})
}

func (e *ear) note(ev event) {
	select {
	case e.inside <- struct{}{}:
		defer func() { <-e.inside }()
	default:
		e.t.Error("deliver, lost or live is called while one of them is running")
	}
	if ev.lost || ev.live {
		<-time.After(time.Millisecond) // so that a concurrent delivery is noticed
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.finished {
		e.t.Errorf("%v comes after stop has returned", ev)
		return
	}
	e.events = append(e.events, ev)
}

// all returns the events so far.
func (e *ear) all() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.events[:len(e.events):len(e.events)]
}

// messages waits for the message last and returns all messages up to it. Messages published before the
// subscription may be among them.
func (e *ear) messages(last string) []string {
	e.t.Helper()
	until(e.t, "the message "+short(last)+" arrives", func() bool {
		all := e.all()
		return len(all) > 0 && all[len(all)-1].data == last
	})
	return texts(e.all())
}

func texts(events []event) []string {
	texts := make([]string, len(events))
	for i, ev := range events {
		texts[i] = ev.data
	}
	return texts
}

// expect waits for these messages. It fails the test if others come before the last of them.
func (e *ear) expect(want ...string) {
	e.t.Helper()
	until(e.t, fmt.Sprintf("%d messages arrive, up to %s", len(want), short(want[len(want)-1])), func() bool {
		return len(e.all()) >= len(want)
	})
	for i, ev := range e.all() {
		if i >= len(want) || ev.data != want[i] {
			e.t.Fatalf("message %d of %d is %s, want %s", i+1, len(want), short(ev.data), short(want[min(i, len(want)-1)]))
		}
	}
}

// losses returns how often lost was called.
func (e *ear) losses() int {
	n := 0
	for _, ev := range e.all() {
		if ev.lost {
			n++
		}
	}
	return n
}

func publish(t testing.TB, b wsroom.Broker, topic string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := offer(t, b, topic, m); err != nil {
			t.Errorf("Publish to %s: %v", short(topic), err)
		}
	}
}

// offer publishes from a buffer that it overwrites at once, because brokers must not keep it.
func offer(t testing.TB, b wsroom.Broker, topic, message string) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	data := []byte(message)
	err := b.Publish(ctx, topic, data)
	clear(data)
	return err
}

// insist publishes until it succeeds.
func insist(t testing.TB, b wsroom.Broker, topic, message string) {
	t.Helper()
	until(t, "Publish succeeds", func() bool { return offer(t, b, topic, message) == nil })
}

// stream publishes 1, 2, 3 and so on, each until it has been taken, until the end of the test at the
// latest. published returns the last number taken. end ends the stream and returns that number.
func stream(t testing.TB, b wsroom.Broker, topic string) (published, end func() int) {
	var taken atomic.Int64
	halt := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for n := int64(1); ; {
			if offer(t, b, topic, fmt.Sprint(n)) == nil {
				taken.Store(n)
				n++
			}
			select {
			case <-halt:
				return
			case <-time.After(50 * time.Microsecond):
			}
		}
	})
	published = func() int { return int(taken.Load()) }
	stop := sync.OnceFunc(func() { close(halt); running.Wait() })
	t.Cleanup(stop)
	return published, func() int { stop(); return published() }
}

// each calls f(0) to f(n-1), 16 at a time, as long as the test hasn't failed. It returns when all calls
// have returned.
func each(t testing.TB, n int, f func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(n, 16) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && !t.Failed(); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	workers.Wait()
}

// require ends the test if it has failed, because what follows depends on what failed.
func require(t testing.TB) {
	t.Helper()
	if t.Failed() {
		t.FailNow()
	}
}

// until waits for a condition for which there is no event.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// await waits until a channel is closed.
func await(t testing.TB, closed <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatalf("waited in vain until %s", what)
	}
}

// few is how a list stands in a failure: how many there are, and the first of them.
func few(all []string) string {
	const shown = 5
	if len(all) <= shown {
		return fmt.Sprintf("%.200q", all)
	}
	return fmt.Sprintf("%d, the first are %.200q", len(all), all[:shown])
}

func short(s string) string {
	if len(s) > 40 {
		return fmt.Sprintf("%q… (%d bytes)", strings.ToValidUTF8(s[:40], "?"), len(s))
	}
	return fmt.Sprintf("%q", s)
}
