package line

import "testing"

// Lines have all jitters, about as often, so that those which begin together aren't pinged together.
func TestJitterIsSpread(t *testing.T) {
	const lines = 64 * maxJitter
	times := map[uint32]int{}
	for range lines {
		var l Line
		l.StartHeartbeat()
		times[l.jitter.Load()]++
	}

	if times[0] > 0 {
		t.Errorf("%d lines whose heartbeat hasn't started", times[0])
	}
	for jitter, n := range times {
		if jitter > maxJitter || n > 4*lines/maxJitter { // 24 standard deviations
			t.Errorf("jitter %d: %d times", jitter, n)
		}
	}
	if len(times) < maxJitter*9/10 {
		t.Errorf("%d jitters", len(times))
	}
}
