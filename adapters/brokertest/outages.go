package brokertest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/underrace"
)

var outageChecks = []check{
	{"PublishWhileAway", downAndUp, publishWhileAway, false},
	{"SubscribeWhileAway", downAndUp, subscribeWhileAway, false},
	{"StopWhileAway", downAndUp, stopWhileAway, false},
	{"LostThenDelivered", downAndUp, lostThenDelivered, false},
	{"EveryGapIsReported", downAndUp, everyGapIsReported, false},
	{"OneNodeIsCutOff", cutAndHeal, oneNodeIsCutOff, false},
	{"ServerHangs", hangAndResume, serverHangs, false},
}

// publishWhileAway: Publish returns an error, within the context's time, and only during the outage. The error
// doesn't say that the data is wrong. MaxData doesn't wait for the broker.
func publishWhileAway(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	publish(t, nodes[0], topic, "before")
	s.Down(t)
	for _, b := range nodes { // one that has published before, and one that hasn't
		for range 2 {
			inTime(t, "Publish", func(ctx context.Context) error {
				err := b.Publish(ctx, topic, []byte("while away"))
				if isRejected(err) {
					t.Errorf("the error of Publish while the broker is away is Rejected: %v", err)
				}
				return err
			})
		}
		if limit, ok := limitOf(b); ok {
			known := make(chan struct{})
			go func() { limit(); close(known) }()
			await(t, known, "MaxData returns, though the broker is away")
		}
	}
	s.Up(t)
	e := subscribe(t, nodes[1], topic, false)
	insist(t, nodes[0], topic, "after")
	until(t, "what is published after an outage arrives", func() bool {
		all := e.all()
		return len(all) > 0 && all[len(all)-1].data == "after"
	})
}

// inTime checks that f fails within the time that its context allows, with some slack.
func inTime(t testing.TB, what string, f func(ctx context.Context) error) {
	t.Helper()
	slack := underrace.Or(20*time.Second, 4*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- f(ctx) }()
	select {
	case err := <-failed:
		if err == nil {
			t.Errorf("%s returns nil though the broker is away, or hangs", what)
		}
	case <-time.After(slack):
		t.Fatalf("%s hasn't returned %v after it was called, with a context of 50ms", what, slack)
	}
}

// subscribeWhileAway: Subscribe returns an error once the context ends, and leaves nothing behind. If the
// context allows it, Subscribe waits for the broker.
func subscribeWhileAway(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	listen(t, nodes[0], newTopic()).stop() // so that it is connected
	s.Down(t)
	for _, b := range nodes {
		inTime(t, "Subscribe", func(ctx context.Context) error {
			stop, err := b.Subscribe(ctx, topic,
				func([]byte) { t.Error("deliver is called though Subscribe has failed") },
				func(error) { t.Error("lost is called though Subscribe has failed") })
			if err == nil {
				stop()
			}
			return err
		})
	}
	up := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		e := subscribe(t, nodes[0], topic, false)
		<-up
		insist(t, nodes[1], topic, "after")
		until(t, "a message arrives", func() bool { return len(e.all()) > 0 })
	})
	s.Up(t)
	close(up)
	waiting.Wait()
}

// stopWhileAway: stop returns, and stays in effect when the broker is back.
func stopWhileAway(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	stopped, stays := subscribe(t, nodes[0], topic, false), subscribe(t, nodes[0], topic, false)
	alone := subscribe(t, nodes[0], newTopic(), false)
	s.Down(t)
	stopped.stop()
	alone.stop()
	s.Up(t)
	until(t, "lost is called", func() bool { return stays.losses() > 0 })
	insist(t, nodes[1], topic, "after")
	until(t, "a message arrives", func() bool { return stays.all()[len(stays.all())-1].data == "after" })
	again := subscribe(t, nodes[0], topic, false)
	insist(t, nodes[1], topic, "again")
	until(t, "a message arrives", func() bool { return len(again.all()) > 0 && len(stays.all()) > 2 })
}

// lostThenDelivered: after each of two outages lost is called for each subscription once it is subscribed
// again. What is published from then on arrives.
func lostThenDelivered(t testing.TB, s Setup) {
	topics := scaled(100)
	nodes, prefix := s.open(t, 2), newTopic()
	ears := make([]*ear, 2*topics)
	topic := func(i int) string { return fmt.Sprint(prefix, " ", i%topics) }
	each(t, len(ears), func(i int) { ears[i] = subscribe(t, nodes[i/topics], topic(i), false) })
	require(t)
	publisher := s.Open(t)
	for round := range 2 {
		before := make([]int, len(ears))
		for i, e := range ears {
			before[i] = e.losses()
		}
		s.Down(t)
		s.Up(t)
		insist(t, publisher, newTopic(), "back")
		each(t, len(ears), func(i int) {
			until(t, "lost is called", func() bool { return ears[i].losses() > before[i] })
			message := fmt.Sprint("message ", round, " for ", i)
			insist(t, publisher, topic(i), message)
			until(t, "what is published after lost arrives", func() bool {
				return slices.Contains(ears[i].all(), event{data: message})
			})
		})
	}
}

