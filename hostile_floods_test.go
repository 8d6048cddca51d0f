package wsroom_test

import (
	"errors"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// attackers collects why the connections in the room /attack ended.
type attackers struct {
	mu     sync.Mutex
	causes []error
}

func (a *attackers) onClose() wsroom.Option {
	return wsroom.OnClose(func(c *wsroom.Conn, err error) {
		if c.Room() == "/attack" {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.causes = append(a.causes, err)
		}
	})
}

// want waits for n ends and checks their cause.
func (a *attackers) want(t *testing.T, n int, causes ...error) {
	t.Helper()
	until(t, "the attackers have ended", func() bool {
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
	ping, pong := string(rawFrame(0x89, "ping")), string(rawFrame(0x8a, ""))
	var a attackers
	withBystanders(t, []wsroom.Option{a.onClose()}, func(t *testing.T, _ *wsroom.Hub, srv *httptest.Server) {
		for name, flood := range map[string]struct{ attack, first, then string }{
			"pings":                 {"flood", "", ping},
			"pongs":                 {"flood", "", pong},
			"both within a message": {"flood", string(rawFrame(0x01, "x")), ping + pong},
			"long pings, not read":  {"deaf flood", "", string(rawFrame(0x89, strings.Repeat("x", 125)))},
			"empty pongs, not read": {"deaf flood", "", pong},
		} {
			s := besiege(t, srv, n, flood.attack, flood.first, flood.then)
			s.begin()
			a.want(t, n, wsroom.ErrRateLimited)
			took := time.Since(s.watch.start)
			if flood.attack == "flood" {
				s.want(time.Second, 1008)
			}
			s.lift()
			s.watch.within(t, name, took, time.Second)
		}
	})
}

// Endless empty fragments, and messages of which a byte comes each second, end by the message timeout
// and take no memory; endless fragments of a byte may be too long before.
func TestHostileFragments(t *testing.T) {
	const timeout = time.Second
	var a attackers
	opts := []wsroom.Option{a.onClose(), wsroom.WithMessageTimeout(timeout)}
	withBystanders(t, opts, func(t *testing.T, _ *wsroom.Hub, srv *httptest.Server) {
		begun := string(rawFrame(0x01, ""))
		n := scale(100, 334)
		empty := besiege(t, srv, 4, "flood", begun, string(rawFrame(0x00, "")))
		single := besiege(t, srv, 4, "flood", begun, string(rawFrame(0x00, "x")))
		drips := besiege(t, srv, n, "drip", string(rawFrame(0x81, strings.Repeat("x", 100))[:6]), "x")
		heads := besiege(t, srv, n, "drip", "\x81", "\xff\x00")
		frags := besiege(t, srv, n, "drip", begun, string(rawFrame(0x00, "x")))
		heap := heapInUse()
		all := []*siege{empty, single, drips, heads, frags}
		for _, s := range all {
			s.begin()
		}
		<-time.After(timeout * 3 / 4)
		if grown := heapInUse() - heap; grown > 1<<20 && !underRace() {
			t.Errorf("heap grew by %d KiB", grown>>10)
		}
		single.want(timeout+time.Second, 1008, 1009)
		for _, s := range []*siege{empty, drips, heads, frags} {
			s.want(timeout+time.Second, 1008)
		}
	})
}

// Twenty pings or pongs at once and ten a second are allowed, whatever the connection does else, and
// one more isn't.
func TestPingsHaveABudget(t *testing.T) {
	for name, first := range map[string]byte{"pings": 0x89, "pongs": 0x8a} {
		for _, each := range []time.Duration{99 * time.Millisecond, 100 * time.Millisecond} {
			var ends chan end
			inBubble(t, hubWithEnds(&ends, wsroom.WithHeartbeat(0, 0)), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
				c := s.dialRaw("/a")
				go c.closeFrame()     // reads the answers
				time.Sleep(time.Hour) // which saves nothing up
				for range 19 {
					c.frame(first, "")
				}
				for i := range 2000 {
					time.Sleep(each)
					if _, err := c.Write(rawFrame(first, "")); err != nil {
						if each == 100*time.Millisecond || i < 100 {
							t.Errorf("%s every %v: ended after %d", name, each, i)
						}
						break
					}
				}
				if each == 100*time.Millisecond {
					if hub.Len() == 0 {
						t.Errorf("%s: ended by %v", name, (<-ends).err)
					}
					for range 2 {
						c.Write(rawFrame(first, ""))
					}
				}
				select {
				case e := <-ends:
					if !errors.Is(e.err, wsroom.ErrRateLimited) {
						t.Errorf("%s every %v: cause %v", name, each, e.err)
					}
				case <-time.After(time.Second):
					t.Errorf("%s every %v: it goes on", name, each)
				}
			})
		}
	}
}

// Pings that gather while nobody reads, because a callback is slow, are no flood.
func TestPingsMayGatherBehindASlowCallback(t *testing.T) {
	var ends chan end
	slow := wsroom.OnText(func(c *wsroom.Conn, text string, err error) { time.Sleep(10 * time.Second) })
	inBubble(t, hubWithEnds(&ends, slow), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
		c := s.dialRaw("/a")
		go c.closeFrame() // reads the answers
		c.frame(0x81, "x")
		for range 100 { // the pipe holds them back until they are read, all at once
			c.frame(0x89, "")
		}
		time.Sleep(time.Second)
		if hub.Len() == 0 {
			t.Errorf("ended by %v", (<-ends).err)
		}
	})
}

// However fast the hub itself pings, its peer's answers are no flood.
func TestHeartbeatIsNoFlood(t *testing.T) {
	var ends chan end
	inBubble(t, hubWithEnds(&ends, wsroom.WithHeartbeat(20*time.Millisecond, time.Second)), func(t *testing.T, s *pipeServer, hub *wsroom.Hub) {
		c := s.dialRaw("/a")
		for range 1000 {
			if first, _, err := c.next(); first != 0x89 || err != nil {
				t.Fatalf("want a ping, got %#x, %v; ended by %v", first, err, (<-ends).err)
			}
			c.frame(0x8a, "")
		}
	})
}
