package resume_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// stalled connects a client and has so much sent to it that its line is full: its queue fills from then on. The
// client reads nothing meanwhile.
func stalled(t *testing.T, policy wsroom.Overflow, opts ...wsroom.Option) (*wsroom.Hub, *server, *v1) {
	hub := newHub(t, append(opts, wsroom.WithOverflow(policy), wsroom.WithSendQueue(4, 1<<20), wsroom.WithHistory(1000, 1<<20, time.Minute))...)
	s := serve(t, hub)
	c := newV1(t, "/a")
	c.connect(s)
	c.say("join b")
	c.until("it is in both rooms", func() bool { return c.fresh["b"] == 1 })
	hub.SendTextToRoom("/a", "0")
	hub.SendTextToRoom("b", "0")
	c.await("/a", 1)
	c.await("b", 1)
	return hub, s, c
}

// numbers returns the room's messages as numbers.
func (c *v1) numbers(room string) (list []int) {
	for _, text := range c.got[room] {
		if n, err := strconv.Atoi(text); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// losses returns in how many places numbers of the room are missing.
func (c *v1) losses(room string) (n int) {
	list := c.numbers(room)
	for i := 1; i < len(list); i++ {
		if list[i] != list[i-1]+1 {
			n++
		}
	}
	return n
}

// toldGaps returns in how many places the client was told that messages of the room are missing. Two losses between
// which only something was sent that isn't for it are one place.
func (c *v1) toldGaps(room string) (n int) {
	was := false
	for _, event := range c.log {
		switch is := event == "gap "+room; {
		case is && !was:
			n, was = n+1, true
		case strings.HasPrefix(event, room+":"):
			was = false
		}
	}
	return n
}

// Where the queue of a client that doesn't read overflows, the client is told of one gap in the room for each loss,
// and of none in another room. Messages that leave it out, or that are to its other room besides, are no gap. When
// it comes back it isn't sent what was lost before.
func TestOverflowIsOneGap(t *testing.T) {
	for policy, name := range map[wsroom.Overflow]string{wsroom.DropOldest: "drop oldest", wsroom.DropNewest: "drop newest"} {
		t.Run(name, func(t *testing.T) {
			hub, s, c := stalled(t, policy)
			conn := hub.Members("/a")[0]
			for i := range 500 {
				hub.SendTextToRoom("/a", fmt.Sprint(i+1))
				hub.To("/a").Except(conn).SendText("left out")
				hub.To("b").Except(conn).SendText("left out")
				hub.To("/a", "b").Except(conn).SendText("left out of both")
			}
			if policy == wsroom.DropOldest {
				c.until("it has the newest", func() bool { return slices.Contains(c.numbers("/a"), 500) })
			}
			if policy == wsroom.DropNewest { // what is new is dropped until it reads
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for i := 501; ; i++ {
						hub.SendTextToRoom("/a", fmt.Sprint(i))
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
						}
					}
				}()
				c.until("it reads", func() bool { return c.numbers("/a")[len(c.numbers("/a"))-1] > 500 })
				close(stop)
				<-stopped
			}
			c.cut()
			got := c.numbers("/a")
			if c.losses("/a") == 0 || len(got) > 300 {
				t.Errorf("too little was lost: %d came", len(got))
			}
			if c.toldGaps("/a") != c.losses("/a") || c.gaps["b"] != 0 || slices.Contains(c.got["/a"], "left out") {
				t.Errorf("gaps %v, got %v; log: …%q", c.gaps, c.got, c.log[max(0, len(c.log)-30):])
			}
			hub.SendTextToRoom("/a", "10000")
			c.connect(s)
			c.until("the last comes", func() bool { return slices.Contains(c.numbers("/a"), 10000) })
			after := c.numbers("/a")[len(got):]
			if c.resumed != 1 || after[0] < got[len(got)-1] || !slices.IsSorted(after) {
				t.Errorf("resumed %d; got %v, then %v", c.resumed, got, after)
			}
			c.cut()
		})
	}
}

