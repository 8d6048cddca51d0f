package brokertest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type followFunc func(
	b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
) (func(), error)

func (b *broken) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	switch {
	case b.keep == nil && len(data) > brokenMaxData:
		return refusal{errors.New("too large")}
	case b.keep == nil:
		return b.Node.Keep(ctx, topic, data, n, d)
	}
	return b.keep(b.Node, ctx, topic, data, n, d)
}

func (b *broken) Follow(
	ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
) (func(), error) {
	if b.follow == nil || b.direct {
		return b.Node.Follow(ctx, topic, n, deliver, live, lost)
	}
	return b.follow(b.Node, ctx, topic, n, deliver, live, lost)
}

func (b *broken) FollowDirect(
	ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
) (func(), error) {
	if b.follow == nil || !b.direct {
		return b.Node.Follow(ctx, topic, n, deliver, live, lost)
	}
	return b.follow(b.Node, ctx, topic, n, deliver, live, lost)
}

func (b *broken) up() {
	if b.back != nil {
		b.back(b.Node)
	}
	b.Node.Up()
}

// keeping is a broker that keeps otherwise.
func keeping(f func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error) *broken {
	return &broken{keep: f}
}

// following is a broker that follows otherwise.
func following(f followFunc) *broken { return &broken{follow: f} }

// calls are what a follower passes to Follow.
type calls struct {
	deliver func(uint64, []byte)
	live    func()
	lost    func(error)
}

// calling is a broker that calls otherwise; make is called for each follower.
func calling(make func(c calls) calls) *broken {
	return following(func(
		b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
	) (func(), error) {
		c := make(calls{deliver, live, lost})
		return b.Follow(ctx, topic, n, c.deliver, c.live, c.lost)
	})
}

// rereading is a broker that reads all that is kept, passes on of it what choose returns, and goes on with
// what is new.
func rereading(choose func(all []kept, n int) []kept) *broken {
	return following(func(
		b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
	) (func(), error) {
		var all []kept
		isLive := false
		return b.Follow(ctx, topic, keptMost, func(position uint64, data []byte) {
			if isLive {
				deliver(position, data)
			} else {
				all = append(all, kept{position: position, data: data})
			}
		}, func() {
			for _, k := range choose(all, n) {
				deliver(k.position, k.data)
			}
			live()
			isLive = true
		}, lost)
	})
}

// returning is a broker that does something with its followers before it is connected again.
func returning(f func(past *past, topic string, i *inbox)) *broken {
	return &broken{back: func(b *Node) {
		b.server.mu.Lock()
		defer b.server.mu.Unlock()
		if !b.cut {
			return
		}
		for topic, inboxes := range b.follows {
			for _, i := range inboxes {
				f(&b.server.past, topic, i)
			}
		}
	}}
}

// unheard is a broker that does something with its followers of topics of which nothing has been delivered,
// before it is connected again.
func unheard(f func(past *past, topic string, i *inbox)) *broken {
	var heard sync.Map
	b := returning(func(p *past, topic string, i *inbox) {
		if _, ok := heard.Load(topic); !ok {
			f(p, topic, i)
		}
	})
	b.follow = func(
		b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
	) (func(), error) {
		return b.Follow(ctx, topic, n, func(position uint64, data []byte) {
			heard.Store(topic, true)
			deliver(position, data)
		}, live, lost)
	}
	return b
}

// renumbered is a broker that gives other positions.
func renumbered(f func(past *past, topic string, position uint64) uint64) *broken {
	return following(func(
		b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
	) (func(), error) {
		return b.Follow(ctx, topic, n, func(position uint64, data []byte) {
			b.server.mu.Lock()
			position = f(&b.server.past, topic, position)
			b.server.mu.Unlock()
			deliver(position, data)
		}, live, lost)
	})
}

// renamedKept is a broker that takes some topics for others.
func renamedKept(f func(string) string) *broken {
	return &broken{
		keep: func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(ctx, f(topic), data, n, d)
		},
		follow: func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			return b.Follow(ctx, f(topic), n, deliver, live, lost)
		},
	}
}

type refusal struct{ error }

func (refusal) Rejected() bool { return true }

// TestBrokenKeepers: the suite finds what each of them does wrong.
func TestBrokenKeepers(t *testing.T) {
	for _, f := range slices.Concat(brokenPasts, brokenPositions, brokenCalls, brokenReturns, brokenKeeps) {
		t.Run(f.fault, func(t *testing.T) { f.mustBeFound(t, allKeeperChecks()) })
	}
}

