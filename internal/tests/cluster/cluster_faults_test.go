package cluster_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// A connection that is ended while it is being entered takes nothing away from the others. At its full size
// (-hostile.full) it hits the moment for certain, by default most of the time.
func TestKickRacesWithUpgradesOnManyNodes(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithBroker(kit.NewWire()), wsroom.WithHeartbeat(0, 0)) }
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		witness := wsroomtest.Dial(t, hub, "/witness")
		others := hub.ToAll().Except(kit.Member(t, hub, "/witness"))
		var wg sync.WaitGroup
		var done atomic.Bool
		wg.Go(func() {
			for !done.Load() {
				if err := others.Close(4000, ""); err != nil {
					t.Error(err)
				}
				runtime.Gosched()
			}
		})
		for range kit.Scale(4000, 40_000) {
			conn, err := s.Ln.Dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(conn, kit.UpgradeRequest("/a"))
			conn.Read(make([]byte, 1))
			conn.Close()
		}
		done.Store(true)
		wg.Wait()
		time.Sleep(10 * time.Second)
		if err := hub.SendTextToAll("all"); err != nil {
			t.Fatal(err)
		}
		witness.ExpectText("all")
	})
}

// blocker is an Observer that holds up the delivery of messages.
type blocker struct{ gate atomic.Pointer[chan struct{}] }

func (b *blocker) Add(string, string, string, int) {}

func (b *blocker) Record(metric, _, _ string, _ float64) {
	if gate := b.gate.Load(); gate != nil && metric == wsroom.MetricFanOut {
		<-*gate
	}
}

// Who comes as the room's subscription ends gets nothing twice, by it and by the next.
func TestSubscriptionsDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, b := kit.NewWire(), new(blocker)
		hub := kit.Nodes(t, w, 1, wsroom.WithObserver(b))[0]
		home := wsroomtest.Dial(t, hub, "/home")
		conn := kit.Member(t, hub, "/home")
		conn.Join("/a")
		conn.Leave("/a")
		gate := make(chan struct{})
		b.gate.Store(&gate)
		hub.SendTextToRoom("/a", "before")
		synctest.Wait()
		time.Sleep(2 * time.Second) // the subscription's end is due
		for range 1000 {
			runtime.Gosched()
		}
		conn.Join("/a")
		b.gate.Store(nil)
		for i := range 3 {
			hub.SendTextToRoom("/a", fmt.Sprint(i))
			for range 1000 {
				runtime.Gosched()
			}
		}
		close(gate)
		home.ExpectText("0", "1", "2")
		home.ExpectNothing()
	})
}

// deaf is a broker that subscribes to nothing.
type deaf struct{ *kit.Wire }

func (d deaf) Subscribe(ctx context.Context, _ string, _ func([]byte), _ func(error)) (func(), error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// With DeliverLocally who comes while the broker hangs is let in when that isn't bridged any more.
func TestHangingSubscribeLetsMembersIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := kit.Nodes(t, deaf{kit.NewWire()}, 1, wsroom.WithOutage(wsroom.DeliverLocally), wsroom.WithBrokerBuffer(time.Second, 1<<20))[0]
		begin := time.Now()
		wsroomtest.Dial(t, hub, "/a")
		if err := kit.Member(t, hub, "/a").Join("/b"); err != nil || time.Since(begin) > 4*time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		hub = kit.Nodes(t, deaf{kit.NewWire()}, 1, wsroom.WithBrokerBuffer(time.Second, 1<<20))[0]
		wsroomtest.Refused(t, hub, "/a", 503)
	})
}

// What was delivered locally doesn't come again, however many nodes are heard meanwhile.
func TestManyNodesDoubleNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1, wsroom.WithOutage(wsroom.DeliverLocally))[0]
		a := wsroomtest.Dial(t, hub, "/a")
		w.Set(kit.Down)
		hub.SendTextToRoom("/a", "local")
		time.Sleep(7 * time.Second)
		a.ExpectText("local")
		for i := range 1100 {
			if err := w.Node.Publish(t.Context(), ":room:/a", kit.FirstEnvelope(uint64(i), "x")); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(a.Drain()); n != 1100 {
			t.Errorf("%d messages of other nodes, want 1100", n)
		}
		w.Set(nil)
		time.Sleep(recovery)
		a.ExpectNothing()
	})
}

// A message that the broker rejects excuses no other node's loss.
func TestRejectionExcusesNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		gaps := make(chan string, 10)
		hub, other := kit.Nodes(t, w, 1, noteGaps(gaps))[0], kit.Nodes(t, w, 1)[0]
		a := wsroomtest.Dial(t, hub, "/a")
		send := func(hub *wsroom.Hub, text string, times int, err error) {
			w.Set(func(string, []byte) (int, error) { return times, err })
			hub.SendTextToRoom("/a", text)
			synctest.Wait()
		}
		send(other, "1", 1, nil)
		send(hub, "2", 0, rejected{kit.ErrDown})
		wantGaps(t, gaps, "/a: wsroom: broker: down")
		send(other, "3", 0, nil)
		send(other, "4", 1, nil)
		a.ExpectText("1", "4")
		wantGaps(t, gaps, "/a: wsroom: broker: messages are missing")
	})
}

// Once the broker is back everything goes by way of it, in a room whose messages found no space, too.
func TestLocalDeliveryEndsWithTheOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := kit.NewWire()
		hub := kit.Nodes(t, w, 1, wsroom.WithOutage(wsroom.DeliverLocally), wsroom.WithBrokerBuffer(time.Hour, 1000))[0]
		a := wsroomtest.Dial(t, hub, "/a")
		w.Set(kit.Down)
		hub.SendTextToRoom("/full", strings.Repeat("x", 1000))
		hub.SendTextToRoom("/a", "local")
		a.ExpectText("local")
		w.Set(nil)
		time.Sleep(recovery)
		w.Set(func(string, []byte) (int, error) { return 0, nil })
		hub.SendTextToRoom("/a", "lost")
		a.ExpectNothing()
	})
}

// Who leaves a room and comes back gets nothing again that waits for the broker, or is published again.
func TestComingBackDoublesNothing(t *testing.T) {
	for name, fault := range map[string]func(string, []byte) (int, error){
		"local": kit.Down,
		"again": func(_ string, data []byte) (int, error) {
			if data == nil { // members come and go
				return 1, nil
			}
			return min(len(data)-kit.EnvelopeSize, 1), kit.ErrDown // probes don't arrive, messages do
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, gaps := kit.NewWire(), make(chan string, 10)
				hub := kit.Nodes(t, w, 1, wsroom.WithOutage(wsroom.DeliverLocally), noteGaps(gaps))[0]
				a := wsroomtest.Dial(t, hub, "/a")
				conn := kit.Member(t, hub, "/a")
				conn.Join("/b")
				w.Set(fault)
				hub.SendTextToRoom("/b", "once")
				time.Sleep(10 * time.Second)
				a.ExpectText("once")
				conn.Leave("/b")
				time.Sleep(5 * time.Second)
				w.Set(nil)
				if conn.Join("/b"); conn.Rooms()[1] != "/b" {
					t.Error("it isn't back")
				}
				time.Sleep(recovery)
				hub.SendTextToRoom("/b", "then")
				a.ExpectText("then")
				a.ExpectNothing()
				wantGaps(t, gaps)
			})
		})
	}
}
