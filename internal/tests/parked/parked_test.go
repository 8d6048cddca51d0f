//go:build linux

package parked_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// never is a time after which no connection of a test is parked.
const never = time.Hour

// quietAfter has connections of hubs that are made now parked after so long without a message, until the test's end.
func quietAfter(t *testing.T, d time.Duration) {
	t.Helper()
	before := line.Quiet()
	line.SetQuiet(max(d, 1))
	t.Cleanup(func() { line.SetQuiet(before) })
}

// reading returns the number of connections that have a goroutine.
func reading() int {
	all := make([]byte, 16<<20)
	return strings.Count(string(all[:runtime.Stack(all, true)]), "wsroom.(*Conn).run(")
}

// allParked waits until no connection has a goroutine.
func allParked(t *testing.T) {
	t.Helper()
	kit.Until(t, "all connections are parked", func() bool { return reading() == 0 })
}

// wantReading waits until as many connections have a goroutine.
func wantReading(t *testing.T, n int) {
	t.Helper()
	kit.Until(t, fmt.Sprint(n, " connections have a goroutine"), func() bool { return reading() == n })
}

// hubAndServer starts a server of a hub.
func hubAndServer(t *testing.T, opts ...wsroom.Option) (*wsroom.Hub, *httptest.Server) {
	t.Helper()
	hub := wsroom.New(opts...)
	return hub, kit.Serve(t, hub)
}

// wantText reads a text message.
func wantText(t *testing.T, c *kit.RawConn, want string) {
	t.Helper()
	if first, text, err := c.Next(); first != 0x81 || text != want || err != nil {
		t.Fatalf("got %#x %q, error %v; want text %q", first, kit.Short(text), err, want)
	}
}

// A thousand silent connections have no goroutine, before their first message and some time after the last. Each gets
// what is sent to it, and answers.
func TestSilentConnectionsHaveNoGoroutine(t *testing.T) {
	quietAfter(t, 100*time.Millisecond)
	hub, srv := hubAndServer(t, kit.Echo())
	before := runtime.NumGoroutine()
	clients := make([]*kit.RawConn, kit.Scale(200, 1000))
	for i := range clients {
		clients[i] = kit.DialRaw(t, srv, "/a")
	}
	allParked(t)
	kit.Until(t, "goroutines have ended", func() bool { return runtime.NumGoroutine() < before+10 })
	for range 2 {
		if err := hub.SendTextToAll("all"); err != nil {
			t.Fatal(err)
		}
		for i, c := range clients {
			wantText(t, c, "all")
			c.Frame(0x81, fmt.Sprint(i))
			wantText(t, c, fmt.Sprint(i))
		}
		allParked(t)
	}
}

// polls returns how many epolls the process has.
func polls(t *testing.T) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if target, _ := os.Readlink("/proc/self/fd/" + entry.Name()); target == "anon_inode:[eventpoll]" {
			n++
		}
	}
	return n
}

// A connection that sends keeps its goroutine until it is silent, and its socket isn't in the hub's set, which is closed
// when nothing is in it.
func TestActiveConnectionsAreNotParked(t *testing.T) {
	quietAfter(t, never)
	_, srv := hubAndServer(t, kit.Echo())
	kit.Until(t, "the sets of other tests are closed", func() bool { return polls(t) <= 1 }) // the runtime's
	c := kit.DialRaw(t, srv, "/a")
	allParked(t)
	kit.Until(t, "the hub has a set", func() bool { return polls(t) > 1 })
	c.Frame(0x81, "x")
	wantText(t, c, "x")
	wantReading(t, 1)
	kit.Until(t, "the hub's set is closed", func() bool { return polls(t) == 1 })
	for range 100 {
		c.Frame(0x81, "x")
		wantText(t, c, "x")
	}
	if n := reading(); n != 1 {
		t.Errorf("%d connections have a goroutine, want 1", n)
	}
}

// listener returns connections of a type of its own.
type listener struct{ net.Listener }

type wrapped struct{ net.Conn }

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return wrapped{conn}, err
}

