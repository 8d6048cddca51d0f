package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// What is kept of a topic, unless a check says otherwise.
const (
	keptMost = 100_000
	keptFor  = time.Hour
)

// allKeeperChecks returns the checks of a Keeper: those of a Broker that hold for Keep and Follow too, and its
// own.
func allKeeperChecks() []check {
	const others = " LostThenDelivered EveryGapIsReported OneNodeIsCutOff StopWhileAway " // Keepers have others in their place
	var all []check
	for _, c := range append(deliveryChecks, outageChecks...) {
		if strings.Contains(others, " "+c.name+" ") {
			continue
		}
		all = append(all, check{c.name, c.needs, func(t testing.TB, s Setup) {
			t.Log("here Publish is Keep, and Subscribe is Follow")
			c.run(t, s.keeping(t))
		}, true})
	}
	for _, c := range append(keeperChecks, keeperOutageChecks...) {
		all = append(all, check{c.name, c.needs, func(t testing.TB, s Setup) { c.run(t, s.keeping(t)) }, true})
	}
	return all
}

// keeping returns a Setup in which Publish and Subscribe are Keep and Follow.
func (s Setup) keeping(t testing.TB) Setup {
	s.retain(t, keptMost, keptFor)
	open, cut, heal := s.Open, s.Cut, s.Heal
	s.Open = func(t testing.TB) wsroom.Broker {
		b := open(t)
		return &keptBroker{b, b.(wsroom.Keeper)}
	}
	if cut != nil && heal != nil {
		s.Cut = func(t testing.TB, b wsroom.Broker) { cut(t, b.(*keptBroker).Broker) }
		s.Heal = func(t testing.TB, b wsroom.Broker) { heal(t, b.(*keptBroker).Broker) }
	}
	return s
}

// retain says how much is to be kept, before a broker is opened.
func (s Setup) retain(t testing.TB, n int, d time.Duration) {
	if s.Retain != nil {
		s.Retain(t, n, d)
	}
}

// keptBroker is a Keeper as a Broker, so that the checks of Brokers are run on Keep and Follow as well.
type keptBroker struct {
	wsroom.Broker
	wsroom.Keeper
}

func (k *keptBroker) Publish(ctx context.Context, topic string, data []byte) error {
	return k.Keep(ctx, topic, data, keptMost, keptFor)
}

// Subscribe leaves out what was kept before.
func (k *keptBroker) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	var isLive atomic.Bool
	return k.Follow(ctx, topic, 1, func(_ uint64, data []byte) {
		if isLive.Load() {
			deliver(data)
		}
	}, func() { isLive.Store(true) }, lost)
}

// keep keeps messages as publish does, until n newer ones are there or d has passed.
func keep(t testing.TB, b wsroom.Broker, topic string, n int, d time.Duration, messages ...string) {
	t.Helper()
	for _, m := range messages {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := b.(wsroom.Keeper).Keep(ctx, topic, []byte(m), n, d)
		cancel()
		if err != nil {
			t.Errorf("Keep on %s: %v", short(topic), err)
		}
	}
}

// follow follows a topic from its last n messages on. If steady isn't "", nothing may be lost.
func follow(t testing.TB, b wsroom.Broker, topic string, n int, steady string) *ear {
	t.Helper()
	e := newEar(t, steady)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop, err := b.(wsroom.Keeper).Follow(ctx, topic, n, e.deliverAt, e.live, e.lost)
	if err != nil {
		t.Fatalf("Follow of %s: %v. It waits only for the broker, and for deliver and live to return", short(topic), err)
	}
	e.ends(stop)
	if !slices.ContainsFunc(e.all(), func(ev event) bool { return ev.live }) {
		t.Fatal("Follow has returned before live has: deliver what is kept, call live, and return after that")
	}
	return e
}

func (e *ear) deliverAt(position uint64, data []byte) {
	e.mu.Lock()
	before := e.position
	e.position = position
	e.mu.Unlock()
	if position == 0 {
		e.t.Error("position 0 is delivered: positions are greater than 0")
	} else if position <= before {
		e.t.Errorf("position %d is delivered after %d: positions rise within a topic, each comes once, and none comes again. "+
			"Leave out what has been delivered already, and give new messages higher positions when data is lost", position, before)
	}
	e.note(event{position: position, data: string(data)})
}

func (e *ear) live() {
	e.mu.Lock()
	e.lives++
	again := e.lives > 1
	e.mu.Unlock()
	if again {
		e.t.Error("live is called again: it is called once, also when the connection breaks meanwhile")
	}
	e.note(event{live: true})
}

// past returns what was delivered before live.
func (e *ear) past() []string {
	all := e.all()
	if i := slices.IndexFunc(all, func(ev event) bool { return ev.live }); i >= 0 {
		all = all[:i]
	}
	return texts(delivered(all))
}

// kept returns the messages, with their positions.
func (e *ear) kept() []event { return delivered(e.all()) }

// newest returns the last number that was delivered, or 0.
func (e *ear) newest() int {
	all := e.kept()
	if len(all) == 0 {
		return 0
	}
	return number(e.t, all[len(all)-1].data)
}

// delivered returns the events that are messages.
func delivered(events []event) []event {
	return slices.DeleteFunc(slices.Clone(events), func(ev event) bool { return ev.live || ev.lost })
}

// hears waits for a message, which arrives for the reasons that are given.
func (e *ear) hears(message string, because ...string) {
	e.t.Helper()
	until(e.t, "the message "+short(message)+" arrives"+strings.Join(because, ""), func() bool {
		return slices.ContainsFunc(e.all(), func(ev event) bool { return ev.data == message && !ev.live && !ev.lost })
	})
}

// numbers returns the texts of the numbers from one to another.
func numbers(from, to int) []string {
	var all []string
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// noHole checks numbers that were kept one after the other, from 1 on. Each must be one more than the one
// before it, or the same again (it was kept again), or come after lost. The first may be any, unless live
// comes before it.
func noHole(t testing.TB, events []event, mend string) {
	t.Helper()
	known, last := false, 0
	for i, ev := range events {
		switch {
		case ev.live:
			known = known || i == 0
		case ev.lost:
			known = false
		default:
			n := number(t, ev.data)
			if known && n != last && n != last+1 {
				t.Fatalf("after %d comes %d, and lost isn't called between: %s", last, n, mend)
			}
			known, last = true, n
		}
	}
}

// wholeSince checks that a follower has heard every number since the first that it heard.
func wholeSince(t testing.TB, e *ear, mend string) (first int) {
	t.Helper()
	heard := texts(e.kept())
	first = number(t, heard[0])
	for i, m := range heard {
		if number(t, m) != first+i {
			t.Fatalf("after %s comes %s, though none may be missing and none come twice: %s", heard[max(0, i-1)], m, mend)
		}
	}
	return first
}

// agree checks that followers heard the same messages at the same positions.
func agree(t testing.TB, ears ...*ear) {
	t.Helper()
	at := map[uint64]string{}
	for _, e := range ears {
		for _, ev := range e.kept() {
			other, known := at[ev.position]
			if known && other != ev.data {
				t.Fatalf("%s and %s are both at position %d: a position belongs to one message, for all followers and for "+
					"good; let the server number them, and not count in the node", short(other), short(ev.data), ev.position)
			}
			at[ev.position] = ev.data
		}
	}
}