var brokenPasts = []fault{
	{"begins with what comes", "PastThenLive BeginsWithTheLast NothingKept ManyPasts", func() *broken {
		return rereading(func([]kept, int) []kept { return nil })
	}},
	{"begins with all that is kept", "PastThenLive BeginsWithTheLast", func() *broken {
		return rereading(func(all []kept, _ int) []kept { return all })
	}},
	{"begins with the oldest", "BeginsWithTheLast PastThenLive", func() *broken {
		return rereading(func(all []kept, n int) []kept { return all[:min(n, len(all))] })
	}},
	{"begins with the newest", "BeginsWithTheLast PastThenLive", func() *broken {
		return rereading(func(all []kept, n int) []kept {
			all = all[max(0, len(all)-n):]
			slices.Reverse(all)
			return all
		})
	}},
	{"begins with one too few", "BeginsWithTheLast PastThenLive", func() *broken {
		return rereading(func(all []kept, n int) []kept { return all[max(0, len(all)-n+1):] })
	}},
	{"has a hole in what is kept", "BeginsWithTheLast PastThenLive KeepsTheLast", func() *broken {
		return rereading(func(all []kept, n int) []kept {
			all = all[max(0, len(all)-n):]
			if len(all) < 10 {
				return all
			}
			return slices.Delete(slices.Clone(all), 5, 6)
		})
	}},
	{"reads 1,000 messages at most", "LongPast", func() *broken {
		return rereading(func(all []kept, n int) []kept { return all[max(0, len(all)-min(n, 1000)):] })
	}},
	{"reads first, and subscribes after that", "PastThenLive", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			stop, err := b.Follow(ctx, topic, n, deliver, live, lost)
			if err != nil {
				return nil, err
			}
			stop()
			<-time.After(time.Millisecond)
			isLive := false
			return b.Follow(ctx, topic, 1, func(position uint64, data []byte) {
				if isLive {
					deliver(position, data)
				}
			}, func() { isLive = true }, lost)
		})
	}},
	{"delivers twice what comes while it reads", "PastThenLive BeginsWithTheLast NothingKept", func() *broken {
		return rereading(func(all []kept, n int) []kept {
			all = all[max(0, len(all)-n):]
			if len(all) == 0 {
				return nil
			}
			return append(all, all[len(all)-1])
		})
	}},
	{"keeps all topics with the same letters as one", "AnyNameIsKept", func() *broken {
		copyOf := func(topic string) string { return "past " + strings.ToLower(topic) }
		return &broken{
			keep: func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
				return errors.Join(b.Keep(ctx, copyOf(topic), data, n, d), b.Keep(ctx, topic, data, n, d))
			},
			follow: func(
				b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
			) (func(), error) {
				stop, err := b.Follow(ctx, copyOf(topic), n, deliver, func() {}, lost)
				if err != nil {
					return nil, err
				}
				stop()
				isLive := false
				return b.Follow(ctx, topic, 1, func(position uint64, data []byte) {
					if isLive {
						deliver(position, data)
					}
				}, func() { live(); isLive = true }, lost)
			},
		}
	}},
}

var brokenPositions = []fault{
	{"positions begin at 0", "BeginsWithTheLast NothingKept", func() *broken {
		return calling(func(c calls) calls {
			n := uint64(0)
			return calls{func(_ uint64, data []byte) { n++; c.deliver(n-1, data) }, c.live, c.lost}
		})
	}},
	{"each follower counts for itself", "BeginsWithTheLast PastThenLive", func() *broken {
		return calling(func(c calls) calls {
			n := uint64(0)
			return calls{func(_ uint64, data []byte) { n++; c.deliver(n, data) }, c.live, c.lost}
		})
	}},
	{"positions of what is kept differ from those of what comes", "OnePositionForAll", func() *broken {
		return calling(func(c calls) calls {
			isLive := false
			return calls{func(position uint64, data []byte) {
				if isLive {
					position++
				}
				c.deliver(position, data)
			}, func() { c.live(); isLive = true }, c.lost}
		})
	}},
	{"positions fall", "BeginsWithTheLast OnePositionForAll", func() *broken {
		return renumbered(func(_ *past, _ string, position uint64) uint64 { return -position })
	}},
	{"positions begin again when the data is lost", "WipedWhileCutOff WipedWhileFollowing", func() *broken {
		return renumbered(func(p *past, _ string, position uint64) uint64 {
			if position > p.wiped {
				return position - p.wiped
			}
			return position
		})
	}},
	{"positions begin again when all messages of a topic have lapsed", "KeepsForATime", func() *broken {
		return renumbered(func(p *past, topic string, position uint64) uint64 { return position - p.of(topic).dropped })
	}},
}

