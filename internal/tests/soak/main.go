// Command soak runs hubs under load for as long as it is told and accounts for every message.
//
// Members come from many addresses, some over a bad network; they chat, come and go, stop reading,
// flood and break the protocol. For each message and each connection that it was sent to, the account
// says that it was delivered, or reported by OnDrop, or that the connection had ended, and how; that
// none came twice or out of its room's order; and at the end, that nothing is left of it all. It
// prints the account and exits with 1 if it doesn't add up.
//
//	go run ./soak -members 2000 -for 10m
//	go run -race ./soak -members 1000 -for 10m
//	WSROOM_QUIET=0s go run ./soak -members 2000 -for 10m
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"time"

	_ "github.com/wsroom/wsroom/internal/tests/quiet"
)

func main() {
	members := flag.Int("members", 2000, "connections at a time")
	length := flag.Duration("for", time.Minute, "how long")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s := run(ctx, plan{members: *members, length: *length})
	s.report(os.Stdout)
	if s.sums.wrong > 0 {
		os.Exit(1)
	}
}

// report prints the account as Markdown.
func (s *soak) report(w io.Writer) {
	fmt.Fprintf(w, "%d members for %v\n\n| messages × receivers | |\n| --- | ---: |\n", s.members, s.length)
	row := func(what string, n int) { fmt.Fprintf(w, "| %s | %d |\n", what, n) }
	row("due", s.sums.due)
	row("delivered", s.sums.delivered)
	row("dropped, as reported", s.sums.dropped)
	for _, end := range slices.Sorted(maps.Keys(s.sums.ended)) {
		row("connection had ended: "+end, s.sums.ended[end])
	}
	row("what doesn't add up", s.sums.wrong)
	fmt.Fprintf(w, "\n| connections | |\n| --- | ---: |\n")
	row("opened", s.sums.conns)
	for _, end := range slices.Sorted(maps.Keys(s.sums.ends)) {
		row("ended: "+end, s.sums.ends[end])
	}
	row("too slow for the close frame", s.sums.late)
	row("cut by the network", int(s.proxy.cuts.Load()))
	fmt.Fprintf(w, "\nAt most %d goroutines, %d files, %d MiB of heap.\n", s.peak.goroutines, s.peak.files, s.peak.heap>>20)
	for _, fault := range s.sums.faults {
		fmt.Fprintf(w, "\n- %s\n", fault)
	}
}
