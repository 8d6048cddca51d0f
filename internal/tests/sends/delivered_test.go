package sends_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// delivered returns the channel that gets what Delivered calls its function with.
func delivered(c *wsroom.Conn) <-chan error {
	ch := make(chan error, 1)
	c.Delivered(func(err error) { ch <- err })
	return ch
}

// outcome is what has come from the channel: "" is nothing yet.
func outcome(ch <-chan error) string {
	synctest.Wait()
	select {
	case err := <-ch:
		return fmt.Sprint(err)
	default:
		return ""
	}
}

// pings reads what the server writes until nothing comes, answers the pings if answer is set, and returns it:
// texts as they are, pings as "ping".
func pings(c *kit.RawConn, answer bool) (got []string) {
	for {
		synctest.Wait()
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		first, p, err := c.Next()
		switch {
		case err != nil:
			return got
		case first == 0x89:
			if got = append(got, "ping"); answer {
				c.SetDeadline(time.Time{})
				c.Frame(0x8a, p)
			}
		default:
			got = append(got, p)
		}
	}
}

// Delivered waits for the answer to a ping that stands behind what was sent before, however much that is.
func TestDeliveredWaitsForTheAnswer(t *testing.T) {
	kit.InBubble(t, func() *wsroom.Hub { return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnText(kit.DiscardText)) },
		func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			raw := s.DialRaw("/a")
			synctest.Wait()
			c := kit.Member(t, hub, "/a")
			large := strings.Repeat("x", 100<<10)
			var want []string
			for i := range 300 {
				text := fmt.Sprint(i)
				if i == 150 {
					text = large
				}
				hub.SendTextToRoom("/a", text)
				want = append(want, text)
			}
			first := delivered(c)
			c.SendText("behind")
			if got := outcome(first); got != "" {
				t.Errorf("before anything is read: %q", got)
			}
			got := pings(raw, false)
			at := slices.Index(got, "ping")
			if at < 300 || !slices.Equal(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return s == "ping" }), append(want, "behind")) {
				t.Errorf("the ping is message %d of %d", at, len(got))
			}
			if got := outcome(first); got != "" {
				t.Errorf("before the answer: %q", got)
			}
			time.Sleep(3 * time.Second)
			raw.SetDeadline(time.Time{})
			raw.Frame(0x8a, "")                                  // an unsolicited pong
			raw.Frame(0x8a, "w\x00\x00\x00\x00\x00\x00\x00\x09") // a pong of what wasn't asked
			if got := outcome(first); got != "" || c.Lag() != 0 {
				t.Errorf("after foreign pongs: %q, lag %v", got, c.Lag())
			}
			raw.Frame(0x8a, "w\x00\x00\x00\x00\x00\x00\x00\x01")
			if got := outcome(first); got != "<nil>" {
				t.Errorf("after the answer: %q", got)
			}
			kit.WantBetween(t, "the answer", c.Lag(), 3*time.Second, 4*time.Second)

			second := delivered(c) // with nothing that waits
			if got := pings(raw, true); !slices.Equal(got, []string{"ping"}) {
				t.Errorf("%q comes", got)
			}
			if got := outcome(second); got != "<nil>" {
				t.Errorf("with nothing that waits: %q", got)
			}
			kit.WantBetween(t, "the answer", c.Lag(), 0, time.Second)
		})
}

// However often Delivered is called, a connection gets at most five pings a second, and each call is answered
// for.
func TestDeliveredSharesPings(t *testing.T) {
	kit.InBubble(t, func() *wsroom.Hub { return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnText(kit.DiscardText)) },
		func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			raw := s.DialRaw("/a")
			synctest.Wait()
			c := kit.Member(t, hub, "/a")
			var calls []<-chan error
			asked := 0
			for range 1000 {
				c.SendText("x")
				calls = append(calls, delivered(c))
				for _, got := range pings(raw, true) {
					if got == "ping" {
						asked++
					}
				}
				time.Sleep(time.Millisecond)
			}
			time.Sleep(time.Second)
			pings(raw, true)
			for i, ch := range calls {
				if got := outcome(ch); got != "<nil>" {
					t.Fatalf("call %d: %q", i, got)
				}
			}
			if asked < 5 || asked > 20 { // in 2 to 3 s
				t.Errorf("%d pings", asked)
			}
		})
}

