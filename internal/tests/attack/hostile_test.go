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

// possessions are what an attack must not make a process keep.
type possessions struct{ goroutines, files int }

func count() possessions {
	files, _ := os.ReadDir("/proc/self/fd") // elsewhere there are none
	return possessions{runtime.NumGoroutine(), len(files)}
}

// wantNoMore waits, 5 s at the most, until there is no more than before.
func wantNoMore(t testing.TB, before possessions) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var now possessions
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-tick.C {
		if now = count(); now.goroutines <= before.goroutines && now.files <= before.files {
			return
		}
	}
	t.Errorf("before the attack there were %+v, 5 s after it %+v", before, now)
}

// A stopwatch judges how long things take, and whether the machine is idle enough to judge that.
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
// start; all where the system doesn't tell.
func (w stopwatch) othersShare() float64 {
	now := startWatch()
	return 1 - (now.idle-w.idle+now.own-w.own)/max(1, now.all-w.all)
}

// unfair reports whether times say more of this machine than of the hub.
func (w stopwatch) unfair() bool { return kit.UnderRace() || w.othersShare() > 0.2 }

// within checks that something took no longer than it may; where that is unfair, not far longer.
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

// withBystanders attacks a server of a hub while a room of honest members goes on talking: they lose
// nothing, see nothing twice and all in one order, without much delay, and what the attack took is
// given back. The delay is measured up to three times, and isn't judged while other programs keep
// the machine busy.
func withBystanders(t *testing.T, opts []wsroom.Option, attack func(t *testing.T, hub *wsroom.Hub, srv *httptest.Server)) {
	t.Helper()
	for try := 1; ; try++ {
		hub := wsroom.New(append([]wsroom.Option{wsroom.OnText(kit.EchoRoom)}, opts...)...)
		srv := kit.Serve(t, hub)
		honest := meet(t, srv)
		quiet := honest.talk(func() { <-time.After(time.Second / 2) })
		before := count()
		watch := startWatch()
		delay := honest.talk(func() { attack(t, hub, srv) })
		wantNoMore(t, before)
		honest.part()
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
