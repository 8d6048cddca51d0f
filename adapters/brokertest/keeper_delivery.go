package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

var keeperChecks = []check{
	{"PastThenLive", nothing, pastThenLive, false},
	{"BeginsWithTheLast", nothing, beginsWithTheLast, false},
	{"LongPast", nothing, longPast, false},
	{"KeepsTheLast", nothing, keepsTheLast, false},
	{"KeepsForATime", nothing, keepsForATime, false},
	{"OnePositionForAll", nothing, onePositionForAll, false},
	{"NothingKept", nothing, nothingKept, false},
	{"FollowWaitsForLive", nothing, followWaitsForLive, false},
	{"FollowContextEnds", nothing, followContextEnds, false},
	{"SlowInThePast", nothing, slowInThePast, false},
	{"ManyPasts", nothing, manyPasts, false},
	{"AnyNameIsKept", nothing, anyNameIsKept, false},
	{"AnyDataIsKept", nothing, anyDataIsKept, false},
	{"KeepRejects", nothing, keepRejects, false},
}

const subscribeFirst = "subscribe first, then read what is kept, and leave out of either what has come by the other"

// pastThenLive: followers begin while messages are kept. Each gets the last 100, up to at least what had been
// kept when Follow was called, then live, and then all that follows.
func pastThenLive(t testing.TB, s Setup) {
	const most = 100
	nodes, topic := s.open(t, 2), newTopic()
	published, end := stream(t, nodes[0], topic)
	until(t, "messages are kept", func() bool { return published() >= most })
	var ears []*ear
	for range 20 {
		before := published()
		e := follow(t, nodes[1], topic, most, noOutage)
		past := e.past()
		if len(past) != most {
			t.Fatalf("%d messages are delivered before live, though more are kept and n is %d: deliver the last n, "+
				"and call live before any that is newer", len(past), most)
		}
		if newest := number(t, past[most-1]); newest < before {
			t.Fatalf("%d had been kept before Follow was called, but only those up to %d come before live", before, newest)
		}
		until(t, "messages arrive after live", func() bool { return len(e.kept()) > most+3 })
		ears = append(ears, e)
	}
	last := fmt.Sprint(end())
	for _, e := range ears {
		e.hears(last)
		wholeSince(t, e, subscribeFirst)
	}
	agree(t, ears...)
}

// beginsWithTheLast: n bounds the past, and it is the last n messages, oldest first. Each of several
// followers has a past and an end of its own.
func beginsWithTheLast(t testing.TB, s Setup) {
	const kept = 300
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, kept)...)
	var ears []*ear
	for _, n := range []int{1, 10, kept - 1, kept, kept + 1, 10 * kept} {
		e := follow(t, nodes[1], topic, n, noOutage)
		if got, want := e.past(), numbers(max(1, kept-n+1), kept); !slices.Equal(got, want) {
			t.Fatalf("of 1 to %d, Follow with n = %d begins with %s: deliver the last n, oldest first", kept, n, few(got))
		}
		ears = append(ears, e)
	}
	ears[0].stop()
	ears[0].stop()
	publish(t, nodes[0], topic, fmt.Sprint(kept+1))
	for _, e := range ears[1:] {
		e.hears(fmt.Sprint(kept + 1))
		wholeSince(t, e, "the followers of a topic are independent of one another")
	}
	agree(t, ears...)
}

// longPast: a past of thousands of messages comes whole, before live.
func longPast(t testing.TB, s Setup) {
	const kept = 3000
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, kept)...)
	if got := follow(t, nodes[1], topic, kept, noOutage).past(); !slices.Equal(got, numbers(1, kept)) {
		t.Fatalf("of %d messages, %d are delivered before live: if you read what is kept in parts, read until there is no more, "+
			"and go on after the last part", kept, len(got))
	}
}

