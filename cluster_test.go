package wsroom_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// wire is a broker in memory for all nodes of a test, to which a test can do what it likes.
type wire struct {
	*brokertest.Node

	mu    sync.Mutex                                             // guards the rest
	fault func(topic string, data []byte) (times int, err error) // nil: once, without error; data is nil for Subscribe
	subs  map[string]int
	calls int
	bytes int
}

func newWire() *wire { return &wire{Node: brokertest.NewMemory().Open(), subs: map[string]int{}} }

var errDown = errors.New("down")

// recovery is how long a hub takes after an outage, to try again and to let others come back.
const recovery = 4 * time.Second

func down(string, []byte) (int, error) { return 0, errDown }

// set changes what the broker does; nil: it works.
func (w *wire) set(fault func(topic string, data []byte) (int, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
}

func (w *wire) does(topic string, data []byte) (times int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if data != nil {
		w.calls++
		w.bytes += len(data)
	}
	if w.fault == nil {
		return 1, nil
	}
	return w.fault(topic, data)
}

func (w *wire) Publish(ctx context.Context, topic string, data []byte) error {
	times, err := w.does(topic, data)
	for range times {
		err = errors.Join(err, w.Node.Publish(ctx, topic, data))
	}
	return err
}

func (w *wire) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	if _, err := w.does(topic, nil); err != nil {
		return nil, err
	}
	stop, err := w.Node.Subscribe(ctx, topic, deliver, lost)
	if err == nil {
		w.count(topic, 1)
	}
	return func() {
		stop()
		w.count(topic, -1)
	}, err
}

func (w *wire) count(topic string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs[topic] += n
}

func (w *wire) subscribed(topic string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.subs[topic]
}

// traffic returns the calls of Publish since it was called last, and the bytes in them.
func (w *wire) traffic() (calls, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	calls, bytes = w.calls, w.bytes
	w.calls, w.bytes = 0, 0
	return calls, bytes
}

// nodes starts n hubs over w in a bubble, and shuts them down at its end.
func nodes(t *testing.T, w wsroom.Broker, n int, opts ...wsroom.Option) []*wsroom.Hub {
	t.Helper()
	hubs := make([]*wsroom.Hub, n)
	for i := range hubs {
		hubs[i] = wsroom.New(append(opts, wsroom.WithBroker(w), wsroom.WithHeartbeat(0, 0))...)
		t.Cleanup(func() { shutdown(t, hubs[i]) })
	}
	return hubs
}

func TestSendsMeanTheSameOnManyNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hubs := nodes(t, newWire(), 3)
		var names []string
		clients, conns := map[string]*wsroomtest.Client{}, map[string]*wsroom.Conn{}
		for i, hub := range hubs {
			for _, room := range []string{"/a", "/b", "/c"} {
				name := fmt.Sprint(room, i)
				names = append(names, name)
				clients[name] = wsroomtest.Dial(t, hub, room, wsroomtest.WithName(name))
				conns[name] = member(t, hub, room)
			}
		}
		for i := range hubs { // /c's are in all
			for _, room := range []string{"/a", "/b"} {
				if err := conns[fmt.Sprint("/c", i)].Join(room); err != nil {
					t.Fatal(err)
				}
			}
		}
		a0, c1, hub := conns["/a0"], conns["/c1"], hubs[2]
		for _, tc := range []struct {
			name string
			send func(text string) error
			want string // rooms whose clients get it, and those who don't
		}{
			{"Conn.SendText", a0.SendText, "only /a0"},
			{"Conn.SendTextToThisRoom", a0.SendTextToThisRoom, "/a /c"},
			{"Conn.SendTextToRoom", func(s string) error { return a0.SendTextToRoom("/b", s) }, "/b /c"},
			{"Conn.SendTextToAll", a0.SendTextToAll, "/a /b /c"},
			{"Hub.SendTextToRoom", func(s string) error { return hub.SendTextToRoom("/a", s) }, "/a /c"},
			{"Hub.SendTextToAll", hub.SendTextToAll, "/a /b /c"},
			{"To several, once each", hub.To("/a", "/b", "/a").SendText, "/a /b /c"},
			{"To none is to all", hub.To().SendText, "/a /b /c"},
			{"Except", hubs[0].To("/a", "/b").Except(a0).SendText, "/a /b /c but /a0"},
			{"Except, to all", hubs[1].To().Except(c1).SendText, "/a /b /c but /c1"},
			{"An empty room", hub.To("/nobody").SendText, ""},
		} {
			if err := tc.send(tc.name); err != nil {
				t.Errorf("%s: %v", tc.name, err)
			}
			synctest.Wait()
			for _, name := range names {
				room, but, _ := strings.Cut(tc.want, " but ")
				want := strings.Contains(room, name[:2]) && but != name
				if only, ok := strings.CutPrefix(tc.want, "only "); ok {
					want = only == name
				}
				if want {
					clients[name].ExpectText(tc.name)
				}
				clients[name].ExpectNothing()
			}
		}
		if err := hub.To("/a").Close(4001, "kicked"); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if name[:2] == "/b" {
				clients[name].ExpectNothing()
			} else if reason := clients[name].ExpectClose(4001); reason != "kicked" {
				t.Errorf("%s: reason %q", name, reason)
			}
		}
	})
}

