package kit

import (
	"flag"

	"github.com/wsroom/wsroom/internal/underrace"
)

// full is for the attacks at the size of SECURITY.md's figures: go test -run Hostile . -hostile.full.
// By default they are smaller, and take seconds.
var full = flag.Bool("hostile.full", false, "run the attacks at their full size")

// Scale returns large with the flag -hostile.full, else small.
func Scale(small, large int) int {
	if *full {
		return large
	}
	return small
}

// UnderRace reports whether the race detector slows everything down.
func UnderRace() bool { return underrace.On() }
