package resume_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// readers are the ways in which an application gets text. Each passes it to got.
func readers(got func(text string)) map[string][]wsroom.Option {
	serve := func(read func(c *wsroom.Conn) (string, error)) []wsroom.Option {
		return []wsroom.Option{wsroom.Serve(func(c *wsroom.Conn) error {
			for {
				text, err := read(c)
				if err != nil {
					return err
				}
				got(text)
			}
		})}
	}
	// A JSON string may begin with NUL only after the protocol has taken it off: so the decoder is told of it.
	plain := wsroom.WithJSON(func(v any) ([]byte, error) { return []byte(v.(string)), nil }, func(p []byte, v any) error {
		*v.(*string) = string(p)
		return nil
	})
	return map[string][]wsroom.Option{
		"OnText": {wsroom.OnText(func(_ *wsroom.Conn, text string, err error) {
			if err == nil {
				got(text)
			}
		})},
		"OnJSON": {plain, wsroom.OnJSON(func(_ *wsroom.Conn, text string, err error) {
			if err == nil {
				got(text)
			}
		})},
		"Serve": serve(func(c *wsroom.Conn) (string, error) { return c.ReadText(c.Context()) }),
		"Serve, interrupted": serve(func(c *wsroom.Conn) (string, error) {
			for {
				ctx, cancel := context.WithTimeout(c.Context(), time.Millisecond)
				text, err := c.ReadText(ctx)
				cancel()
				if !errors.Is(err, context.DeadlineExceeded) {
					return text, err
				}
			}
		}),
		"rate limit": {wsroom.WithRateLimit(1000, 3), wsroom.WithByteRateLimit(1000, 100), wsroom.OnText(func(_ *wsroom.Conn, text string, err error) {
			if err == nil {
				got(text)
			}
		})},
	}
}

// What a client of wsroom.v1 says with NUL in front is the protocol's. The application gets only its own messages, with
// one NUL less where there were two. A plain client's messages all are the application's.
func TestClientsControl(t *testing.T) {
	digits := []string{"0", "1", "7", "007", "00", "123456789012345", "1234567890123456", "99999999999999999999", "-1", "1.5", "1e3", "7 ", "x", "{}", "\n", "ä", "\x01"}
	said := []string{"a", "", "\x00\x00", "\x00\x00a", "\x00\x00\x00", "\x00\x007", "b"}
	var got chan string
	for name, opts := range readers(func(text string) { got <- text }) {
		for _, v1 := range []bool{true, false} {
			t.Run(fmt.Sprint(name, v1), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					got = make(chan string, 1000)
					hub := wsroomtest.CheckHub(t, wsroom.New(append(slices.Clone(opts), wsroom.WithHistory(10, 1000, time.Minute), wsroom.WithCompression(1))...))
					s := serve(t, hub)
					conn, err := s.listener.Dial(t.Context(), "", "")
					if err != nil {
						t.Fatal(err)
					}
					headers := []string{kit.OfferDeflate}
					if v1 {
						headers = append(headers, "Sec-WebSocket-Protocol: wsroom.v1\r\n")
					}
					raw := kit.UpgradeRaw(t, conn, "/a", headers...)
					var beats atomic.Int32
					drained := make(chan struct{})
					go func() {
						defer close(drained)
						for {
							first, p, err := raw.Next()
							if err != nil {
								return
							}
							if kit.Describe(first, p) == "text 0" {
								beats.Add(1)
							}
						}
					}()
					var want []string
					for i, text := range append(said, digits...) {
						own := text
						if i >= len(said) {
							raw.Frame(0x81, "\x00"+text)
							own = "\x00" + text
						} else if i%2 == 0 {
							raw.Frame(0x81, text)
						} else {
							raw.Write(kit.Compressed(kit.Deflated(text)))
						}
						if v1 {
							if i >= len(said) {
								continue
							}
							own = strings.TrimPrefix(text, "\x00")
						}
						want = append(want, own)
						time.Sleep(time.Second)
					}
					raw.Frame(0x01, "\x00") // a probe in fragments
					raw.Frame(0x80, "")
					time.Sleep(time.Second)
					raw.Write(kit.Compressed(kit.Deflated("\x00")))
					time.Sleep(time.Second)
					raw.Frame(0x81, "end")
					time.Sleep(time.Second)
					want = append(want, "end")
					if !v1 {
						want = slices.Insert(want, len(want)-1, "\x00", "\x00")
					}
					var all []string
					for len(got) > 0 {
						all = append(all, <-got)
					}
					if !slices.Equal(all, want) {
						t.Errorf("got %q, want %q", all, want)
					}
					if want := map[bool]int32{true: 2}[v1]; beats.Load() != want {
						t.Errorf("%d beats, want %d", beats.Load(), want)
					}
					raw.Close()
					<-drained
				})
			})
		}
	}
}