// Two losses between which a message comes are two gaps.
func TestTwoLossesAreTwoGaps(t *testing.T) {
	hub, _, c := stalled(t, wsroom.DropOldest)
	for round := range 2 {
		for i := range 300 {
			hub.SendTextToRoom("/a", fmt.Sprint(300*round+i+1))
		}
		last := 300*round + 300
		c.until("it reads again", func() bool { return slices.Contains(c.numbers("/a"), last) })
		if losses := c.losses("/a"); c.gaps["/a"] != losses || losses < round+1 {
			t.Errorf("%d gaps after %d losses", c.gaps["/a"], losses)
		}
	}
	c.cut()
}

// A client that was too slow, and whose connection was closed for that, comes back and has lost nothing.
func TestTooSlowLosesNothing(t *testing.T) {
	hub, s, c := stalled(t, wsroom.CloseSlow)
	ended := hub.Members("/a")[0].Context()
	for i := range 500 {
		hub.SendTextToRoom("/a", fmt.Sprint(i+1))
	}
	<-ended.Done()
	_ = c.run()
	c.connect(s)
	c.say("join b")
	c.until("the last comes", func() bool { return slices.Contains(c.numbers("/a"), 500) })
	for i, n := range c.numbers("/a") {
		if n != i {
			t.Fatalf("%d comes after %d messages", n, i)
		}
	}
	if len(c.gaps) > 0 || c.fresh["/a"] != 1 {
		t.Errorf("gaps %v, fresh %v", c.gaps, c.fresh)
	}
	c.cut()
}

// What a client has missed doesn't count against its queue, and what comes meanwhile does.
func TestCatchingUpIsntTooSlow(t *testing.T) {
	hub, s, c := stalled(t, wsroom.CloseSlow)
	c.cut()
	for i := range 900 {
		hub.SendTextToRoom("/a", fmt.Sprint(i+1))
	}
	c.connect(s)
	conn := hub.Members("/a")
	hub.SendTextToRoom("/a", "901")
	hub.SendTextToRoom("/a", "902")
	c.until("the last comes", func() bool { return slices.Contains(c.numbers("/a"), 902) })
	if got := c.numbers("/a"); len(got) != 903 || c.resumed != 1 || len(conn) == 0 {
		t.Errorf("%d messages, resumed %d", len(got), c.resumed)
	}
	c.cut()
}

// A gap of the broker is one gap for the client, on each node once, and the room goes on after it.
func TestBrokersGapIsOneGap(t *testing.T) {
	memory := brokertest.NewMemory()
	broker := memory.Open()
	gaps := make(chan error, 100)
	hub := newHub(t, wsroom.WithBroker(broker), wsroom.WithResumeKey(key), wsroom.WithHistory(10, 1<<20, time.Minute),
		wsroom.OnGap(func(room string, err error) { gaps <- err }))
	s := serve(t, hub)
	far := newHub(t, wsroom.WithBroker(memory.Open()), wsroom.WithResumeKey(key), wsroom.WithHistory(10, 1<<20, time.Minute))
	c, there := newV1(t, "/a"), newV1(t, "/a")
	c.connect(s)
	there.connect(serve(t, far))
	far.SendTextToRoom("/a", "0")
	c.await("/a", 1)

	broker.Down()
	for i := range 100 { // more than are kept
		if err := far.SendTextToRoom("/a", fmt.Sprint(i+1)); err != nil {
			t.Fatal(err)
		}
		there.await("/a", i+2) // it has an envelope of its own
	}
	memory.Trim(0)
	broker.Up()
	c.until("it is told at once", func() bool { return c.gaps["/a"] > 0 })
	far.SendTextToRoom("/a", "101")
	c.until("the last comes", func() bool { return slices.Contains(c.numbers("/a"), 101) })
	if c.gaps["/a"] != 1 {
		t.Errorf("%d gaps", c.gaps["/a"])
	}
	c.cut()
	far.SendTextToRoom("/a", "102")
	c.connect(s)
	c.until("the last comes", func() bool { return slices.Contains(c.numbers("/a"), 102) })
	if c.resumed != 1 {
		t.Errorf("it isn't resumed after a gap")
	}
	c.cut()
	there.cut()
}
