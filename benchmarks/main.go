// Command benchmarks compares wsroom with what its users would pick instead, in one run and on the
// same work. It starts a server process for each library in turn, drives it from this process over
// loopback, checks every message, and prints one Markdown table and the ratios to wsroom.
//
//	go run ./benchmarks -quick
//	go run ./benchmarks -svg benchmarks/cpu.svg
//
// It needs Linux, and as many file descriptors as the largest scenario has connections.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// serverEnv, where it is set, makes this program one of the server processes.
const serverEnv = "WSROOM_BENCHMARKS_SERVER"

// A selection is what the flags ask for.
type selection struct {
	alone    comparison // of one node
	clusters comparison // of several
	kept     comparison // of a hub with and without a history
	far      comparison // of several nodes far from their broker
	herds    []server.Library
	million  million
	storms   []server.Library
	rounds   int
	svg      string
	profiles string
}

// A comparison is of all its libraries in all its scenarios.
type comparison struct {
	scenarios []scenario
	libraries []server.Library
}

// choose leaves what begins with one of the comma-separated prefixes.
func (c comparison) choose(names, libs string) comparison {
	return comparison{
		slices.DeleteFunc(slices.Clone(c.scenarios), func(sc scenario) bool { return !chosen(names, sc.name) }),
		slices.DeleteFunc(slices.Clone(c.libraries), func(l server.Library) bool { return !chosen(libs, l.Name) }),
	}
}

func (c comparison) empty() bool { return len(c.scenarios) == 0 || len(c.libraries) == 0 }

func main() {
	var err error
	if os.Getenv(serverEnv) != "" {
		err = server.Main(os.Args[1:], os.Stdin, os.Stdout)
	} else {
		err = compare(os.Args[1:])
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

func compare(args []string) error {
	s, err := parseFlags(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	start := time.Now()
	results := runAll(ctx, s, s.alone)
	if !s.alone.empty() {
		fmt.Println(resultTable(results))
		fmt.Println(ratioTable(results, s.alone.libraries))
	}
	if !s.kept.empty() {
		kept := runAll(ctx, s, s.kept)
		fmt.Println(resultTable(kept))
		fmt.Println(ratioTable(kept, s.kept.libraries))
	}
	if len(s.herds) > 0 {
		runHerds(ctx, s.rounds, s.herds)
	}
	if s.million.members > 0 {
		if err := runMillion(ctx, s.million); err != nil {
			return err
		}
	}
	if !s.clusters.empty() {
		together := runAll(ctx, s, s.clusters)
		fmt.Println(clusterTable(together))
		fmt.Println(ratioTable(together, s.clusters.libraries))
	}
	if !s.far.empty() {
		apart := runAll(ctx, s, s.far)
		fmt.Println(clusterTable(apart))
		fmt.Println(ratioTable(apart, s.far.libraries))
	}
	if len(s.storms) > 0 {
		runStorms(ctx, s.rounds, s.storms)
	}
	fmt.Fprintf(os.Stderr, "%d rounds in %v\n", s.rounds, time.Since(start).Round(time.Second))
	if s.svg != "" {
		if err := os.WriteFile(s.svg, chart(results, s.alone.libraries), 0o644); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func parseFlags(args []string) (selection, error) {
	flags := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "lighter scenarios and one round: under two minutes")
	names := flags.String("scenario", "", "only these scenarios, comma-separated; a prefix is enough")
	libs := flags.String("lib", "", "only these libraries, comma-separated; a prefix is enough")
	rounds := flags.Int("rounds", 0, "rounds, of which the table shows the medians (5, quick 1)")
	members := flags.Int("members", 1_000_000, "how many members scenario million is to have")
	svg := flags.String("svg", "", "also draw the processor time a message into this file")
	profiles := flags.String("profiles", "", "also write CPU profiles of the servers into this folder")
	if err := flags.Parse(args); err != nil {
		return selection{}, err
	}
	s := selection{svg: *svg, profiles: *profiles, rounds: cmp.Or(*rounds, 5)}
	if *quick && *rounds == 0 {
		s.rounds = 1
	}
	s.alone = comparison{scenarios(*quick), server.Libraries}.choose(*names, *libs)
	s.clusters = comparison{clusters(*quick), server.Clustered}.choose(*names, *libs)
	s.far = comparison{far(*quick), server.Distant}.choose(*names, *libs)
	s.kept = comparison{histories(*quick), server.Kept}.choose(*names, *libs)
	if chosen(*names, herdName) {
		s.herds = comparison{libraries: server.Returning}.choose("", *libs).libraries
	}
	if *names != "" && chosen(*names, millionName) && chosen(*libs, server.Libraries[0].Name) {
		s.million = millionOf(*members, *quick)
	}
	if chosen(*names, stormName) {
		s.storms = comparison{libraries: server.Distant}.choose("", *libs).libraries
	}
	nothing := s.alone.empty() && s.clusters.empty() && s.far.empty() && s.kept.empty() && len(s.herds)+len(s.storms) == 0 && s.million.members <= 0
	if nothing || s.rounds < 1 {
		return s, errors.New("nothing to run: see -scenario, -lib and -rounds")
	}
	return s, nil
}

// chosen says whether name begins with one of the comma-separated prefixes, or there are none.
func chosen(prefixes, name string) bool {
	if prefixes == "" {
		return true
	}
	return slices.ContainsFunc(strings.Split(prefixes, ","), func(p string) bool {
		return strings.HasPrefix(name, strings.TrimSpace(p))
	})
}
