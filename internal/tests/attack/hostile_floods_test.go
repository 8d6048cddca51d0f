package attack_test

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// attackCauses collects why the connections in the room /attack ended.
type attackCauses struct {
	mu     sync.Mutex
	causes []error
}

func (a *attackCauses) onClose() wsroom.Option {
	return wsroom.OnClose(func(c *wsroom.Conn, err error) {
		if c.Room() == "/attack" {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.causes = append(a.causes, err)
		}
	})
}

// want waits for n ends and checks their cause.
func (a *attackCauses) want(t *testing.T, n int, causes ...error) {
	t.Helper()
	kit.Until(t, "the attackers have ended", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.causes) >= n
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, err := range a.causes {
		if !slices.ContainsFunc(causes, func(cause error) bool { return errors.Is(err, cause) }) {
			t.Errorf("cause %v, want %v", err, causes)
		}
	}
	a.causes = nil
}

// Floods of pings and pongs end with 1008 within a second, whether the flooder reads the answers or
// not.
func TestHostileControlFloods(t *testing.T) {
	const n = 20
	ping, pong := string(kit.RawFrame(0x89, "ping")), string(kit.RawFrame(0x8a, ""))
	var causes attackCauses
	withBystanders(t, []wsroom.Option{causes.onClose()}, func(t *testing.T, _ *wsroom.Hub, srv *httptest.Server) {
		for name, flood := range map[string]struct{ attack, first, then string }{
			"pings":                 {"flood", "", ping},
			"pongs":                 {"flood", "", pong},
			"both within a message": {"flood", string(kit.RawFrame(0x01, "x")), ping + pong},
			"long pings, not read":  {"unread flood", "", string(kit.RawFrame(0x89, strings.Repeat("x", 125)))},
			"empty pongs, not read": {"unread flood", "", pong},
		} {
			a := connectAttackers(t, srv, n, flood.attack, flood.first, flood.then)
			a.begin()
			causes.want(t, n, wsroom.ErrRateLimited)
			took := time.Since(a.watch.start)
			if flood.attack == "flood" {
				a.want(time.Second, 1008)
			}
			a.stop()
			a.watch.within(t, name, took, time.Second)
		}
	})
}

// Endless fragments that are empty, or hold a byte, end with 1008 within a second, messages of which a byte
// comes each second by the message timeout. Neither takes memory.
func TestHostileFragments(t *testing.T) {
	timeout := time.Duration(kit.Scale(1, 10)) * time.Second
	opts := []wsroom.Option{wsroom.WithMessageTimeout(timeout)}
	withBystanders(t, opts, func(t *testing.T, _ *wsroom.Hub, srv *httptest.Server) {
		begun := string(kit.RawFrame(0x01, ""))
		n := kit.Scale(100, 334)
		empty := connectAttackers(t, srv, 4, "flood", begun, string(kit.RawFrame(0x00, "")))
		single := connectAttackers(t, srv, 4, "flood", begun, string(kit.RawFrame(0x00, "x")))
		drips := connectAttackers(t, srv, n, "slow send", string(kit.RawFrame(0x81, strings.Repeat("x", 100))[:6]), "x")
		heads := connectAttackers(t, srv, n, "slow send", "\x81", "\xff\x00")
		frags := connectAttackers(t, srv, n, "slow send", begun, string(kit.RawFrame(0x00, "x")))
		heap := kit.HeapInUse()
		all := []*attackers{empty, single, drips, heads, frags}
		for _, a := range all {
			a.begin()
		}
		<-time.After(timeout * 3 / 4)
		grown := kit.HeapInUse() - heap
		if t.Logf("heap grew by %d KiB", grown>>10); grown > 1<<20 && !kit.UnderRace() {
			t.Error("which is too much")
		}
		for _, a := range []*attackers{empty, single} {
			a.want(time.Second, 1008)
		}
		for _, a := range []*attackers{drips, heads, frags} {
			a.want(timeout+time.Second, 1008)
		}
	})
}

