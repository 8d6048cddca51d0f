package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// An outage that is short is bridged: nothing is lost, doubled or out of order.
func TestShortOutageIsBridged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		gaps := make(chan string, 10)
		hubs := kit.Nodes(t, w, 2, noteGaps(gaps))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		want := []string{"0"}
		hubs[0].SendTextToRoom("/a", "0")
		synctest.Wait()
		w.Set(kit.Down)
		for i := 1; i <= 100; i++ {
			if err := hubs[0].SendTextToRoom("/a", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint(i))
			time.Sleep(40 * time.Millisecond)
		}
		w.Set(nil)
		time.Sleep(recovery)
		if err := hubs[0].SendTextToRoom("/a", "end"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, c := range []*wsroomtest.Client{a, b} {
			if got := c.Drain(); !slices.Equal(got, append(want, "end")) {
				t.Errorf("got %q", got)
			}
		}
		wantGaps(t, gaps)
	})
}

// A node that finds the broker again a little later than others misses nothing of what waited there.
func TestBacklogWaitsForOtherNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		first, second := server.Open(), server.Open()
		hub := kit.Nodes(t, first, 1)[0]
		wsroomtest.Dial(t, hub, "/a")
		c := wsroomtest.Dial(t, kit.Nodes(t, second, 1)[0], "/a")
		server.Down()
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
			hub.SendTextToRoom("/a", want[i])
			time.Sleep(300 * time.Millisecond)
		}
		first.Up()
		time.Sleep(1500 * time.Millisecond)
		second.Up()
		time.Sleep(recovery)
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

// What was published although Publish failed, and is published again, comes once.
func TestRetriesDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rnd := kit.NewWire(), rand.New(rand.NewPCG(1, 2))
		gaps := make(chan string, 10)
		hubs := kit.Nodes(t, w, 2, noteGaps(gaps))
		c := wsroomtest.Dial(t, hubs[1], "/a")
		w.Set(func(string, []byte) (int, error) {
			if rnd.IntN(2) == 0 {
				return 1 + rnd.IntN(2), kit.ErrDown
			}
			return 1, nil
		})
		var want []string
		for i := range 50 {
			want = append(want, fmt.Sprint(i))
			if err := hubs[0].SendTextToRoom("/a", want[i]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		w.Set(nil)
		time.Sleep(recovery)
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		wantGaps(t, gaps)
	})
}

func TestLongOutageFailsSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hubs := kit.Nodes(t, w, 2)
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		conn := kit.Member(t, hubs[0], "/a")
		w.Set(kit.Down)
		if err := hubs[0].SendTextToRoom("/a", "accepted"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		for _, room := range []string{"/a", "/other"} {
			if err := hubs[0].SendTextToRoom(room, "refused"); !errors.Is(err, wsroom.ErrOutage) {
				t.Errorf("send to %s: %v, want ErrOutage", room, err)
			}
		}
		if err := hubs[0].To("/a").Close(4000, ""); !errors.Is(err, wsroom.ErrOutage) {
			t.Errorf("Close: %v, want ErrOutage", err)
		}
		if err := conn.Join("/a"); err != nil {
			t.Errorf("Join of a room that it is in: %v", err)
		}
		if err := conn.Join("/new"); !errors.Is(err, wsroom.ErrOutage) {
			t.Errorf("Join: %v, want ErrOutage", err)
		}
		wsroomtest.Refused(t, hubs[0], "/new", 503)
		wsroomtest.Dial(t, hubs[0], "/a").CloseNow() // of a room that it hears already
		if err := conn.SendText("direct"); err != nil {
			t.Error(err)
		}
		w.Set(nil)
		time.Sleep(recovery)
		if err := hubs[0].SendTextToRoom("/a", "after"); err != nil {
			t.Error(err)
		}
		a.ExpectText("direct", "accepted", "after")
		b.ExpectText("accepted", "after")
		if err := conn.Join("/new"); err != nil {
			t.Error(err)
		}
	})
}

