package brokertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

var deliveryChecks = []check{
	{"AllNodesHear", nothing, allNodesHear, false},
	{"OneOrder", nothing, oneOrder, false},
	{"SubscribedMeansDelivered", nothing, subscribedMeansDelivered, false},
	{"StopMeansStopped", nothing, stopMeansStopped, false},
	{"StopUnderLoad", nothing, stopUnderLoad, false},
	{"SeveralSubscriptions", nothing, severalSubscriptions, false},
	{"ManyTopics", nothing, manyTopics, false},
	{"AnyName", nothing, anyName, false},
	{"AnyData", nothing, anyData, false},
	{"SameDataAgain", nothing, sameDataAgain, false},
	{"TooMuchData", nothing, tooMuchData, false},
	{"SlowSubscriber", nothing, slowSubscriber, false},
	{"ConcurrentUse", nothing, concurrentUse, false},
	{"ContextEnds", nothing, contextEnds, false},
}

// allNodesHear: every subscriber gets every message once, including the publisher's own.
func allNodesHear(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 3), newTopic()
	var ears []*ear
	for _, b := range nodes {
		ears = append(ears, listen(t, b, topic))
	}
	publish(t, nodes[0], newTopic(), "nobody listens")
	var want []string
	for i, b := range nodes {
		want = append(want, fmt.Sprint("from ", i), fmt.Sprint("from ", i, " again"))
		publish(t, b, topic, want[len(want)-2:]...)
	}
	for _, e := range ears {
		e.expect(want...)
	}
}

// oneOrder: all subscribers receive the messages of concurrent publishers on several nodes in one order,
// and each publisher's messages in its own order.
func oneOrder(t testing.TB, s Setup) {
	const publishers = 6
	messages := scaled(150)
	nodes, topic := s.open(t, 3), newTopic()
	var ears []*ear
	for range 2 {
		for _, b := range nodes {
			ears = append(ears, listen(t, b, topic))
		}
	}
	each(t, publishers, func(p int) {
		for i := range messages {
			publish(t, nodes[p%len(nodes)], topic, fmt.Sprintf("%d %03d", p, i))
		}
	})
	publish(t, nodes[0], topic, "end")
	order := ears[0].messages("end")
	for _, e := range ears[1:] {
		if !slices.Equal(e.messages("end"), order) {
			t.Error("two subscribers don't hear the same order")
		}
	}
	if len(order) != publishers*messages+1 {
		t.Errorf("%d messages arrive of %d", len(order)-1, publishers*messages)
	}
	for p := range publishers {
		of := slices.DeleteFunc(slices.Clone(order), func(m string) bool { return !strings.HasPrefix(m, fmt.Sprint(p, " ")) })
		if !slices.IsSorted(of) {
			t.Errorf("what publisher %d published arrives in another order", p)
		}
	}
}

// subscribedMeansDelivered: what another node publishes right after Subscribe has returned arrives. In a
// running stream no message is missing after the first one received.
func subscribedMeansDelivered(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	published, end := stream(t, nodes[0], topic)
	var ears []*ear
	var since []int
	for range 20 {
		fresh := newTopic()
		e := listen(t, nodes[1], fresh)
		publish(t, nodes[0], fresh, "at once")
		e.expect("at once")
		ears = append(ears, listen(t, nodes[1], topic))
		since = append(since, published())
	}
	until(t, "more is published", func() bool { return published() > since[len(since)-1]+2 })
	last := end()
	for i, e := range ears {
		if first := contiguous(t, e.messages(fmt.Sprint(last))); first > since[i]+2 {
			t.Errorf("after %d had been published the first to arrive is %d", since[i], first)
		}
	}
}

// contiguous checks that these numbers have no gap, and returns the first.
func contiguous(t testing.TB, messages []string) (first int) {
	t.Helper()
	first = number(t, messages[0])
	for i, m := range messages {
		if number(t, m) != first+i {
			t.Fatalf("after %s comes %s", messages[max(0, i-1)], m)
		}
	}
	return first
}

