package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// distances are the round trips between the nodes and their broker.
var distances = []time.Duration{0, 10 * time.Millisecond, 50 * time.Millisecond}

// far lists the scenarios in which the broker is far away: many small rooms with little traffic in each.
func far(quick bool) []scenario {
	var all []scenario
	for _, d := range distances {
		s := clusterPaced(2)
		s.name, s.trip, s.only = fmt.Sprintf("distance %d", d.Milliseconds()), d, []string{"wsroom redis", "centrifuge redis"}
		s.plan.Rooms, s.plan.Members = 1000, 2
		s.traffic = func(ctx context.Context, f *load.Fleet) error { return f.Pace(ctx, time.Millisecond) }
		if quick {
			s.lighten()
		}
		all = append(all, s)
	}
	return all
}

// A storm is of clients that all lose a node, and come to another one at once. Each is alone in its room, so that
// node subscribes to as many rooms.
const (
	stormName    = "storm"
	stormClients = 5000
	stormDialers = 1000
)

// stormFigures are what one storm has cost.
type stormFigures struct {
	all, p50, p99 time.Duration // until all were in their rooms, and until one was
	cpu, broker   time.Duration // of the node and of the broker, for a client
	note          string
}

// runStorms has the clients of each library come back, over each distance, and prints a table.
func runStorms(ctx context.Context, rounds int, libraries []server.Library) {
	rows := [][]string{{"scenario", "library", "all in after ms", "p50 ms", "p99 ms", "CPU µs a client", "broker's", ""}}
	for _, d := range distances {
		figures := make([][]stormFigures, len(libraries))
		for round := range rounds {
			for i, lib := range libraries {
				f, err := runStorm(ctx, lib, d, stormClients)
				if err != nil {
					f.note = err.Error()
				}
				fmt.Fprintf(os.Stderr, "%d/%d %s %-5d %-16s %+v\n", round+1, rounds, stormName, d.Milliseconds(), lib.Name, f)
				figures[i] = append(figures[i], f)
			}
		}
		for i, lib := range libraries {
			slices.SortFunc(figures[i], func(a, b stormFigures) int { return int(a.cpu - b.cpu) })
			f := figures[i][len(figures[i])/2]
			rows = append(rows, []string{fmt.Sprintf("%s %d", stormName, d.Milliseconds()), lib.Name,
				number(f.all.Seconds() * 1e3), number(f.p50.Seconds() * 1e3), number(f.p99.Seconds() * 1e3),
				number(micros(f.cpu)), number(micros(f.broker)), f.note})
		}
	}
	fmt.Println(markdown(rows, 2))
}

// runStorm measures one. At its end each client must get a message of its room.
func runStorm(ctx context.Context, lib server.Library, trip time.Duration, clients int) (f stormFigures, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	r := run{scenario: scenario{name: stormName, nodes: 2, trip: trip}}
	defer r.stop()
	if err := r.start(ctx, lib, ""); err != nil {
		return f, err
	}
	plan := load.Plan{Rooms: clients, Members: 1, Size: 128, Dialers: stormDialers}
	before, err := load.Connect(ctx, []string{r.servers[0].addr}, lib.Dialect, plan)
	if err != nil {
		return f, err
	}
	before.Close()

	begin, err := r.stormMark()
	if err != nil {
		return f, err
	}
	after, err := load.Connect(ctx, []string{r.servers[1].addr}, lib.Dialect, plan)
	if err != nil {
		return f, err
	}
	defer after.Close()
	end, err := r.stormMark()
	if err != nil {
		return f, err
	}
	joining := after.Joining()
	f.all, f.p50, f.p99 = joining.Max(), joining.Quantile(0.5), joining.Quantile(0.99)
	f.cpu = (end.usage.User + end.usage.System - begin.usage.User - begin.usage.System) / time.Duration(clients)
	f.broker = (end.broker - begin.broker) / time.Duration(clients)
	return f, after.Settle(ctx)
}

// stormMark is what the node to which the clients come, and the broker, have used so far.
func (r *run) stormMark() (m mark, err error) {
	if m.usage, err = r.servers[1].ask("begin"); err != nil {
		return m, err
	}
	m.broker, err = r.broker.time()
	return m, err
}

// A delay is a server that stands for another one further away. What goes either way arrives later, however
// much it is.
type delay struct {
	listener net.Listener
	to       string
	oneWay   time.Duration

	mu      sync.Mutex // guards what follows
	conns   []net.Conn
	closed  bool
	running sync.WaitGroup
}

func newDelay(to string, oneWay time.Duration) (*delay, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &delay{listener: listener, to: to, oneWay: oneWay}
	d.running.Go(d.accept)
	return d, nil
}

func (d *delay) addr() string { return d.listener.Addr().String() }

func (d *delay) close() {
	_ = d.listener.Close()
	d.mu.Lock()
	d.closed = true
	for _, c := range d.conns {
		_ = c.Close()
	}
	d.mu.Unlock()
	d.running.Wait()
}

func (d *delay) accept() {
	for {
		near, err := d.listener.Accept()
		if err != nil {
			return // it is closed
		}
		far, err := net.Dial("tcp", d.to)
		if err != nil || !d.keep(near, far) {
			_ = near.Close()
			if far != nil {
				_ = far.Close()
			}
			continue
		}
		d.running.Go(func() { d.carry(near, far) })
		d.running.Go(func() { d.carry(far, near) })
	}
}

func (d *delay) keep(conns ...net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns = append(d.conns, conns...)
	return !d.closed
}

// parcel is what was read at once, and when it is to arrive.
type parcel struct {
	due  time.Time
	data []byte
}

// carry carries what comes from one connection to another. Reading never waits for writing, unless 65,536
// parcels are under way.
func (d *delay) carry(from, to net.Conn) {
	parcels := make(chan parcel, 1<<16)
	d.running.Go(func() {
		for p := range parcels {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				_ = from.Close()
			}
		}
		_ = to.Close()
	})
	defer close(parcels)
	buf := make([]byte, 256<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			parcels <- parcel{time.Now().Add(d.oneWay), slices.Clone(buf[:n])}
		}
		if err != nil {
			return
		}
	}
}
