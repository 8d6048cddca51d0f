package cluster_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// near is a broker with SubscribeDirect and FollowDirect. It checks that what it is passed there doesn't call it.
type near struct {
	*kit.Wire
	t          *testing.T
	direct     atomic.Int64 // calls of SubscribeDirect and FollowDirect
	delivering sync.Map     // goroutines
}

func (n *near) called(method string) {
	if _, ok := n.delivering.Load(goroutine.Current()); ok {
		n.t.Errorf("deliver, live or lost calls %s", method)
	}
}

func (n *near) within(f func()) {
	id := goroutine.Current()
	n.delivering.Store(id, true)
	defer n.delivering.Delete(id)
	f()
}

func (n *near) Publish(ctx context.Context, topic string, data []byte) error {
	n.called("Publish")
	return n.Wire.Publish(ctx, topic, data)
}

func (n *near) Keep(ctx context.Context, topic string, data []byte, most int, d time.Duration) error {
	n.called("Keep")
	return n.Wire.Keep(ctx, topic, data, most, d)
}

func (n *near) Subscribe(context.Context, string, func([]byte), func(error)) (func(), error) {
	n.t.Error("Subscribe is called though there is SubscribeDirect")
	return nil, kit.ErrDown
}

func (n *near) Follow(context.Context, string, int, func(uint64, []byte), func(), func(error)) (func(), error) {
	n.t.Error("Follow is called though there is FollowDirect")
	return nil, kit.ErrDown
}

func (n *near) SubscribeDirect(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	n.called("SubscribeDirect")
	n.direct.Add(1)
	stop, err := n.Wire.Subscribe(ctx, topic,
		func(data []byte) { n.within(func() { deliver(data) }) }, func(err error) { n.within(func() { lost(err) }) })
	return n.stopping(stop), err
}

func (n *near) FollowDirect(
	ctx context.Context, topic string, most int, deliver func(uint64, []byte), live func(), lost func(error),
) (func(), error) {
	n.called("FollowDirect")
	n.direct.Add(1)
	stop, err := n.Wire.Follow(ctx, topic, most,
		func(position uint64, data []byte) { n.within(func() { deliver(position, data) }) },
		func() { n.within(live) }, func(err error) { n.within(func() { lost(err) }) })
	return n.stopping(stop), err
}

func (n *near) stopping(stop func()) func() {
	return func() { n.called("stop"); stop() }
}

// A hub uses SubscribeDirect and FollowDirect where a broker has them. What it passes to them calls no method of
// the broker, whatever the messages have it do.
func TestDirectBroker(t *testing.T) {
	for name, opts := range map[string][]wsroom.Option{
		"Subscribe": nil,
		"Follow":    {wsroom.WithHistory(10, 1<<20, time.Minute), wsroom.WithResumeKey(make([]byte, 32))},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &near{Wire: kit.NewWire(), t: t}
				hubs := kit.Nodes(t, b, 2, opts...)
				here, there := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
				if err := hubs[0].SendTextToRoom("/a", "one"); err != nil {
					t.Fatal(err)
				}
				here.ExpectText("one")
				there.ExpectText("one")

				if err := hubs[0].To("/a").Join("/b"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				hubs[1].SendTextToRoom("/b", "two")
				here.ExpectText("two")
				there.ExpectText("two")
				hubs[1].To("/a").Leave("/b")
				time.Sleep(10 * time.Second) // the subscriptions to /b end
				b.Node.Down()
				time.Sleep(time.Second)
				b.Node.Up()
				hubs[0].SendTextToRoom("/a", "three")
				time.Sleep(recovery)
				here.ExpectText("three")
				there.ExpectText("three")
				hubs[0].To("/a").Close(4000, "")
				here.ExpectClose(4000)
				there.ExpectClose(4000)
				if b.direct.Load() < 4 {
					t.Errorf("%d calls of SubscribeDirect and FollowDirect", b.direct.Load())
				}
			})
		})
	}
}
