package conns_test

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
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
	reset := func(c *kit.RawConn) {
		c.Conn.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	for name, peer := range map[string]struct {
		label string
		does  func(c *kit.RawConn)
		is    func(error) bool
	}{
		"FIN":        {"lost", func(c *kit.RawConn) { c.Close() }, nil},
		"FIN inside": {"lost", func(c *kit.RawConn) { c.Write(kit.RawFrame(0x81, "text")[:8]); c.Close() }, nil},
		"RST":        {"lost", reset, nil},
		"closes":     {"peer", func(c *kit.RawConn) { c.Frame(0x88, "\x0f\xa1") }, func(err error) bool { return websocket.CloseStatus(err) == 4001 }},
		"too big":    {"too_big", func(c *kit.RawConn) { c.Frame(0x81, string(make([]byte, 64<<10+1))) }, func(err error) bool { return errors.Is(err, websocket.ErrMessageTooBig) }},
		"far too big": {"too_big", func(c *kit.RawConn) { c.Write(kit.RawFrame(0x81, string(make([]byte, 200<<10)))[:14]) },
			func(err error) bool { return errors.Is(err, websocket.ErrMessageTooBig) }},
		"reserved":  {"protocol", func(c *kit.RawConn) { c.Frame(0x83, "") }, nil},
		"unmasked":  {"protocol", func(c *kit.RawConn) { c.Write([]byte{0x81, 1, 'x'}) }, nil},
		"bad close": {"protocol", func(c *kit.RawConn) { c.Frame(0x88, "\x03\xed") }, nil},
		"cut message": {"message_timeout", func(c *kit.RawConn) { c.Write(kit.RawFrame(0x81, "text")[:8]) },
			func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
		"cut ping": {"message_timeout", func(c *kit.RawConn) { c.Write(kit.RawFrame(0x89, "ping")[:8]) },
			func(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }},
	} {
		for how, f := range map[string]func(*wsroom.Conn) error{"returns": returns, "drops": drops, "with a deadline": withDeadline} {
			t.Run(name+", "+how, func(t *testing.T) {
				onClose, closed := kit.Closes()
				hub := wsroom.New(wsroom.Serve(f), onClose, wsroom.WithMessageTimeout(time.Second/4))
				c := kit.DialRaw(t, kit.Serve(t, hub), "/a")
				peer.does(c)
				err := kit.Await(t, closed, "OnClose")
				if peer.is != nil && !peer.is(err) {
					t.Errorf("cause %v", err)
				}
				c.Close()
				kit.Until(t, "it has ended", func() bool { return len(hub.Causes().Ended) > 0 })
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
		"ping":                     kit.RawFrame(0x89, "ping")[:7],
		"ping's header":            kit.RawFrame(0x89, "ping")[:1],
		"pong":                     kit.RawFrame(0x8a, "")[:5],
		"close":                    kit.RawFrame(0x88, "\x03\xe8bye")[:9],
		"ping within a message":    append(kit.RawFrame(0x01, "a"), kit.RawFrame(0x89, "ping")[:7]...),
		"ping after another":       append(kit.RawFrame(0x89, "ping"), kit.RawFrame(0x89, "ping")[:7]...),
		"ping after a message":     append(kit.RawFrame(0x81, "whole"), kit.RawFrame(0x89, "ping")[:7]...),
		"ping in a packed message": append(kit.RawFrame(0x41, "\xaa"), kit.RawFrame(0x89, "ping")[:7]...),
	} {
		for _, timeout := range []time.Duration{2 * time.Second, time.Minute} {
			t.Run(name, func(t *testing.T) {
				var ends chan kit.End
				opts := []wsroom.Option{wsroom.OnText(kit.DiscardText), wsroom.WithMessageTimeout(timeout),
					wsroom.WithHeartbeat(0, 0), wsroom.WithCompression(0)}
				kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
					c := s.DialRaw("/a", kit.OfferDeflate)
					go c.Write(say)
					if code, reason := c.CloseCode(); code != 1008 {
						t.Errorf("close code %d %q, want 1008", code, reason)
					}
					e := <-ends
					if !errors.Is(e.Err, os.ErrDeadlineExceeded) {
						t.Errorf("cause %v", e.Err)
					}
					kit.WantBetween(t, "ended", e.At, timeout, timeout+time.Second)
					c.Close()
					kit.Shutdown(t, hub)
					if ended := hub.Causes().Ended; ended["message_timeout"] != 1 {
						t.Errorf("causes %v", ended)
					}
				})
			})
		}
	}
}
