package natsbroker_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

// TestTopicsTakeNoGoroutines: a topic that is subscribed to or followed costs no goroutine.
func TestTopicsTakeNoGoroutines(t *testing.T) { // alone: it counts those of the process
	const topics = 1000
	b := natsbroker.New(connect(t, startNATS(t).addr()))
	listen(t, b, "first")
	before := runtime.NumGoroutine()
	for i := range topics {
		listen(t, b, fmt.Sprint("topic ", i))
		follow(t, b, fmt.Sprint("topic ", i), 10)
	}
	until(t, "the goroutines end that subscribing took", func() bool { return runtime.NumGoroutine() < before+topics/10 })
}

// TestSilentConnection: a node that only listens notices by itself that its connection carries nothing any more, in
// half a minute on an idle machine, and hears again.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	b, other := natsbroker.New(connect(t, cable.Addr())), natsbroker.New(connect(t, s.addr()))
	e := listen(t, b, "topic")
	publish(t, other, "topic", "before")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	cable.Drop()
	publish(t, other, "topic", "missed")
	until(t, "lost is called", func() bool { return e.losses.Load() > 0 })
	publish(t, other, "topic", "after")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 2 })
}
