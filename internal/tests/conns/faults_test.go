package conns_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// A ping or a pong that comes instead of a message doesn't let Read forget its context.
func TestReadKeepsItsContextWhilePingsCome(t *testing.T) {
	var ends chan kit.End
	var errs chan error
	loop := wsroom.Serve(func(c *wsroom.Conn) error {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, _, err := c.Read(ctx)
		errs <- err
		return nil
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, loop), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		errs = make(chan error, 1)
		c := s.DialRaw("/a")
		go func() {
			for _, _, err := c.Next(); err == nil; _, _, err = c.Next() {
			}
		}()
		begin := time.Now()
		for _, first := range []byte{0x89, 0x8a} {
			time.Sleep(time.Second)
			c.Frame(first, "ping")
		}
		if err := <-errs; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Read: %v", err)
		}
		kit.WantBetween(t, "Read", time.Since(begin), 3*time.Second, 3*time.Second)
		c.Close()
	})
}

// An OnConnect that sends more than the queue holds doesn't wait for a peer that has gone.
func TestOnConnectDoesNotWaitForAPeerThatHasGone(t *testing.T) {
	var ends chan kit.End
	var sent chan error
	greet := wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) (err error) {
		for i := 0; i < 10 && err == nil; i++ {
			err = c.SendText(strings.Repeat("x", 600<<10))
		}
		sent <- err
		return err
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, greet), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		sent = make(chan error, 1)
		c := s.DialRaw("/a")
		time.Sleep(time.Second)
		c.Close()
		select {
		case err := <-sent:
			if !errors.Is(err, wsroom.ErrClosed) {
				t.Errorf("SendText: %v, want ErrClosed", err)
			}
		case <-time.After(time.Hour):
			t.Error("OnConnect still waits")
			hub.Members("/a")[0].Close(4000, "")
		}
	})
}

// A raw write that timed out in the middle of a frame ends the connection, and nothing follows it.
func TestWriteTimeoutOfARawWriteEndsTheConnection(t *testing.T) {
	var ends chan kit.End
	raw := wsroom.Serve(func(c *wsroom.Conn) error {
		_ = c.WebSocket().Write(context.Background(), websocket.MessageBinary, make([]byte, 1000))
		<-c.Context().Done()
		return nil
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, raw, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		c.Conn.Read(make([]byte, 500))
		e := <-ends
		if !errors.Is(e.Err, os.ErrDeadlineExceeded) {
			t.Errorf("cause %v", e.Err)
		}
		kit.WantBetween(t, "ended", e.At, 10*time.Second, 11*time.Second)
		if n, err := c.Conn.Read(make([]byte, 500)); err == nil {
			t.Errorf("%d bytes more came", n)
		}
	})
}

// A message that the connection's loss cuts short reaches no callback as a whole one.
func TestCutMessageReachesNobody(t *testing.T) {
	got, ends := make(chan string, 1), make(chan error, 1)
	hub := wsroom.New(
		wsroom.WithCompression(1<<10),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				got <- text
			}
		}),
		wsroom.OnClose(func(c *wsroom.Conn, err error) { ends <- err }))
	srv := kit.Serve(t, hub)
	halves := kit.Compressed(kit.Deflated("delete everything ", "but this"))
	for name, sent := range map[string][]byte{
		"after a fragment":            kit.RawFrame(0x01, "delete everything"),
		"after a header":              kit.RawFrame(0x81, "x")[:6],
		"inside a compressed payload": halves[:len(halves)-8],
	} {
		peer := kit.DialRaw(t, srv, "/a", kit.Offered)
		peer.Write(sent)
		peer.Close()
		err := kit.Await(t, ends, "the end")
		if len(got) > 0 {
			t.Errorf("%s: the callback got %q; ended by %v", name, kit.Short(<-got), err)
		}
	}
}

// Nobody who is upgraded while others are being closed is forgotten.
func TestCloseRacesWithUpgrades(t *testing.T) {
	hub := wsroom.New()
	srv := kit.Serve(t, hub)
	done := make(chan bool)
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			default:
				hub.To("/a").Close(4000, "kick")
			}
		}
	}()
	for range 100 {
		kit.Dial(t, srv, "/a").ExpectClose(4000)
	}
}

