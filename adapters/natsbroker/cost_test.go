package natsbroker_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

// TestTopicsTakeNoGoroutines: a topic that is subscribed to costs no goroutine.
func TestTopicsTakeNoGoroutines(t *testing.T) { // alone: it counts those of the process
	const topics = 1000
	b := natsbroker.New(connect(t, startNATS(t).addr()))
	listen(t, b, "first")
	before := runtime.NumGoroutine()
	for i := range topics {
		listen(t, b, fmt.Sprint("topic ", i))
	}
	until(t, "the goroutines end that subscribing took", func() bool { return runtime.NumGoroutine() < before+topics/10 })
}

// TestSilentConnection: a node that only listens notices within half a minute that its connection carries nothing
// any more, and hears again.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	b, other := natsbroker.New(connect(t, cable.Addr())), natsbroker.New(connect(t, s.addr()))
	e := listen(t, b, "topic")
	publish(t, other, "topic", "before")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	cable.Drop()
	began := time.Now()
	publish(t, other, "topic", "missed")
	for e.losses.Load() == 0 && time.Since(began) < time.Minute {
		<-time.After(10 * time.Millisecond)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Fatalf("lost wasn't called within 30s: %v", took)
	}
	publish(t, other, "topic", "after")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 2 })
}
