package conns_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// readFor is Read with a deadline.
func readFor(c *wsroom.Conn, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return c.ReadText(ctx)
}

// Read returns when its context is done, wherever in a message that is, and the next goes on with it.
func TestReadReturnsWithinAMessage(t *testing.T) {
	long := strings.Repeat("0123456789", 1000)
	for name, message := range map[string][]byte{
		"short":               kit.RawFrame(0x81, "abc"),
		"long":                kit.RawFrame(0x81, long),
		"fragments":           append(kit.RawFrame(0x01, "abc"), kit.RawFrame(0x80, "def")...),
		"with a ping between": append(append(kit.RawFrame(0x01, "abc"), kit.RawFrame(0x89, "")...), kit.RawFrame(0x80, "def")...),
		"after a ping":        append(kit.RawFrame(0x89, "ping"), kit.RawFrame(0x81, "abc")...),
	} {
		want := map[string]string{"short": "abc", "after a ping": "abc", "long": long}[name]
		if want == "" {
			want = "abcdef"
		}
		for _, cut := range []int{1, 2, 3, 6, 7, 8, len(message) - 1} {
			t.Run(fmt.Sprint(name, ", cut at ", cut), func(t *testing.T) {
				var ends chan kit.End
				read := wsroom.Serve(func(c *wsroom.Conn) error {
					for range 3 {
						begin := time.Now()
						if text, err := readFor(c, time.Second); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("Read: %q, %v", kit.Short(text), err)
						}
						kit.WantBetween(t, "Read returned", time.Since(begin), time.Second, time.Second)
					}
					for _, want := range []string{want, "next"} {
						if text, err := readFor(c, time.Minute); err != nil || text != want {
							t.Errorf("Read: %q, %v", kit.Short(text), err)
						}
					}
					return nil
				})
				kit.InBubble(t, kit.HubWithEnds(&ends, read), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
					c := s.DialRaw("/a")
					c.Write(message[:cut])
					time.Sleep(4 * time.Second)
					go func() {
						c.Write(message[cut:])
						c.Write(kit.RawFrame(0x81, "next"))
					}()
					if code, reason := c.CloseCode(); code != 1000 {
						t.Errorf("close code %d %q", code, reason)
					}
					c.Close()
				})
			})
		}
	}
}

// A rate limit holds back the message that was read over it, and no Read beyond its context.
func TestReadReturnsWithinTheRateLimit(t *testing.T) {
	var ends chan kit.End
	read := wsroom.Serve(func(c *wsroom.Conn) error {
		if text, err := c.ReadText(context.Background()); text != "first" {
			t.Errorf("Read: %q, %v", text, err)
		}
		begin := time.Now()
		for range 5 {
			if text, err := readFor(c, time.Second); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read: %q, %v", text, err)
			}
		}
		kit.WantBetween(t, "five Reads returned", time.Since(begin), 5*time.Second, 5*time.Second)
		if text, err := c.ReadText(context.Background()); text != "the second text" {
			t.Errorf("Read: %q, %v", text, err)
		}
		kit.WantBetween(t, "the second came", time.Since(begin), 10*time.Second, 10*time.Second)
		_, err := readFor(c, time.Hour)
		return err
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, read, wsroom.WithByteRateLimit(1, 10), wsroom.WithHeartbeat(0, 0)),
		func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			c := s.DialRaw("/a")
			c.Frame(0x81, "first")
			c.Frame(0x81, "the second text")
			time.Sleep(time.Minute)
		})
}

// A Read that left a message is ended by what ends the connection, and Shutdown waits for that.
func TestEndsWithinALeftMessage(t *testing.T) {
	for name, peer := range map[string]struct {
		ends func(c *kit.RawConn, hub *wsroom.Hub)
		is   func(error) bool
	}{
		"the hub closes": {func(_ *kit.RawConn, hub *wsroom.Hub) { hub.To("/a").Close(4000, "") },
			func(err error) bool { return websocket.CloseStatus(err) == 4000 }},
		"the peer is gone": {func(c *kit.RawConn, _ *wsroom.Hub) { c.Close() },
			func(err error) bool { return err != nil && websocket.CloseStatus(err) == -1 }},
		"nothing": {func(*kit.RawConn, *wsroom.Hub) {}, func(err error) bool { return websocket.CloseStatus(err) == 1000 }},
	} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", waits: ", waits), func(t *testing.T) {
				var ends chan kit.End
				var left atomic.Bool
				read := wsroom.Serve(func(c *wsroom.Conn) error {
					for !left.Load() {
						_, err := readFor(c, time.Second)
						if err != nil && !errors.Is(err, context.DeadlineExceeded) {
							return err
						}
					}
					if waits {
						_, err := readFor(c, time.Hour)
						return err
					}
					return nil
				})
				kit.InBubble(t, kit.HubWithEnds(&ends, read), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
					c := s.DialRaw("/a")
					c.Write(kit.RawFrame(0x81, "0123456789")[:9])
					time.Sleep(1500 * time.Millisecond)
					left.Store(true)
					synctest.Wait()
					peer.ends(c, hub)
					go c.CloseFrame()
					e := <-ends
					if !peer.is(e.Err) && !(name == "nothing" && waits) {
						t.Errorf("cause %v", e.Err)
					}
					c.Close()
				})
			})
		}
	}
}
