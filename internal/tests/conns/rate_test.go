package conns_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// Under SlowDown each message waits for the slower of the two rates, and the peer's writes with it;
// none is lost and none waits for ever.
func TestByteRateLimitSlowsReading(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		what  string
		opts  []wsroom.Option
		sizes []int
		want  []time.Duration
	}{
		{"bytes", []wsroom.Option{wsroom.WithByteRateLimit(1000, 500)},
			[]int{500, 500, 250, 250, 0, 1000}, []time.Duration{0, 500 * ms, 750 * ms, 1000 * ms, 1000 * ms, 2000 * ms}},
		{"larger than the burst", []wsroom.Option{wsroom.WithByteRateLimit(1000, 10)},
			[]int{1010, 1010, 10}, []time.Duration{1000 * ms, 2010 * ms, 2020 * ms}},
		{"bytes are the slower", []wsroom.Option{wsroom.WithByteRateLimit(100, 100), wsroom.WithRateLimit(10, 5)},
			[]int{100, 100, 100}, []time.Duration{0, 1000 * ms, 2000 * ms}},
		{"messages are the slower", []wsroom.Option{wsroom.WithByteRateLimit(100, 100), wsroom.WithRateLimit(10, 1)},
			[]int{1, 1, 1}, []time.Duration{0, 100 * ms, 200 * ms}},
		{"turn and turn about", []wsroom.Option{wsroom.WithByteRateLimit(100, 100), wsroom.WithRateLimit(1, 1)},
			[]int{100, 1, 300, 1}, []time.Duration{0, 1000 * ms, 3010 * ms, 3020 * ms}},
		{"no limit to speak of", []wsroom.Option{wsroom.WithByteRateLimit(math.MaxInt64, math.MaxInt64), wsroom.WithRateLimit(math.MaxInt, math.MaxInt)},
			[]int{60000, 60000}, []time.Duration{0, 0}},
		{"a burst for ever", []wsroom.Option{wsroom.WithByteRateLimit(1, math.MaxInt64)},
			[]int{60000, 60000}, []time.Duration{0, 0}},
	} {
		t.Run(test.what, func(t *testing.T) {
			var ends chan kit.End
			var at []time.Duration
			begin := time.Time{}
			note := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
				if err == nil && len(text) == test.sizes[len(at)] {
					at = append(at, time.Since(begin))
				}
			})
			kit.InBubble(t, kit.HubWithEnds(&ends, append(test.opts, note)...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				begin = time.Now()
				c := s.DialRaw("/a")
				for _, n := range test.sizes {
					c.Frame(0x81, strings.Repeat("x", n))
				}
				if pushed := time.Since(begin); pushed < test.want[len(test.want)-2] {
					t.Errorf("the last was taken after %v", pushed)
				}
				c.Close()
				<-ends
				if !slices.Equal(at, test.want) {
					t.Errorf("messages came after %v, want %v", at, test.want)
				}
			})
		})
	}
}

// A connection that waits for its rate ends as soon as any other.
func TestEndDoesNotWaitForTheRate(t *testing.T) {
	var ends chan kit.End
	opts := []wsroom.Option{wsroom.OnText(kit.DiscardText), wsroom.WithByteRateLimit(1, 1), wsroom.WithHeartbeat(0, 0)}
	kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		c.Frame(0x81, strings.Repeat("x", 60000)) // 16 hours
		time.Sleep(time.Minute)
		hub.To("/a").Close(4000, "")
		if code, _ := c.CloseCode(); code != 4000 {
			t.Errorf("close code %d", code)
		}
		c.Close()
		kit.WantBetween(t, "OnClose", (<-ends).At, time.Minute, time.Minute)
	})
}

// Under Disconnect the burst is what a client may send at once, counted after decompression.
func TestByteRateLimitDisconnects(t *testing.T) {
	for _, compression := range []wsroomtest.Option{nil, wsroomtest.WithCompression()} {
		onClose, closed := kit.Closes()
		hub := wsroom.New(kit.Echo(), onClose, wsroom.WithCompression(0),
			wsroom.WithByteRateLimit(1, 1000), wsroom.WithRateLimitAction(wsroom.Disconnect))
		c := kit.Dial(t, kit.Serve(t, hub), "/a", compression)
		text := strings.Repeat("x", 400)
		for range 2 {
			c.SendText(text)
			c.ExpectText(text)
		}
		c.SendText(text)
		c.ExpectClose(websocket.StatusPolicyViolation)
		if err := kit.Await(t, closed, "OnClose"); !errors.Is(err, wsroom.ErrRateLimited) {
			t.Errorf("cause %v", err)
		}
	}
}