// All members on all nodes see one order, and each sender's messages in the order sent.
func TestOneOrderAcrossNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hubs := nodes(t, newWire(), 3, wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}))
		var clients []*wsroomtest.Client
		for _, hub := range hubs {
			clients = append(clients, wsroomtest.DialN(t, 3, hub, "/a")...)
		}
		const each = 100
		var senders sync.WaitGroup
		for i, c := range clients {
			senders.Go(func() {
				for n := range each {
					c.SendText(fmt.Sprintf("%d %03d", i, n))
				}
			})
		}
		senders.Wait()
		synctest.Wait()
		first := clients[0].Drain()
		if len(first) != each*len(clients) {
			t.Fatalf("%d messages, want %d", len(first), each*len(clients))
		}
		for i := range clients {
			var own []string
			for _, text := range first {
				if strings.HasPrefix(text, fmt.Sprint(i, " ")) {
					own = append(own, text)
				}
			}
			if !slices.IsSorted(own) || len(own) != each {
				t.Errorf("of sender %d: %d messages, sorted: %v", i, len(own), slices.IsSorted(own))
			}
		}
		for i, c := range clients[1:] {
			if !slices.Equal(c.Drain(), first) {
				t.Errorf("client %d has seen another order", i+1)
			}
		}
	})
}

func TestHubsOfDifferentNamesShareNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		names := []string{"", "x", "x:room:y", "x%3Aroom%3Ay"}
		var clients []*wsroomtest.Client
		var hubs []*wsroom.Hub
		for _, name := range names {
			hub := nodes(t, w, 1, wsroom.WithName(name), wsroom.WithRoom(wsroom.ByPathValue("room")))[0]
			mux := muxOf("/{room}", hub)
			clients = append(clients, wsroomtest.Dial(t, mux, "/y:room:z"), wsroomtest.Dial(t, mux, "/z"))
			hubs = append(hubs, hub)
		}
		for i, hub := range hubs {
			if err := errors.Join(hub.SendTextToRoom("z", fmt.Sprint(i)), hub.SendTextToAll(fmt.Sprint(i, " all"))); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		for i := range hubs {
			if got := clients[2*i].Drain(); !slices.Equal(got, []string{fmt.Sprint(i, " all")}) {
				t.Errorf("y:room:z of %q got %q", names[i], got)
			}
			got := clients[2*i+1].Drain()
			slices.Sort(got)
			if !slices.Equal(got, []string{fmt.Sprint(i), fmt.Sprint(i, " all")}) {
				t.Errorf("z of %q got %q", names[i], got)
			}
		}
	})
}

// A node hears a room while it has members there, and for a little longer.
func TestSubscribedWhileThereAreMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		hub := nodes(t, w, 1)[0]
		const room, all = ":room:/a", ":all"
		want := func(when string, rooms, alls int) {
			t.Helper()
			synctest.Wait()
			if r, a := w.subscribed(room), w.subscribed(all); r != rooms || a != alls {
				t.Errorf("%s: %d subscriptions to the room, %d to all; want %d, %d", when, r, a, rooms, alls)
			}
		}
		want("before", 0, 0)
		c, d := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/b")
		want("joined", 1, 1)
		conn := member(t, hub, "/b")
		for range 3 {
			conn.Join("/a")
		}
		conn.Leave("/a")
		conn.Leave("/a")
		want("another came and went", 1, 1)
		c.CloseNow()
		time.Sleep(time.Second)
		want("lingers", 1, 1)
		conn.Join("/a")
		time.Sleep(10 * time.Second)
		want("came back", 1, 1)
		conn.Leave("/a")
		time.Sleep(10 * time.Second)
		want("left", 0, 1)
		d.CloseNow()
		time.Sleep(10 * time.Second)
		want("nobody is there", 0, 0)
		e := wsroomtest.Dial(t, hub, "/a")
		want("again", 1, 1)
		hub.SendTextToRoom("/a", "hello")
		e.ExpectText("hello")
		shutdown(t, hub)
		want("after Shutdown", 0, 0)
	})
}

