package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// runLimit bounds one run, whatever hangs.
const runLimit = 2 * time.Minute

// runAll runs a comparison, the libraries in turn within each round, so that what else the machine does
// hits all of them alike.
func runAll(ctx context.Context, s selection, c comparison) []result {
	var results []result
	for _, sc := range c.scenarios {
		rounds := make([][]figures, len(c.libraries))
		for round := range s.rounds {
			for i, lib := range c.libraries {
				if ctx.Err() != nil {
					return results
				}
				start := time.Now()
				f := runOnce(ctx, sc, lib, s.profiles)
				fmt.Fprintf(os.Stderr, "%d/%d %-15s %-16s %5.1f s %s\n", round+1, s.rounds, sc.name, lib.Name, time.Since(start).Seconds(), f.summary())
				rounds[i] = append(rounds[i], f)
			}
		}
		for i, lib := range c.libraries {
			results = append(results, result{sc, lib, medians(rounds[i])})
		}
	}
	return results
}

// runOnce runs one scenario against one library and turns an error into a note.
func runOnce(ctx context.Context, sc scenario, lib server.Library, profiles string) figures {
	if sc.plan.Deflate && !lib.Deflates || sc.only != nil && !slices.Contains(sc.only, lib.Name) {
		return figures{note: notApplicable}
	}
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	r := run{scenario: sc}
	defer r.stop()
	err := r.start(ctx, lib, profiles)
	if err == nil {
		err = r.run(ctx, lib.Dialect)
	}
	if err != nil {
		r.figures.note = noteOf(err)
	}
	return r.figures
}

func noteOf(err error) string {
	if errors.Is(err, load.ErrStuck) {
		return "stands still"
	}
	return err.Error()
}

// A run is one scenario against one library's server processes, and its broker where it has one.
type run struct {
	scenario
	broker  broker
	delay   *delay // nil: none
	servers []*serverProcess
	fleet   *load.Fleet
	figures figures
}

func (r *run) start(ctx context.Context, lib server.Library, profiles string) (err error) {
	if lib.Missing != nil {
		if err := lib.Missing(); err != nil {
			return err
		}
	}
	nodes := 1
	if lib.Broker != "" {
		if r.broker, err = startBroker(ctx, lib.Broker); err != nil {
			return err
		}
		nodes = r.nodes
		if err := r.moveAway(); err != nil {
			return err
		}
	}
	for node := range nodes {
		args := []string{"-lib", lib.Name, fmt.Sprint("-deflate=", r.plan.Deflate), fmt.Sprint("-idle=", r.idle),
			fmt.Sprint("-sendbuffer=", r.sendBuffer), fmt.Sprint("-tls=", r.secure), "-broker", r.broker.addr}
		if profiles != "" {
			file := strings.ReplaceAll(fmt.Sprintf("%s-%s", r.name, lib.Name), " ", "-")
			if nodes > 1 {
				file += fmt.Sprint("-", node)
			}
			args = append(args, "-cpuprofile", filepath.Join(profiles, file+".pprof"))
		}
		p, err := startServer(ctx, args...)
		if err != nil {
			return err
		}
		r.servers = append(r.servers, p)
	}
	return nil
}

// moveAway puts the scenario's distance between the nodes and their broker.
func (r *run) moveAway() (err error) {
	if r.trip == 0 {
		return nil
	}
	if r.delay, err = newDelay(r.broker.addr, r.trip/2); err == nil {
		r.broker.addr = r.delay.addr()
	}
	return err
}

func (r *run) stop() {
	for _, p := range r.servers {
		p.stop()
	}
	if r.delay != nil {
		r.delay.close()
	}
	if r.broker.stop != nil {
		r.broker.stop()
	}
}

// ask sends one command to all servers and returns what they have used by then, together.
func (r *run) ask(command string) (sum server.Usage, err error) {
	for _, p := range r.servers {
		u, err := p.ask(command)
		if err != nil {
			return sum, err
		}
		sum = sum.Plus(u)
	}
	return sum, nil
}

func (r *run) run(ctx context.Context, dialect load.Dialect) error {
	empty, err := r.ask("free")
	if err != nil {
		return err
	}
	var addrs []string
	plan := r.plan
	for _, p := range r.servers {
		addrs = append(addrs, p.addr)
		if p.trusted != nil {
			plan.Trusted = append(plan.Trusted, p.trusted)
		}
	}
	if r.fleet, err = load.Connect(ctx, addrs, dialect, plan); err != nil {
		return err
	}
	err = r.work(ctx)
	if full, ferr := r.ask("free"); ferr == nil {
		r.figures.memory = float64(full.Resident-empty.Resident) / float64(r.fleet.Len())
	}
	r.fleet.Close()
	r.figures.add(r.fleet.Totals())
	return err
}

// work lets the members in, measures, and waits for the last messages.
func (r *run) work(ctx context.Context) error {
	settling, cancel := context.WithTimeout(ctx, runLimit/4)
	defer cancel()
	if err := r.fleet.Settle(settling); err != nil {
		return err
	}
	if r.joins > 0 {
		return r.measureJoins()
	}
	if err := r.measureTraffic(ctx); err != nil {
		return err
	}
	return r.fleet.Drain(ctx)
}

func (r *run) measureTraffic(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- r.traffic(ctx, r.fleet) }()
	if err := wait(r.warm, done); err != nil {
		return err
	}
	before, err := r.mark("begin", r.fleet.Begin)
	if err != nil {
		return err
	}
	if err := wait(r.scenario.measure, done); err != nil {
		return err
	}
	after, err := r.mark("end", r.fleet.End)
	if err != nil {
		return err
	}
	r.figures.measure(before, after)
	stop()
	return <-done
}

// wait lasts for d, or until the traffic ends by itself, which only an error makes it do.
func wait(d time.Duration, done <-chan error) error {
	select {
	case <-time.After(d):
		return nil
	case err := <-done:
		return errors.Join(errors.New("the load stopped"), err)
	}
}

// measureJoins lets the server join and leave by itself; there is no traffic.
func (r *run) measureJoins() error {
	const times = 20000
	if _, err := r.ask(fmt.Sprint("joins ", r.joins, " 1")); err != nil {
		return err
	}
	before, err := r.mark("begin", r.fleet.Begin)
	if err != nil {
		return err
	}
	if _, err := r.ask(fmt.Sprint("joins 0 ", times)); err != nil {
		return err
	}
	after, err := r.mark("end", r.fleet.End)
	after.units = before.units + times
	r.figures.measure(before, after)
	return err
}

// A mark is one end of the measured interval.
type mark struct {
	at     time.Time
	usage  server.Usage
	units  uint64
	load   time.Duration // processor time of this process
	broker time.Duration // of the broker
}

func (r *run) mark(command string, delivered func() uint64) (m mark, err error) {
	if m.usage, err = r.ask(command); err != nil {
		return m, err
	}
	if m.broker, err = r.broker.time(); err != nil {
		return m, err
	}
	m.at, m.units, m.load = time.Now(), delivered(), ownTime()
	if r.unit == perVisit {
		m.units = r.fleet.Cycles()
	}
	return m, nil
}

func ownTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
