package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// distant is a broker that takes 20 ms to subscribe, and for ever for a room named /never.
type distant struct {
	*kit.Wire
	now, most atomic.Int32 // calls of Subscribe at the same time
}

func (d *distant) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	defer d.now.Add(-1)
	d.most.Store(max(d.most.Load(), d.now.Add(1)))
	if strings.HasSuffix(topic, "/never") {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(20 * time.Millisecond)
	return d.Wire.Subscribe(ctx, topic, deliver, lost)
}

// To join many rooms takes as long as to join one: the hub subscribes to all of them at the same time.
func TestJoinSubscribesToAllRoomsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &distant{Wire: kit.NewWire()}
		hub := kit.Nodes(t, broker, 1)[0]
		begin := time.Now()
		client := wsroomtest.Dial(t, hub, "/a")
		kit.WantBetween(t, "connected", time.Since(begin), 20*time.Millisecond, 20*time.Millisecond)

		c := kit.Member(t, hub, "/a")
		var rooms []string
		for i := range 10 {
			rooms = append(rooms, fmt.Sprint("room ", i))
		}
		begin = time.Now()
		if err := c.Join(rooms...); err != nil {
			t.Fatal(err)
		}
		kit.WantBetween(t, "10 rooms joined", time.Since(begin), 20*time.Millisecond, 20*time.Millisecond)
		if n := broker.most.Load(); n != 10 {
			t.Errorf("%d subscriptions at the same time", n)
		}
		for _, room := range rooms {
			hub.SendTextToRoom(room, room)
			client.ExpectText(room)
		}
	})
}

// A room that is joined again holds one subscription, which ends when it is left.
func TestJoiningAgainHoldsNoSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &distant{Wire: kit.NewWire()}
		hub := kit.Nodes(t, broker, 1)[0]
		wsroomtest.Dial(t, hub, "/a")
		c := kit.Member(t, hub, "/a")
		for _, rooms := range [][]string{{"b"}, {"b"}, {"c", "b", "c", "/a"}} {
			if err := c.Join(rooms...); err != nil {
				t.Fatal(err)
			}
		}
		for _, room := range c.Rooms() {
			c.Leave(room)
		}
		time.Sleep(time.Minute)
		for _, room := range []string{"/a", "b", "c"} {
			if n := broker.Subscribed(":room:" + room); n != 0 {
				t.Errorf("%d subscriptions of %s are left", n, room)
			}
		}
	})
}

// If the broker doesn't take one of the subscriptions, Join joins none, after the time for one room.
func TestJoinOfManyRoomsWaitsForOneOutage(t *testing.T) {
	for _, outage := range []wsroom.Outage{wsroom.Fail, wsroom.DeliverLocally} {
		synctest.Test(t, func(t *testing.T) {
			broker := &distant{Wire: kit.NewWire()}
			hub := kit.Nodes(t, broker, 1, wsroom.WithOutage(outage), wsroom.WithBrokerBuffer(3*time.Second, 1<<20))[0]
			wsroomtest.Dial(t, hub, "/a")
			c := kit.Member(t, hub, "/a")
			begin := time.Now()
			err := c.Join("b", "1/never", "2/never", "3/never")
			kit.WantBetween(t, "Join returned", time.Since(begin), 3*time.Second, 3*time.Second)
			if outage == wsroom.DeliverLocally {
				if err != nil || len(c.Rooms()) != 5 {
					t.Errorf("%v; it is in %q", err, c.Rooms())
				}
				return
			}
			if !errors.Is(err, wsroom.ErrOutage) || len(c.Rooms()) != 1 {
				t.Errorf("%v; it is in %q", err, c.Rooms())
			}
			time.Sleep(time.Minute) // unused subscriptions end
			if n := broker.Subscribed(":room:b"); n != 0 {
				t.Errorf("%d subscriptions are left", n)
			}
		})
	}
}