// A room that is busy while OnConnect sends a large snapshot doesn't make a slow client, whatever the
// policy, and nothing of the snapshot is dropped.
func TestSnapshotBesideABusyRoom(t *testing.T) {
	for _, policy := range []wsroom.Overflow{wsroom.CloseSlow, wsroom.DropOldest, wsroom.DropNewest} {
		const parts = 300
		part := strings.Repeat("x", 10<<10) // more in all than the queue and the kernel hold at once
		var hub *wsroom.Hub
		hub = wsroom.New(wsroom.WithOverflow(policy), wsroom.WithSendQueue(100, 64<<10),
			wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
				for i := range parts {
					if i%10 == 0 {
						hub.SendTextToRoom("/a", "live")
					}
					if err := c.SendText(part); err != nil {
						t.Errorf("policy %d, part %d: %v", policy, i, err)
						return err
					}
				}
				return nil
			}))
		c := kit.Dial(t, kit.Serve(t, hub), "/a")
		for range parts {
			c.ExpectText(part)
		}
		for range parts / 10 {
			c.ExpectText("live")
		}
	}
}

// No OnJoin comes before OnConnect, or where OnConnect refused, whoever lets the connection join.
func TestNothingIsReportedBeforeOnConnect(t *testing.T) {
	onClose, closed := kit.Closes()
	hub := wsroom.New(onClose,
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return errors.New("refused") }),
		wsroom.OnJoin(func(_ *wsroom.Conn, room string) { t.Errorf("OnJoin %s", room) }),
		wsroom.OnLeave(func(_ *wsroom.Conn, room string) { t.Errorf("OnLeave %s", room) }))
	srv := kit.Serve(t, hub)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				for _, c := range hub.Members("/a") {
					c.Join("lobby")
				}
			}
		}
	})
	for range 100 {
		c := kit.Dial(t, srv, "/a")
		kit.Await(t, closed, "OnClose")
		c.CloseNow()
	}
	close(done)
	wg.Wait()
}

// A callback that waits inside the websocket.Conn is released when the connection's end takes its
// socket.
func TestEndReleasesACallbackInARawWrite(t *testing.T) {
	var ends chan kit.End
	var second chan error
	raw := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err != nil {
			return
		}
		w, err := c.WebSocket().Writer(context.Background(), websocket.MessageBinary)
		if err != nil {
			t.Error(err)
			return
		}
		w.Write([]byte("part"))
		c.Close(4000, "")
		time.Sleep(time.Second)
		w.Close() // fails: the close frame is out
		_, err = c.WebSocket().Writer(context.Background(), websocket.MessageBinary)
		second <- err
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, raw), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		second = make(chan error, 1)
		c := s.DialRaw("/a")
		c.Frame(0x81, "x")
		c.CloseCode()
		if err := <-second; err == nil {
			t.Error("a writer on a closed connection")
		}
		if e := <-ends; websocket.CloseStatus(e.Err) != 4000 {
			t.Errorf("cause %v", e.Err)
		}
	})
}

// A client that sends before it reads gets what was queued for it before the close, as long as it takes.
func TestCloseReachesAPeerThatIsSending(t *testing.T) {
	var ends chan kit.End
	var took, release chan struct{}
	slow := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			took <- struct{}{}
			<-release
		}
	})
	kit.InBubble(t, kit.HubWithEnds(&ends, slow), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		took, release = make(chan struct{}, 1), make(chan struct{})
		c := s.DialRaw("/a")
		c.Frame(0x81, "first")
		<-took
		m := kit.Member(t, hub, "/a")
		m.SendText("queued")
		m.Close(4000, "")
		close(release)
		c.Frame(0x81, "second") // a pipe holds nothing: this waits until it is read
		if first, p, err := c.Next(); first != 0x81 || p != "queued" || err != nil {
			t.Errorf("got %#x %q, %v", first, p, err)
		}
		if code, _ := c.CloseCode(); code != 4000 {
			t.Errorf("close code %d", code)
		}
		c.Frame(0x88, "\x0f\xa0")
	})
}

// A queue that has not been empty for as many messages as its ring holds, and more, still grows.
func TestQueueThatIsNeverEmptyGrows(t *testing.T) {
	kit.InBubble(t, func() *wsroom.Hub { return wsroom.New() }, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		sent, got := 0, 0
		for _, step := range []struct{ send, read int }{
			{1, 0}, {250, 1}, {128, 128}, {128, 128}, {128, 128}, {300, 550}, // batches of 128 are taken
		} {
			for range step.send {
				if err := hub.SendTextToRoom("/a", fmt.Sprint(sent)); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			for range step.read {
				synctest.Wait() // all has been taken that the pipe lets be
				if _, p, err := c.Next(); err != nil || p != fmt.Sprint(got) {
					t.Fatalf("got %q, %v; want %d", p, err, got)
				}
				got++
			}
			synctest.Wait()
		}
		if got != sent {
			t.Errorf("%d of %d came", got, sent)
		}
	})
}