// Twenty pings or pongs at once and ten a second are allowed, whatever the connection does else, and
// one more isn't.
func TestPingsHaveABudget(t *testing.T) {
	for name, first := range map[string]byte{"pings": 0x89, "pongs": 0x8a} {
		for _, each := range []time.Duration{99 * time.Millisecond, 100 * time.Millisecond} {
			var ends chan kit.End
			kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c := s.DialRaw("/a")
				go c.CloseFrame()     // reads the answers
				time.Sleep(time.Hour) // which saves nothing up
				for range 19 {
					c.Frame(first, "")
				}
				for i := range 2000 {
					time.Sleep(each)
					if _, err := c.Write(kit.RawFrame(first, "")); err != nil {
						if each == 100*time.Millisecond || i < 100 {
							t.Errorf("%s every %v: ended after %d", name, each, i)
						}
						break
					}
				}
				if each == 100*time.Millisecond {
					if hub.Len() == 0 {
						t.Errorf("%s: ended by %v", name, (<-ends).Err)
					}
					for range 2 {
						c.Write(kit.RawFrame(first, ""))
					}
				}
				select {
				case e := <-ends:
					if !errors.Is(e.Err, wsroom.ErrRateLimited) {
						t.Errorf("%s every %v: cause %v", name, each, e.Err)
					}
				case <-time.After(time.Second):
					t.Errorf("%s every %v: it goes on", name, each)
				}
			})
		}
	}
}

// Fragments may be small, and as many as fit into a message of the default size in pieces of 8 bytes may
// come at once; endless ones that carry next to nothing are a flood.
func TestFragmentsHaveABudget(t *testing.T) {
	const second = time.Second
	for name, test := range map[string]struct {
		fragment string // of a cycle, what is sent after each pause
		n        int
		pause    time.Duration
		times    int
		flood    bool
	}{
		"pieces of 8 bytes":     {"12345678", 8190, 0, 1, false},
		"a 4 KiB piece, often":  {strings.Repeat("x", 4<<10), 1, second / 1000, 15, false},
		"bytes, with pauses":    {"x", 1, second / 1000, 20000, false},
		"empty, at once":        {"", 5000, 0, 1, false},
		"empty, at once again":  {"", 5000, 2 * second, 10, false},
		"empty, 2,500 a second": {"", 250, second / 10, 100, false},
		"empty, in a flood":     {"", 5400, 0, 1, true},
		"empty, 5,000 a second": {"", 500, second / 10, 100, true},
		"bytes, in a flood":     {"x", 5800, 0, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			var ends chan kit.End
			got := make(chan int, 1)
			onText := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
				if err == nil {
					got <- len(text)
				}
			})
			opts := []wsroom.Option{onText, wsroom.WithMessageTimeout(time.Hour), wsroom.WithHeartbeat(0, 0)}
			kit.InBubble(t, kit.HubWithEnds(&ends, opts...), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
				c := s.DialRaw("/a")
				go c.CloseFrame()
				c.Frame(0x01, "")
				fragments := bytes.Repeat(kit.RawFrame(0x00, test.fragment), test.n)
				for range test.times {
					time.Sleep(test.pause)
					c.Write(fragments) // fails where the flood was ended
				}
				c.Write(kit.RawFrame(0x80, ""))
				select {
				case n := <-got:
					if want := len(test.fragment) * test.n * test.times; n != want || test.flood {
						t.Errorf("a message of %d bytes came, sent were %d", n, want)
					}
				case e := <-ends:
					if !test.flood || !errors.Is(e.Err, wsroom.ErrRateLimited) {
						t.Errorf("ended by %v", e.Err)
					}
				case <-time.After(second):
					t.Error("neither message nor end")
				}
			})
		})
	}
}

// Pings that gather while nobody reads, because a callback is slow, are no flood.
func TestPingsMayGatherBehindASlowCallback(t *testing.T) {
	var ends chan kit.End
	slow := wsroom.OnText(func(c *wsroom.Conn, text string, err error) { time.Sleep(10 * time.Second) })
	kit.InBubble(t, kit.HubWithEnds(&ends, slow), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		go c.CloseFrame() // reads the answers
		c.Frame(0x81, "x")
		for range 100 { // the pipe holds them back until they are read, all at once
			c.Frame(0x89, "")
		}
		time.Sleep(time.Second)
		if hub.Len() == 0 {
			t.Errorf("ended by %v", (<-ends).Err)
		}
	})
}

// However fast the hub itself pings, its peer's answers are no flood.
func TestHeartbeatIsNoFlood(t *testing.T) {
	var ends chan kit.End
	kit.InBubble(t, kit.HubWithEnds(&ends, wsroom.WithHeartbeat(20*time.Millisecond, time.Second)), func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		for range 1000 {
			if first, _, err := c.Next(); first != 0x89 || err != nil {
				t.Fatalf("want a ping, got %#x, %v; ended by %v", first, err, (<-ends).Err)
			}
			c.Frame(0x8a, "")
		}
	})
}