// everyGapIsReported: numbers are published through two outages, each again until it has been taken. For a
// subscriber that misses some, lost is called between the number before and the number after. The end comes
// when each node is subscribed again: what is taken before may be missed, so it can't be waited for.
func everyGapIsReported(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 3), newTopic()
	var ears []*ear
	for _, b := range nodes {
		ears = append(ears, subscribe(t, b, topic, false), subscribe(t, b, topic, false))
	}
	published, end := stream(t, nodes[0], topic)
	more := func() {
		t.Helper()
		target := published() + 100
		until(t, "messages are published", func() bool { return published() >= target })
	}
	for range 2 {
		more()
		s.Down(t)
		<-time.After(20 * time.Millisecond) // so that more are published
		s.Up(t)
	}
	more()
	for i, e := range ears {
		if i%2 == 1 {
			e.stop()
		}
	}
	more()
	back := published()
	for i, e := range ears {
		if i%2 == 0 {
			until(t, "messages arrive again", func() bool {
				all := e.all()
				newest := all[len(all)-1]
				return !newest.lost && number(t, newest.data) > back
			})
		}
	}
	last := fmt.Sprint(end())
	for i, e := range ears {
		if i%2 == 0 {
			until(t, "the last message arrives", func() bool { return slices.Contains(e.all(), event{data: last}) })
		}
		noGapWithoutLost(t, e.all())
	}
}

// oneNodeIsCutOff: the node misses what the others publish meanwhile, and lost is called there. The others
// notice nothing.
func oneNodeIsCutOff(t testing.TB, s Setup) {
	nodes, topic, idle := s.open(t, 2), newTopic(), newTopic()
	whole, cut, quiet := listen(t, nodes[0], topic), subscribe(t, nodes[1], topic, false), subscribe(t, nodes[1], idle, false)
	published, end := stream(t, nodes[0], topic)
	for range 2 {
		before, losses := published(), quiet.losses()
		until(t, "messages are published", func() bool { return published() > before+50 })
		s.Cut(t, nodes[1])
		inTime(t, "Publish", func(ctx context.Context) error { return nodes[1].Publish(ctx, idle, []byte("cut off")) })
		before = published()
		until(t, "messages are published", func() bool { return published() > before+50 })
		s.Heal(t, nodes[1])
		until(t, "lost is called", func() bool { return quiet.losses() > losses })
		insist(t, nodes[1], idle, "healed")
		until(t, "a message arrives", func() bool {
			all := quiet.all()
			return all[len(all)-1].data == "healed"
		})
	}
	until(t, "lost is called", func() bool { return cut.losses() > 1 })
	before := published()
	until(t, "messages are published", func() bool { return published() > before+1 })
	last := fmt.Sprint(end())
	until(t, "the last message arrives", func() bool { return slices.Contains(cut.all(), event{data: last}) })
	noGapWithoutLost(t, cut.all())
	if first := contiguous(t, whole.messages(last)); first != 1 {
		t.Errorf("the first message to arrive is %d", first)
	}
}

// serverHangs: a server that accepts connections but answers nothing delays no call beyond its context,
// neither calls that began before nor later ones. What is published when it works again arrives.
func serverHangs(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 3), newTopic()
	e := subscribe(t, nodes[1], topic, false)
	publish(t, nodes[0], topic, "before")
	until(t, "a message arrives", func() bool { return len(e.all()) > 0 })
	s.Hang(t)
	each(t, 2*len(nodes), func(i int) { // the third node has done nothing before
		b := nodes[i%len(nodes)]
		for range 2 {
			inTime(t, "Publish", func(ctx context.Context) error { return b.Publish(ctx, newTopic(), []byte("hangs")) })
			inTime(t, "Subscribe", func(ctx context.Context) error {
				stop, err := b.Subscribe(ctx, newTopic(), func([]byte) {}, func(error) {})
				if err == nil {
					stop()
				}
				return err
			})
		}
	})
	s.Resume(t)
	insist(t, nodes[2], topic, "after")
	until(t, "a message arrives", func() bool { return slices.Contains(e.all(), event{data: "after"}) })
}
