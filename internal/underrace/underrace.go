// Package underrace tells a test whether the race detector slows it down, so that the test does less. It knows
// nothing else, and only tests and the packages that are for tests import it.
package underrace

import (
	"runtime/debug"
	"slices"
	"sync"
)

// On reports whether the program was built with the race detector.
var On = sync.OnceValue(func() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
})

// Or returns less under the race detector, and usual otherwise.
func Or[T any](less, usual T) T {
	if On() {
		return less
	}
	return usual
}