// An end without an answer is the error: the connection's cause. What is answered during the close handshake
// counts.
func TestDeliveredAtTheEnd(t *testing.T) {
	newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnText(kit.DiscardText)) }
	for name, end := range map[string]struct {
		do   func(raw *kit.RawConn, c *wsroom.Conn)
		want string
	}{
		"lost":      {func(raw *kit.RawConn, c *wsroom.Conn) { raw.Close() }, "wsroom: "}, // of reading or writing
		"by itself": {func(raw *kit.RawConn, c *wsroom.Conn) { c.Close(4000, "bye"); time.Sleep(time.Minute) }, "4000"},
		"answered": {func(raw *kit.RawConn, c *wsroom.Conn) {
			c.Close(4000, "bye")
			pings(raw, true)
			raw.Frame(0x88, "\x0f\xa0")
		}, "<nil>"},
		"closed by the client": {func(raw *kit.RawConn, c *wsroom.Conn) {
			raw.Frame(0x88, "\x0f\xa0")
			pings(raw, false)
		}, "4000"},
	} {
		t.Run(name, func(t *testing.T) {
			kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				raw := s.DialRaw("/a")
				synctest.Wait()
				c := kit.Member(t, hub, "/a")
				c.SendText("x")
				ch := delivered(c)
				end.do(raw, c)
				if got := outcome(ch); !strings.Contains(got, end.want) {
					t.Errorf("got %q, want %q", got, end.want)
				}
				late := delivered(c)
				if got := <-late; !errors.Is(got, wsroom.ErrClosed) {
					t.Errorf("after the end: %v", got)
				}
				raw.Close()
			})
		})
	}
}

// A call that shares a ping which isn't written yet is answered for, too, if all of the messages can be
// written.
func TestDeliveredJustBeforeTheEnd(t *testing.T) {
	for name, end := range map[string]struct {
		do   func(c *wsroom.Conn)
		want string
	}{
		"closed":        {func(c *wsroom.Conn) { c.Close(4000, "") }, "<nil>"},
		"closed, later": {func(c *wsroom.Conn) { c.Close(4000, ""); time.Sleep(time.Second) }, "<nil>"},
		"slow": {func(c *wsroom.Conn) {
			for c.SendText("x") == nil {
			}
		}, wsroom.ErrSlow.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			newHub := func() *wsroom.Hub { return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithSendQueue(5, 1<<20)) }
			kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				raw := s.DialRaw("/a")
				synctest.Wait()
				c := kit.Member(t, hub, "/a")
				c.SendText("1")
				first := delivered(c)
				pings(raw, true)
				c.SendText("2")
				synctest.Wait() // it is being written
				c.SendText("3")
				second := delivered(c)
				end.do(c)
				pings(raw, true)
				raw.Close()
				if got := outcome(first) + " " + outcome(second); got != "<nil> "+end.want {
					t.Errorf("got %q, want %q", got, end.want)
				}
			})
		})
	}
}

// lazyBroker is a broker that takes its time.
type lazyBroker struct{ *brokertest.Node }

func (b lazyBroker) Publish(ctx context.Context, topic string, data []byte) error {
	time.Sleep(time.Second)
	return b.Node.Publish(ctx, topic, data)
}

// With a broker Target.Delivered is about messages that the broker hasn't delivered yet, too.
func TestTargetDeliveredWaitsForTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := kit.Nodes(t, lazyBroker{brokertest.NewMemory().Open()}, 1, wsroom.WithIdentity(as))[0]
		c := wsroomtest.Dial(t, hub, "/a?as=ann")
		id := kit.Member(t, hub, "/a").ID()
		for _, target := range []wsroom.Target{hub.To("/a", "/b"), hub.ToAll(), hub.ToIdentity("ann", "bob"), hub.ToConn("nobody", id)} {
			sent := hub.Stats().Sent
			if err := target.SendText("x"); err != nil {
				t.Fatal(err)
			}
			missing := target.Delivered(t.Context())
			synctest.Wait() // the writer counts what it has written
			if len(missing) > 0 || hub.Stats().Sent != sent+1 {
				t.Errorf("%d are missing, %d were sent", len(missing), hub.Stats().Sent-sent)
			}
			c.ExpectText("x")
		}
	})
}

// In OnConnect Delivered is about the snapshot; the messages of others needn't have gone out.
func TestDeliveredInOnConnect(t *testing.T) {
	var ch <-chan error
	var hub *wsroom.Hub
	newHub := func() *wsroom.Hub {
		hub = wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnText(kit.DiscardText), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			hub.SendTextToRoom("/a", "room")
			c.SendText("snapshot")
			ch = delivered(c)
			time.Sleep(time.Second)
			return nil
		}))
		return hub
	}
	kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		raw := s.DialRaw("/a")
		if got := pings(raw, false); !slices.Equal(got, []string{"snapshot", "ping"}) {
			t.Errorf("while OnConnect runs %q comes", got)
		}
		raw.SetDeadline(time.Time{})
		raw.Frame(0x8a, "w\x00\x00\x00\x00\x00\x00\x00\x01") // it is read once OnConnect has returned
		if got := outcome(ch); got != "<nil>" {
			t.Errorf("got %q", got)
		}
		if got := pings(raw, true); !slices.Equal(got, []string{"room"}) {
			t.Errorf("%q comes", got)
		}
	})
}

