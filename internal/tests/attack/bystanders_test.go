package attack_test

import (
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// bystanders are honest members of a room. Together they send 20 messages a second, and they record what
// they receive.
type bystanders struct {
	t        testing.TB
	members  []*wsroomtest.Client
	received [][]string // by each member
	sent     int
	start    time.Time
	readers  sync.WaitGroup

	mu     sync.Mutex // guards delays
	delays []time.Duration
}

// connectBystanders connects ten members to the room /honest, whose hub echoes to the room.
func connectBystanders(t testing.TB, srv *httptest.Server) *bystanders {
	t.Helper()
	b := &bystanders{t: t, start: time.Now(), received: make([][]string, 10)}
	for range b.received {
		b.members = append(b.members, kit.Dial(t, srv, "/honest"))
	}
	for i := range b.members {
		b.readers.Go(func() { b.receive(i) })
	}
	return b
}

const lastMessage = "last"

// receive records what member i receives, until it has every member's last message.
func (b *bystanders) receive(i int) {
	for last := 0; last < len(b.received); {
		text := b.members[i].NextText()
		if text == lastMessage {
			last++
			continue
		}
		b.received[i] = append(b.received[i], text)
		_, at, _ := strings.Cut(text, " ")
		sent, _ := time.ParseDuration(at)
		delay := time.Since(b.start) - sent
		b.mu.Lock()
		b.delays = append(b.delays, delay)
		b.mu.Unlock()
	}
}

// sendWhile has them send while f runs, for half a second at least, and returns the 99th percentile of the
// delay from a message to its arrival.
func (b *bystanders) sendWhile(f func()) time.Duration {
	b.mu.Lock()
	b.delays = nil
	b.mu.Unlock()
	done := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		tick := time.NewTicker(time.Second / 20)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-done:
				if n >= 10 {
					return
				}
			default:
			}
			b.members[b.sent%len(b.members)].SendText(fmt.Sprint(b.sent, " ", time.Since(b.start)))
			b.sent++
			<-tick.C
		}
	})
	defer sending.Wait()
	func() {
		defer close(done) // even if f ends the test
		f()
	}()
	sending.Wait()
	return b.p99()
}

func (b *bystanders) p99() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.delays) == 0 {
		b.t.Error("the honest members receive nothing")
		return 0
	}
	slices.Sort(b.delays)
	return b.delays[len(b.delays)*99/100]
}

// disconnect closes their connections, and checks that each has received all messages, once, in one order.
func (b *bystanders) disconnect() {
	b.t.Helper()
	for _, c := range b.members {
		c.SendText(lastMessage)
	}
	b.readers.Wait()
	for i, received := range b.received {
		if len(received) != b.sent {
			b.t.Errorf("honest member %d received %d messages of %d", i, len(received), b.sent)
		}
		if !slices.Equal(received, b.received[0]) {
			b.t.Errorf("honest member %d received another order than member 0", i)
		}
	}
	slices.Sort(b.received[0])
	if n := len(slices.Compact(b.received[0])); n != b.sent {
		b.t.Errorf("the honest members received %d different messages of %d", n, b.sent)
	}
	for _, c := range b.members {
		c.CloseNow()
	}
}
