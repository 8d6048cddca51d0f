package attack_test

import (
	"os"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// TestMain fails the run if a goroutine of wsroom is left at its end.
func TestMain(m *testing.M) {
	switch { // what tests start in a process of its own
	case os.Getenv(siegeVariable) != "":
		laySiege()
		return
	case os.Getenv(serverVariable) != "":
		runServer()
		return
	}
	os.Exit(wsroomtest.Main(m))
}
