package wsroomtest_test

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/wsroom/wsroom/wsroomtest"
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// recorder is a testing.TB whose failures are what is tested.
type recorder struct {
	testing.TB // the real one, for its name and context

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// record runs f, and its cleanups, as a test of its own would be, and returns its failures.
func record(t testing.TB, f func(t testing.TB)) string {
	t.Helper()
	r := &recorder{TB: t}
	r.run(func() { f(r) })
	for len(r.cleanups) > 0 {
		last := len(r.cleanups) - 1
		cleanup := r.cleanups[last]
		r.cleanups = r.cleanups[:last]
		r.run(cleanup)
	}
	return strings.Join(r.failures, "\n")
}

// run runs f in a goroutine that Fatalf can end.
func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
}

func (r *recorder) Helper() {}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// run runs a test inside an example and prints what came of it. The flag -v would print more.
func run(test func(t *testing.T)) {
	verbose := flag.Lookup("test.v").Value
	before := verbose.String()
	verbose.Set("false")
	defer verbose.Set(before)
	all := func(pattern, name string) (bool, error) { return true, nil }
	if testing.RunTests(all, []testing.InternalTest{{Name: "Test", F: test}}) {
		fmt.Println("PASS")
	}
}
