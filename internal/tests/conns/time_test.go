package conns_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestSilentPeerIsFoundByDefault(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		first, _, err := c.Next() // reads the ping, answers nothing
		if first != 0x89 || err != nil {
			t.Fatalf("want a ping, got %#x, %v; ended by %v", first, err, <-ends)
		}
		e := <-ends
		if !errors.Is(e.Err, wsroom.ErrHeartbeat) {
			t.Errorf("cause %v, want ErrHeartbeat", e.Err)
		}
		kit.WantBetween(t, "ended", e.At, 30*time.Second, 35*time.Second+time.Second)
	})
}

func TestPeerThatAnswersPingsLives(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := wsroomtest.Dial(t, hub, "/a")
		time.Sleep(time.Hour)
		c.ExpectNothing()
		if hub.Len() != 1 {
			t.Fatalf("connection ended: %d left", hub.Len())
		}
		c.Close(websocket.StatusNormalClosure, "")
		if e := <-ends; websocket.CloseStatus(e.Err) != websocket.StatusNormalClosure {
			t.Errorf("cause %v", e.Err)
		}
	})
}

func TestTrafficCountsAsLife(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		for range 100 { // never answers a ping, for none is sent
			time.Sleep(20 * time.Second)
			c.Frame(0x81, "x")
		}
		if hub.Len() != 1 {
			t.Errorf("ended: %v", (<-ends).Err)
		}
	})
}

func TestSlowCallbackNeverEndsItsConnection(t *testing.T) {
	var ends chan kit.End
	slow := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			time.Sleep(10 * time.Minute)
			c.SendText("done")
		}
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, slow), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a") // its pongs would wait in the kernel; a pipe has no room for them
		c.Frame(0x81, "work")
		for {
			first, p, err := c.Next()
			if err != nil {
				t.Fatalf("%v; ended by %v", err, (<-ends).Err)
			}
			if first == 0x81 {
				if p != "done" {
					t.Errorf("got %q", p)
				}
				return
			}
		}
	})
}

func TestHeartbeatCanBeOff(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		s.DialRaw("/a")
		time.Sleep(24 * time.Hour)
		if hub.Len() != 1 {
			t.Errorf("ended: %v", (<-ends).Err)
		}
	})
}

func TestWriteTimeoutEndsAPeerThatDoesNotRead(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		s.DialRaw("/a")
		if err := hub.SendTextToRoom("/a", "x"); err != nil {
			t.Fatal(err)
		}
		e := <-ends
		if !errors.Is(e.Err, os.ErrDeadlineExceeded) {
			t.Errorf("cause %v", e.Err)
		}
		kit.WantBetween(t, "ended", e.At, 10*time.Second, 11*time.Second)
	})
}

func TestMessageTimeout(t *testing.T) {
	for name, rest := range map[string]string{"byte by byte": "xxxxxxxxxxxxxxxxxxxxxxxxx", "nothing more": ""} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c := s.DialRaw("/a")
				time.Sleep(time.Minute / 4) // being idle before isn't counted
				c.Write(kit.RawFrame(0x81, "0123456789012345678901234567890123456789")[:10])
				var drip sync.WaitGroup
				defer drip.Wait()
				drip.Go(func() {
					for _, b := range []byte(rest) {
						time.Sleep(time.Second)
						c.Write([]byte{b})
					}
				})
				if code, reason := c.CloseCode(); code != 1008 {
					t.Errorf("close code %d %q, want 1008", code, reason)
				}
				e := <-ends
				kit.WantBetween(t, "ended", e.At, 25*time.Second, 26*time.Second)
				c.Close()
			})
		})
	}
}

func TestEndlessFragmentsAreCut(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		c.Frame(0x01, "")
		var drip sync.WaitGroup
		defer drip.Wait()
		drip.Go(func() {
			for _, err := c.Write(kit.RawFrame(0x00, "")); err == nil; _, err = c.Write(kit.RawFrame(0x00, "")) {
				time.Sleep(time.Millisecond)
			}
		})
		if code, _ := c.CloseCode(); code != 1008 {
			t.Errorf("close code %d, want 1008", code)
		}
		kit.WantBetween(t, "ended", (<-ends).At, 10*time.Second, 11*time.Second)
		c.Close()
	})
}

func TestSlowCallbackIsNotTheMessagesTime(t *testing.T) {
	var ends chan kit.End
	slow := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if text == "slow" {
			time.Sleep(time.Minute)
		}
		c.SendText(text)
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, slow), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		second := kit.RawFrame(0x81, "second")
		c.Write(append(kit.RawFrame(0x81, "slow"), second[:5]...)) // its rest comes when it is asked for
		go c.Write(second[5:])
		for _, want := range []string{"slow", "second"} {
			for {
				first, p, err := c.Next()
				if err != nil {
					t.Fatalf("%v; ended by %v", err, (<-ends).Err)
				}
				if first == 0x81 {
					if p != want {
						t.Fatalf("got %q, want %q", p, want)
					}
					break
				}
			}
		}
	})
}

func TestRateLimitSlowsReading(t *testing.T) {
	var ends chan kit.End
	var at []time.Duration
	begin := time.Time{}
	count := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			at = append(at, time.Since(begin))
		}
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, count, wsroom.WithRateLimit(10, 5)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		begin = time.Now()
		c := wsroomtest.Dial(t, hub, "/a")
		for range 25 {
			c.SendText("x")
		}
		c.Close(websocket.StatusNormalClosure, "")
		<-ends
		if len(at) != 25 {
			t.Fatalf("%d messages, want 25", len(at))
		}
		if at[4] != 0 {
			t.Errorf("the burst's last came after %v", at[4])
		}
		kit.WantBetween(t, "the last", at[24], 2*time.Second, 2100*time.Millisecond)
	})
}