// Who isn't let in costs the broker nothing, and a subscription that comes too late isn't kept.
func TestSubscriptionsNobodyNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{wire: newWire()}
		hub := nodes(t, w, 1, wsroom.WithMaxRooms(1), wsroom.WithHandshakeTimeout(time.Second))[0]
		wsroomtest.Dial(t, hub, "/a")
		for i := range 10 {
			wsroomtest.Refused(t, hub, fmt.Sprint("/b", i), 503)
		}
		if w.asked != 2 {
			t.Errorf("%d subscriptions, want those to all and to /a", w.asked)
		}
		hub = nodes(t, w, 1, wsroom.WithHandshakeTimeout(time.Second))[0]
		wsroomtest.Refused(t, hub, "/late", 503)
		synctest.Wait()
		time.Sleep(10 * time.Second)
		if n := w.subscribed(":room:/late"); n != 0 {
			t.Errorf("%d subscriptions to a room that nobody entered", n)
		}
	})
}

// slow is a broker that takes its time: to publish, and to subscribe to a room named /late.
type slow struct {
	*wire
	asked int // to subscribe
}

func (s *slow) Publish(ctx context.Context, topic string, data []byte) error {
	own := bytes.Clone(data)
	time.Sleep(10 * time.Millisecond)
	return s.wire.Publish(ctx, topic, own)
}

func (s *slow) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	s.asked++
	if strings.HasSuffix(topic, "/late") {
		time.Sleep(4 * time.Second)
	}
	return s.wire.Subscribe(context.WithoutCancel(ctx), topic, deliver, lost)
}

// What comes while the broker is busy goes out together, and nothing of it is lost.
func TestMessagesGatherWhileTheBrokerIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slow{wire: newWire()}
		hub := nodes(t, w, 1)[0]
		c := wsroomtest.Dial(t, hub, "/a")
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprint(i))
			if err := hub.SendTextToRoom("/a", want[i]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %d: %q", len(got), got)
		}
		if calls, _ := w.traffic(); calls > 15 {
			t.Errorf("%d calls, in 100 ms of 10 ms each", calls)
		}
	})
}

// An outage that is short is bridged: nothing is lost, doubled or out of order.
func TestShortOutageIsBridged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		gaps := make(chan string, 10)
		hubs := nodes(t, w, 2, noteGaps(gaps))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		want := []string{"0"}
		hubs[0].SendTextToRoom("/a", "0")
		synctest.Wait()
		w.set(down)
		for i := 1; i <= 100; i++ {
			if err := hubs[0].SendTextToRoom("/a", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			want = append(want, fmt.Sprint(i))
			time.Sleep(40 * time.Millisecond)
		}
		w.set(nil)
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
		hub := nodes(t, first, 1)[0]
		wsroomtest.Dial(t, hub, "/a")
		c := wsroomtest.Dial(t, nodes(t, second, 1)[0], "/a")
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

func noteGaps(gaps chan<- string) wsroom.Option {
	return wsroom.OnGap(func(room string, err error) { gaps <- room + ": " + err.Error() })
}

// wantGaps takes the gaps that have been reported, in any order.
func wantGaps(t *testing.T, gaps <-chan string, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for len(gaps) > 0 {
		got = append(got, <-gaps)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("gaps %q, want %q", got, want)
	}
}

// What was published although Publish failed, and is published again, comes once.
func TestRetriesDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, rnd := newWire(), rand.New(rand.NewPCG(1, 2))
		gaps := make(chan string, 10)
		hubs := nodes(t, w, 2, noteGaps(gaps))
		c := wsroomtest.Dial(t, hubs[1], "/a")
		w.set(func(string, []byte) (int, error) {
			if rnd.IntN(2) == 0 {
				return 1 + rnd.IntN(2), errDown
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
		w.set(nil)
		time.Sleep(recovery)
		if got := c.Drain(); !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		wantGaps(t, gaps)
	})
}

func TestLongOutageFailsSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		hubs := nodes(t, w, 2)
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		conn := member(t, hubs[0], "/a")
		w.set(down)
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
		w.set(nil)
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
		w := newWire()
		gaps := make(chan string, 10)
		hubs := nodes(t, w, 2, wsroom.WithOutage(wsroom.DeliverLocally), wsroom.WithBrokerBuffer(5*time.Second, 1000), noteGaps(gaps))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		hubs[0].SendTextToRoom("/a", "before")
		synctest.Wait()
		w.set(down)
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
		w.set(nil)
		time.Sleep(recovery)
		wantGaps(t, gaps, "/new: wsroom: broker: subscribed late")
		say()
		a.ExpectText(want[len(want)-1])
		b.ExpectText(append([]string{"before"}, want...)...)
		for _, c := range []*wsroomtest.Client{a, b, alone} {
			c.ExpectNothing()
		}

		w.set(down)
		for range 200 { // more than the buffer holds
			say()
		}
		time.Sleep(7 * time.Second)
		w.set(nil)
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

		w.set(func(string, []byte) (int, error) { return 0, nil })
		say()
		a.ExpectNothing() // it goes through the broker again
	})
}

func TestBrokerBufferIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		hub := nodes(t, w, 1, wsroom.WithBrokerBuffer(time.Hour, 10_000))[0]
		w.set(down)
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
		w.set(nil)
		time.Sleep(recovery)
		if err := hub.SendTextToRoom("/a", strings.Repeat("x", 20_000)); err != nil {
			t.Errorf("a message larger than the buffer, where nothing waits: %v", err)
		}
	})
}

// A broker that hangs holds up nobody who sends.
func TestHangingBrokerDoesNotBlockSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := nodes(t, hanging{newWire()}, 1)[0]
		c := wsroomtest.Dial(t, hub, "/a")
		begin := time.Now()
		for range 100 {
			if err := hub.SendTextToRoom("/a", "x"); err != nil {
				t.Fatal(err)
			}
		}
		member(t, hub, "/a").SendText("direct")
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

type hanging struct{ *wire }

func (h hanging) Publish(ctx context.Context, _ string, _ []byte) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestGapsAreReported(t *testing.T) {
	for name, tc := range map[string]struct {
		fault func(w *wire, hub *wsroom.Hub)
		want  []string
	}{
		"the broker says so": {func(w *wire, _ *wsroom.Hub) {
			w.Down()
			w.Up()
			synctest.Wait()
		}, []string{
			"/a: wsroom: broker: brokertest: the broker was away", "/b: wsroom: broker: brokertest: the broker was away",
			": wsroom: broker: brokertest: the broker was away",
		}},
		"a message is missing": {func(w *wire, hub *wsroom.Hub) {
			w.set(func(string, []byte) (int, error) { return 0, nil })
			hub.SendTextToRoom("/a", "never comes")
			synctest.Wait()
			w.set(nil)
		}, []string{"/a: wsroom: broker: messages are missing"}},
		"another version": {func(w *wire, _ *wsroom.Hub) {
			w.Publish(context.Background(), ":room:/a", []byte("\x02 what comes after this release"))
		}, []string{"/a: wsroom: broker: message of a version that isn't known: 2"}},
		"garbage": {func(w *wire, _ *wsroom.Hub) {
			w.Publish(context.Background(), ":room:/a", []byte("\x01 garbage garbage garbage"))
		}, []string{"/a: wsroom: broker: malformed message"}},
		"text that isn't UTF-8": {func(w *wire, hub *wsroom.Hub) {
			var sent []byte
			w.set(func(_ string, data []byte) (int, error) { sent = data; return 0, nil })
			wsroom.New(wsroom.WithBroker(w)).SendTextToRoom("/a", "text")
			synctest.Wait()
			w.set(nil)
			w.Publish(context.Background(), ":room:/a", bytes.Replace(sent, []byte("text"), []byte("te\xfft"), 1))
		}, []string{"/a: wsroom: broker: malformed message"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWire()
				gaps := make(chan string, 10)
				hubs := nodes(t, w, 1, noteGaps(gaps))
				c := wsroomtest.Dial(t, hubs[0], "/a")
				wsroomtest.Dial(t, hubs[0], "/b")
				hubs[0].SendTextToRoom("/a", "before")
				synctest.Wait()
				tc.fault(w, hubs[0])
				hubs[0].SendTextToRoom("/a", "after")
				slices.Sort(tc.want)
				wantGaps(t, gaps, tc.want...)
				c.ExpectText("before", "after")
			})
		})
	}
}