// gate returns a channel that is closed by open.
func gate() (opened <-chan struct{}, open func()) {
	ch := make(chan struct{})
	return ch, sync.OnceFunc(func() { close(ch) })
}

// stopMeansStopped: stop waits for a running delivery. It may be called again, also concurrently.
func stopMeansStopped(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	opened, open := gate()
	defer open()
	var calls, returned atomic.Int32
	stop, err := nodes[0].Subscribe(t.Context(), topic, func([]byte) {
		calls.Add(1)
		<-opened
		returned.Add(1)
	}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	other := listen(t, nodes[0], topic)
	publish(t, nodes[1], topic, "one", "two", "three")
	until(t, "deliver is called", func() bool { return calls.Load() > 0 })
	var stopping sync.WaitGroup
	for range 2 {
		stopping.Go(func() {
			stop()
			if returned.Load() != calls.Load() {
				t.Error("stop returns while deliver is running")
			}
		})
	}
	<-time.After(20 * time.Millisecond) // enough for a stop that doesn't wait
	open()
	stopping.Wait()
	stop()
	before := calls.Load()
	publish(t, nodes[1], topic, "four", "five")
	other.expect("one", "two", "three", "four", "five")
	<-time.After(20 * time.Millisecond)
	if calls.Load() != before {
		t.Error("deliver is called after stop has returned")
	}
}

// stopUnderLoad: subscriptions begin and end while messages are published. Each receives a part without a
// gap.
func stopUnderLoad(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	through := listen(t, nodes[1], topic)
	_, end := stream(t, nodes[0], topic)
	for range 30 {
		e := listen(t, nodes[1], topic)
		until(t, "messages arrive", func() bool { return len(e.all()) > 3 })
		e.stop()
		contiguous(t, texts(e.all()))
	}
	if first := contiguous(t, through.messages(fmt.Sprint(end()))); first != 1 {
		t.Errorf("the first message to arrive is %d", first)
	}
}

// severalSubscriptions: each of several subscriptions to one topic gets everything, and ends independently.
func severalSubscriptions(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 1), newTopic()
	b := nodes[0]
	first, second := listen(t, b, topic), listen(t, b, topic)
	publish(t, b, topic, "both")
	first.expect("both")
	second.expect("both")
	first.stop()
	first.stop()
	publish(t, b, topic, "second")
	third := listen(t, b, topic)
	publish(t, b, topic, "second and third")
	second.expect("both", "second", "second and third")
	third.messages("second and third")
	second.stop()
	third.stop()
	publish(t, b, topic, "nobody")
	last := listen(t, b, topic)
	publish(t, b, topic, "last")
	last.messages("last")
	first.expect("both")
}

// manyTopics: 1,000 topics on each of two nodes; 250 under the race detector.
func manyTopics(t testing.TB, s Setup) {
	topics := scaled(1000)
	nodes, prefix := s.open(t, 2), newTopic()
	ears := make([]*ear, 2*topics)
	topic := func(i int) string { return fmt.Sprint(prefix, " ", i%topics) }
	each(t, len(ears), func(i int) { ears[i] = listen(t, nodes[i/topics], topic(i)) })
	require(t)
	each(t, topics, func(i int) { publish(t, nodes[i%2], topic(i), topic(i), "end") })
	for i, e := range ears {
		e.expect(topic(i), "end")
	}
	each(t, len(ears), func(i int) { ears[i].stop() })
}

