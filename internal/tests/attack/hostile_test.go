package attack_test

import (
	"net/http/httptest"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// resources are what an attack must not make a process keep.
type resources struct{ goroutines, files int }

func countResources() resources {
	files, _ := os.ReadDir("/proc/self/fd") // elsewhere there are none
	return resources{runtime.NumGoroutine(), len(files)}
}

// wantNoMore waits, for at most 5 s, until there are no more resources than before.
func wantNoMore(t testing.TB, before resources) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var now resources
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-tick.C {
		if now = countResources(); now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
	}
	t.Errorf("before the attack there were %+v, 5 s after it %+v", before, now)
}

// stopwatch measures how long things take, and whether the machine is idle enough for a verdict.
type stopwatch struct {
	start          time.Time
	all, idle, own float64 // ticks of the processors: all, those for no program, those for this one
}

func startWatch() stopwatch {
	w := stopwatch{start: time.Now()}
	for i, n := range numbersIn("/proc/stat", "cpu")[:8] { // proc(5)
		w.all += n
		if i >= 3 && i <= 6 { // interrupts, too, which are those of the attack's network
			w.idle += n
		}
	}
	for _, n := range numbersIn("/proc/self/stat", ")")[11:15] { // its children's, too
		w.own += n
	}
	return w
}

// othersShare returns which part of the machine's processors other programs have taken since the
// start; all where the system doesn't say.
func (w stopwatch) othersShare() float64 {
	now := startWatch()
	return 1 - (now.idle-w.idle+now.own-w.own)/max(1, now.all-w.all)
}

// unfair reports whether times depend more on this machine than on the hub.
func (w stopwatch) unfair() bool { return kit.UnderRace() || w.othersShare() > 0.2 }

// within checks that something took no longer than it may; if that is unfair, not much longer.
func (w stopwatch) within(t testing.TB, what string, took, most time.Duration) {
	t.Helper()
	if took > most && (took > most+5*time.Second || !w.unfair()) {
		t.Errorf("%s took %v, want %v at the most", what, took, most)
	}
}

// numbersIn returns the words of a file's first line, behind one of them, as numbers, and zeros after.
func numbersIn(file, word string) []float64 {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	_, line, _ = strings.Cut(line, word)
	numbers := make([]float64, 64)
	for i, field := range strings.Fields(line) {
		numbers[i], _ = strconv.ParseFloat(field, 64)
	}
	return numbers
}

// withBystanders attacks a hub's server while honest members of a room send: they lose nothing, get nothing
// twice and all in one order, without much delay, and afterwards the attack's resources are free. The delay
// is measured up to three times, and isn't judged while other programs keep the machine busy.
func withBystanders(t *testing.T, opts []wsroom.Option, attack func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server)) {
	t.Helper()
	for try := 1; ; try++ {
		hub := wsroom.New(append([]wsroom.Option{wsroom.OnText(kit.EchoRoom)}, opts...)...)
		srv := kit.Serve(t, hub)
		honest := connectBystanders(t, srv)
		quiet := honest.sendWhile(func() { <-time.After(time.Second / 2) })
		before := countResources()
		watch := startWatch()
		delay := honest.sendWhile(func() { attack(t, hub, srv) })
		wantNoMore(t, before)
		honest.disconnect()
		t.Logf("p99 of the honest members: %v, without the attack %v; other programs took %.0f %% of the processors",
			delay, quiet, 100*watch.othersShare())
		most := max(3*quiet, 50*time.Millisecond)
		if delay <= most || watch.unfair() || t.Failed() {
			return
		}
		if try == 3 {
			t.Errorf("p99 of the honest members: %v, want %v at the most", delay, most)
			return
		}
	}
}
