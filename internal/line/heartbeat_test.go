package line

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
)

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

// recorder is an Owner that keeps the endings that it is asked for.
type recorder struct {
	Owner
	endings []string
}

func (r *recorder) End(e Ending)    { r.endings = append(r.endings, e.Label) }
func (r *recorder) Limits() *Limits { return new(Limits) }

// A peer that doesn't answer a ping in time is ended, but not at a tick that is late: what it sent meanwhile
// hasn't been read yet.
func TestLateTickEndsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Heartbeat
		b.Init(25*time.Second, 10*time.Second, nil, nil)
		server, client := net.Pipe()
		defer client.Close()

		var l Line
		var r recorder
		l.Init(new(outbound.Limits), &r, false)
		wire := l.NewWire(server, nil, &frame.Limits{Message: time.Second, Write: time.Second})
		l.Attach(wire, nil)
		l.StartHeartbeat()
		go l.Wait()
		synctest.Wait()
		defer synctest.Wait()
		defer wire.Kill()

		begin := frame.Now()
		check := func(after time.Duration, late, ended bool) {
			t.Helper()
			now := begin + int64(after)
			if !l.IsSilent(&b, now) {
				t.Errorf("after %v it isn't silent", after)
			}
			l.Check(&b, now, late)
			if (len(r.endings) > 0) != ended {
				t.Errorf("after %v, late %t: endings %q", after, late, r.endings)
			}
		}

		check(30*time.Second, false, false)
		l.Wrote(outbound.Written{Pinged: true, At: begin + int64(30*time.Second)})
		check(39*time.Second, false, false)
		check(41*time.Second, true, false)
		check(45*time.Second, false, false)
		check(52*time.Second, false, true)
	})
}
