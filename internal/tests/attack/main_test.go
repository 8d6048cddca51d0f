package attack_test

import (
	"os"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// TestMain fails the run if a goroutine of wsroom is left at its end.
func TestMain(m *testing.M) {
	switch { // tests start these in processes of their own
	case os.Getenv(attackersVariable) != "":
		runAttackers()
		return
	case os.Getenv(serverVariable) != "":
		runServer()
		return
	}
	os.Exit(wsroomtest.Main(m))
}