var brokenCalls = []fault{
	{"calls live before what is kept", "PastThenLive BeginsWithTheLast NothingKept", func() *broken {
		return calling(func(c calls) calls {
			var begin sync.Once
			return calls{func(position uint64, data []byte) {
				begin.Do(c.live)
				c.deliver(position, data)
			}, func() { begin.Do(c.live) }, c.lost}
		})
	}},
	{"never calls live", "NothingKept", func() *broken {
		return calling(func(c calls) calls { return calls{c.deliver, func() {}, c.lost} })
	}},
	{"calls live twice", "NothingKept", func() *broken {
		return calling(func(c calls) calls { return calls{c.deliver, func() { c.live(); c.live() }, c.lost} })
	}},
	{"calls live again when it is connected again", "FollowerCutOff CutOftenWhileFollowing", func() *broken {
		var mu sync.Mutex
		var lives []func()
		b := calling(func(c calls) calls {
			mu.Lock()
			defer mu.Unlock()
			lives = append(lives, c.live)
			return c
		})
		b.back = func(*Node) {
			mu.Lock()
			all := slices.Clone(lives)
			mu.Unlock()
			for _, live := range all {
				live()
			}
		}
		return b
	}},
	{"delivers while live is running", "FollowWaitsForLive", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			done := make(chan struct{})
			stop, err := b.Follow(ctx, topic, n, deliver, func() { go func() { live(); close(done) }() }, lost)
			if err == nil {
				<-done
			}
			return stop, err
		})
	}},
	{"returns before live does", "FollowWaitsForLive", func() *broken {
		return calling(func(c calls) calls { return calls{c.deliver, func() { go c.live() }, c.lost} })
	}},
	{"waits for the first message", "NothingKept", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			first := make(chan struct{})
			arrived := sync.OnceFunc(func() { close(first) })
			stop, err := b.Follow(ctx, topic, n, func(position uint64, data []byte) {
				arrived()
				deliver(position, data)
			}, live, lost)
			if err != nil {
				return nil, err
			}
			select {
			case <-first:
				return stop, nil
			case <-ctx.Done():
				stop()
				return nil, ctx.Err()
			}
		})
	}},
	{"returns while deliver is running when its context ends", "FollowContextEnds", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			ended := make(chan error, 1)
			var stop func()
			go func() {
				var err error
				stop, err = b.Follow(ctx, topic, n, deliver, live, lost)
				ended <- err
			}()
			select {
			case err := <-ended:
				return stop, err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
	}},
	{"a Follow that failed goes on", "FollowContextEnds SubscribeWhileAway", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			stop, err := b.Follow(ctx, topic, n, deliver, live, lost)
			if err != nil {
				go b.Follow(context.Background(), topic, n, deliver, live, lost)
			}
			return stop, err
		})
	}},
	{"ignores Follow's context once it has begun", "ServerHangs SubscribeWhileAway", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			return b.Follow(context.WithoutCancel(ctx), topic, n, deliver, live, lost)
		})
	}},
	{"ends the follower with Follow's context", "ContextEnds", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			return b.Follow(ctx, topic, n, func(position uint64, data []byte) {
				if ctx.Err() == nil {
					deliver(position, data)
				}
			}, live, lost)
		})
	}},
	{"stop doesn't wait", "StopMeansStopped", func() *broken { return stopping(func(stop func()) { go stop() }) }},
	{"stop doesn't stop", "StopMeansStopped StopUnderLoad SeveralSubscriptions StopFollowingWhileAway BeginsWithTheLast", func() *broken {
		return stopping(func(func()) {})
	}},
	{"stop ends all followers of the topic", "SeveralSubscriptions StopUnderLoad BeginsWithTheLast", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			stop, err := b.Follow(ctx, topic, n, deliver, live, lost)
			return func() {
				b.server.mu.Lock()
				delete(b.follows, topic)
				b.server.mu.Unlock()
				stop()
			}, err
		})
	}},
	{"each stop ends one more follower of the topic", "SeveralSubscriptions BeginsWithTheLast", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			stop, err := b.Follow(ctx, topic, n, deliver, live, lost)
			return stopsAnother(b, b.follows, topic, stop), err
		})
	}},
	{"one slow follower holds up the others", "SlowInThePast SlowSubscriber", func() *broken {
		reader := make(chan struct{}, 1)
		return calling(func(c calls) calls {
			return calls{func(position uint64, data []byte) {
				reader <- struct{}{}
				c.deliver(position, data)
				<-reader
			}, c.live, c.lost}
		})
	}},
	{"one follower that is slow in live holds up the others", "SlowInThePast", func() *broken {
		var reader sync.Map // holds one element while a follower is called
		return calling(func(c calls) calls {
			return calls{c.deliver, func() {
				for {
					if _, taken := reader.LoadOrStore(0, 0); !taken {
						break
					}
					<-time.After(time.Millisecond)
				}
				c.live()
				reader.Delete(0)
			}, c.lost}
		})
	}},
	{"drops what comes while 200 messages wait for a follower", "SlowSubscriber", func() *broken {
		return calling(func(c calls) calls {
			isLive, position := false, atomic.Uint64{}
			deliver := bounded(200, func(data []byte) { c.deliver(position.Add(1), data) })
			return calls{func(p uint64, data []byte) {
				if isLive {
					deliver(data)
				} else {
					c.deliver(p, data)
					position.Store(p)
				}
			}, func() { c.live(); isLive = true }, c.lost}
		})
	}},
}