func TestRateLimitDisconnects(t *testing.T) {
	var ends chan kit.End
	opts := []wsroom.Option{wsroom.OnText(kit.DiscardText), wsroom.WithRateLimit(10, 5), wsroom.WithRateLimitAction(wsroom.Disconnect)}
	kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		go func() {
			for range 6 {
				c.Write(kit.RawFrame(0x81, "x"))
			}
		}()
		if code, _ := c.CloseCode(); code != 1008 {
			t.Errorf("close code %d, want 1008", code)
		}
		if e := <-ends; !errors.Is(e.Err, wsroom.ErrRateLimited) {
			t.Errorf("cause %v", e.Err)
		}
		c.Close()
	})
}

// A close never waits for a peer that stays silent, or that left a frame unfinished: OnClose comes at
// once and the socket is closed after the budget.
func TestCloseTowardsASilentPeerIsBounded(t *testing.T) {
	for name, leave := range map[string][]byte{
		"silent":           nil,
		"frame unfinished": kit.RawFrame(0x81, "0123456789")[:8],
	} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.OnText(kit.DiscardText)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c := s.DialRaw("/a")
				c.Write(leave)
				synctest.Wait()
				if err := hub.Members("/a")[0].Close(4000, "bye"); err != nil {
					t.Fatal(err)
				}
				if code, reason := c.CloseCode(); code != 4000 || reason != "bye" {
					t.Errorf("close frame %d %q", code, reason)
				}
				e := <-ends
				kit.WantBetween(t, "OnClose", e.At, 0, 0)
				if hub.Len() != 0 || len(hub.Rooms()) != 0 {
					t.Errorf("still there: %d, %v", hub.Len(), hub.Rooms())
				}
				begin := time.Now()
				if _, _, err := c.Next(); err == nil {
					t.Error("a frame after the close frame")
				}
				kit.WantBetween(t, "the socket's close", time.Since(begin), 5*time.Second, 5*time.Second)
			})
		})
	}
}

func TestCloseOfAPeerThatDoesNotReadIsBounded(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithSendQueue(4, 1<<20), wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		s.DialRaw("/a")
		conn := hub.Members("/a")[0]
		for range 3 { // one is being written, the queue isn't full yet
			conn.SendText("x")
		}
		synctest.Wait()
		if err := conn.Close(4000, ""); err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(4001, ""); !errors.Is(err, wsroom.ErrClosed) {
			t.Errorf("second Close: %v, want ErrClosed", err)
		}
		e := <-ends
		kit.WantBetween(t, "OnClose", e.At, 0, 0)
		if websocket.CloseStatus(e.Err) != 4000 {
			t.Errorf("cause %v", e.Err)
		}
		begin := time.Now()
		kit.Shutdown(t, hub) // returns when the socket is closed and all have ended
		kit.WantBetween(t, "Shutdown", time.Since(begin), 5*time.Second, 5*time.Second)
	})
}

func TestReadWithADeadlineLeavesTheConnectionAlive(t *testing.T) {
	var ends chan kit.End
	var errs chan error // made in the bubble
	loop := wsroom.Serve(func(c *wsroom.Conn) error {
		for range 3 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _, err := c.Read(ctx)
			cancel()
			errs <- err
		}
		text, err := c.ReadText(context.Background())
		c.SendText(text)
		return err
	})
	makeHub := kit.HubWithEnds(&ends, loop)
	kit.InBubble(t, func() *wsroom.Hub { errs = make(chan error, 3); return makeHub() }, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := wsroomtest.Dial(t, hub, "/a")
		for range 3 {
			if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Read: %v", err)
			}
		}
		c.SendText("still here")
		c.ExpectText("still here")
		c.ExpectClose(websocket.StatusNormalClosure)
	})
}

func TestDrainSpreadsTheCloses(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithDrain(10*time.Second)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		const n = 50
		clients := wsroomtest.DialN(t, n, hub, "/a")
		begin := time.Now()
		kit.Shutdown(t, hub)
		kit.WantBetween(t, "Shutdown", time.Since(begin), 9*time.Second, 10*time.Second)
		perSecond := map[int]int{}
		for _, c := range clients {
			perSecond[int((<-ends).At/time.Second)]++
			c.ExpectClose(websocket.StatusServiceRestart)
		}
		for second, count := range perSecond {
			if count > n/5 {
				t.Errorf("%d of %d closes in second %d", count, n, second)
			}
		}
	})
}

func TestShutdownKeepsItsDeadline(t *testing.T) {
	var ends chan kit.End
	var release chan struct{} // made in the bubble
	stuck := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			<-release
		}
	})
	makeHub := kit.HubWithEnds(&ends, stuck)
	kit.InBubble(t, func() *wsroom.Hub { release = make(chan struct{}); return makeHub() }, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := wsroomtest.Dial(t, hub, "/a")
		c.SendText("x")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		if err := hub.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		kit.WantBetween(t, "Shutdown", time.Since(begin), 3*time.Second, 3*time.Second)
		close(release) // a callback that never returned would keep its goroutine
	})
}
