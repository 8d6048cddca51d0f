package conns_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// At the time of Until the connection ends, unless OnExpire gives it more.
func TestExpiryEndsOrRenews(t *testing.T) {
	renewals := func(more ...time.Duration) func(n int) (time.Time, error) {
		return func(n int) (time.Time, error) { return time.Now().Add(more[n]), nil }
	}
	for _, test := range []struct {
		what   string
		expire func(n int) (time.Time, error) // OnExpire's n-th call; nil: none is set
		calls  []time.Duration
		at     time.Duration
		code   int
		reason string
		cause  error
	}{
		{"no OnExpire", nil, nil, time.Minute, 4401, "expired", wsroom.ErrExpired},
		{"renewed twice", renewals(time.Hour, time.Second, 0), []time.Duration{time.Minute, time.Minute + time.Hour, time.Minute + time.Hour + time.Second},
			time.Minute + time.Hour + time.Second, 4401, "expired", wsroom.ErrExpired},
		{"not later", renewals(0), []time.Duration{time.Minute}, time.Minute, 4401, "expired", wsroom.ErrExpired},
		{"earlier", renewals(-time.Second), []time.Duration{time.Minute}, time.Minute, 4401, "expired", wsroom.ErrExpired},
		{"error", func(int) (time.Time, error) { return time.Now().Add(time.Hour), errors.New("hunter2") },
			[]time.Duration{time.Minute}, time.Minute, 4401, "expired", wsroom.ErrExpired},
		{"CloseError", func(int) (time.Time, error) {
			return time.Time{}, fmt.Errorf("hunter2: %w", websocket.CloseError{Code: 4001, Reason: "log in again"})
		}, []time.Duration{time.Minute}, time.Minute, 4001, "log in again", wsroom.ErrExpired},
		{"CloseError that can't be sent", func(int) (time.Time, error) { return time.Time{}, websocket.CloseError{Code: 1006} },
			[]time.Duration{time.Minute}, time.Minute, 4401, "expired", wsroom.ErrExpired},
		{"panic", func(int) (time.Time, error) { panic("boom") }, []time.Duration{time.Minute}, time.Minute, 1011, "", wsroom.ErrPanic},
		{"Goexit", func(int) (time.Time, error) { runtime.Goexit(); panic("unreachable") },
			[]time.Duration{time.Minute}, time.Minute, 1011, "", wsroom.ErrPanic},
	} {
		t.Run(test.what, func(t *testing.T) {
			var ends chan kit.End
			var calls []time.Duration
			var begin time.Time
			opts := []wsroom.Option{kit.AdmitFor(time.Minute), wsroom.WithHeartbeat(0, 0)}
			if test.expire != nil {
				opts = append(opts, wsroom.OnExpire(func(c *wsroom.Conn) (time.Time, error) {
					calls = append(calls, time.Since(begin))
					return test.expire(len(calls) - 1)
				}))
			}
			seen := &kit.Observer{Sums: map[string]float64{}}
			opts = append(opts, wsroom.WithObserver(seen))
			kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				begin = time.Now()
				c := s.DialRaw("/a")
				if code, reason := c.CloseCode(); code != test.code || reason != test.reason {
					t.Errorf("close frame %d %q", code, reason)
				}
				c.Close()
				e := <-ends
				if !errors.Is(e.Err, test.cause) || errors.As(e.Err, new(websocket.CloseError)) != (test.what[:5] == "Close") {
					t.Errorf("cause %v", e.Err)
				}
				kit.WantBetween(t, "ended", e.At, test.at, test.at)
				if !slices.Equal(calls, test.calls) {
					t.Errorf("OnExpire was called after %v, want %v", calls, test.calls)
				}
				synctest.Wait()
				if n := seen.Sum("ended expired"); n != map[bool]float64{true: 1}[test.cause == wsroom.ErrExpired] {
					t.Errorf("%v ended as expired", n)
				}
			})
		})
	}
}