// stopping is a broker of which stop does otherwise.
func stopping(f func(stop func())) *broken {
	return following(func(
		b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
	) (func(), error) {
		stop, err := b.Follow(ctx, topic, n, deliver, live, lost)
		return func() { f(stop) }, err
	})
}

var brokenReturns = []fault{
	{"calls lost after each outage", "FollowerCutOff", func() *broken {
		return returning(func(_ *past, _ string, i *inbox) { i.put(item{lost: errCut}) })
	}},
	{"goes on with what comes after an outage", "FollowerCutOff TrimmedWhileCutOff WipedWhileCutOff NoSilentHole", func() *broken {
		return returning(func(p *past, _ string, i *inbox) { i.seen = p.position })
	}},
	{"goes on with what comes after an outage, and calls lost", "FollowerCutOff TrimmedWhileCutOff WipedWhileCutOff", func() *broken {
		return returning(func(p *past, _ string, i *inbox) {
			i.put(item{lost: errCut})
			i.seen = p.position
		})
	}},
	{"goes on with the last 10 after an outage", "FollowerCutOff NoSilentHole", func() *broken {
		return returning(func(p *past, topic string, i *inbox) {
			if all := p.of(topic).kept; len(all) > 10 {
				i.seen = max(i.seen, all[len(all)-11].position)
			}
		})
	}},
	{"goes on with 1,000 messages after an outage, and then with what comes", "MuchIsMissed", func() *broken {
		return returning(func(p *past, topic string, i *inbox) {
			missed := 0
			for _, k := range p.of(topic).kept {
				if k.position > i.seen && missed < 1000 {
					i.put(item{position: k.position, data: k.data})
					missed++
				}
			}
			i.seen = p.position
		})
	}},
	{"Follow fails at once during an outage", "FollowWhileCutOff", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			select {
			case <-b.connected():
				return b.Follow(ctx, topic, n, deliver, live, lost)
			default:
				return nil, ErrAway
			}
		})
	}},
	{"Follow begins without what was kept while it waited for the broker", "FollowWhileCutOff", func() *broken {
		return following(func(
			b *Node, ctx context.Context, topic string, n int, deliver func(uint64, []byte), live func(), lost func(error),
		) (func(), error) {
			b.server.mu.Lock()
			began := b.server.past.position
			b.server.mu.Unlock()
			isLive := false
			return b.Follow(ctx, topic, n, func(position uint64, data []byte) {
				if isLive || position <= began {
					deliver(position, data)
				}
			}, func() { live(); isLive = true }, lost)
		})
	}},
	{"delivers the last message again after an outage", "FollowerCutOff NoSilentHole", func() *broken {
		return returning(func(p *past, topic string, i *inbox) { i.seen-- })
	}},
	{"goes on with what comes after an outage, if it has had nothing", "CutOffBeforeTheFirst TrimmedWhileCutOff", func() *broken {
		return unheard(func(p *past, _ string, i *inbox) { i.seen = p.position })
	}},
	{"begins again after an outage, if it has had nothing", "TrimmedWhileCutOff", func() *broken {
		return unheard(func(p *past, topic string, i *inbox) { i.seen = p.of(topic).dropped })
	}},
	{"doesn't notice what has been dropped", "TrimmedWhileCutOff", func() *broken {
		return returning(func(p *past, topic string, i *inbox) { i.seen = max(i.seen, p.of(topic).dropped) })
	}},
	{"doesn't notice that the data was lost", "WipedWhileCutOff", func() *broken {
		return returning(func(p *past, _ string, i *inbox) { i.seen = max(i.seen, p.wiped) })
	}},
	{"notices that the data was lost only by the next message", "WipedWhileCutOff", func() *broken {
		return returning(func(p *past, topic string, i *inbox) {
			if len(p.of(topic).kept) == 0 {
				i.seen = max(i.seen, p.wiped)
			}
		})
	}},
	{"swallows lost", "TrimmedWhileCutOff WipedWhileCutOff", func() *broken {
		return calling(func(c calls) calls { return calls{c.deliver, c.live, func(error) {}} })
	}},
	{"calls lost after the next message", "TrimmedWhileCutOff WipedWhileCutOff", func() *broken {
		return calling(func(c calls) calls {
			var late error
			return calls{func(position uint64, data []byte) {
				if c.deliver(position, data); late != nil {
					c.lost(late)
					late = nil
				}
			}, c.live, func(err error) { late = err }}
		})
	}},
	{"doesn't follow again", "FollowerCutOff StopFollowingWhileAway", func() *broken {
		return returning(func(_ *past, _ string, i *inbox) { go i.stop() })
	}},
}

