package watch_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// propagator is an Observer, Tracer and Propagator that keeps the names of spans, with the trace that each is
// in.
type propagator struct {
	kit.Observer
	mu    sync.Mutex
	spans []string
}

type traceKey struct{}

func inTrace(trace string) context.Context {
	return context.WithValue(context.Background(), traceKey{}, trace)
}

func (p *propagator) Start(ctx context.Context, name, _ string) (context.Context, func(error)) {
	trace, _ := ctx.Value(traceKey{}).(string)
	return ctx, func(err error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.spans = append(p.spans, fmt.Sprint(name, " in ", trace))
	}
}

func (p *propagator) Inject(ctx context.Context) string {
	trace, _ := ctx.Value(traceKey{}).(string)
	return trace
}

func (p *propagator) Extract(ctx context.Context, trace string) context.Context {
	return context.WithValue(ctx, traceKey{}, trace)
}

// take returns the spans that have ended since it was called last, without those of upgrades.
func (p *propagator) take() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	spans := slices.DeleteFunc(p.spans, func(s string) bool { return strings.HasPrefix(s, "upgrade") })
	slices.Sort(spans)
	p.spans = nil
	return strings.Join(spans, ", ")
}

// heardRoom makes a hub hear its rooms.
var heardRoom = wsroom.OnRoomMessage(func(string, websocket.MessageType, []byte) {})

// A message of a trace is traced where it is delivered, on each node that receives it. Others aren't.
func TestTracesGoOnBehindMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := brokertest.NewMemory()
		var seen [3]propagator
		var hubs [3]*wsroom.Hub
		for i := range hubs {
			seen[i].Sums = map[string]float64{}
			hubs[i] = kit.Nodes(t, server.Open(), 1, wsroom.WithObserver(&seen[i]), heardRoom)[0]
		}
		client := wsroomtest.Dial(t, hubs[1], "/a")
		wsroomtest.Dial(t, hubs[2], "/b")
		trace := strings.Repeat("x", 255)
		for _, tc := range []struct {
			what string
			to   wsroom.Target
			want string
		}{
			{"a trace", hubs[0].To("/a").Context(inTrace("1")), "OnRoomMessage in 1, deliver in 1"},
			{"as long as may be", hubs[0].To("/a").Context(inTrace(trace)), "OnRoomMessage in " + trace + ", deliver in " + trace},
			{"too long", hubs[0].To("/a").Context(inTrace(trace + "x")), "OnRoomMessage in "},
			{"none in the context", hubs[0].To("/a").Context(context.Background()), "OnRoomMessage in "},
			{"no context", hubs[0].To("/a"), "OnRoomMessage in "},
			{"beside Except", hubs[0].To("/c", "/a").Context(inTrace("2")).Except(kit.Member(t, hubs[2], "/b")), "OnRoomMessage in 2, deliver in 2"},
			{"from this node", hubs[1].To("/a").Context(inTrace("3")), "OnRoomMessage in 3, deliver in 3"},
			{"to all", hubs[0].ToAll().Context(inTrace("4")), "deliver in 4"},
		} {
			if err := tc.to.SendText(tc.what); err != nil {
				t.Fatal(err)
			}
			client.ExpectText(tc.what)
			if got := seen[1].take(); got != tc.want {
				t.Errorf("%s: %s, want %s", tc.what, got, tc.want)
			}
			want := ""
			if tc.what == "to all" {
				want = tc.want
			}
			if got := seen[2].take(); got != want {
				t.Errorf("%s: on the node without members %s", tc.what, got)
			}
		}
		hubs[0].To("/a").Context(inTrace("5")).Close(4000, "")
		client.ExpectClose(4000)
		if got := seen[1].take(); got != "" {
			t.Errorf("a close: %s", got)
		}
	})
}

// Without a broker, too. An Observer that is no Propagator sees nothing of it.
func TestTracesGoOnWithoutABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen propagator
		seen.Sums = map[string]float64{}
		for what, o := range map[string]wsroom.Observer{
			"all": &seen,
			"no Propagator": struct {
				wsroom.Observer
				wsroom.Tracer
			}{&seen, &seen},
			"no Tracer": struct {
				wsroom.Observer
				wsroom.Propagator
			}{&seen, &seen},
		} {
			hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithObserver(o), wsroom.WithHeartbeat(0, 0), heardRoom))
			client := wsroomtest.Dial(t, hub, "/a")
			hub.To("/a").Context(inTrace("1")).SendText("x")
			client.ExpectText("x")
			want := map[string]string{"all": "OnRoomMessage in 1, deliver in 1", "no Propagator": "OnRoomMessage in "}[what]
			if got := seen.take(); got != want {
				t.Errorf("%s: %s, want %s", what, got, want)
			}
		}
	})
}
