package scale_test

import (
	"os"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// TestMain fails the run if a goroutine of wsroom is left at its end.
func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }
