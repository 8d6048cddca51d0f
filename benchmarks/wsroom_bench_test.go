package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// These benchmarks use wsroom's public API over connections without sockets, so that the library's
// own cost shows and the kernel's doesn't. Compare runs with benchstat.

const handshakeKey = "dGhlIHNhbXBsZSBub25jZQ=="

// A sink is a client that takes everything and says what it is given to say.
type sink struct {
	net.Conn // nil: nothing else is called
	taken    *atomic.Int64
	says     chan []byte // frames
	closed   chan struct{}
	once     sync.Once
}

func (s *sink) Read(p []byte) (int, error) {
	select {
	case frame := <-s.says:
		return copy(p, frame), nil
	case <-s.closed:
		return 0, net.ErrClosed
	}
}

func (s *sink) Write(p []byte) (int, error)      { s.taken.Add(int64(len(p))); return len(p), nil }
func (s *sink) Close() error                     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *sink) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *sink) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *sink) SetDeadline(time.Time) error      { return nil }
func (s *sink) SetReadDeadline(time.Time) error  { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

// A hijacked is a ResponseWriter that hands out a sink.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// A bench is a hub whose members are sinks.
type bench struct {
	*wsroom.Hub
	taken   atomic.Int64
	conns   []*wsroom.Conn
	sinks   []*sink
	deflate bool
}

// newBench puts members connections in the room /bench and waits until they are all idle.
func newBench(b *testing.B, members int, deflate bool, opts ...wsroom.Option) *bench {
	b.Helper()
	h := &bench{deflate: deflate}
	if deflate {
		opts = append(opts, wsroom.WithCompression(0))
	}
	h.Hub = wsroom.New(append(opts, wsroom.WithHeartbeat(0, 0), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		h.conns = append(h.conns, c)
		return nil
	}))...)
	b.Cleanup(func() {
		for _, s := range h.sinks { // a close handshake would wait for their answers
			_ = s.Close()
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := h.Shutdown(ctx); err != nil {
			b.Error(err)
		}
	})
	for range members {
		h.sinks = append(h.sinks, h.connect())
	}
	return h
}

func (h *bench) connect() *sink { return h.connectTo(func(s *sink) net.Conn { return s }) }

// connectTo connects a sink, as what over makes of it.
func (h *bench) connectTo(over func(*sink) net.Conn) *sink {
	r := httptest.NewRequest(http.MethodGet, "http://bench/bench", nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", handshakeKey)
	if h.deflate {
		r.Header.Set("Sec-WebSocket-Extensions", "permessage-deflate; server_no_context_takeover; client_no_context_takeover")
	}
	conn := &sink{taken: &h.taken, says: make(chan []byte), closed: make(chan struct{})}
	h.ServeHTTP(hijacked{httptest.NewRecorder(), over(conn)}, r)
	return conn
}

// flood sends b.N times and waits until everything is written, ahead messages at a time.
func (h *bench) flood(b *testing.B, ahead int, send func() error) {
	b.Helper()
	size := h.once(b, send)
	b.ReportAllocs()
	b.ResetTimer()
	due := h.taken.Load()
	for i := range b.N {
		if err := send(); err != nil {
			b.Fatal(err)
		}
		if due += size; i%ahead == ahead-1 || i == b.N-1 {
			h.await(due)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(h.conns)), "ns/member")
}

// once sends one message and returns how many bytes it is for all members together.
func (h *bench) once(b *testing.B, send func() error) int64 {
	b.Helper()
	before := h.taken.Load()
	if err := send(); err != nil {
		b.Fatal(err)
	}
	written := h.Stats().Sent
	for deadline := time.Now().Add(10 * time.Second); h.Stats().Sent < written+len(h.conns); {
		if written = 0; time.Now().After(deadline) {
			b.Fatalf("%d of %d members got the first message", h.Stats().Sent, len(h.conns))
		}
		runtime.Gosched()
	}
	return h.taken.Load() - before
}

func (h *bench) await(taken int64) {
	for h.taken.Load() < taken {
		runtime.Gosched()
	}
}

func BenchmarkBroadcast(b *testing.B) {
	text := strings.Repeat("x", 128)
	for _, ahead := range []int{1, 32} {
		for _, members := range []int{10, 100, 1000, 10000} {
			b.Run(fmt.Sprintf("ahead=%d/members=%d", ahead, members), func(b *testing.B) {
				h := newBench(b, members, false)
				h.flood(b, ahead, func() error { return h.SendTextToRoom("/bench", text) })
			})
		}
	}
}

// idleObserver is told everything and does nothing; as a tracer, too.
type idleObserver struct{}

func (idleObserver) Add(string, string, string, int)        {}
func (idleObserver) Record(string, string, string, float64) {}

type idleTracer struct{ idleObserver }

func (idleTracer) Start(ctx context.Context, _, _ string) (context.Context, func(error)) {
	return ctx, func(error) {}
}

// BenchmarkObserver compares what a message costs that is read, handed to a callback and sent to a room of
// ten: without an Observer, with one, and with one that traces.
func BenchmarkObserver(b *testing.B) {
	for _, test := range []struct {
		name string
		opts []wsroom.Option
	}{
		{"none", nil},
		{"metrics", []wsroom.Option{wsroom.WithObserver(idleObserver{})}},
		{"traces", []wsroom.Option{wsroom.WithObserver(idleTracer{})}},
	} {
		b.Run(test.name, func(b *testing.B) {
			text := strings.Repeat("x", 128)
			h := newBench(b, 10, false, append(test.opts, wsroom.OnText(func(c *wsroom.Conn, _ string, err error) {
				if err == nil {
					_ = c.SendTextToThisRoom(text)
				}
			}))...)
			frame := []byte("\x81\x82\x00\x00\x00\x00hi") // masked with zeros
			h.flood(b, 1, func() error {
				h.sinks[0].says <- frame
				return nil
			})
		})
	}
}

// BenchmarkEcho is a message that is read, handed to a callback and sent to a room of one, over a socket. The
// client's part is included.
func BenchmarkEcho(b *testing.B) {
	hub := wsroom.New(wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			_ = c.SendTextToThisRoom(text)
		}
	}))
	server := httptest.NewServer(hub)
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()

	answer := make([]byte, 4<<10)
	_, _ = io.WriteString(conn, handshakeTo(server.Listener.Addr()))
	_, _ = conn.Read(answer)
	frame := append([]byte("\x81\xfe\x00\x80\x00\x00\x00\x00"), strings.Repeat("x", 128)...) // masked with zeros
	b.ReportAllocs()
	for b.Loop() {
		_, _ = conn.Write(frame)
		if n, err := conn.Read(answer); n != 4+128 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkBroadcastDeflated(b *testing.B) {
	text := strings.Repeat("what a room says, again and again; ", 30)
	for _, members := range []int{10, 1000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			h := newBench(b, members, true)
			h.flood(b, 32, func() error { return h.SendTextToRoom("/bench", text) })
		})
	}
}

func BenchmarkSendText(b *testing.B) {
	for _, size := range []int{16, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			h, text := newBench(b, 1, false), strings.Repeat("x", size)
			b.SetBytes(int64(size))
			h.flood(b, 32, func() error { return h.conns[0].SendText(text) })
		})
	}
}

// BenchmarkEncode sends to a room without members: what is left is the encoding.
func BenchmarkEncode(b *testing.B) {
	message := struct {
		Name string `json:"name"`
		Text string `json:"text"`
		At   int64  `json:"at"`
	}{"somebody", strings.Repeat("hello ", 20), 1700000000}
	h := newBench(b, 0, false)
	b.ReportAllocs()
	for b.Loop() {
		if err := h.SendJSONToRoom("/nobody", message); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkJoinLeave(b *testing.B) {
	for _, rooms := range []int{1, 1000, 100000} {
		b.Run(fmt.Sprintf("rooms=%d", rooms), func(b *testing.B) {
			h := newBench(b, 100, false)
			for i := range rooms {
				if err := h.conns[i%99].Join("/more/" + strconv.Itoa(i)); err != nil {
					b.Fatal(err)
				}
			}
			joinLeave(b, h.conns[99], "/another")
		})
	}
	for _, members := range []int{10, 10000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			h := newBench(b, members, false)
			for _, c := range h.conns[1:] {
				if err := c.Join("/another"); err != nil {
					b.Fatal(err)
				}
			}
			joinLeave(b, h.conns[0], "/another")
		})
	}
}

func joinLeave(b *testing.B, c *wsroom.Conn, room string) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Join(room); err != nil {
			b.Fatal(err)
		}
		if err := c.Leave(room); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkConnect is a connection's whole life: handshake, a cut, and the way out of its room.
func BenchmarkConnect(b *testing.B) {
	h := newBench(b, 1000, false)
	b.ReportAllocs()
	for ended := 1; b.Loop(); ended++ {
		h.conns = h.conns[:1000]
		_ = h.connect().Close()
		for h.Stats().Closed < ended {
			runtime.Gosched()
		}
	}
}

// closeFrame is a client's close frame with code 1000, masked with zeros.
const closeFrame = "\x88\x82\x00\x00\x00\x00\x03\xe8"