// With DeliverLocally the members on the node get everything, in order, once; those elsewhere what the
// buffer held, and they hear of the rest.
func TestLongOutageDeliversLocally(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		gaps := make(chan string, 10)
		hubs := kit.Nodes(t, w, 2, wsroom.WithOutage(wsroom.DeliverLocally), wsroom.WithBrokerBuffer(5*time.Second, 1000), noteGaps(gaps))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		hubs[0].SendTextToRoom("/a", "before")
		synctest.Wait()
		w.Set(kit.Down)
		var want []string
		say := func() {
			text := fmt.Sprint(len(want))
			want = append(want, text)
			if err := hubs[0].SendTextToRoom("/a", text); err != nil {
				t.Fatal(err)
			}
		}
		a.ExpectText("before")
		for range 5 {
			say()
		}
		a.ExpectNothing()
		time.Sleep(7 * time.Second)
		a.ExpectText(want...) // what waited
		for range 3 {
			say()
			a.ExpectText(want[len(want)-1]) // at once
		}
		alone := wsroomtest.Dial(t, hubs[0], "/new")
		if err := hubs[0].SendTextToRoom("/new", "hello"); err != nil {
			t.Error(err)
		}
		alone.ExpectText("hello")
		wantGaps(t, gaps)
		w.Set(nil)
		time.Sleep(recovery)
		wantGaps(t, gaps, "/new: wsroom: broker: subscribed late")
		say()
		a.ExpectText(want[len(want)-1])
		b.ExpectText(append([]string{"before"}, want...)...)
		for _, c := range []*wsroomtest.Client{a, b, alone} {
			c.ExpectNothing()
		}

		w.Set(kit.Down)
		for range 200 { // more than the buffer holds
			say()
		}
		time.Sleep(7 * time.Second)
		w.Set(nil)
		time.Sleep(recovery)
		say()
		if got := a.Drain(); !slices.Equal(got, want[9:]) {
			t.Errorf("on the node: %q", got)
		}
		got := b.Drain()
		if len(got) < 20 || len(got) > 200 || got[len(got)-1] != want[len(want)-1] || !slices.Equal(got[:len(got)-1], want[9:][:len(got)-1]) {
			t.Errorf("elsewhere: %q", got)
		}
		wantGaps(t, gaps, "/a: wsroom: broker: messages are missing")

		w.Set(func(string, []byte) (int, error) { return 0, nil })
		say()
		a.ExpectNothing() // it goes through the broker again
	})
}

func TestBrokerBufferIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1, wsroom.WithBrokerBuffer(time.Hour, 10_000))[0]
		w.Set(kit.Down)
		text, taken := strings.Repeat("x", 100), 0
		for range 1000 {
			err := hub.SendTextToRoom(fmt.Sprint("/", taken%10), text)
			if err == nil {
				taken++
			} else if !errors.Is(err, wsroom.ErrOutage) {
				t.Fatal(err)
			}
		}
		if taken < 50 || taken > 100 {
			t.Errorf("%d messages of 100 bytes were taken, into 10000", taken)
		}
		w.Set(nil)
		time.Sleep(recovery)
		if err := hub.SendTextToRoom("/a", strings.Repeat("x", 20_000)); err != nil {
			t.Errorf("a message larger than the buffer, where nothing waits: %v", err)
		}
	})
}

// A broker that hangs holds up nobody who sends.
func TestHangingBrokerDoesNotBlockSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := kit.Nodes(t, hanging{kit.NewWire()}, 1)[0]
		c := wsroomtest.Dial(t, hub, "/a")
		begin := time.Now()
		for range 100 {
			if err := hub.SendTextToRoom("/a", "x"); err != nil {
				t.Fatal(err)
			}
		}
		kit.Member(t, hub, "/a").SendText("direct")
		c.ExpectText("direct")
		if d := time.Since(begin); d > 0 {
			t.Errorf("took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := hub.Shutdown(ctx); err == nil {
			t.Error("Shutdown returned nil, and the messages are lost")
		}
	})
}

// What was accepted is delivered by Shutdown, on this node and the others, and so is what OnClose sends.
func TestShutdownFlushesWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		var hubs []*wsroom.Hub
		hubs = kit.Nodes(t, w, 2, wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if errors.Is(err, wsroom.ErrShutdown) {
				hubs[0].SendTextToRoom("/a", "bye")
			}
		}))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		w.Set(kit.Down)
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
			hubs[0].SendTextToRoom("/a", want[i])
		}
		time.AfterFunc(200*time.Millisecond, func() { w.Set(nil) })
		kit.Shutdown(t, hubs[0])
		a.ExpectText(want...)
		a.ExpectClose(1012)
		b.ExpectText(append(want, "bye")...)
		if err := hubs[0].SendTextToRoom("/a", "late"); !errors.Is(err, wsroom.ErrShutdown) {
			t.Errorf("a send after Shutdown: %v", err)
		}
	})
}
