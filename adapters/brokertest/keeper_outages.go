package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

var keeperOutageChecks = []check{
	{"StopFollowingWhileAway", downAndUp, stopFollowingWhileAway, false},
	{"NoSilentHole", downAndUp, noSilentHole, false},
	{"FollowerCutOff", cutAndHeal, followerCutOff, false},
	{"FollowWhileCutOff", cutAndHeal, followWhileCutOff, false},
	{"MuchIsMissed", cutAndHeal, muchIsMissed, false},
	{"CutOffBeforeTheFirst", cutAndHeal, cutOffBeforeTheFirst, false},
	{"CutOftenWhileFollowing", cutAndHeal, cutOftenWhileFollowing, false},
	{"TrimmedWhileCutOff", cutAndHeal, trimmedWhileCutOff, false},
	{"WipedWhileCutOff", cutAndWipe, wipedWhileCutOff, false},
	{"WipedWhileFollowing", wipe, wipedWhileFollowing, false},
}

const (
	stillKept   = "though all that was missed is kept, and the last message delivered as well: go on after its position"
	afterReturn = "when connected again, subscribe, and read on from the last position delivered; if something after it may be " +
		"gone, call lost and then go on"
	keptAfterLost = ", which is kept: after lost, go on with the oldest message that is kept"
)

// stopFollowingWhileAway: stop returns, and stays in effect when the broker is back.
func stopFollowingWhileAway(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[1], topic, "before")
	stopped, stays := follow(t, nodes[0], topic, 10, ""), follow(t, nodes[0], topic, 10, "")
	alone := follow(t, nodes[0], newTopic(), 10, "")
	s.Down(t)
	stopped.stop()
	alone.stop()
	s.Up(t)
	insist(t, nodes[1], topic, "after")
	stays.hears("after")
	again := follow(t, nodes[0], topic, 10, "")
	insist(t, nodes[1], topic, "again")
	again.hears("again")
	stays.hears("again")
}

// noSilentHole: numbers are kept through two outages, each again until it has been taken. Whatever becomes of
// the server's data, a follower that misses some is told in their place, and positions rise.
func noSilentHole(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 3), newTopic()
	var ears []*ear
	for _, b := range nodes {
		ears = append(ears, follow(t, b, topic, keptMost, ""), follow(t, b, topic, keptMost, ""))
	}
	published, end := stream(t, nodes[0], topic)
	more := func() {
		t.Helper()
		target := published() + 100
		until(t, "messages are kept", func() bool { return published() >= target })
	}
	for range 2 {
		more()
		s.Down(t)
		<-time.After(20 * time.Millisecond) // so that more are offered
		s.Up(t)
	}
	more()
	back := published()
	for _, e := range ears {
		until(t, "messages arrive again", func() bool { return e.newest() > back })
	}
	last := fmt.Sprint(end())
	ears = append(ears, follow(t, nodes[2], topic, keptMost, noOutage))
	for _, e := range ears {
		e.hears(last)
		noHole(t, e.all(), afterReturn)
	}
	agree(t, ears...)
}

// followerCutOff: a follower whose node is cut off goes on where it was, without lost, if all is kept: with
// more messages than n, and with none. Those on other nodes notice nothing.
func followerCutOff(t testing.TB, s Setup) {
	nodes, topic, idle := s.open(t, 2), newTopic(), newTopic()
	publish(t, nodes[0], idle, "before")
	whole, cut := follow(t, nodes[0], topic, 10, noOutage), follow(t, nodes[1], topic, 10, stillKept)
	quiet := follow(t, nodes[1], idle, 10, stillKept)
	published, end := stream(t, nodes[0], topic)
	more := func() {
		t.Helper()
		before := published()
		until(t, "messages are kept", func() bool { return published() > before+50 })
	}
	for i := range 2 {
		more()
		until(t, "messages arrive", func() bool { return len(cut.kept()) > 0 })
		s.Cut(t, nodes[1])
		more()
		s.Heal(t, nodes[1])
		message := fmt.Sprint("healed ", i)
		publish(t, nodes[0], idle, message)
		quiet.hears(message)
	}
	last := fmt.Sprint(end())
	for _, e := range []*ear{whole, cut} {
		e.hears(last)
		if first := wholeSince(t, e, afterReturn); first != 1 {
			t.Errorf("the first message to arrive is %d", first)
		}
	}
	agree(t, whole, cut)
	if got, want := texts(quiet.kept()), []string{"before", "healed 0", "healed 1"}; !slices.Equal(got, want) {
		t.Errorf("a follower that was cut off gets %q, want %q", got, want)
	}
}