// BenchmarkVisit is a connection's whole life with both handshakes: to a room that has members, and to one that
// opens and closes with the visit.
func BenchmarkVisit(b *testing.B) {
	for _, members := range []int{0, 1000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			h := newBench(b, members, false)
			b.ReportAllocs()
			for ended := 1; b.Loop(); ended++ {
				h.conns = h.conns[:members]
				h.connect().says <- []byte(closeFrame)
				for h.Stats().Closed < ended {
					runtime.Gosched()
				}
			}
		})
	}
}

// handshakeTo is a client's handshake, for the room /bench.
func handshakeTo(addr net.Addr) string {
	return "GET /bench HTTP/1.1\r\nHost: " + addr.String() + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + handshakeKey + "\r\n\r\n"
}

// BenchmarkVisitHTTP is a visit through net/http and sockets, the client's part included.
func BenchmarkVisitHTTP(b *testing.B) {
	hub := wsroom.New(wsroom.OnText(func(*wsroom.Conn, string, error) {}))
	server := httptest.NewServer(hub)
	defer server.Close()
	addr, handshake := server.Listener.Addr().String(), handshakeTo(server.Listener.Addr())
	answer := make([]byte, 4<<10)

	b.ReportAllocs()
	for b.Loop() {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.WriteString(conn, handshake)
		_, _ = conn.Read(answer)
		_, _ = io.WriteString(conn, closeFrame)
		for err == nil {
			_, err = conn.Read(answer)
		}
		if conn.Close(); err != io.EOF {
			b.Fatal(err)
		}
	}
}

// BenchmarkSnapshot is a connection's whole life with 10,000 messages that OnConnect sends.
func BenchmarkSnapshot(b *testing.B) {
	hub := wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		for range 10_000 {
			if err := c.SendText("a part of the snapshot"); err != nil {
				return err
			}
		}
		return nil
	}))
	h := &bench{Hub: hub}
	b.ReportAllocs()
	for ended := 1; b.Loop(); ended++ {
		s := h.connect()
		for h.Stats().Sent < ended*10_000 {
			runtime.Gosched()
		}
		_ = s.Close()
		for h.Stats().Closed < ended {
			runtime.Gosched()
		}
	}
}

// BenchmarkTarget sends to a room of a thousand: by its name twice, as one of several rooms, and but for half of it.
func BenchmarkTarget(b *testing.B) {
	rooms := []string{"/bench"}
	for i := range 99 {
		rooms = append(rooms, "/other/"+strconv.Itoa(i))
	}
	for name, target := range map[string]func(h *bench) wsroom.Target{
		"twice":    func(h *bench) wsroom.Target { return h.To("/bench", "/bench") },
		"rooms=2":  func(h *bench) wsroom.Target { return h.To(rooms[:2]...) },
		"rooms=10": func(h *bench) wsroom.Target { return h.To(rooms[:10]...) },
		"rooms=99": func(h *bench) wsroom.Target { return h.To(rooms...) },
	} {
		b.Run(name, func(b *testing.B) {
			h := newBench(b, 1000, false)
			to := target(h)
			h.flood(b, 1, func() error { return to.SendText("hello") })
		})
	}
	b.Run("except=500", func(b *testing.B) {
		h := newBench(b, 1000, false)
		to := h.To("/bench").Except(h.conns[:500]...)
		b.ReportAllocs()
		for b.Loop() {
			if err := to.SendText("hello"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkDropOldest sends to a member that reads nothing of the snapshot that OnConnect sent it.
func BenchmarkDropOldest(b *testing.B) {
	for _, parts := range []int{0, 4000} {
		b.Run(fmt.Sprintf("snapshot=%d", parts), func(b *testing.B) {
			gate, sent := make(chan struct{}), make(chan struct{})
			hub := wsroom.New(wsroom.WithHeartbeat(0, 0), wsroom.WithOverflow(wsroom.DropOldest), wsroom.WithSendQueue(4096, 8<<10),
				wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
					defer close(sent)
					_ = c.SendText(strings.Repeat("x", 16<<10)) // the writer is at this one
					for ; ; runtime.Gosched() {
						if n, _ := c.Queued(); n == 0 {
							break
						}
					}
					for range parts {
						_ = c.SendText("")
					}
					return nil
				}))
			h := &bench{Hub: hub}
			s := h.connectTo(func(s *sink) net.Conn { return gated{s, gate} })
			<-sent
			text := strings.Repeat("x", 5<<10)
			b.ReportAllocs()
			for b.Loop() {
				if err := hub.SendTextToRoom("/bench", text); err != nil {
					b.Fatal(err)
				}
			}
			close(gate)
			_ = s.Close()
		})
	}
}

// gated is a sink that takes nothing but the handshake's answer until the gate is opened.
type gated struct {
	*sink
	gate chan struct{}
}

func (g gated) Write(p []byte) (int, error) {
	if p[0] != 'H' { // of HTTP/1.1 101
		<-g.gate
	}
	return g.sink.Write(p)
}
