package brokertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
)

// trial takes the failures of a check that is to fail.
type trial struct {
	testing.TB
	ctx      context.Context
	mu       sync.Mutex // guards what follows
	failures []string
	cleanups []func()
}

func (tr *trial) Helper()                   {}
func (tr *trial) Log(...any)                {}
func (tr *trial) Context() context.Context  { return tr.ctx }
func (tr *trial) Error(args ...any)         { tr.fail(fmt.Sprint(args...)) }
func (tr *trial) Errorf(f string, a ...any) { tr.fail(fmt.Sprintf(f, a...)) }
func (tr *trial) Fatal(args ...any)         { tr.fail(fmt.Sprint(args...)); runtime.Goexit() }
func (tr *trial) Fatalf(f string, a ...any) { tr.fail(fmt.Sprintf(f, a...)); runtime.Goexit() }
func (tr *trial) FailNow()                  { tr.fail("FailNow"); runtime.Goexit() }

func (tr *trial) fail(message string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.failures = append(tr.failures, message)
}

func (tr *trial) Failed() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.failures) > 0
}

func (tr *trial) Cleanup(f func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.cleanups = append(tr.cleanups, f)
}

// try runs check with time that passes by itself, and returns its failures.
func try(t *testing.T, check func(testing.TB)) []string {
	defer func(before time.Duration, less bool) { patience, reduced = before, less }(patience, reduced)
	patience, reduced = time.Second, false
	tr := &trial{TB: t}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tr.ctx = ctx
		var running sync.WaitGroup
		running.Go(func() { check(tr) })
		running.Wait()
		cancel()
		for i := len(tr.cleanups) - 1; i >= 0; i-- {
			tr.cleanups[i]()
		}
	})
	return tr.failures
}

// broken is a broker on a Memory of which some methods do otherwise.
type broken struct {
	*Node
	publish   func(b *Node, ctx context.Context, topic string, data []byte) error
	subscribe func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error)
	keep      func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error
	follow    followFunc
	direct    bool // subscribe and follow are SubscribeDirect and FollowDirect, and the others are sound
	maxData   func(b *Node) int
	back      func(b *Node) // is called before the node is connected again
}

const brokenMaxData = 1 << 20

func (b *broken) MaxData() int {
	if b.maxData == nil {
		return brokenMaxData
	}
	return b.maxData(b.Node)
}

func (b *broken) Publish(ctx context.Context, topic string, data []byte) error {
	switch {
	case b.publish == nil && len(data) > brokenMaxData:
		return refusal{errors.New("too large")}
	case b.publish == nil:
		return b.Node.Publish(ctx, topic, data)
	}
	return b.publish(b.Node, ctx, topic, data)
}

func (b *broken) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if b.subscribe == nil || b.direct {
		return b.Node.Subscribe(ctx, topic, deliver, lost)
	}
	return b.subscribe(b.Node, ctx, topic, deliver, lost)
}

func (b *broken) SubscribeDirect(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if b.subscribe == nil || !b.direct {
		return b.Node.Subscribe(ctx, topic, deliver, lost)
	}
	return b.subscribe(b.Node, ctx, topic, deliver, lost)
}

// renamed is a broker that takes some topics for others.
func renamed(f func(string) string) *broken {
	return &broken{
		publish: func(b *Node, ctx context.Context, topic string, data []byte) error {
			return b.Publish(ctx, f(topic), data)
		},
		subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			return b.Subscribe(ctx, f(topic), deliver, lost)
		},
	}
}

// hearing is a broker that delivers otherwise; make is called for each subscription.
func hearing(make func(deliver func([]byte), lost func(error)) (func([]byte), func(error))) *broken {
	return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
		deliver, lost = make(deliver, lost)
		return b.Subscribe(ctx, topic, deliver, lost)
	}}
}

// publishing is a broker that publishes otherwise.
func publishing(f func(b *Node, ctx context.Context, topic string, data []byte) error) *broken {
	return &broken{publish: f}
}

// stopsAnother returns a stop that ends one subscription to the topic each time it is called, whichever.
func stopsAnother(b *Node, all map[string][]*inbox, topic string, stop func()) func() {
	first := sync.OnceFunc(stop)
	again := false
	return func() {
		first()
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		if others := all[topic]; again && len(others) > 0 {
			all[topic] = others[1:]
		}
		again = true
	}
}