// oddNames are topics that a broker may confuse with one another or take for patterns.
func oddNames() []string {
	names := []string{
		"a", "A", "a ", " a", "a\x00", "a\x00b", "a\nb", "a\r\nb", "a\tb", "a b", "a.b", "a..b", ".a", "a.", ".", "..",
		"*", "a.*", ">", "a.>", "a*", "?", "a?", "[a]", "[^b]", "\\*", "{", "}", "{}", "{}a", "{a}", "{a}b", "}{", "%", "%s", "%61", "%00",
		"$", "$SYS", "_INBOX.a", ":", "a:b", "a/b", "/a", "#", "+", "a+b", "'", `"`, "`", "-", "_", "=", "é", "e\u0301", "É", "\u0130", "ß",
		"\xff", "\xfe", "\xc3", "\xff\xfe\x00", "\ufffd", "\u202e", "😀",
	}
	for _, n := range []int{100, 127, 128, 255, 256} {
		names = append(names, strings.Repeat("n", n))
	}
	return names
}

// oddTopics returns topics with such names, up to 600 bytes long, that nobody has used.
func oddTopics() []string {
	prefix := newTopic()
	var topics []string
	for _, name := range oddNames() {
		topics = append(topics, name+prefix, prefix+name)
	}
	for i := range 256 {
		topics = append(topics, prefix+string([]byte{'-', byte(i)}))
	}
	long := strings.Repeat("l", 600-len(prefix)-1)
	topics = append(topics, prefix, prefix+long+"1", prefix+long+"2", "1"+long+prefix, "2"+long+prefix)
	slices.Sort(topics)
	return slices.Compact(topics)
}

// anyName: topics are bytes. Different topics never share a message.
func anyName(t testing.TB, s Setup) {
	nodes, topics := s.open(t, 2), oddTopics()
	ears := make([]*ear, len(topics))
	each(t, len(topics), func(i int) { ears[i] = listen(t, nodes[0], topics[i]) })
	require(t)
	each(t, len(topics), func(i int) { publish(t, nodes[1], topics[i], topics[i]) })
	each(t, len(topics), func(i int) { publish(t, nodes[1], topics[i], "end") }) // after everything else
	for i, e := range ears {
		e.expect(topics[i], "end")
	}
}

// anyData: messages are bytes, from none to MaxData.
func anyData(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	e := listen(t, nodes[0], topic)
	most := maxData(nodes[1])
	bytes := make([]byte, 256)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	want := []string{"\x00", "\r\n", "+OK\r\n", "\xff\xff", "nil"}
	for _, size := range []int{0, 1, 256, 4096, 65535, 65536, most / 2, 0, most - 1, most, most, 1} {
		size = min(size, most)
		want = append(want, strings.Repeat(string(bytes), size/256+1)[:size])
	}
	for i, m := range want { // each after the one before has arrived, because backlogs are bounded
		publish(t, nodes[1], topic, m)
		until(t, "the message "+short(m)+" arrives", func() bool { return len(e.all()) > i || t.Failed() })
	}
	e.expect(want...)
}

// sameDataAgain: data that is the same as other data is a message of its own, also where several nodes and
// goroutines publish it at the same time.
func sameDataAgain(t testing.TB, s Setup) {
	const publishers = 8
	messages := scaled(40)
	nodes, topic := s.open(t, 2), newTopic()
	e := listen(t, nodes[1], topic)
	each(t, publishers, func(i int) {
		for range messages {
			publish(t, nodes[i%2], topic, "the same")
		}
	})
	publish(t, nodes[0], topic, "end")
	if n := len(e.messages("end")) - 1; n != publishers*messages {
		t.Errorf("of %d messages that are the same %d arrive", publishers*messages, n)
	}
}

// tooMuchData: what is larger than MaxData is an error or arrives, and does no harm.
func tooMuchData(t testing.TB, s Setup) {
	nodes, topic := s.open(t, 2), newTopic()
	limit, ok := limitOf(nodes[0])
	if !ok || limit() > 16<<20 {
		t.Log("the broker has no MaxData, or one above 16 MiB: not checked")
		return
	}
	e := listen(t, nodes[1], topic)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tooMuch, want := make([]byte, limit()+1), []string{"after"}
	if nodes[0].Publish(ctx, topic, tooMuch) == nil {
		want = []string{string(tooMuch), "after"}
	}
	publish(t, nodes[0], topic, "after")
	e.expect(want...)
}