// A zero time is no limit, given by Until or by OnExpire.
func TestZeroTimeNeverExpires(t *testing.T) {
	for what, until := range map[string]time.Duration{"Until": 0, "OnExpire": time.Minute} {
		var ends chan kit.End
		asked := 0
		authorize := wsroom.WithAuthorize(func(*http.Request, string) error { return wsroom.Until(time.Time{}) })
		if until > 0 {
			authorize = kit.AdmitFor(until)
		}
		expire := wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { asked++; return time.Time{}, nil })
		kit.InBubble(t, kit.HubWithEnds(&ends, authorize, expire, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			c := s.DialRaw("/a")
			time.Sleep(1000 * time.Hour)
			synctest.Wait()
			if want := int(until / time.Minute); hub.Len() != 1 || asked != want {
				t.Errorf("%s: %d connections, asked %d times, want %d", what, hub.Len(), asked, want)
			}
			c.Close()
			<-ends
		})
	}
}

// Until admits only when nothing refuses and its time is to come.
func TestUntilAdmitsOrRefuses(t *testing.T) {
	later, past := time.Now().Add(time.Hour), time.Now().Add(-time.Second)
	denied := &wsroom.StatusError{Status: 404}
	for _, test := range []struct {
		what   string
		err    error
		status int
	}{
		{"later", wsroom.Until(later), 101},
		{"later, without a monotonic clock", wsroom.Until(later.Round(0)), 101},
		{"never", wsroom.Until(time.Time{}), 101},
		{"wrapped", fmt.Errorf("token of ann: %w", wsroom.Until(later)), 101},
		{"past", wsroom.Until(past), 401},
		{"the epoch", wsroom.Until(time.Unix(0, 0)), 401},
		{"beside a refusal", errors.Join(wsroom.Until(later), denied), 404},
	} {
		hub := wsroom.New(wsroom.WithAuthorize(func(*http.Request, string) error { return test.err }))
		srv := kit.Serve(t, hub)
		if p := kit.Request(t, srv, kit.UpgradeRequest("/")); p.Res.StatusCode != test.status {
			t.Errorf("%s: got %d, want %d", test.what, p.Res.StatusCode, test.status)
		} else {
			p.Close()
		}
		kit.NothingLeft(t, hub)
	}
}

// Without OnExpire no callback holds the end up, be it OnConnect, a message's or Serve.
func TestExpiryDoesNotWaitForACallback(t *testing.T) {
	slow := func(c *wsroom.Conn) error {
		<-c.Context().Done()
		time.Sleep(time.Hour)
		return nil
	}
	for what, opt := range map[string]wsroom.Option{
		"OnConnect": wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return slow(c) }),
		"OnText":    wsroom.OnText(func(c *wsroom.Conn, _ string, _ error) { slow(c) }),
		"Serve":     wsroom.Serve(slow),
	} {
		var ends chan kit.End
		kit.InBubble(t, kit.HubWithEnds(&ends, opt, kit.AdmitFor(time.Minute)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			begin := time.Now()
			c := s.DialRaw("/a")
			if what == "OnText" {
				c.Frame(0x81, "x")
			}
			for { // pings come before
				if first, p, err := c.Next(); first == 0x88 || err != nil {
					if err != nil || p != "\x11\x31expired" {
						t.Errorf("%s: close frame %q, %v", what, p, err)
					}
					break
				}
			}
			kit.WantBetween(t, what+": closed", time.Since(begin), time.Minute, time.Minute)
			if hub.Len() != 0 {
				t.Errorf("%s: still there", what)
			}
			c.Close()
			if e := <-ends; !errors.Is(e.Err, wsroom.ErrExpired) {
				t.Errorf("%s: cause %v", what, e.Err)
			}
		})
	}
}

