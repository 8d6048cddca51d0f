// Package quiet has tests run with connections that are parked sooner than they would be.
package quiet

import (
	"os"
	"time"

	"github.com/wsroom/wsroom/internal/line"
)

// Where the environment has WSROOM_QUIET, such as 0s, connections are parked after that time of silence. So tests of
// everything else are tests of parked connections, too.
func init() {
	if text, ok := os.LookupEnv("WSROOM_QUIET"); ok {
		quiet, err := time.ParseDuration(text)
		if err != nil {
			panic(err)
		}
		line.SetQuiet(max(quiet, 1))
	}
}
