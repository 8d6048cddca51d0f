package kit

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// Wire is a broker in memory for all nodes of a test, which a test can make fail.
type Wire struct {
	*brokertest.Node

	Mu    sync.Mutex                                             // guards the rest
	fault func(topic string, data []byte) (times int, err error) // nil: once, without error; data is nil for Subscribe
	Subs  map[string]int
	calls int
	bytes int
}

// NewWire returns a broker that works.
func NewWire() *Wire { return &Wire{Node: brokertest.NewMemory().Open(), Subs: map[string]int{}} }

// ErrDown is the error of a broker or store that is down.
var ErrDown = errors.New("down")

// Down is a fault for Set: every call fails.
func Down(string, []byte) (int, error) { return 0, ErrDown }

// Set changes what the broker does; nil: it works.
func (w *Wire) Set(fault func(topic string, data []byte) (int, error)) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.fault = fault
}

func (w *Wire) does(topic string, data []byte) (times int, err error) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	if data != nil {
		w.calls++
		w.bytes += len(data)
	}
	if w.fault == nil {
		return 1, nil
	}
	return w.fault(topic, data)
}

func (w *Wire) Publish(ctx context.Context, topic string, data []byte) error {
	times, err := w.does(topic, data)
	for range times {
		err = errors.Join(err, w.Node.Publish(ctx, topic, data))
	}
	return err
}

func (w *Wire) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
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

func (w *Wire) count(topic string, n int) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	w.Subs[topic] += n
}

// Subscribed returns the number of subscriptions of the topic.
func (w *Wire) Subscribed(topic string) int {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	return w.Subs[topic]
}

// Traffic returns the calls of Publish since it was called last, and the bytes in them.
func (w *Wire) Traffic() (calls, bytes int) {
	w.Mu.Lock()
	defer w.Mu.Unlock()
	calls, bytes = w.calls, w.bytes
	w.calls, w.bytes = 0, 0
	return calls, bytes
}

// Nodes starts n hubs over w in a bubble, and shuts them down at its end.
func Nodes(t *testing.T, w wsroom.Broker, n int, opts ...wsroom.Option) []*wsroom.Hub {
	t.Helper()
	hubs := make([]*wsroom.Hub, n)
	for i := range hubs {
		hubs[i] = wsroom.New(append(opts, wsroom.WithBroker(w), wsroom.WithHeartbeat(0, 0))...)
		t.Cleanup(func() { Shutdown(t, hubs[i]) })
	}
	return hubs
}
