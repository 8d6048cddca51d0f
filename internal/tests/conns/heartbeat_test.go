package conns_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// pollFor is a Serve that reads for a while, then does something else for a while, and so on.
func pollFor(reads, works time.Duration) wsroom.Option {
	return wsroom.Serve(func(c *wsroom.Conn) error {
		for {
			_, err := readFor(c, reads)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			select {
			case <-time.After(works):
			case <-c.Context().Done():
			}
		}
	})
}

// What counts is how long the hub has listened in all since its ping, however short each Read is.
func TestPollingServeFindsASilentPeer(t *testing.T) {
	for name, test := range map[string]struct{ reads, works, least, most time.Duration }{
		"5 s":                         {5 * time.Second, 0, 30 * time.Second, 37 * time.Second},
		"10 ms":                       {10 * time.Millisecond, 0, 30 * time.Second, 37 * time.Second},
		"1 s of 2":                    {time.Second, time.Second, 40 * time.Second, 60 * time.Second},
		"20 ms of 1 s: 10 s in 500 s": {20 * time.Millisecond, 980 * time.Millisecond, 500 * time.Second, 540 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			kit.InBubble(t, kit.HubWithEnds(&ends, pollFor(test.reads, test.works)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c := s.DialRaw("/a")
				go io.Copy(io.Discard, c) // it reads pings and answers none
				e := <-ends
				if !errors.Is(e.Err, wsroom.ErrHeartbeat) {
					t.Errorf("cause %v", e.Err)
				}
				kit.WantBetween(t, "ended", e.At, test.least, test.most)
			})
		})
	}
}

func TestPollingServeKeepsAPeerThatAnswers(t *testing.T) {
	for _, works := range []time.Duration{0, time.Second, time.Minute} {
		var ends chan kit.End
		kit.InBubble(t, kit.HubWithEnds(&ends, pollFor(time.Second, works)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			c := wsroomtest.Dial(t, hub, "/a")
			time.Sleep(3 * time.Hour)
			if hub.Len() != 1 {
				e := <-ends
				t.Errorf("works %v: ended after %v: %v", works, e.At, e.Err)
			}
			c.CloseNow()
		})
	}
}

// A client that is gone is found though what it had sent, and its FIN or RST behind that, can't be read
// yet, and its successor gets in.
func TestGoneClientIsFoundBehindItsBacklog(t *testing.T) {
	stuck := wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
		if err == nil {
			<-c.Context().Done()
		}
	})
	readAll := wsroom.Serve(func(c *wsroom.Conn) error {
		for {
			if _, err := c.ReadText(context.Background()); err != nil {
				return err
			}
		}
	})
	for name, opts := range map[string][]wsroom.Option{
		"rate limit": {wsroom.OnText(kit.DiscardText), wsroom.WithRateLimit(2000, 1)}, // 4 KiB each 128 ms
		"Serve":      {wsroom.WithRateLimit(2000, 1), readAll},
		"a callback": {stuck},
	} {
		for how, goAway := range map[string]func(*kit.Peer){
			"closes": func(c *kit.Peer) { c.Close() },
			"resets": func(c *kit.Peer) {
				if tcp, ok := c.Conn.(*net.TCPConn); ok {
					tcp.SetLinger(0)
				}
				c.Close()
			},
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				overTLSToo(t, func(t *testing.T, serve func(*wsroom.Hub) *httptest.Server) {
					hub := wsroom.New(append(opts, wsroom.WithHeartbeat(time.Second, 200*time.Millisecond),
						wsroom.WithMaxConnsPer(func(*http.Request) string { return "ann" }, 1))...)
					srv := serve(hub)
					c := kit.Request(t, srv, kit.UpgradeRequest("/a"))
					c.Write(bytes.Repeat(kit.RawFrame(0x81, "0123456789"), 60_000)) // 30 s

					goAway(c)
					kit.Until(t, "its successor is let in", func() bool {
						c := kit.Request(t, srv, kit.UpgradeRequest("/a"))
						c.Close()
						return c.Res.StatusCode == http.StatusSwitchingProtocols
					})
					kit.Until(t, "it is counted", func() bool { return hub.Causes().Ended["lost"] > 0 })
				})
			})
		}
	}
}

// A client that lives isn't judged while what it sent waits for the rate limit, nor one that only sends
// nothing more: both get every reply.
func TestBacklogIsNoSilence(t *testing.T) {
	for _, halfCloses := range []bool{false, true} {
		hub := wsroom.New(kit.Echo(), wsroom.WithRateLimit(100, 1),
			wsroom.WithHeartbeat(50*time.Millisecond, 50*time.Millisecond))
		c := kit.DialRaw(t, kit.Serve(t, hub), "/a")
		for i := range 200 { // 2 s
			c.Frame(0x81, kit.Number(i))
		}
		if halfCloses {
			c.Conn.(*net.TCPConn).CloseWrite()
		}
		for i := 0; i < 200; {
			first, p, err := c.Next()
			switch {
			case err != nil:
				t.Fatalf("after %d replies: %v", i, err)
			case first == 0x89 && !halfCloses:
				c.Frame(0x8a, p)
			case first == 0x81:
				if p != kit.Number(i) {
					t.Fatalf("reply %d is %q", i, p)
				}
				i++
			}
		}
		c.Close()
	}
}

// The longest durations are as good as none.
func TestLongestDurations(t *testing.T) {
	const ever = time.Duration(math.MaxInt64)
	for name, heartbeat := range map[string]wsroom.Option{
		"both":     wsroom.WithHeartbeat(ever, ever),
		"interval": wsroom.WithHeartbeat(ever, time.Second),
		"timeout":  wsroom.WithHeartbeat(time.Second, ever),
	} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			opts := []wsroom.Option{kit.Echo(), heartbeat, wsroom.WithWriteTimeout(ever), wsroom.WithMessageTimeout(ever),
				wsroom.WithHandshakeTimeout(ever), wsroom.WithDrain(ever)}
			kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c, other := s.DialRaw("/a"), s.DialRaw("/a")
				half := kit.RawFrame(0x81, "half")
				c.Write(half[:8])
				time.Sleep(time.Hour)
				if hub.Len() != 2 {
					t.Fatalf("ended: %v", (<-ends).Err)
				}
				go c.Write(half[8:])
				first, p, err := c.Next()
				for name == "timeout" && first == 0x89 {
					first, p, err = c.Next()
				}
				if first != 0x81 || p != "half" {
					t.Errorf("got %#x %q, %v", first, p, err)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				go io.Copy(io.Discard, c)
				go io.Copy(io.Discard, other)
				begin := time.Now()
				if err := hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				kit.WantBetween(t, "Shutdown", time.Since(begin), time.Minute, time.Minute)
				c.Close()
				other.Close()
				synctest.Wait()
			})
		})
	}
}
