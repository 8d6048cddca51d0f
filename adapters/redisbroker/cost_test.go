package redisbroker_test

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

// TestChurnCostsTheSameWithManyTopics: to subscribe and stop takes no more of the processor where there are
// 50,000 topics than where there are none.
func TestChurnCostsTheSameWithManyTopics(t *testing.T) { // alone: it counts the time of the process
	b := redisbroker.New(startRedis(t).connect(t))
	churn := func() time.Duration {
		began := processorTime(t)
		for i := range 1000 {
			join(t, b, fmt.Sprint("churn ", i))()
		}
		return processorTime(t) - began
	}
	listen(t, b, "first")
	churn()
	before := churn()
	for i := range 50 {
		var stops []func()
		for j := range 1000 {
			stops = append(stops, func() { join(t, b, fmt.Sprint("topic ", i, " ", j)) })
		}
		all(stops)
	}
	after := churn()
	if after > 3*before+100*time.Millisecond {
		t.Errorf("1,000 subscriptions take %v of the processor with 50,000 topics, %v with one", after, before)
	}
}

// all runs these at the same time.
func all(fs []func()) {
	done := make(chan struct{})
	for _, f := range fs {
		go func() { f(); done <- struct{}{} }()
	}
	for range fs {
		<-done
	}
}

func join(t *testing.T, b *redisbroker.Broker, topic string) (stop func()) {
	stop, err := b.Subscribe(t.Context(), topic, func([]byte) {}, func(error) {})
	if err != nil {
		t.Error(err)
	}
	return stop
}

func processorTime(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSilentConnection: a node that only listens notices by itself that its connection carries nothing any more, in
// half a minute on an idle machine, and hears again.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	cable := brokertest.NewCable(t, s.Addr)
	b, other := redisbroker.New(connect(t, cable.Addr())), redisbroker.New(s.connect(t))
	e := listen(t, b, "topic")
	publish(t, other, "topic", "before")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	cable.Drop()
	publish(t, other, "topic", "missed")
	until(t, "lost is called", func() bool { return e.losses.Load() > 0 })
	publish(t, other, "topic", "after")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 2 })
}
