// Package parked_test holds promises about connections that are silent, and therefore have no goroutine.
package parked_test

import (
	"os"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

// TestMain fails the run if a goroutine of wsroom is left at its end.
func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }
