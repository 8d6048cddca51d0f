package frame

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

func TestListenedCountsEveryWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, client := net.Pipe()
		wire, h := newWire(server, nil, tenSeconds)
		waits := func(pause time.Duration, then func()) {
			time.AfterFunc(pause, then)
			_ = wire.Wait()
			time.Sleep(time.Hour) // nobody listens
		}
		waits(3*time.Second, wire.Interrupt)
		wire.Resume()
		waits(4*time.Second, wire.Interrupt)
		wire.Resume()
		if got := time.Duration(wire.Listened(Now())); got != 7*time.Second {
			t.Errorf("listened for %v, want 7s", got)
		}
		if wire.Heard() != wire.LastRead() || h.readErr != nil {
			t.Errorf("heard %d, read %d, error %v", wire.Heard(), wire.LastRead(), h.readErr)
		}
		begin := Now()
		waits(time.Second, func() { client.Write([]byte{0x81}) })
		if heard := wire.Heard() - begin; heard != int64(time.Second) {
			t.Errorf("heard after %v", time.Duration(heard))
		}
		client.Close()
		wire.Drain()
		if h.readErr != io.EOF {
			t.Errorf("the owner hears %v", h.readErr)
		}
	})
}

// What is read without a wait may have lain there for long: it tells nothing of its sender now.
func TestHeardIsNotWhatLayThere(t *testing.T) {
	server, client := tcpPair(t)
	wire, _ := newWire(server, nil, relaxed)
	before := wire.Heard()
	if _, err := client.Write(bytes.Repeat([]byte{0}, 3*readSize)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // it has come
	for range 3 {
		if err := wire.Wait(); err != nil {
			t.Fatal(err)
		}
		wire.readMu.Lock()
		wire.consume(wire.w - wire.r)
		wire.readMu.Unlock()
	}
	if wire.LastRead() <= before || wire.Heard() != before {
		t.Errorf("heard at %d, read at %d; it was %d", wire.Heard(), wire.LastRead(), before)
	}
}

func TestWhole(t *testing.T) {
	ping, text := frameOf(0x89, "ping", true), frameOf(0x81, "text", true)
	first, last := frameOf(0x01, "te", true), frameOf(0x80, "xt", true)
	for name, c := range map[string]struct {
		unread []byte
		want   bool
	}{
		"nothing":           {nil, true},
		"a ping":            {ping, true},
		"a part of a ping":  {ping[:5], false},
		"a message":         {text, true},
		"a part of it":      {text[:len(text)-1], false},
		"half a header":     {text[:1], false},
		"behind pings":      {bytes.Join([][]byte{ping, ping, text}, nil), true},
		"and more":          {append(bytes.Clone(text), 0x81), true},
		"fragments":         {bytes.Join([][]byte{first, last}, nil), false}, // it may be, but why look
		"a part behind one": {bytes.Join([][]byte{ping, text[:3]}, nil), false},
	} {
		server, client := net.Pipe()
		wire, _ := newWire(server, c.unread, relaxed)
		if got := wire.Whole(); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		server.Close()
		client.Close()
	}
}

// The application's reader gets control frames whole or not at all.
func TestControlFramesAreHandedOnWhole(t *testing.T) {
	overSocks(t, func(t *testing.T, s sock) {
		server, client := s.make(t)
		wire, h := newWire(server, nil, &Limits{Message: time.Second / 4, Write: patience})
		ping := frameOf(0x89, "a ping of some length", true)
		go func() {
			client.Write(ping)
			for _, b := range ping[:len(ping)-1] {
				client.Write([]byte{b})
			}
		}()
		got := make([]byte, 0, 100)
		var err error
		for err == nil {
			var n int
			n, err = wire.Read(got[len(got):min(cap(got), len(got)+16)])
			got = got[:len(got)+n]
		}
		if !bytes.Equal(got, ping) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %q, %v", got, err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if !errors.Is(h.readErr, os.ErrDeadlineExceeded) {
			t.Errorf("the owner hears %v", h.readErr)
		}
	})
}