// followWhileCutOff: Follow waits for the broker as long as its context allows, and then begins with all that
// is kept by then.
func followWhileCutOff(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, 5)...)
	follow(t, nodes[1], newTopic(), 10, "").stop() // so that it is connected
	s.Cut(t, nodes[1])
	inTime(t, "Follow", func(ctx context.Context) error {
		stop, err := nodes[1].(wsroom.Keeper).Follow(ctx, topic, 10,
			func(uint64, []byte) { t.Error("deliver is called though the node is cut off") },
			func() { t.Error("live is called though the node is cut off") },
			func(error) { t.Error("lost is called though the node is cut off, and Follow hasn't returned") })
		if err == nil {
			stop()
		}
		return err
	})

	var e *ear
	var following sync.WaitGroup
	following.Go(func() { e = follow(t, nodes[1], topic, 10, "") })
	<-time.After(20 * time.Millisecond) // so that it has begun to wait
	publish(t, nodes[0], topic, numbers(6, 8)...)
	s.Heal(t, nodes[1])
	following.Wait()
	require(t)
	publish(t, nodes[0], topic, "9")
	e.hears("9")
	if got := texts(e.kept()); !slices.Equal(got, numbers(1, 9)) {
		t.Fatalf("Follow waited for the broker and then delivers %s: begin with all that is kept by then", few(got))
	}
}

// muchIsMissed: a follower that was cut off goes on with thousands of messages, too, if all are kept.
func muchIsMissed(t testing.TB, s Setup) {
	const missed = 3000
	nodes, topic := s.open(t, 2), newTopic()
	e := follow(t, nodes[1], topic, 10, stillKept)
	publish(t, nodes[0], topic, "1")
	e.hears("1")
	s.Cut(t, nodes[1])
	publish(t, nodes[0], topic, numbers(2, 1+missed)...)
	s.Heal(t, nodes[1])
	e.hears(fmt.Sprint(1+missed), ": if you read what was missed in parts, read until there is no more")
	wholeSince(t, e, "if you read what was missed in parts, read until there is no more")
}

// cutOffBeforeTheFirst: a follower that has heard nothing before its node is cut off gets what is kept
// meanwhile. lost may be called before.
func cutOffBeforeTheFirst(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	e := follow(t, nodes[1], topic, 10, "")
	s.Cut(t, nodes[1])
	publish(t, nodes[0], topic, numbers(1, 20)...)
	s.Heal(t, nodes[1])
	e.hears("20", ": a follower that has had no message yet goes on with the first")
	if first := wholeSince(t, e, afterReturn); first != 1 {
		t.Fatalf("the first message to arrive is %d, though 1 is kept: a follower that has had no message yet goes on with the first", first)
	}
}

// cutOftenWhileFollowing: the connection breaks time and again while followers begin and go on. Each has all
// from its first message on, and live once.
func cutOftenWhileFollowing(t testing.TB, s Setup) {
	const before = 200
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, numbers(1, before)...)
	ears := make([]*ear, 20)
	var following sync.WaitGroup
	for worker := range 4 {
		following.Go(func() {
			for i := worker; i < len(ears); i += 4 {
				ears[i] = follow(t, nodes[1], topic, before, "")
			}
		})
	}
	last := before
	for pause := time.Millisecond; pause < 300*time.Millisecond; pause *= 2 {
		s.Cut(t, nodes[1])
		last++
		publish(t, nodes[0], topic, fmt.Sprint(last))
		s.Heal(t, nodes[1])
		<-time.After(pause) // so that it is connected at times, for longer and longer
	}
	following.Wait()
	require(t)

	last++
	publish(t, nodes[0], topic, fmt.Sprint(last))
	for _, e := range ears {
		e.hears(fmt.Sprint(last))
		noHole(t, e.all(), afterReturn)
	}
	agree(t, ears...)
}

// trimmedWhileCutOff: where some of what a follower missed isn't kept any more, lost is called there, and it
// goes on with the oldest that is kept. That holds for a follower that has had no message, too.
func trimmedWhileCutOff(t testing.TB, s Setup) {
	for _, before := range []int{10, 0} {
		trimAfter(t, s, before)
	}
}