// keepsTheLast: the last n messages are kept, and of those before them at most as many as there is room for
// in some blocks.
func keepsTheLast(t testing.TB, s Setup) {
	const most, total = 20, 1000
	s.retain(t, most, keptFor)
	nodes, topic := s.open(t, 2), newTopic()
	keep(t, nodes[0], topic, most, keptFor, numbers(1, total)...)
	e := follow(t, nodes[1], topic, total, noOutage)
	past := e.past()
	if len(past) < most || past[len(past)-1] != fmt.Sprint(total) {
		t.Fatalf("of %d messages kept with n = %d, %s are kept: keep a message until there are n newer ones", total, most, few(past))
	}
	wholeSince(t, e, "what is kept has no holes: drop only the oldest")
	if len(past) > total/2 {
		t.Fatalf("of %d messages kept with n = %d, %d are kept: drop those that have n newer ones, a block at a time if need be",
			total, most, len(past))
	}
}

// keepsForATime: a message is kept for d. Some time later a topic to which nothing is added holds nothing.
// Positions rise nevertheless.
func keepsForATime(t testing.TB, s Setup) {
	const most, d = 100, 2 * time.Second
	s.retain(t, most, d)
	nodes, topic := s.open(t, 2), newTopic()
	before := keptInTime(t, nodes, topic, most, d)
	<-time.After(d)
	until(t, fmt.Sprintf("what was kept for %v is dropped, also if the topic gets no more messages", d), func() bool {
		e := follow(t, nodes[1], topic, most, "")
		e.stop()
		return len(e.past()) == 0
	})

	keep(t, nodes[0], topic, most, d, "later")
	e := follow(t, nodes[1], topic, most, "")
	for _, ev := range e.kept() {
		if ev.position <= before {
			t.Fatalf("position %d comes after %d, when what was kept before has been dropped: positions never come again. "+
				"Take them from a clock, or from a counter that outlives the topic's messages", ev.position, before)
		}
	}
}

// keptInTime keeps a message for d, finds it there, and returns its position. It tries again if this test was
// slower than d.
func keptInTime(t testing.TB, nodes []wsroom.Broker, topic string, n int, d time.Duration) uint64 {
	t.Helper()
	for {
		began := time.Now()
		keep(t, nodes[0], topic, n, d, "kept")
		e := follow(t, nodes[1], topic, n, "")
		took := time.Since(began)
		e.stop()
		if all := e.kept(); len(all) > 0 {
			return all[len(all)-1].position
		}
		if took < d {
			t.Fatalf("a message is dropped within %v, though it is kept for %v and none is newer", took, d)
		}
	}
}

// onePositionForAll: all followers on all nodes get the messages of concurrent nodes in one order and at the
// same positions, whether they hear them at once or later.
func onePositionForAll(t testing.TB, s Setup) {
	const publishers = 6
	messages := scaled(100)
	nodes, topic := s.open(t, 3), newTopic()
	var ears []*ear
	for range 2 {
		for _, b := range nodes {
			ears = append(ears, follow(t, b, topic, keptMost, noOutage))
		}
	}
	each(t, publishers, func(p int) {
		for i := range messages {
			publish(t, nodes[p%len(nodes)], topic, fmt.Sprintf("%d %03d", p, i))
		}
	})
	publish(t, nodes[0], topic, "end")
	for _, b := range nodes {
		ears = append(ears, follow(t, b, topic, keptMost, noOutage))
	}
	for _, e := range ears {
		e.hears("end")
	}
	agree(t, ears...)
	want := ears[0].kept()
	if len(want) != publishers*messages+1 {
		t.Errorf("%d messages arrive of %d", len(want)-1, publishers*messages)
	}
	for _, e := range ears[1:] {
		if !slices.Equal(e.kept(), want) {
			t.Fatal("two followers don't get the same messages in the same order at the same positions")
		}
	}
}

