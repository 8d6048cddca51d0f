package brokertest_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

func memorySetup(testing.TB) brokertest.Setup {
	server := brokertest.NewMemory()
	return brokertest.Setup{
		Open: func(testing.TB) wsroom.Broker { return server.Open() },
		Down: func(testing.TB) { server.Down() },
		Up:   func(testing.TB) { server.Up() },
		Hang: func(testing.TB) { server.Hang() }, Resume: func(testing.TB) { server.Resume() },
		Cut:  func(_ testing.TB, b wsroom.Broker) { b.(*brokertest.Node).Down() },
		Heal: func(_ testing.TB, b wsroom.Broker) { b.(*brokertest.Node).Up() },
		Wipe: func(testing.TB) { server.Wipe() },
	}
}

func TestMemory(t *testing.T) { brokertest.Run(t, memorySetup) }

func TestMemoryPresence(t *testing.T) {
	brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
		server := brokertest.NewMemory()
		return brokertest.PresenceSetup{Open: func(testing.TB) wsroom.PresenceStore { return server }}
	})
}

// TestMemoryShrinks: those that wait for a node that is cut off hear their topics, although the node has lost nearly
// all others meanwhile, and keeps them in another map.
func TestMemoryShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		n := server.Open()
		var subscriber, follower atomic.Int32 // messages heard
		subscribe := func(topic string) func() {
			stop, err := n.Subscribe(t.Context(), topic, func([]byte) { subscriber.Add(1) }, func(error) {})
			if err != nil {
				t.Error(err)
			}
			return stop
		}
		follow := func(topic string) func() {
			stop, err := n.Follow(t.Context(), topic, 1, func(uint64, []byte) { follower.Add(1) }, func() {}, func(error) {})
			if err != nil {
				t.Error(err)
			}
			return stop
		}
		var stops []func()
		for i := range 1000 {
			stops = append(stops, subscribe(fmt.Sprint(i)), follow(fmt.Sprint("kept ", i)))
		}

		n.Down()
		last := make(chan func(), 2)
		go func() { last <- subscribe("last") }()
		go func() { last <- follow("kept last") }()
		synctest.Wait()
		for _, stop := range stops {
			stop()
		}
		n.Up()
		stops = []func(){<-last, <-last}
		if n.Publish(t.Context(), "last", nil) != nil || n.Keep(t.Context(), "kept last", nil, 1, time.Minute) != nil {
			t.Error("an error")
		}
		synctest.Wait()
		if subscriber.Load() != 1 || follower.Load() != 1 {
			t.Errorf("the subscriber hears %d messages and the follower %d, want 1", subscriber.Load(), follower.Load())
		}
		stops[0]()
		stops[1]()
	})
}