var brokenKeeps = []fault{
	{"keeps half of n", "KeepsTheLast", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(ctx, topic, data, n/2, d)
		})
	}},
	{"keeps any number", "KeepsTheLast", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(ctx, topic, data, keptMost, d)
		})
	}},
	{"keeps for ever", "KeepsForATime", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(ctx, topic, data, n, keptFor)
		})
	}},
	{"takes seconds for milliseconds", "KeepsForATime", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			err := b.Keep(ctx, topic, data, n, d/1000)
			<-time.After(3 * time.Millisecond)
			return err
		})
	}},
	{"keeps the same data once", "SameDataAgain", func() *broken {
		var mu sync.Mutex
		var last string
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			mu.Lock()
			defer mu.Unlock()
			if string(data) == last {
				return nil
			}
			last = string(data)
			return b.Keep(ctx, topic, data, n, d)
		})
	}},
	{"returns before it is kept", "NothingKept BeginsWithTheLast", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			own := bytes.Clone(data)
			time.AfterFunc(time.Millisecond, func() { b.Keep(context.WithoutCancel(ctx), topic, own, n, d) })
			return nil
		})
	}},
	{"keeps the slice", "AllNodesHear AnyData BeginsWithTheLast", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			time.AfterFunc(time.Millisecond, func() { b.Keep(context.WithoutCancel(ctx), topic, data, n, d) })
			<-time.After(time.Microsecond)
			return nil
		})
	}},
	{"ignores Keep's context", "ContextEnds ServerHangs", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(context.WithoutCancel(ctx), topic, data, n, d)
		})
	}},
	{"returns nil while the broker is away", "PublishWhileAway", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			b.Keep(ctx, topic, data, n, d)
			return nil
		})
	}},
	{"rejects, and doesn't say so", "KeepRejects", func() *broken {
		tooLarge := errors.New("too large")
		return &broken{
			publish: func(b *Node, ctx context.Context, topic string, data []byte) error {
				if len(data) > 1<<20 {
					return refusal{tooLarge}
				}
				return b.Publish(ctx, topic, data)
			},
			keep: func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
				if len(data) > 1<<20 {
					return tooLarge
				}
				return b.Keep(ctx, topic, data, n, d)
			},
		}
	}},
	{"leaves out empty messages", "AnyData AnyDataIsKept", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			if len(data) == 0 {
				return nil
			}
			return b.Keep(ctx, topic, data, n, d)
		})
	}},
	{"keeps 600 KiB of a message", "AnyData AnyDataIsKept", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			return b.Keep(ctx, topic, data[:min(len(data), 600<<10)], n, d)
		})
	}},
	{"topics end at NUL", "AnyName AnyNameIsKept", func() *broken {
		return renamedKept(func(topic string) string { topic, _, _ = strings.Cut(topic, "\x00"); return topic })
	}},
	{"doesn't deliver to the node's own followers", "AllNodesHear SeveralSubscriptions", func() *broken {
		return keeping(func(b *Node, ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
			b.server.mu.Lock()
			own := b.follows[topic]
			delete(b.follows, topic)
			b.server.mu.Unlock()
			err := b.Keep(ctx, topic, data, n, d)
			b.server.mu.Lock()
			b.follows[topic] = append(b.follows[topic], own...)
			b.server.mu.Unlock()
			return err
		})
	}},
}
