package kit

import (
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// End is what OnClose got, and when, since the bubble's start.
type End struct {
	Err error
	At  time.Duration
}

// HubWithEnds returns a function that makes a hub whose ends go to the channel.
func HubWithEnds(ends *chan End, opts ...wsroom.Option) func() *wsroom.Hub {
	return func() *wsroom.Hub {
		*ends = make(chan End, 100)
		begin := time.Now()
		return wsroom.New(append(opts, wsroom.OnClose(func(c *wsroom.Conn, err error) {
			*ends <- End{err, time.Since(begin)}
		}))...)
	}
}

// DiscardText is an OnText callback that does nothing.
func DiscardText(*wsroom.Conn, string, error) {}

// WantBetween checks that something took from least to most.
func WantBetween(t *testing.T, what string, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most {
		t.Errorf("%s after %v, want %v to %v", what, got, least, most)
	}
}