// fault is something that a broker does wrong.
type fault struct {
	fault  string
	checks string // those that must find it
	broker func() *broken
}

// TestBrokenBrokers: the suite finds what each of them does wrong.
func TestBrokenBrokers(t *testing.T) {
	for _, f := range brokenBrokers {
		t.Run(f.fault, func(t *testing.T) { f.mustBeFound(t, append(deliveryChecks, outageChecks...)) })
	}
}

// mustBeFound checks that those of the checks that are to find the fault do.
func (f fault) mustBeFound(t *testing.T, checks []check) {
	found := 0
	for _, check := range checks {
		if !strings.Contains(" "+f.checks+" ", " "+check.name+" ") {
			continue
		}
		found++
		mustExplain(t, check.name, promisesOf(check.name, check.kept), try(t, func(t testing.TB) { check.try(t, brokenSetup(t, f.broker)) }))
	}
	if found != len(strings.Fields(f.checks)) {
		t.Errorf("there are no such checks as %s", f.checks)
	}
}

// TestBrokenDirectBrokers: the suite finds what is wrong with SubscribeDirect or FollowDirect only, as it finds
// that of Subscribe and Follow.
func TestBrokenDirectBrokers(t *testing.T) {
	directly := func(t *testing.T, all []check, names string, faults []fault) {
		var checks []check
		for _, c := range only(all, names) {
			checks = append(checks, check{c.name, c.needs, func(t testing.TB, s Setup) { c.run(t, s.directly()) }, c.kept})
		}
		tried := map[string]bool{}
		for _, f := range faults {
			b := f.broker()
			found := slices.DeleteFunc(strings.Fields(f.checks), func(name string) bool { return !strings.Contains(names, " "+name+" ") })
			if b.subscribe == nil && b.follow == nil || len(found) == 0 {
				continue
			}
			for _, name := range found {
				tried[name] = true
			}
			f.checks = strings.Join(found, " ")
			broker := f.broker
			f.broker = func() *broken { b := broker(); b.direct = true; return b }
			t.Run(f.fault, func(t *testing.T) { f.mustBeFound(t, checks) })
		}
		if len(tried) < 5 {
			t.Errorf("only these checks have been tried: %v", tried)
		}
	}
	directly(t, append(slices.Clone(deliveryChecks), outageChecks...), directChecks, brokenBrokers)
	t.Run("Keeper", func(t *testing.T) {
		directly(t, allKeeperChecks(), directKeeperChecks, slices.Concat(brokenPasts, brokenPositions, brokenCalls))
	})
}

// mustExplain checks that there are failures of a check, and that they say what has happened, which promises are broken,
// and how to mend that.
func mustExplain(t *testing.T, check string, promises []promise, failures []string) {
	t.Helper()
	if len(failures) == 0 {
		t.Errorf("%s doesn't find the fault", check)
		return
	}
	t.Logf("%s: %s", check, strings.Join(failures, "\n\t"))
	if len(failures) <= len(promises) {
		t.Errorf("%s doesn't say what has happened: %q", check, failures)
	}
	for _, p := range promises {
		if !slices.Contains(failures, p.String()) {
			t.Errorf("%s doesn't say that this promise is broken: %s", check, p.says)
		}
	}
}

// bounded delivers by a goroutine, and drops what comes while so many messages wait.
func bounded(most int, deliver func([]byte)) func([]byte) {
	var mu sync.Mutex
	var waiting [][]byte
	busy := false
	next := func() []byte {
		mu.Lock()
		defer mu.Unlock()
		if busy = len(waiting) > 0; !busy {
			return nil
		}
		data := waiting[0]
		waiting = waiting[1:]
		return data
	}
	return func(data []byte) {
		mu.Lock()
		defer mu.Unlock()
		if len(waiting) >= most {
			return
		}
		waiting = append(waiting, bytes.Clone(data))
		if !busy {
			busy = true
			go func() {
				for data := next(); data != nil; data = next() {
					deliver(data)
				}
			}()
		}
	}
}

// small is a sound broker whose messages are small.
type small struct{ *Node }

func (small) MaxData() int { return 5900 }

func (s small) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > s.MaxData() {
		return errors.New("too large")
	}
	return s.Node.Publish(ctx, topic, data)
}