// trimAfter cuts a follower off that has had that many messages.
func trimAfter(t testing.TB, s Setup, before int) {
	const most, total = 20, 1000
	s.retain(t, most, keptFor)
	nodes, topic := s.open(t, 2), newTopic()
	e := follow(t, nodes[1], topic, most, "")
	keep(t, nodes[0], topic, most, keptFor, numbers(1, before)...)
	until(t, "messages arrive", func() bool { return len(e.kept()) == before })
	s.Cut(t, nodes[1])
	keep(t, nodes[0], topic, most, keptFor, numbers(before+1, total)...)
	s.Heal(t, nodes[1])

	until(t, fmt.Sprintf("lost is called, or all that was missed arrives. After %d, only about the last %d of %d are kept. "+
		"Compare the oldest with the last position delivered", before, most, total), func() bool {
		return e.losses() > 0 || e.newest() == total
	})
	e.hears(fmt.Sprint(total), keptAfterLost)
	noHole(t, e.all(), afterReturn)
	goesOnWithTheOldest(t, e, before, total-most+1)
	keep(t, nodes[0], topic, most, keptFor, fmt.Sprint(total+1))
	e.hears(fmt.Sprint(total + 1))
	noHole(t, e.all(), afterReturn)
}

// goesOnWithTheOldest checks that what a follower hears after this number begins with that one at the latest.
func goesOnWithTheOldest(t testing.TB, e *ear, after, oldest int) {
	t.Helper()
	for _, ev := range e.kept() {
		n := number(t, ev.data)
		if n <= after {
			continue
		}
		if n > oldest {
			t.Fatalf("after lost the first message is %d, though %d is kept: go on with the oldest that is kept", n, oldest)
		}
		return
	}
}

// wipedWhileCutOff: when the server loses all its data while a follower is cut off that misses something,
// lost is called there, whether or not there are new messages. Their positions are higher than all before.
func wipedWhileCutOff(t testing.TB, s Setup) {
	nodes, topic, idle := s.open(t, 3), newTopic(), newTopic()
	through, e := follow(t, nodes[0], topic, 100, ""), follow(t, nodes[1], topic, 100, "")
	quiet := follow(t, nodes[1], idle, 100, "")
	publish(t, nodes[0], topic, numbers(1, 10)...)
	publish(t, nodes[0], idle, numbers(1, 10)...)
	e.hears("10")
	quiet.hears("10")
	s.Cut(t, nodes[1])
	publish(t, nodes[0], topic, numbers(11, 20)...)
	publish(t, nodes[0], idle, numbers(11, 20)...)
	through.hears("20")
	s.Wipe(t)
	for _, m := range numbers(21, 30) {
		insist(t, nodes[0], topic, m)
	}
	s.Heal(t, nodes[1])

	until(t, "lost is called. The data is gone, and messages were missed: call it where the last one delivered isn't kept",
		func() bool { return e.losses() > 0 })
	until(t, "lost is called. The data is gone, and messages were missed: call it where the last one delivered isn't kept, "+
		"although there is no newer one", func() bool { return quiet.losses() > 0 })
	insist(t, nodes[0], idle, "21")
	quiet.hears("21")
	e.hears("30", keptAfterLost)
	through.hears("30")
	late := follow(t, nodes[2], topic, 100, noOutage)
	for _, ear := range []*ear{through, e, quiet, late} {
		noHole(t, ear.all(), afterReturn)
	}
	goesOnWithTheOldest(t, e, 10, 21)
	agree(t, through, e, late)
	risesAfter(t, through, late, "20")
}

// risesAfter checks that what a late follower hears is at higher positions than that message was.
func risesAfter(t testing.TB, early, late *ear, message string) {
	t.Helper()
	all := early.kept()
	i := slices.IndexFunc(all, func(ev event) bool { return ev.data == message })
	for _, ev := range late.kept() {
		if i >= 0 && ev.position <= all[i].position && !slices.Contains(all[:i+1], ev) {
			t.Fatalf("%s is at position %d, and %s was at %d before the data was lost: new messages have higher positions. "+
				"Take positions from a clock, or from a counter that isn't lost with the data", short(ev.data), ev.position, message, all[i].position)
		}
	}
}

// wipedWhileFollowing: a follower that is connected when the server loses its data goes on, and positions
// rise.
func wipedWhileFollowing(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	e := follow(t, nodes[1], topic, 100, "")
	publish(t, nodes[0], topic, numbers(1, 10)...)
	e.hears("10")
	for i := range 2 {
		s.Wipe(t)
		first := 11 + 10*i
		for _, m := range numbers(first, first+9) {
			insist(t, nodes[0], topic, m)
		}
		until(t, "a message arrives, or lost is called", func() bool { return len(e.all()) > 11+10*i })
		insist(t, nodes[0], topic, fmt.Sprint(first+9)) // again, because it may have been missed before lost
		until(t, "messages arrive", func() bool { return e.newest() == first+9 })
		late := follow(t, nodes[1], topic, 100, noOutage)
		agree(t, e, late)
		late.stop()
	}
	noHole(t, e.all(), afterReturn)
}
