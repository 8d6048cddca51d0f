package wsroom_test

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
		"short":               rawFrame(0x81, "abc"),
		"long":                rawFrame(0x81, long),
		"fragments":           append(rawFrame(0x01, "abc"), rawFrame(0x80, "def")...),
		"with a ping between": append(append(rawFrame(0x01, "abc"), rawFrame(0x89, "")...), rawFrame(0x80, "def")...),
		"after a ping":        append(rawFrame(0x89, "ping"), rawFrame(0x81, "abc")...),
	} {
		want := map[string]string{"short": "abc", "after a ping": "abc", "long": long}[name]
		if want == "" {
			want = "abcdef"
		}
		for _, cut := range []int{1, 2, 3, 6, 7, 8, len(message) - 1} {
			t.Run(fmt.Sprint(name, ", cut at ", cut), func(t *testing.T) {
				var ends chan end
				read := wsroom.Serve(func(c *wsroom.Conn) error {
					for range 3 {
						begin := time.Now()
						if text, err := readFor(c, time.Second); !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("Read: %q, %v", short(text), err)
						}
						wantBetween(t, "Read returned", time.Since(begin), time.Second, time.Second)
					}
					for _, want := range []string{want, "next"} {
						if text, err := readFor(c, time.Minute); err != nil || text != want {
							t.Errorf("Read: %q, %v", short(text), err)
						}
					}
					return nil
				})
				inBubble(t, hubWithEnds(&ends, read), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
					c := s.dialRaw("/a")
					c.Write(message[:cut])
					time.Sleep(4 * time.Second)
					go func() {
						c.Write(message[cut:])
						c.Write(rawFrame(0x81, "next"))
					}()
					if code, reason := c.closeCode(); code != 1000 {
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
	var ends chan end
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
		wantBetween(t, "five Reads returned", time.Since(begin), 5*time.Second, 5*time.Second)
		if text, err := c.ReadText(context.Background()); text != "the second text" {
			t.Errorf("Read: %q, %v", text, err)
		}
		wantBetween(t, "the second came", time.Since(begin), 10*time.Second, 10*time.Second)
		_, err := readFor(c, time.Hour)
		return err
	})
	inBubble(t, hubWithEnds(&ends, read, wsroom.WithByteRateLimit(1, 10), wsroom.WithHeartbeat(0, 0)),
		func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
			c := s.dialRaw("/a")
			c.frame(0x81, "first")
			c.frame(0x81, "the second text")
			time.Sleep(time.Minute)
		})
}

// A Read that left a message is ended by what ends the connection, and Shutdown waits for that.
func TestEndsWithinALeftMessage(t *testing.T) {
	for name, peer := range map[string]struct {
		ends func(c *rawConn, hub *wsroom.Hub)
		is   func(error) bool
	}{
		"the hub closes": {func(_ *rawConn, hub *wsroom.Hub) { hub.To("/a").Close(4000, "") },
			func(err error) bool { return websocket.CloseStatus(err) == 4000 }},
		"the peer is gone": {func(c *rawConn, _ *wsroom.Hub) { c.Close() },
			func(err error) bool { return err != nil && websocket.CloseStatus(err) == -1 }},
		"nothing": {func(*rawConn, *wsroom.Hub) {}, func(err error) bool { return websocket.CloseStatus(err) == 1000 }},
	} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", waits: ", waits), func(t *testing.T) {
				var ends chan end
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
				inBubble(t, hubWithEnds(&ends, read), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
					c := s.dialRaw("/a")
					c.Write(rawFrame(0x81, "0123456789")[:9])
					time.Sleep(1500 * time.Millisecond)
					left.Store(true)
					synctest.Wait()
					peer.ends(c, hub)
					go c.closeFrame()
					e := <-ends
					if !peer.is(e.err) && !(name == "nothing" && waits) {
						t.Errorf("cause %v", e.err)
					}
					c.Close()
				})
			})
		}
	}
}
