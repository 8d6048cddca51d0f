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

// bystanders are honest members of a room, who say 20 messages a second between them and write down
// what they hear.
type bystanders struct {
	t       testing.TB
	members []*wsroomtest.Client
	heard   [][]string // by each member
	sent    int
	start   time.Time
	readers sync.WaitGroup

	mu     sync.Mutex // guards delays
	delays []time.Duration
}

// meet lets ten of them enter the room /honest, whose hub echoes to the room.
func meet(t testing.TB, srv *httptest.Server) *bystanders {
	t.Helper()
	b := &bystanders{t: t, start: time.Now(), heard: make([][]string, 10)}
	for range b.heard {
		b.members = append(b.members, kit.Dial(t, srv, "/honest"))
	}
	for i := range b.members {
		b.readers.Go(func() { b.listen(i) })
	}
	return b
}

const goodbye = "goodbye"

// listen writes down what member i hears, until all have said goodbye.
func (b *bystanders) listen(i int) {
	for goodbyes := 0; goodbyes < len(b.heard); {
		text := b.members[i].NextText()
		if text == goodbye {
			goodbyes++
			continue
		}
		b.heard[i] = append(b.heard[i], text)
		_, at, _ := strings.Cut(text, " ")
		said, _ := time.ParseDuration(at)
		delay := time.Since(b.start) - said
		b.mu.Lock()
		b.delays = append(b.delays, delay)
		b.mu.Unlock()
	}
}

// talk lets them talk while f runs, and half a second at least, and returns the 99th percentile of
// the delay from a message to its arrival.
func (b *bystanders) talk(f func()) time.Duration {
	b.mu.Lock()
	b.delays = nil
	b.mu.Unlock()
	done := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
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
	defer talking.Wait()
	func() {
		defer close(done) // even if f ends the test
		f()
	}()
	talking.Wait()
	return b.p99()
}

func (b *bystanders) p99() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.delays) == 0 {
		b.t.Error("the honest members hear nothing")
		return 0
	}
	slices.Sort(b.delays)
	return b.delays[len(b.delays)*99/100]
}

// part lets them go, and checks that each has heard all, once, in the order of the others.
func (b *bystanders) part() {
	b.t.Helper()
	for _, c := range b.members {
		c.SendText(goodbye)
	}
	b.readers.Wait()
	for i, heard := range b.heard {
		if len(heard) != b.sent {
			b.t.Errorf("honest member %d heard %d messages of %d", i, len(heard), b.sent)
		}
		if !slices.Equal(heard, b.heard[0]) {
			b.t.Errorf("honest member %d heard another order than member 0", i)
		}
	}
	slices.Sort(b.heard[0])
	if n := len(slices.Compact(b.heard[0])); n != b.sent {
		b.t.Errorf("the honest members heard %d different messages of %d", n, b.sent)
	}
	for _, c := range b.members {
		c.CloseNow()
	}
}
