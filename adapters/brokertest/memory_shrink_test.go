package brokertest_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
)

// A subscription that waits for the connection gets what is published later, though so many others end meanwhile that
// the node's memory shrinks.
func TestMemorySubscribesWhileManyLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := brokertest.NewMemory().Open()
		heard, followed := 0, 0
		subscribe := func(topic string) func() {
			stop, err := node.Subscribe(t.Context(), topic, func([]byte) { heard++ }, func(error) {})
			if err != nil {
				t.Error(err)
			}
			return stop
		}
		follow := func(topic string) func() {
			stop, err := node.Follow(t.Context(), topic, 1, func(uint64, []byte) { followed++ }, func() {}, func(error) {})
			if err != nil {
				t.Error(err)
			}
			return stop
		}
		var stops []func()
		for i := range 200 {
			stops = append(stops, subscribe(fmt.Sprint(i)), follow(fmt.Sprint("kept ", i)))
		}

		node.Down()
		late := make(chan func(), 2)
		go func() { late <- subscribe("late") }()
		go func() { late <- follow("kept late") }()
		synctest.Wait()
		for _, stop := range stops {
			stop()
		}
		node.Up()
		synctest.Wait()

		if err := node.Publish(t.Context(), "late", []byte("x")); err != nil {
			t.Error(err)
		}
		if err := node.Keep(t.Context(), "kept late", []byte("x"), 1, time.Minute); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if heard != 1 || followed != 1 {
			t.Errorf("%d messages heard and %d followed, want 1 each", heard, followed)
		}
		(<-late)()
		(<-late)()
	})
}