// nothingKept: where nothing is kept, Follow calls live and returns. What is kept right after that arrives.
func nothingKept(t testing.TB, s Setup) {
	nodes := s.open(t, 2)
	for range 20 {
		topic := newTopic()
		e := follow(t, nodes[1], topic, 10, noOutage)
		publish(t, nodes[0], topic, "at once")
		late := follow(t, nodes[1], topic, 10, noOutage)
		if got := late.past(); !slices.Equal(got, []string{"at once"}) {
			t.Fatalf("Keep has returned, and Follow on another node begins with %q: Keep returns when a Follow finds the message", got)
		}
		e.hears("at once")
	}
}

// followWaitsForLive: Follow returns after deliver and live have. What comes meanwhile waits for them.
func followWaitsForLive(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, 3)...)
	e := newEar(t, noOutage)
	opened, open := gate()
	defer open()
	lively, ended := make(chan struct{}), make(chan struct{})
	var returned atomic.Bool
	var following sync.WaitGroup
	following.Go(func() {
		stop, err := nodes[1].(wsroom.Keeper).Follow(t.Context(), topic, 10, e.deliverAt, func() {
			defer close(ended)
			close(lively)
			<-opened
			if e.live(); returned.Load() {
				t.Error("Follow has returned while live is running: Follow returns after live has")
			}
		}, e.lost)
		returned.Store(true)
		if err != nil {
			t.Errorf("Follow: %v", err)
			return
		}
		e.ends(stop)
	})

	await(t, lively, "live is called, after what is kept")
	publish(t, nodes[0], topic, numbers(4, 6)...)
	<-time.After(20 * time.Millisecond) // enough for a Follow that doesn't wait, and for a delivery
	if n := len(e.kept()); n != 3 {
		t.Errorf("%d messages are delivered, and live hasn't returned: 3 were kept before, and the others come after live", n)
	}
	open()
	following.Wait()
	await(t, ended, "live returns")
	e.hears("6")
	wholeSince(t, e, "what comes while deliver or live is running waits for its turn")
}

// followContextEnds: a context that ends while deliver is running ends Follow once deliver has returned.
// Nothing is called afterwards. A Follow that has all it needs may succeed nevertheless.
func followContextEnds(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, 3)...)
	other := follow(t, nodes[1], topic, 10, noOutage)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened, open := gate()
	defer open()
	begun, begin := gate()
	var calls, inside atomic.Int32
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop, err := nodes[1].(wsroom.Keeper).Follow(ctx, topic, 10, func(uint64, []byte) {
			calls.Add(1)
			inside.Add(1)
			begin()
			<-opened
			inside.Add(-1)
		}, func() { calls.Add(1) }, func(error) { calls.Add(1) })
		if err == nil {
			stop()
		}
	}()

	await(t, begun, "deliver is called with what is kept")
	cancel()
	<-time.After(20 * time.Millisecond) // enough for a Follow that doesn't wait
	open()
	await(t, ended, "Follow returns, because its context has ended")
	before := calls.Load()
	if inside.Load() != 0 {
		t.Error("Follow has returned an error while deliver is running: wait for the call, as stop does")
	}
	publish(t, nodes[0], topic, "4")
	other.hears("4")
	<-time.After(20 * time.Millisecond)
	if calls.Load() != before {
		t.Error("deliver, live or lost is called after Follow has returned an error")
	}
}

// slowInThePast: a follower that doesn't return from deliver, or from live, delays no other and no
// subscription, and Keep neither.
func slowInThePast(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, 3)...)
	opened, open := gate()
	var following sync.WaitGroup
	defer following.Wait()
	defer open()
	defer time.AfterFunc(2*patience, open).Stop() // so that the test ends where the others are held up
	for _, inLive := range []bool{false, true} {
		begun := make(chan struct{})
		block := sync.OnceFunc(func() { close(begun); <-opened })
		following.Go(func() {
			stop, err := nodes[1].(wsroom.Keeper).Follow(t.Context(), topic, 10, func(uint64, []byte) {
				if !inLive {
					block()
				}
			}, block, func(error) {})
			if err != nil {
				t.Errorf("Follow: %v", err)
				return
			}
			stop()
		})
		await(t, begun, "deliver or live is called, though a slow follower is there before")
	}

	quick := follow(t, nodes[1], topic, 10, noOutage)
	other := newTopic()
	elsewhere := follow(t, nodes[1], other, 10, noOutage)
	publish(t, nodes[1], topic, "4")
	publish(t, nodes[1], other, "not kept waiting")
	quick.hears("4")
	elsewhere.hears("not kept waiting")
}

