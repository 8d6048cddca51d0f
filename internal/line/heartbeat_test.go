package line

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
)

// recorder is an Owner that keeps the endings that it is asked for.
type recorder struct {
	Owner
	endings []string
}

func (r *recorder) End(e Ending)    { r.endings = append(r.endings, e.Label) }
func (r *recorder) Limits() *Limits { return new(Limits) }

// newLine returns a line over a pipe. A goroutine reads it until the test ends.
func newLine(t *testing.T, o Owner) *Line {
	t.Helper()
	server, client := net.Pipe()
	l := new(Line)
	l.Init(new(outbound.Limits), o, false)
	wire := l.NewWire(server, nil, &frame.Limits{Message: time.Second, Write: time.Second})
	l.Attach(wire, nil)
	go l.Wait()
	synctest.Wait()
	t.Cleanup(func() {
		wire.Kill()
		client.Close()
		synctest.Wait()
	})
	return l
}

// A peer that doesn't answer a ping in time is ended, but not at a tick that is late: what it sent meanwhile
// hasn't been read yet.
func TestLateTickEndsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Heartbeat
		b.Init(25*time.Second, 10*time.Second)
		var r recorder
		l := newLine(t, &r)

		begin := frame.Now()
		visit := func(after time.Duration, late, ended bool) {
			t.Helper()
			l.visit(&b, begin+int64(after), late)
			if (len(r.endings) > 0) != ended {
				t.Errorf("after %v, late %t: endings %q", after, late, r.endings)
			}
		}

		visit(30*time.Second, false, false)
		l.Wrote(outbound.Written{Pinged: true, At: begin + int64(30*time.Second)})
		visit(39*time.Second, false, false)
		visit(41*time.Second, true, false)
		visit(45*time.Second, false, false)
		visit(52*time.Second, false, true)
	})
}