// A panic in the function ends the connection, and the function may call the connection.
func TestDeliveredGuardsItsFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnText(kit.DiscardText)))
		client := wsroomtest.Dial(t, hub, "/a")
		c := kit.Member(t, hub, "/a")
		c.Delivered(func(error) {
			c.SendText("delivered")
			c.Delivered(func(error) { panic("boom") })
		})
		client.ExpectText("delivered")
		client.ExpectClose(websocket.StatusInternalError)
	})
}

// Target.Delivered returns who doesn't have what was sent, on one node and with a broker.
func TestTargetDelivered(t *testing.T) {
	alike(t, func(t *testing.T, hub *wsroom.Hub) {
		quick, left := wsroomtest.Dial(t, hub, "/a"), wsroomtest.Dial(t, hub, "/a")
		conns := hub.Members("/a")
		slow := wsroomtest.Dial(t, hub, "/a")
		stalls := slices.DeleteFunc(hub.Members("/a"), func(c *wsroom.Conn) bool { return slices.Contains(conns, c) })
		slow.Stall()
		wsroomtest.Dial(t, hub, "/b").Stall()
		hub.SendTextToAll(strings.Repeat("x", 1000))

		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		begin := time.Now()
		hub.SendTextToRoom("/a", "x")
		if missing := hub.To("/a").Delivered(ctx); !slices.Equal(missing, stalls) {
			t.Errorf("%d are missing", len(missing))
		}
		kit.WantBetween(t, "Delivered", time.Since(begin), 3*time.Second, 3*time.Second)
		begin = time.Now()
		if missing := hub.To("/a").Except(stalls...).Delivered(t.Context()); len(missing) > 0 {
			t.Errorf("%d are missing", len(missing))
		}
		kit.WantBetween(t, "Delivered", time.Since(begin), 0, time.Second)
		if got := quick.Drain(); len(got) != 2 || !slices.Contains(got, "x") {
			t.Errorf("got %d messages", len(got))
		}
		if missing := hub.To().Delivered(t.Context()); len(missing) > 0 {
			t.Error("nobody is missing")
		}
		slow.CloseNow()
		left.CloseNow()
		synctest.Wait()
		if missing := hub.To("/a").Delivered(t.Context()); len(missing) > 0 {
			t.Errorf("%d are missing", len(missing))
		}
	})
}

// WaitQueue waits until little enough waits to be written, until ctx is done, or for the end.
func TestWaitQueue(t *testing.T) {
	kit.InBubble(t, func() *wsroom.Hub { return wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithWriteTimeout(time.Hour)) },
		func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			raw := s.DialRaw("/a")
			synctest.Wait()
			c := kit.Member(t, hub, "/a")
			wait := func(bytes int64) <-chan error {
				ch := make(chan error, 1)
				go func() { ch <- c.WaitQueue(t.Context(), bytes) }()
				return ch
			}
			part := strings.Repeat("x", 20<<10)
			if got := outcome(wait(0)); got != "<nil>" {
				t.Errorf("an empty queue: %q", got)
			}
			for range 4 { // one is being written
				c.SendText(part)
				synctest.Wait()
			}
			half, empty := wait(41<<10), wait(0)
			if got := outcome(half) + outcome(empty); got != "" {
				t.Errorf("%q, with 60 KiB in the queue", got)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.WaitQueue(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a context that is done: %v", err)
			}
			raw.Next()
			if got := outcome(half); got != "<nil>" {
				t.Errorf("with 40 KiB: %q", got)
			}
			if got := outcome(empty); got != "" {
				t.Errorf("%q, with 40 KiB in the queue", got)
			}
			for range 3 {
				raw.Next()
			}
			if got := outcome(empty); got != "<nil>" {
				t.Errorf("an empty queue: %q", got)
			}
			for range 2 {
				c.SendText(part)
				synctest.Wait()
			}
			ended := wait(0)
			c.Close(4000, "")
			if got := outcome(ended); got != wsroom.ErrClosed.Error() {
				t.Errorf("at the end: %q", got)
			}
			if err := c.WaitQueue(t.Context(), 0); err != wsroom.ErrClosed {
				t.Errorf("after the end: %v", err)
			}
			raw.Close()
		})
}