// Over TLS, over sockets of another type and in Serve a connection keeps its goroutine, and works.
func TestConnectionsThatKeepTheirGoroutine(t *testing.T) {
	quietAfter(t, 0)
	serve := wsroom.Serve(func(c *wsroom.Conn) error {
		for {
			text, err := c.ReadText(c.Context())
			if err != nil {
				return err
			}
			c.SendText(text)
		}
	})
	for name, test := range map[string]struct {
		opt   wsroom.Option
		start func(*httptest.Server)
	}{
		"TLS":     {kit.Echo(), (*httptest.Server).StartTLS},
		"wrapped": {kit.Echo(), func(srv *httptest.Server) { srv.Listener = listener{srv.Listener}; srv.Start() }},
		"Serve":   {serve, (*httptest.Server).Start},
	} {
		t.Run(name, func(t *testing.T) {
			hub := wsroom.New(test.opt)
			srv := kit.ServeConfigured(t, hub, test.start, hub)
			var conn net.Conn
			var err error
			if srv.TLS != nil {
				conn, err = tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			} else {
				conn, err = net.Dial("tcp", srv.Listener.Addr().String())
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(kit.Patience))
			c := kit.UpgradeRaw(t, conn, "/a")
			for range 3 {
				wantReading(t, 1)
				c.Frame(0x81, "x")
				wantText(t, c, "x")
			}
		})
	}
}

// A hub behind middleware, whose handlers have all returned, is no different: nothing of the request is used when a
// connection is woken.
func TestRequestIsOverWhileParked(t *testing.T) {
	quietAfter(t, 0)
	type key struct{}
	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
		if err == nil {
			c.SendText(fmt.Sprint(c.Context().Value(key{}), c.Context().Err()))
		}
	}))
	over := make(chan struct{})
	srv := kit.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(over)
		hub.ServeHTTP(w, r.WithContext(contextWith(r, key{}, "value")))
	}), hub)
	c := kit.DialRaw(t, srv, "/a")
	kit.Await(t, over, "the handler's return")
	allParked(t)
	c.Frame(0x81, "x")
	wantText(t, c, "value<nil>")
}

// Callbacks that are due run although the client sends nothing: the joins of OnConnect, and those of a connection that
// is parked.
func TestCallbacksRunWhileTheClientIsSilent(t *testing.T) {
	quietAfter(t, 0)
	joined := make(chan string, 10)
	hub, srv := hubAndServer(t,
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error { return c.Join("/b") }),
		wsroom.OnJoin(func(_ *wsroom.Conn, room string) { joined <- room }),
	)
	kit.DialRaw(t, srv, "/a")
	for _, want := range []string{"/a", "/b"} {
		if room := kit.Await(t, joined, "OnJoin"); room != want {
			t.Errorf("joined %q, want %q", room, want)
		}
	}
	allParked(t)
	if err := kit.Member(t, hub, "/a").Join("/c"); err != nil {
		t.Fatal(err)
	}
	if room := kit.Await(t, joined, "OnJoin"); room != "/c" {
		t.Errorf("joined %q, want /c", room)
	}
}

// A message that comes with the handshake is handled at once.
func TestMessageWithTheHandshake(t *testing.T) {
	quietAfter(t, 0)
	_, srv := hubAndServer(t, kit.Echo())
	conn := kit.Connect(t, srv)
	request := fmt.Sprintf(kit.Handshake, "/a", "") + string(kit.RawFrame(0x81, "early")) + string(kit.RawFrame(0x81, "more"))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	c := kit.ReadAnswer(t, conn)
	wantText(t, c.RawConn, "early")
	wantText(t, c.RawConn, "more")
	allParked(t)
	c.Frame(0x81, "late")
	wantText(t, c.RawConn, "late")
}