// manyPasts: 1,000 topics, each with a past of its own, followed on two nodes; 250 under the race detector.
func manyPasts(t testing.TB, s Setup) {
	topics := scaled(1000)
	nodes, prefix := s.open(t, 2), newTopic()
	topic := func(i int) string { return fmt.Sprint(prefix, " ", i%topics) }
	each(t, topics, func(i int) { publish(t, nodes[i%2], topic(i), topic(i), "kept") })
	ears := make([]*ear, 2*topics)
	each(t, len(ears), func(i int) { ears[i] = follow(t, nodes[i/topics], topic(i), 10, noOutage) })
	require(t)
	each(t, topics, func(i int) { publish(t, nodes[i%2], topic(i), "live") })
	for i, e := range ears {
		e.hears("live")
		if got, want := texts(e.kept()), []string{topic(i), "kept", "live"}; !slices.Equal(got, want) {
			t.Fatalf("a follower of one of %d topics gets %q, want %q", topics, got, want)
		}
	}
	each(t, len(ears), func(i int) { ears[i].stop() })
}

// anyNameIsKept: what is kept of topics with odd names isn't mixed up either.
func anyNameIsKept(t testing.TB, s Setup) {
	nodes, topics := s.open(t, 2), oddTopics()
	each(t, len(topics), func(i int) { publish(t, nodes[0], topics[i], topics[i]) })
	each(t, len(topics), func(i int) {
		e := follow(t, nodes[1], topics[i], 10, noOutage)
		if got := e.past(); len(got) != 1 || got[0] != topics[i] {
			t.Errorf("of the topic %s this is kept: %s. Topics are bytes; encode them where the server's names aren't", short(topics[i]), few(got))
		}
		e.stop()
	})
}

// anyDataIsKept: what is kept is bytes, from none to MaxData.
func anyDataIsKept(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	most := maxData(nodes[1])
	want := []string{"", "\x00", "\r\n", "+OK\r\n", "\xff\xff", "nil", "", strings.Repeat("\x00\xff", most/2), "end"}
	live := follow(t, nodes[1], topic, 10, "")
	for _, m := range want {
		publish(t, nodes[0], topic, m)
	}
	late := follow(t, nodes[1], topic, 10, noOutage)
	for i, got := range late.past() {
		if i >= len(want) || got != want[i] {
			t.Fatalf("message %d of those kept is %s, want %s", i+1, short(got), short(want[min(i, len(want)-1)]))
		}
	}
	live.hears("end")
	agree(t, live, late)
}

// isRejected reports whether an error says that the data can never be published.
func isRejected(err error) bool {
	var rejection interface{ Rejected() bool }
	return errors.As(err, &rejection) && rejection.Rejected()
}

// keepRejects: data that Publish rejects for good is rejected by Keep, too, and does no harm.
func keepRejects(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	e := follow(t, nodes[1], topic, 10, noOutage)
	tooLarge := make([]byte, maxData(nodes[0])+1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if isRejected(nodes[0].(*keptBroker).Broker.Publish(ctx, newTopic(), tooLarge)) {
		if err := nodes[0].Publish(ctx, topic, tooLarge); !isRejected(err) {
			t.Errorf("Publish rejects %d bytes, and Keep returns %v: return an error with a method Rejected that returns true",
				len(tooLarge), err)
		}
	}
	publish(t, nodes[0], topic, "after")
	e.hears("after")
}