func (s small) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	if len(data) > s.MaxData() {
		return errors.New("too large")
	}
	return s.Node.Keep(ctx, topic, data, n, d)
}

// TestSmallBroker: a broker that takes little, and says so, is sound.
func TestSmallBroker(t *testing.T) {
	Run(t, func(t testing.TB) Setup {
		server := NewMemory()
		return Setup{
			Open: func(testing.TB) wsroom.Broker { return small{server.Open()} },
			Down: func(testing.TB) { server.Down() }, Up: func(testing.TB) { server.Up() },
			Hang: func(testing.TB) { server.Hang() }, Resume: func(testing.TB) { server.Resume() },
		}
	})
}

// TestSoundBrokers: the same way of trying finds nothing where there is no fault.
func TestSoundBrokers(t *testing.T) {
	for _, check := range slices.Concat(deliveryChecks, outageChecks, allKeeperChecks()) {
		failures := try(t, func(t testing.TB) {
			check.try(t, brokenSetup(t, func() *broken { return &broken{} }))
		})
		for _, f := range failures {
			t.Errorf("%s: %s", check.name, f)
		}
	}
}

// brokenSetup is on a server whose nodes come back one after the other.
func brokenSetup(t testing.TB, broker func() *broken) Setup {
	server := NewMemory()
	t.Cleanup(server.Up)
	t.Cleanup(server.Resume)
	var all []*broken
	return Setup{
		Wipe: func(testing.TB) { server.Wipe() },
		Hang: func(testing.TB) { server.Hang() }, Resume: func(testing.TB) { server.Resume() },
		Open: func(testing.TB) wsroom.Broker {
			b := broker()
			b.Node = server.Open()
			all = append(all, b)
			return b
		},
		Down: func(testing.TB) { server.Down() },
		Up: func(testing.TB) {
			for _, b := range all {
				b.up()
				<-time.After(5 * time.Millisecond)
			}
		},
		Cut:  func(_ testing.TB, b wsroom.Broker) { b.(*broken).Down() },
		Heal: func(_ testing.TB, b wsroom.Broker) { b.(*broken).up() },
	}
}