// Messages arrive in order and whole, however they are cut, while their connection is parked after each of them.
func TestNothingIsLostOrTurnedRound(t *testing.T) {
	quietAfter(t, 0)
	_, srv := hubAndServer(t, kit.Echo())
	c := kit.DialRaw(t, srv, "/a")
	var stream []byte
	const n = 300
	texts := make([]string, n)
	for i := range texts {
		texts[i] = fmt.Sprint(i, strings.Repeat("x", i*i%5000))
		switch i % 30 {
		case 10: // in fragments, with a pong in between
			stream = append(stream, kit.RawFrame(0x01, texts[i][:1])...)
			stream = append(stream, kit.RawFrame(0x8a, "pong")...)
			stream = append(stream, kit.RawFrame(0x80, texts[i][1:])...)
		case 20:
			stream = append(stream, kit.RawFrame(0x8a, "")...)
			fallthrough
		default:
			stream = append(stream, kit.RawFrame(0x81, texts[i])...)
		}
	}
	go func() {
		for i := 0; len(stream) > 0; i++ {
			size := min(len(stream), []int{1, 2, 3, 5, 7, 11, 100, 1000, 6, 1, 1, 4096}[i%12])
			if _, err := c.Write(stream[:size]); err != nil {
				return
			}
			stream = stream[size:]
			runtime.Gosched()
		}
	}()
	for _, text := range texts {
		wantText(t, c, text)
	}
	allParked(t)
}

// A parked connection is pinged, and its pong keeps it. It is parked again, and one that doesn't answer ends.
func TestHeartbeatOfParkedConnections(t *testing.T) {
	quietAfter(t, never)
	closed, closes := kit.Closes()
	hub, srv := hubAndServer(t, closed, wsroom.WithHeartbeat(50*time.Millisecond, time.Second))
	hub2 := wsroom.New(closed, wsroom.WithHeartbeat(50*time.Millisecond, 100*time.Millisecond))
	mute := kit.DialRaw(t, kit.Serve(t, hub2), "/mute")
	parked := kit.DialRaw(t, srv, "/a")
	for range 5 {
		first, payload, err := parked.Next()
		if first != 0x89 || err != nil {
			t.Fatalf("got %#x, error %v; want a ping", first, err)
		}
		parked.Frame(0x8a, payload)
		allParked(t)
	}
	if err := kit.Await(t, closes, "the end of the mute one"); !errors.Is(err, wsroom.ErrHeartbeat) {
		t.Errorf("the mute one ended by %v", err)
	}
	mute.Close()
	if hub.Len() != 1 {
		t.Error("the one that answers has ended")
	}
}

// The time of a message begins with its first byte, however long its connection was parked.
func TestMessageTimeoutBeginsWithTheFirstByte(t *testing.T) {
	quietAfter(t, 0)
	const timeout = 200 * time.Millisecond
	closed, closes := kit.Closes()
	_, srv := hubAndServer(t, closed, kit.Echo(), wsroom.WithMessageTimeout(timeout))
	c := kit.DialRaw(t, srv, "/a")
	frame := kit.RawFrame(0x81, "text")
	for range 2 {
		<-time.After(timeout + timeout/2)
		allParked(t)
		c.Write(frame[:3])
		<-time.After(timeout / 4)
		c.Write(frame[3:])
		wantText(t, c, "text")
	}
	allParked(t)
	c.Write(frame[:3])
	begin := time.Now()
	if code, reason := c.CloseCode(); code != 1008 || reason != "message took too long" {
		t.Errorf("closed with %d %q", code, reason)
	}
	if took := time.Since(begin); took < timeout/2 {
		t.Errorf("ended after %v, not %v", took, timeout)
	}
	kit.Await(t, closes, "OnClose")
}

// Rate limits count what comes from a connection that is parked in between.
func TestRateLimitOfParkedConnections(t *testing.T) {
	quietAfter(t, 0)
	closed, closes := kit.Closes()
	_, srv := hubAndServer(t, closed, kit.Echo(), wsroom.WithRateLimit(1, 10), wsroom.WithRateLimitAction(wsroom.Disconnect))
	c := kit.DialRaw(t, srv, "/a")
	for range 10 {
		allParked(t)
		c.Frame(0x81, "x")
		wantText(t, c, "x")
	}
	c.Write(bytes.Repeat(kit.RawFrame(0x81, "x"), 100))
	if code, _ := c.CloseCode(); code != 1008 {
		t.Errorf("closed with %d", code)
	}
	if err := kit.Await(t, closes, "OnClose"); !errors.Is(err, wsroom.ErrRateLimited) {
		t.Errorf("ended by %v", err)
	}
}
