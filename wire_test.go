package wsroom_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// wire is a broker in memory for all nodes of a test, to which a test can do what it likes.
type wire struct {
	*brokertest.Node

	mu    sync.Mutex                                             // guards the rest
	fault func(topic string, data []byte) (times int, err error) // nil: once, without error; data is nil for Subscribe
	subs  map[string]int
	calls int
	bytes int
}

func newWire() *wire { return &wire{Node: brokertest.NewMemory().Open(), subs: map[string]int{}} }

var errDown = errors.New("down")

// recovery is how long a hub takes after an outage, to try again and to let others come back.
const recovery = 4 * time.Second

func down(string, []byte) (int, error) { return 0, errDown }

// set changes what the broker does; nil: it works.
func (w *wire) set(fault func(topic string, data []byte) (int, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func (w *wire) does(topic string, data []byte) (times int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data != nil {
		w.calls++
		w.bytes += len(data)
	}
	if w.fault == nil {
		return 1, nil
	}
	return w.fault(topic, data)
}

func (w *wire) Publish(ctx context.Context, topic string, data []byte) error {
	times, err := w.does(topic, data)
	for range times {
		err = errors.Join(err, w.Node.Publish(ctx, topic, data))
	}
	return err
}

func (w *wire) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if _, err := w.does(topic, nil); err != nil {
		return nil, err
	}
	stop, err := w.Node.Subscribe(ctx, topic, deliver, lost)
	if err == nil {
		w.count(topic, 1)
	}
	return func() {
		stop()
		w.count(topic, -1)
	}, err
}

func (w *wire) count(topic string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs[topic] += n
}

func (w *wire) subscribed(topic string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.subs[topic]
}

// traffic returns the calls of Publish since it was called last, and the bytes in them.
func (w *wire) traffic() (calls, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls, bytes = w.calls, w.bytes
	w.calls, w.bytes = 0, 0
	return calls, bytes
}

// nodes starts n hubs over w in a bubble, and shuts them down at its end.
func nodes(t *testing.T, w wsroom.Broker, n int, opts ...wsroom.Option) []*wsroom.Hub {
	t.Helper()
	hubs := make([]*wsroom.Hub, n)
	for i := range hubs {
		hubs[i] = wsroom.New(append(opts, wsroom.WithBroker(w), wsroom.WithHeartbeat(0, 0))...)
		t.Cleanup(func() { shutdown(t, hubs[i]) })
	}
	return hubs
}

// slow is a broker that takes its time: to publish, and to subscribe to a room named /late.
type slow struct {
	*wire
	asked int // to subscribe
}

func (s *slow) Publish(ctx context.Context, topic string, data []byte) error {
	own := bytes.Clone(data)
	time.Sleep(10 * time.Millisecond)
	return s.wire.Publish(ctx, topic, own)
}

func (s *slow) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	s.asked++
	if strings.HasSuffix(topic, "/late") {
		time.Sleep(4 * time.Second)
	}
	return s.wire.Subscribe(context.WithoutCancel(ctx), topic, deliver, lost)
}

type hanging struct{ *wire }

func (h hanging) Publish(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

// limited is a broker that takes no more than 1000 bytes.
type limited struct{ *wire }

func (l limited) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > 1000 {
		return fmt.Errorf("too large: %w", rejected{errDown})
	}
	return l.wire.Publish(ctx, topic, data)
}

type rejected struct{ error }
