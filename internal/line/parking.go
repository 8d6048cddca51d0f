package line

import (
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/netpoll"
)

// Park has set wait for the peer in place of a goroutine that would call [Line.Wait], or whose Wait has returned
// frame.ErrQuiet. If it reports true, that goroutine must read no more; [Owner].Wake starts one again, once: when
// there is something to read, when the peer is gone, or when the line is closed. See [frame.Conn.Park].
func (l *Line) Park(set *netpoll.Set) bool { return l.Wire().Park(set) }

// Unpark ends what Park began, after [Owner].Wake, once Wait has returned anything but frame.ErrQuiet.
func (l *Line) Unpark(set *netpoll.Set) { l.Wire().Unpark(set) }

// quiet is what Quiet returns.
var quiet atomic.Int64

func init() { quiet.Store(int64(5 * time.Second)) }

// Quiet returns for how long no message has come from a peer when its line is parked. It is for the
// frame.Limits of lines, and 0 where lines aren't parked.
func Quiet() time.Duration {
	if !netpoll.Supported {
		return 0
	}
	return time.Duration(quiet.Load())
}

// SetQuiet changes what Quiet returns. It is for tests.
func SetQuiet(d time.Duration) { quiet.Store(int64(d)) }
