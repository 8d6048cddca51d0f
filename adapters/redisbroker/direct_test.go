package redisbroker_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/internal/underrace"
)

// TestOneConnection: what a node publishes and keeps goes over the connection of its subscriptions, once it has
// one.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	e, l := listen(t, b, "topic"), follow(t, b, "kept", 1)
	for command, send := range map[string]func(){
		"publish": func() { publish(t, b, "topic", "one") },
		"evalsha": func() { keep(t, b, "kept", "the script is known", "two") },
	} {
		send()
		if command == "publish" {
			publish(t, b, "other", strings.Repeat("a", 64<<10))
			keep(t, b, "kept large", strings.Repeat("a", 64<<10+1)) // over another connection
		}
		_, subscriber, _ := strings.Cut(strings.Join(clients(t, s, "sub=2"), "\n"), " cmd=")
		if got, _, _ := strings.Cut(subscriber, " "); got != command {
			t.Errorf("the last command over the connection of the subscriptions is %q, want %q", got, command)
		}
	}
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	l.hears(t, "two")
}

// clients returns what Redis says of the clients in whose line that is.
func clients(t *testing.T, s *redisServer, with string) (lines []string) {
	for line := range strings.Lines(command(t, s, "CLIENT", "LIST")[0]) {
		if strings.Contains(line, " "+with+" ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestPublishesWhileHung: however many messages wait for a server that says nothing, none waits for longer than its
// context allows, and all is well once the server goes on.
func TestPublishesWhileHung(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	e := listen(t, b, "topic")
	publish(t, b, "topic", "before")
	s.Signal(t, syscall.SIGSTOP)
	defer s.Signal(t, syscall.SIGCONT)
	for range 4 { // together they are more than rueidis queues
		var sending sync.WaitGroup
		began := time.Now()
		for i := range 400 {
			sending.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer cancel()
				if b.Publish(ctx, fmt.Sprint("other ", i), []byte("hung")) == nil {
					t.Error("Publish returns nil")
				}
			})
		}
		sending.Wait()
		if took := time.Since(began); took > underrace.Or(20*time.Second, 4*time.Second) {
			t.Fatalf("they took %v instead of 100ms", took)
		}
	}
	s.Signal(t, syscall.SIGCONT)
	before := e.messages.Load()
	until(t, "Publish succeeds", func() bool { return b.Publish(t.Context(), "topic", []byte("after")) == nil })
	until(t, "a message arrives", func() bool { return e.messages.Load() > before })
	until(t, "messages go over the connection of the subscriptions again", func() bool {
		keep(t, b, "kept", "message")
		subscribers := clients(t, s, "sub=1")
		return len(subscribers) == 1 && strings.Contains(subscribers[0], " cmd=evalsha ")
	})
}

// TestDirect: a message that comes alone is delivered by the goroutine that reads, unless it is large or the last
// delivery was slow. For Subscribe and Follow it never is.
func TestDirect(t *testing.T) {
	t.Parallel()
	b := redisbroker.New(startRedis(t).connect(t))
	byReader := make(chan bool)
	slow := false
	hear := func() {
		stack := make([]byte, 1<<14)
		stack = stack[:runtime.Stack(stack, false)]
		if slow {
			<-time.After(10 * time.Millisecond)
		}
		byReader <- strings.Contains(string(stack), "_backgroundRead")
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
		sendSome := func(message string) bool {
			var sending sync.WaitGroup
			defer sending.Wait()
			sending.Go(func() {
				if strings.HasPrefix(name, "Follow") {
					keep(t, b, name, message)
				} else {
					publish(t, b, name, message)
				}
			})
			return <-byReader
		}
		send := func() bool { return sendSome("message") }
		direct := strings.HasSuffix(name, "Direct")
		until(t, "the reader delivers, if it may", func() bool { return send() == direct })
		if slow = true; direct {
			send()
			if send() {
				t.Errorf("%s: the reader delivers again after a delivery that took 10ms", name)
			}
		}
		if slow = false; direct {
			until(t, "the reader delivers again", send)
			if sendSome(strings.Repeat("a", 64<<10+1)) {
				t.Errorf("%s: the reader delivers a large message", name)
			}
		} else if send() {
			t.Errorf("%s: the reader delivers", name)
		}
		stop()
	}
}