// limited is a broker that takes no more than 1000 bytes.
type limited struct{ *wire }

func (limited) MaxData() int { return 1000 }

func (l limited) Publish(ctx context.Context, topic string, data []byte) error {
	if len(data) > 1000 {
		return fmt.Errorf("too large: %w", rejected{errDown})
	}
	return l.wire.Publish(ctx, topic, data)
}

// A message that the broker never takes is an error of the send, where the broker says so before.
func TestMessageLargerThanTheBrokerTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gaps := make(chan string, 10)
		hub := nodes(t, limited{newWire()}, 1, noteGaps(gaps))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		target, taken := hub.To("/a", "/b", "/c").Except(member(t, hub, "/a")), 0
		for size := range 1100 {
			errs := []error{hub.SendTextToRoom("/a", strings.Repeat("x", size)), target.SendText(strings.Repeat("x", size))}
			if (errs[0] != nil) != (size > 923) || errs[1] != nil && size < 800 {
				t.Fatalf("%d bytes: %v", size, errs)
			}
			if errs[0] == nil {
				taken++
			}
			if size%10 == 0 { // in between they gather
				synctest.Wait()
			}
		}
		synctest.Wait()
		if got := c.Drain(); len(got) != taken {
			t.Errorf("%d of %d came", len(got), taken)
		}
		wantGaps(t, gaps)
	})
}

type rejected struct{ error }

func (rejected) Rejected() bool { return true }

// A message that the broker never takes holds up none behind it, and is missed.
func TestRejectedMessageIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		gaps := make(chan string, 10)
		hub := nodes(t, w, 1, noteGaps(gaps))[0]
		c := wsroomtest.Dial(t, hub, "/a")
		w.set(func(_ string, data []byte) (int, error) {
			if len(data) > 10_000 {
				return 0, fmt.Errorf("too large: %w", rejected{errDown})
			}
			return 1, nil
		})
		for _, text := range []string{"before", strings.Repeat("x", 20_000), "after"} {
			if err := hub.SendTextToRoom("/a", text); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		c.ExpectText("before", "after")
		wantGaps(t, gaps, "/a: wsroom: broker: too large: down")
	})
}

// What was accepted is delivered by Shutdown, on this node and the others, and so is what OnClose sends.
func TestShutdownFlushesWhatWasAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		var hubs []*wsroom.Hub
		hubs = nodes(t, w, 2, wsroom.OnClose(func(c *wsroom.Conn, err error) {
			if errors.Is(err, wsroom.ErrShutdown) {
				hubs[0].SendTextToRoom("/a", "bye")
			}
		}))
		a, b := wsroomtest.Dial(t, hubs[0], "/a"), wsroomtest.Dial(t, hubs[1], "/a")
		w.set(down)
		var want []string
		for i := range 10 {
			want = append(want, fmt.Sprint(i))
			hubs[0].SendTextToRoom("/a", want[i])
		}
		time.AfterFunc(200*time.Millisecond, func() { w.set(nil) })
		shutdown(t, hubs[0])
		a.ExpectText(want...)
		a.ExpectClose(1001)
		b.ExpectText(append(want, "bye")...)
		if err := hubs[0].SendTextToRoom("/a", "late"); !errors.Is(err, wsroom.ErrShutdown) {
			t.Errorf("a send after Shutdown: %v", err)
		}
	})
}

// Around a message the nodes add a few dozen bytes, and in a burst less.
func TestEnvelopesAreSmall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWire()
		hub := nodes(t, w, 1)[0]
		for range 1000 {
			hub.SendTextToRoom("/a", "0123456789")
			synctest.Wait()
		}
		if calls, bytes := w.traffic(); calls != 1000 || bytes/1000-10 > 32 {
			t.Errorf("%d calls, %d bytes for 1000 messages of 10", calls, bytes)
		}
		w.set(down)
		for range 1000 {
			hub.SendTextToRoom("/a", "0123456789")
		}
		synctest.Wait()
		w.set(nil)
		w.traffic()
		time.Sleep(2 * time.Second)
		if calls, bytes := w.traffic(); calls > 5 || bytes/1000-10 > 8 {
			t.Errorf("in a burst: %d calls, %d bytes for 1000 messages of 10", calls, bytes)
		}
	})
}
