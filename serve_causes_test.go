package wsroom_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

// What the peer does is the cause of the end where Serve reads through WebSocket() as well, whether it
// returns the error that it gets or drops the connection.
func TestCausesWhereServeReadsThroughWebSocket(t *testing.T) {
	returns := func(c *wsroom.Conn) error {
		for {
			if _, _, err := c.WebSocket().Read(context.Background()); err != nil {
				return err
			}
		}
	}
	drops := func(c *wsroom.Conn) error {
		defer c.WebSocket().CloseNow()
		_ = returns(c)
		return nil
	}
	withDeadline := func(c *wsroom.Conn) error {
		defer c.WebSocket().CloseNow()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, _, err := c.WebSocket().Read(ctx)
		return err
	}
	reset := func(c *rawConn) {
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	for name, peer := range map[string]struct {
		label string
		does  func(c *rawConn)
		is    func(error) bool
	}{
		"FIN":        {"lost", func(c *rawConn) { c.Close() }, nil},
		"FIN inside": {"lost", func(c *rawConn) { c.Write(rawFrame(0x81, "text")[:8]); c.Close() }, nil},
		"RST":        {"lost", reset, nil},
		"closes":     {"peer", func(c *rawConn) { c.frame(0x88, "\x0f\xa1") }, func(err error) bool { return websocket.CloseStatus(err) == 4001 }},
		"too big":    {"too_big", func(c *rawConn) { c.frame(0x81, string(make([]byte, 64<<10+1))) }, func(err error) bool { return errors.Is(err, websocket.ErrMessageTooBig) }},
		"far too big": {"too_big", func(c *rawConn) { c.Write(rawFrame(0x81, string(make([]byte, 200<<10)))[:14]) },
			func(err error) bool { return errors.Is(err, websocket.ErrMessageTooBig) }},
		"reserved":  {"protocol", func(c *rawConn) { c.frame(0x83, "") }, nil},
		"unmasked":  {"protocol", func(c *rawConn) { c.Write([]byte{0x81, 1, 'x'}) }, nil},
		"bad close": {"protocol", func(c *rawConn) { c.frame(0x88, "\x03\xed") }, nil},
		"cut message": {"message_timeout", func(c *rawConn) { c.Write(rawFrame(0x81, "text")[:8]) },
			func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
		"cut ping": {"message_timeout", func(c *rawConn) { c.Write(rawFrame(0x89, "ping")[:8]) },
			func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
	} {
		for how, f := range map[string]func(*wsroom.Conn) error{"returns": returns, "drops": drops, "with a deadline": withDeadline} {
			t.Run(name+", "+how, func(t *testing.T) {
				onClose, closed := closes()
				hub := wsroom.New(wsroom.Serve(f), onClose, wsroom.WithMessageTimeout(time.Second/4))
				c := dialRaw(t, serve(t, hub), "/a")
				peer.does(c)
				err := await(t, closed, "OnClose")
				if peer.is != nil && !peer.is(err) {
					t.Errorf("cause %v", err)
				}
				c.Close()
				until(t, "it has ended", func() bool { return len(hub.Causes().Ended) > 0 })
				if ended := hub.Causes().Ended; ended[peer.label] != 1 {
					t.Errorf("causes %v (%v), want %s", ended, err, peer.label)
				}
			})
		}
	}
}

// A control frame is the peer's to complete, in the time that any message has.
func TestCutControlFrameIsThePeersFault(t *testing.T) {
	for name, say := range map[string][]byte{
		"ping":                     rawFrame(0x89, "ping")[:7],
		"ping's header":            rawFrame(0x89, "ping")[:1],
		"pong":                     rawFrame(0x8a, "")[:5],
		"close":                    rawFrame(0x88, "\x03\xe8bye")[:9],
		"ping within a message":    append(rawFrame(0x01, "a"), rawFrame(0x89, "ping")[:7]...),
		"ping after another":       append(rawFrame(0x89, "ping"), rawFrame(0x89, "ping")[:7]...),
		"ping after a message":     append(rawFrame(0x81, "whole"), rawFrame(0x89, "ping")[:7]...),
		"ping in a packed message": append(rawFrame(0x41, "\xaa"), rawFrame(0x89, "ping")[:7]...),
	} {
		for _, timeout := range []time.Duration{2 * time.Second, time.Minute} {
			t.Run(name, func(t *testing.T) {
				var ends chan end
				opts := []wsroom.Option{wsroom.OnText(discardText), wsroom.WithMessageTimeout(timeout),
					wsroom.WithHeartbeat(0, 0), wsroom.WithCompression(0)}
				inBubble(t, hubWithEnds(&ends, opts...), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
					c := s.dialRaw("/a", offerDeflate)
					go c.Write(say)
					if code, reason := c.closeCode(); code != 1008 {
						t.Errorf("close code %d %q, want 1008", code, reason)
					}
					e := <-ends
					if !errors.Is(e.err, os.ErrDeadlineExceeded) {
						t.Errorf("cause %v", e.err)
					}
					wantBetween(t, "ended", e.at, timeout, timeout)
					c.Close()
					shutdown(t, hub)
					if ended := hub.Causes().Ended; ended["message_timeout"] != 1 {
						t.Errorf("causes %v", ended)
					}
				})
			})
		}
	}
}
