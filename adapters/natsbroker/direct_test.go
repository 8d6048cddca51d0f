package natsbroker_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom/adapters/natsbroker"
)

// TestDirect: a message that comes alone is delivered by the goroutine that receives all topics' messages, unless it
// is large or the last delivery was slow. For Subscribe and Follow it never is.
func TestDirect(t *testing.T) {
	b := natsbroker.New(connect(t, startNATS(t).addr()))
	byReceiver := make(chan bool)
	slow := false
	hear := func() {
		stack := make([]byte, 1<<14)
		stack = stack[:runtime.Stack(stack, false)]
		if slow {
			<-time.After(10 * time.Millisecond)
		}
		byReceiver <- strings.Contains(string(stack), "natsbroker.(*Broker).sort")
	}
	deliver, lost := func([]byte) { hear() }, func(error) {}
	deliverAt := func(uint64, []byte) { hear() }

	for name, subscribe := range map[string]func(topic string) (func(), error){
		"Subscribe":       func(topic string) (func(), error) { return b.Subscribe(t.Context(), topic, deliver, lost) },
		"SubscribeDirect": func(topic string) (func(), error) { return b.SubscribeDirect(t.Context(), topic, deliver, lost) },
		"Follow":          func(topic string) (func(), error) { return b.Follow(t.Context(), topic, 1, deliverAt, func() {}, lost) },
		"FollowDirect": func(topic string) (func(), error) {
			return b.FollowDirect(t.Context(), topic, 1, deliverAt, func() {}, lost)
		},
	} {
		stop, err := subscribe(name)
		if err != nil {
			t.Fatal(err)
		}
		sendSome := func(size int) bool {
			var sending sync.WaitGroup
			defer sending.Wait()
			sending.Go(func() {
				send := b.Publish
				if strings.HasPrefix(name, "Follow") {
					send = func(ctx context.Context, topic string, data []byte) error {
						return b.Keep(ctx, topic, data, 1, time.Hour)
					}
				}
				if err := send(t.Context(), name, make([]byte, size)); err != nil {
					t.Error(err)
				}
			})
			return <-byReceiver
		}
		send := func() bool { return sendSome(1) }

		direct := strings.HasSuffix(name, "Direct")
		until(t, "the receiver delivers, if it may", func() bool { return send() == direct })
		if slow = true; direct {
			send()
			if send() {
				t.Errorf("%s: the receiver delivers again after a delivery that took 10ms", name)
			}
		}
		if slow = false; direct {
			until(t, "the receiver delivers again", send)
			if sendSome(64<<10 + 1) {
				t.Errorf("%s: the receiver delivers a large message", name)
			}
		} else if send() {
			t.Errorf("%s: the receiver delivers", name)
		}
		stop()
	}
}