// slowSubscriber: a subscriber that doesn't return from deliver delays no other, whether many messages or
// large ones wait for it. What it then receives may have gaps, which lost reports.
func slowSubscriber(t testing.TB, s Setup) {
	nodes := s.open(t, 2)
	large := min(64<<10, maxData(nodes[1])-10)
	waitForSlow(t, nodes, scaled(3000), 20)
	waitForSlow(t, nodes, 80, large)
}

// waitForSlow makes that many messages of that size wait for a subscriber.
func waitForSlow(t testing.TB, nodes []wsroom.Broker, messages, size int) {
	topic := newTopic()
	opened, open := gate()
	defer open()
	var called atomic.Bool
	slow := newEar(t, "")
	stop, err := nodes[0].Subscribe(t.Context(), topic, func(data []byte) {
		called.Store(true)
		<-opened
		slow.deliver(data[:4])
	}, slow.lost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	filler := strings.Repeat("x", size)
	for i := range messages {
		publish(t, nodes[1], topic, fmt.Sprintf("%04d", i)+filler)
	}
	until(t, "deliver is called", called.Load)
	other := newTopic()
	e := listen(t, nodes[0], other)
	publish(t, nodes[0], other, "not kept waiting")
	e.expect("not kept waiting")
	open()
	last := fmt.Sprintf("%04d", messages-1)
	until(t, "the slow one has got all, or lost some", func() bool {
		all := slow.all()
		return len(all) > 0 && (all[len(all)-1].data == last || all[len(all)-1].lost)
	})
	noGapWithoutLost(t, slow.all())
}

// noGapWithoutLost checks numbers that were published one after the other. Each must be one more than the
// one before it, or the same again (it was published again), or come after lost.
func noGapWithoutLost(t testing.TB, events []event) {
	t.Helper()
	known, last := false, 0
	for _, ev := range events {
		if ev.lost {
			known = false
			continue
		}
		n := number(t, ev.data)
		if known && n != last && n != last+1 {
			t.Fatalf("after %d comes %d, and lost isn't called between", last, n)
		}
		known, last = true, n
	}
}

// number returns the number that a message holds.
func number(t testing.TB, message string) int {
	t.Helper()
	n, err := strconv.Atoi(message)
	if err != nil {
		t.Fatalf("%s arrives, which nobody has published", short(message))
	}
	return n
}

// concurrentUse: all methods of one broker may be called concurrently.
func concurrentUse(t testing.TB, s Setup) {
	nodes, prefix := s.open(t, 1), newTopic()
	each(t, 16, func(i int) {
		for j := range 12 {
			topic := fmt.Sprint(prefix, (i+j)%4)
			e := listen(t, nodes[0], topic)
			mine := fmt.Sprint(i, " ", j)
			publish(t, nodes[0], topic, mine)
			until(t, "the own message arrives", func() bool { return slices.Contains(e.all(), event{data: mine}) })
			e.stop()
		}
	})
}

// contextEnds: a context that has ended is an error. The context of Subscribe bounds only the wait.
func contextEnds(t testing.TB, s Setup) {
	b, topic := s.Open(t), newTopic()
	ctx, cancel := context.WithCancel(t.Context())
	e := newEar(t, noOutage)
	stop, err := b.Subscribe(ctx, topic, e.deliver, e.lost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	cancel()
	if err := b.Publish(ctx, topic, []byte("not to be published")); err == nil {
		t.Error("Publish returns nil though its context has ended")
	}
	if stop, err := b.Subscribe(ctx, newTopic(), e.deliver, e.lost); err == nil {
		stop()
		t.Error("Subscribe returns nil though its context has ended")
	}
	publish(t, b, topic, "end")
	until(t, "what is published later arrives", func() bool { return slices.Contains(e.all(), event{data: "end"}) })
}