// OnExpire waits its turn: behind OnConnect and the joins, and behind a message's callback.
func TestOnExpireWaitsItsTurn(t *testing.T) {
	for slow, want := range map[string][]string{
		"OnConnect": {"OnConnect 2m0s", "OnJoin 2m0s", "OnExpire 2m0s", "OnText 2m0s"},
		"OnText":    {"OnConnect 0s", "OnJoin 0s", "OnText 2m0s", "OnExpire 2m0s"},
	} {
		var ends chan kit.End
		var order []string
		var begin time.Time
		did := func(what string) {
			if slow == what {
				time.Sleep(2 * time.Minute)
			}
			order = append(order, what+" "+time.Since(begin).String())
		}
		opts := []wsroom.Option{
			kit.AdmitFor(time.Minute), wsroom.WithHeartbeat(0, 0),
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { did("OnConnect"); return nil }),
			wsroom.OnJoin(func(*wsroom.Conn, string) { did("OnJoin") }),
			wsroom.OnText(func(_ *wsroom.Conn, _ string, err error) {
				if err == nil {
					did("OnText")
				}
			}),
			wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { did("OnExpire"); return time.Time{}, nil }),
		}
		kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			begin = time.Now()
			c := s.DialRaw("/a")
			c.Frame(0x81, "x")
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if !slices.Equal(order, want) {
				t.Errorf("got %q, want %q", order, want)
			}
			if hub.Len() != 1 {
				t.Error("it was renewed, and has ended")
			}
			c.Close()
			<-ends
		})
	}
}

// OnExpire runs beside Serve, which it may end.
func TestOnExpireRunsBesideServe(t *testing.T) {
	var ends chan kit.End
	var read error
	opts := []wsroom.Option{
		kit.AdmitFor(time.Minute), wsroom.WithHeartbeat(0, 0),
		wsroom.Serve(func(c *wsroom.Conn) error { _, _, read = c.Read(context.Background()); return read }),
		wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { return time.Time{}, errors.New("no") }),
	}
	kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		if code, _ := c.CloseCode(); code != 4401 {
			t.Errorf("close code %d", code)
		}
		c.Close()
		if e := <-ends; !errors.Is(e.Err, wsroom.ErrExpired) || read != e.Err {
			t.Errorf("cause %v, Read says %v", e.Err, read)
		}
	})
}

// A connection that is ending, or whose OnConnect refused, doesn't expire any more.
func TestEndingConnectionDoesNotExpire(t *testing.T) {
	for _, what := range []string{"closed", "closing", "refused by OnConnect", "closed while OnExpire is due"} {
		var ends chan kit.End
		opts := []wsroom.Option{
			kit.AdmitFor(time.Minute), wsroom.WithHeartbeat(0, 0),
			wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error {
				if what == "refused by OnConnect" {
					time.Sleep(2 * time.Minute) // it was due before
					return websocket.CloseError{Code: 4000}
				}
				return nil
			}),
			wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
				switch {
				case what == "closing" && err != nil:
					time.Sleep(2 * time.Minute) // it becomes due meanwhile
				case what == "closed while OnExpire is due" && err == nil:
					time.Sleep(2 * time.Minute)
					c.Close(4000, "")
				case err == nil:
					c.Close(4000, "")
				}
			}),
			wsroom.OnExpire(func(*wsroom.Conn) (time.Time, error) { t.Errorf("%s: OnExpire", what); return time.Time{}, nil }),
		}
		kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			c := s.DialRaw("/a")
			if what != "refused by OnConnect" {
				c.Frame(0x81, "x")
			}
			if code, _ := c.CloseCode(); code != 4000 {
				t.Errorf("%s: close code %d", what, code)
			}
			c.Close()
			if e := <-ends; websocket.CloseStatus(e.Err) != 4000 {
				t.Errorf("%s: cause %v", what, e.Err)
			}
			time.Sleep(time.Hour)
		})
	}
}

// A connection that has ended isn't kept until it would have expired.
func TestEndedConnectionIsFreedBeforeItExpires(t *testing.T) {
	conns := make(chan weak.Pointer[wsroom.Conn], 1)
	hub := wsroom.New(kit.AdmitFor(time.Hour), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		conns <- weak.Make(c)
		return nil
	}))
	kit.Dial(t, kit.Serve(t, hub), "/a").CloseNow()
	c := kit.Await(t, conns, "a connection")
	kit.NothingLeft(t, hub)
	kit.Until(t, "it is freed", func() bool { runtime.GC(); return c.Value() == nil })
}