var brokenBrokers = []fault{
	{"swaps two messages now and then", "OneOrder EveryGapIsReported AnyData", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			var held []byte
			n := 0
			return func(data []byte) {
				if n++; n%5 == 1 {
					held = data
					return
				}
				deliver(data)
				if held != nil {
					deliver(held)
					held = nil
				}
			}, lost
		})
	}},
	{"has an order for each publisher only", "OneOrder", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			b.server.mu.Lock()
			nodes := b.server.nodes
			b.server.mu.Unlock()
			for _, other := range nodes {
				b.server.mu.Lock()
				for _, i := range other.topics[topic] {
					i.put(item{data: bytes.Clone(data)})
				}
				b.server.mu.Unlock()
				<-time.After(rand.N(100 * time.Microsecond))
			}
			return nil
		})
	}},
	{"delivers twice now and then", "OneOrder AnyData", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			n := 0
			return func(data []byte) {
				if deliver(data); n%7 == 3 {
					deliver(data)
				}
				n++
			}, lost
		})
	}},
	{"drops a message in a hundred", "OneOrder StopUnderLoad EveryGapIsReported", func() *broken {
		var n atomic.Int64
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return func(data []byte) {
				if n.Add(1)%100 != 0 {
					deliver(data)
				}
			}, lost
		})
	}},
	{"delivers two at a time", "OneOrder", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return func(data []byte) { go deliver(data) }, lost
		})
	}},
	{"doesn't deliver to the publisher", "AllNodesHear SeveralSubscriptions", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			b.server.mu.Lock()
			own := b.topics[topic]
			delete(b.topics, topic)
			b.server.mu.Unlock()
			err := b.Publish(ctx, topic, data)
			b.server.mu.Lock()
			b.topics[topic] = append(b.topics[topic], own...)
			b.server.mu.Unlock()
			return err
		})
	}},
	{"subscribes a little later", "SubscribedMeansDelivered", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			stop := make(chan func(), 1)
			time.AfterFunc(time.Millisecond, func() {
				s, _ := b.Subscribe(context.WithoutCancel(ctx), topic, deliver, lost)
				stop <- s
			})
			return sync.OnceFunc(func() { (<-stop)() }), nil
		}}
	}},
	{"one subscription a topic", "SeveralSubscriptions", func() *broken {
		taken := map[string]bool{}
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			if taken[topic] {
				return func() {}, nil
			}
			taken[topic] = true
			return b.Subscribe(ctx, topic, deliver, lost)
		}}
	}},
	{"stop ends all subscriptions to the topic", "SeveralSubscriptions StopUnderLoad", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			stop, err := b.Subscribe(ctx, topic, deliver, lost)
			return func() {
				b.server.mu.Lock()
				delete(b.topics, topic)
				b.server.mu.Unlock()
				stop()
			}, err
		}}
	}},
	{"stop doesn't wait", "StopMeansStopped", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			stop, err := b.Subscribe(ctx, topic, deliver, lost)
			return func() { go stop() }, err
		}}
	}},
	{"stop doesn't stop", "StopMeansStopped StopUnderLoad SeveralSubscriptions StopWhileAway", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			_, err := b.Subscribe(ctx, topic, deliver, lost)
			return func() {}, err
		}}
	}},
	{"each stop ends one more subscription to the topic", "SeveralSubscriptions", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			stop, err := b.Subscribe(ctx, topic, deliver, lost)
			return stopsAnother(b, b.topics, topic, stop), err
		}}
	}},
	{"hears no more than 100 topics", "ManyTopics", func() *broken {
		var mu sync.Mutex
		topics := map[string]bool{}
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			mu.Lock()
			defer mu.Unlock()
			if topics[topic] = true; len(topics) > 100 {
				return func() {}, nil
			}
			return b.Subscribe(ctx, topic, deliver, lost)
		}}
	}},
	{"refuses a call while another one is running", "ConcurrentUse", func() *broken {
		running := make(chan struct{}, 1)
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			select {
			case running <- struct{}{}:
				defer func() { <-running }()
				<-time.After(time.Microsecond)
				return b.Publish(ctx, topic, data)
			default:
				return errors.New("busy")
			}
		})
	}},
	{"drops data that is the same as the last", "SameDataAgain", func() *broken {
		var mu sync.Mutex
		var last string
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if string(data) == last {
				return nil
			}
			last = string(data)
			return b.Publish(ctx, topic, data)
		})
	}},
	{"acknowledges more than MaxData and drops it", "TooMuchData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if len(data) > brokenMaxData {
				return nil
			}
			return b.Publish(ctx, topic, data)
		})
	}},
	{"asks the server for MaxData", "PublishWhileAway", func() *broken {
		return &broken{maxData: func(b *Node) int { <-b.connected(); return brokenMaxData }}
	}},
	{"rejects for good what comes while the broker is away", "PublishWhileAway", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if err := b.Publish(ctx, topic, data); err != nil {
				return refusal{err}
			}
			return nil
		})
	}},
	{"small and capital letters are the same", "AnyName", func() *broken { return renamed(strings.ToLower) }},
	{"topics end at NUL", "AnyName", func() *broken {
		return renamed(func(topic string) string { topic, _, _ = strings.Cut(topic, "\x00"); return topic })
	}},
	{"topics are 255 bytes long at most", "AnyName", func() *broken {
		return renamed(func(topic string) string { return topic[:min(255, len(topic))] })
	}},
	{"topics are text", "AnyName", func() *broken {
		return renamed(func(topic string) string { return strings.ToValidUTF8(topic, "\ufffd") })
	}},
	{"topics are trimmed", "AnyName", func() *broken { return renamed(strings.TrimSpace) }},
	{"dots are slashes", "AnyName", func() *broken {
		return renamed(func(topic string) string { return strings.ReplaceAll(topic, "/", ".") })
	}},
	{"an asterisk is a pattern", "AnyName", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			b.server.mu.Lock()
			var patterns []string
			for _, other := range b.server.nodes {
				for name := range other.topics {
					before, after, found := strings.Cut(name, "*")
					if found && name != topic && strings.HasPrefix(topic, before) && strings.HasSuffix(topic, after) {
						patterns = append(patterns, name)
					}
				}
			}
			b.server.mu.Unlock()
			for _, p := range patterns {
				b.Publish(ctx, p, data)
			}
			return b.Publish(ctx, topic, data)
		})
	}},
	{"leaves out empty messages", "AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if len(data) == 0 {
				return nil
			}
			return b.Publish(ctx, topic, data)
		})
	}},
	{"messages are lines", "AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			return b.Publish(ctx, topic, bytes.TrimRight(data, "\r\n"))
		})
	}},
	{"keeps what is published", "AllNodesHear AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			time.AfterFunc(time.Millisecond, func() { b.Publish(ctx, topic, data) })
			return nil
		})
	}},
	{"one slow subscriber holds up the others", "SlowSubscriber", func() *broken {
		reader := make(chan struct{}, 1)
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return func(data []byte) {
				reader <- struct{}{}
				deliver(data)
				<-reader
			}, lost
		})
	}},
	{"ignores the context", "ContextEnds", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			return b.Publish(context.WithoutCancel(ctx), topic, data)
		})
	}},
	{"ignores the context once it has begun", "ServerHangs", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return b.Publish(context.WithoutCancel(ctx), topic, data)
		})
	}},
	{"ignores Subscribe's context once it has begun", "ServerHangs SubscribeWhileAway", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			return b.Subscribe(context.WithoutCancel(ctx), topic, deliver, lost)
		}}
	}},
	{"drops what comes while 200 messages wait", "SlowSubscriber", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return bounded(200, deliver), lost
		})
	}},
	{"acknowledges messages over 600 KiB and drops them", "AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if len(data) > 600<<10 {
				return nil
			}
			return b.Publish(ctx, topic, data)
		})
	}},
	{"cuts messages over 600 KiB off", "AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			return b.Publish(ctx, topic, data[:min(len(data), 600<<10)])
		})
	}},
	{"rejects messages of MaxData", "AnyData", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			if len(data) >= 1<<20 {
				return ErrAway
			}
			return b.Publish(ctx, topic, data)
		})
	}},
	{"the server hangs, and nothing is heard from it any more", "ServerHangs", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			err := b.Publish(ctx, topic, data)
			if ctx.Err() != nil {
				b.Down()
			}
			return err
		})
	}},
	{"ends the subscription with Subscribe's context", "ContextEnds", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			return b.Subscribe(ctx, topic, func(data []byte) {
				if ctx.Err() == nil {
					deliver(data)
				}
			}, lost)
		}}
	}},
	{"swallows lost", "LostThenDelivered EveryGapIsReported StopWhileAway OneNodeIsCutOff", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return deliver, func(error) {}
		})
	}},
	{"calls lost after the next message", "EveryGapIsReported OneNodeIsCutOff", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			var late error
			return func(data []byte) {
				if deliver(data); late != nil {
					lost(late)
					late = nil
				}
			}, func(err error) { late = err }
		})
	}},
	{"calls lost before it is subscribed again", "LostThenDelivered", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			var deaf atomic.Bool
			return func(data []byte) {
					if !deaf.Load() {
						deliver(data)
					}
				}, func(err error) {
					deaf.Store(true)
					time.AfterFunc(100*time.Millisecond, func() { deaf.Store(false) })
					lost(err)
				}
		})
	}},
	{"calls lost beside deliver", "EveryGapIsReported", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			return deliver, func(err error) {
				go func() { time.Sleep(time.Millisecond); lost(err) }()
			}
		})
	}},
	{"doesn't subscribe again", "LostThenDelivered", func() *broken {
		return hearing(func(deliver func([]byte), lost func(error)) (func([]byte), func(error)) {
			var gone atomic.Bool
			return func(data []byte) {
				if !gone.Load() {
					deliver(data)
				}
			}, func(err error) { gone.Store(true); lost(err) }
		})
	}},
	{"returns nil while the broker is away", "PublishWhileAway", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			b.Publish(ctx, topic, data)
			return nil
		})
	}},
	{"hangs while the broker is away", "PublishWhileAway", func() *broken {
		return publishing(func(b *Node, ctx context.Context, topic string, data []byte) error {
			<-b.connected()
			return b.Publish(ctx, topic, data)
		})
	}},
	{"a Subscribe that failed goes on", "SubscribeWhileAway", func() *broken {
		return &broken{subscribe: func(b *Node, ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
			stop, err := b.Subscribe(ctx, topic, deliver, lost)
			if err != nil {
				go b.Subscribe(context.Background(), topic, deliver, lost)
			}
			return stop, err
		}}
	}},
}
