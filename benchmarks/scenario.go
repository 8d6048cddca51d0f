package main

import (
	"context"
	"fmt"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
)

// What a scenario counts.
const (
	perMessage = "message" // delivered to one member
	perVisit   = "visit"   // a connection opened and closed
	perJoin    = "join"    // a room joined and left
	perNothing = ""        // memory only
)

// A scenario is one kind of work, the same for all libraries.
type scenario struct {
	name  string
	unit  string
	plan  load.Plan
	nodes int           // of libraries that have a broker, 0 for 1
	trip  time.Duration // between those nodes and their broker and back, beside what it takes on one machine
	idle  bool
	joins int // rooms that are there already
	// sendBuffer of the server's sockets, 0 for what the kernel finds best, which may be 4 MB.
	sendBuffer int
	secure     bool // over TLS
	only       []string
	warm       time.Duration
	measure    time.Duration
	traffic    func(context.Context, *load.Fleet) error
}

const window = 64 // messages on their way in a flooded room

// scenarios lists all of them; quick ones have fewer members or take less time.
func scenarios(quick bool) []scenario {
	all := append(floods(), paced(), rooms(), echo(), idle(8000), stalled(0), stalled(5), deflate())
	sizes, existing := []int{10, 100, 500, 2000, 10000}, []int{1, 1000, 100000}
	if quick {
		sizes, existing = []int{10, 1000}, []int{1, 10000}
	}
	for _, n := range sizes {
		all = append(all, growth(n))
	}
	for _, n := range existing {
		all = append(all, joins(n))
	}
	all = append(all, churn())
	all = append(all, overTLS(floods()[0], paced(), echo(), idle(2000))...)
	if quick {
		for i := range all {
			all[i].lighten()
		}
	}
	return all
}

// overTLS are the same scenarios over TLS, which net/http serves.
func overTLS(all ...scenario) []scenario {
	for i := range all {
		all[i].name, all[i].secure = "tls "+all[i].name, true
		all[i].only = []string{"wsroom", "gws", "melody"}
	}
	return all
}

// histories lists the scenarios in which a history is kept.
func histories(quick bool) []scenario {
	all := append(floods(), paced(), rooms())
	for i := range all {
		all[i].name = "history " + all[i].name
		if quick {
			all[i].lighten()
		}
	}
	return all
}

// lighten shortens a scenario for a quick run.
func (s *scenario) lighten() {
	s.warm /= 5
	s.measure /= 5
	if s.idle {
		s.plan.Rooms /= 4
	}
}

func flood(name string, plan load.Plan) scenario {
	plan.Rooms = 1
	return scenario{
		name: name, unit: perMessage, plan: plan, warm: time.Second, measure: 2 * time.Second,
		traffic: func(ctx context.Context, f *load.Fleet) error { return f.Flood(ctx, window, 1) },
	}
}

func floods() []scenario {
	return []scenario{
		flood("flood128", load.Plan{Members: 500, Size: 128}),
		flood("flood1k", load.Plan{Members: 500, Size: 1024}),
	}
}

// stalled has small socket buffers, so that it isn't the kernel that takes what stalled members
// don't, and a short warm-up, so that what happens to them is measured.
func stalled(members int) scenario {
	s := flood(fmt.Sprintf("stalled %d", members), load.Plan{Members: 500, Size: 1024, Stalled: members})
	s.sendBuffer, s.warm = 64<<10, s.warm/5
	return s
}

func deflate() scenario {
	return flood("deflate", load.Plan{Members: 500, Size: 1024, Prose: true, Deflate: true})
}

func growth(members int) scenario {
	s := flood(fmt.Sprintf("growth %d", members), load.Plan{Members: members, Size: 128})
	if members > 5000 { // one window takes the slowest seconds
		s.warm, s.measure = 3*s.warm, 3*s.measure
	}
	return s
}

func paced() scenario {
	return scenario{
		name: "paced", unit: perMessage, plan: load.Plan{Rooms: 1, Members: 1000, Size: 128},
		warm: time.Second, measure: 4 * time.Second,
		traffic: func(ctx context.Context, f *load.Fleet) error { return f.Pace(ctx, 20*time.Millisecond) },
	}
}

func rooms() scenario {
	return scenario{
		name: "rooms", unit: perMessage, plan: load.Plan{Rooms: 200, Members: 10, Size: 128},
		warm: time.Second, measure: 2 * time.Second,
		traffic: func(ctx context.Context, f *load.Fleet) error { return f.Flood(ctx, 4, 50) },
	}
}

func echo() scenario {
	return scenario{
		name: "echo", unit: perMessage, plan: load.Plan{Rooms: 64, Members: 1, Size: 128},
		warm: time.Second, measure: 2 * time.Second,
		traffic: func(ctx context.Context, f *load.Fleet) error { return f.Flood(ctx, 1, 64) },
	}
}

// idle waits until libraries have given back what a silent connection needn't hold: wsroom its goroutine after 5 s, and
// coder/websocket's part after a ping, which is sent after 24 s.
func idle(connections int) scenario {
	return scenario{
		name: "idle", unit: perNothing, plan: load.Plan{Rooms: connections / 10, Members: 10, Size: 128}, idle: true,
		warm: 35 * time.Second, measure: 2 * time.Second,
		traffic: func(ctx context.Context, _ *load.Fleet) error { <-ctx.Done(); return nil },
	}
}

func joins(rooms int) scenario {
	s := idle(10)
	s.name, s.unit, s.joins, s.idle = fmt.Sprintf("joins %d", rooms), perJoin, rooms, false
	s.only = []string{"wsroom", "centrifuge"}
	return s
}

func churn() scenario {
	return scenario{
		name: "churn", unit: perVisit, plan: load.Plan{Rooms: 1, Members: 200, Size: 128},
		warm: time.Second, measure: 2 * time.Second,
		traffic: func(ctx context.Context, f *load.Fleet) error {
			busy := make(chan error, 1)
			go func() { busy <- f.Pace(ctx, 20*time.Millisecond) }()
			err := f.Churn(ctx, 16)
			if paceErr := <-busy; err == nil {
				err = paceErr
			}
			return err
		},
	}
}