// A client that floods the hub with the protocol's messages is refused, whatever they are, and others aren't.
func TestFloodOfControlIsRefused(t *testing.T) {
	for name, opts := range readers(func(string) {}) {
		for _, text := range []string{"\x00", "\x007", "\x00x"} {
			t.Run(fmt.Sprintf("%s %q", name, text), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					causes := make(chan error, 2)
					opts := append(slices.Clone(opts), wsroom.OnClose(func(_ *wsroom.Conn, err error) { causes <- err }))
					hub := wsroomtest.CheckHub(t, wsroom.New(opts...))
					s := serve(t, hub)
					c := newV1(t, "/a")
					if err := c.dial(s, -1); err != nil {
						t.Fatal(err)
					}
					go func() {
						for range 200 {
							c.say(text)
						}
					}()
					err := c.run()
					if by := (websocket.CloseError{}); !errors.As(err, &by) || by.Code != websocket.StatusPolicyViolation {
						t.Errorf("it ends with %v", err)
					}
					if err := <-causes; !errors.Is(err, wsroom.ErrRateLimited) {
						t.Errorf("the cause is %v", err)
					}
				})
			})
		}
	}
}

// Text that isn't UTF-8 ends the connection also if it begins with NUL.
func TestControlMustBeUTF8(t *testing.T) {
	hub := newHub(t)
	c := newV1(t, "/a")
	if err := c.dial(serve(t, hub), -1); err != nil {
		t.Fatal(err)
	}
	c.say("\x00\xff")
	err := c.run()
	if by := (websocket.CloseError{}); !errors.As(err, &by) || by.Code != websocket.StatusInvalidFramePayloadData {
		t.Errorf("it ends with %v", err)
	}
}

// As long as nothing else is sent, a client gets a beat within the time that was promised it: also while OnConnect is
// long done and Enter holds messages back. What the application writes through Conn.WebSocket isn't a beat, but is
// announced, and a beat isn't more than one.
func TestBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval = 20 * time.Second
		entered := make(chan struct{})
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(interval, 5*time.Second),
			wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
				switch text {
				case "enter":
					go func() { // a callback would keep the hub from reading
						_ = c.Enter("b", func(bool) error { time.Sleep(3 * interval); return nil })
						close(entered)
					}()
				case "write":
					go func() {
						for range 6 {
							time.Sleep(interval / 2)
							_ = c.WebSocket().Write(context.Background(), websocket.MessageText, []byte("written"))
						}
					}()
				}
			})))
		c := newV1(t, "/a")
		c.connect(serve(t, hub))
		if c.hello.Beat != int(interval.Milliseconds()) || c.hello.Keep != 0 {
			t.Errorf("hello %+v", c.hello)
		}
		for i := range 5 {
			begin := time.Now()
			c.until("a beat comes", func() bool { return c.beats > i })
			if d := time.Since(begin); d > interval || d < interval/2 {
				t.Errorf("it comes after %v", d)
			}
		}

		c.say("enter")
		begin, beats := time.Now(), c.beats
		c.until("beats come", func() bool { return c.beats >= beats+2 })
		if d := time.Since(begin); d > 2*interval {
			t.Errorf("two beats take %v", d)
		}
		c.until("it is in the room", func() bool { return slices.Contains(c.log, "in b false") })
		c.until("Enter has returned", func() bool {
			select {
			case <-entered:
				return true
			default:
				return false
			}
		})

		beats = c.beats
		c.say("write")
		c.until("all is written", func() bool { return len(c.got[""]) == 6 })
		if c.beats > beats+6 {
			t.Errorf("%d beats beside 6 messages", c.beats-beats)
		}
		beats = c.beats
		c.until("a beat comes", func() bool { return c.beats > beats })
		c.cut()
	})
}

// A message that the application writes through Conn.WebSocket is announced, in one frame or in several, beside those
// that are queued. The first message to a client is the protocol's, even if the application writes at once.
func TestWrittenBesideQueued(t *testing.T) {
	for range 20 {
		onConnect := func(c *wsroom.Conn, _ *http.Request) error {
			return c.WebSocket().Write(context.Background(), websocket.MessageText, []byte("at once"))
		}
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnConnect(onConnect), wsroom.WithHistory(1000, 1<<20, time.Minute)))
		s := serve(t, hub)
		c := newV1(t, "/a")
		c.connect(s)
		if c.log[0] != "hello" {
			t.Fatalf("log %q", c.log)
		}
		conn := hub.Members("/a")[0]
		written := make(chan struct{})
		go func() {
			defer close(written)
			for i := range 30 {
				w, err := conn.WebSocket().Writer(context.Background(), websocket.MessageBinary)
				if err != nil {
					return
				}
				for part := range 3 {
					fmt.Fprintf(w, "%d %d %s", i, part, strings.Repeat("x", 5000*(i%2)))
					hub.SendTextToRoom("/a", fmt.Sprint(3*i+part))
				}
				w.Close()
			}
		}()
		c.until("all has come", func() bool { return len(c.got[""]) == 31 && len(c.got["/a"]) == 90 })
		<-written
		for i, text := range c.got["/a"] {
			if text != fmt.Sprint(i) {
				t.Fatalf("%d is %q", i, text)
			}
		}
		c.cut()
	}
}
