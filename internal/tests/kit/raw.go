package kit

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
)

// RawConn is a client that writes raw bytes, and reads only when a test calls for it.
type RawConn struct {
	net.Conn
	T testing.TB
	R *bufio.Reader
}

// DialRaw connects a client that doesn't read by itself. The kernel buffers about 4 MB for it all the same.
func DialRaw(t testing.TB, srv *httptest.Server, path string, headers ...string) *RawConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", srv.Listener.Addr().String(), Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(Patience))
	return UpgradeRaw(t, conn, path, headers...)
}

// Handshake is the format of a handshake, with its target and further headers.
const Handshake = "GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"

// OfferDeflate is a header that the server may answer or not.
const OfferDeflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

// UpgradeRaw does the handshake on a connection.
func UpgradeRaw(t testing.TB, conn net.Conn, path string, headers ...string) *RawConn {
	t.Helper()
	if _, err := fmt.Fprintf(conn, Handshake, path, strings.Join(headers, "")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: status %d", res.StatusCode)
	}
	return &RawConn{Conn: conn, T: t, R: r}
}

// RawFrame is a client's frame, masked with zeros.
func RawFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n <= 125:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

// Frame writes a frame.
func (c *RawConn) Frame(first byte, payload string) {
	c.T.Helper()
	if _, err := c.Write(RawFrame(first, payload)); err != nil {
		c.T.Fatal(err)
	}
}

// Next reads one frame of the server.
func (c *RawConn) Next() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.R, head[:]); err != nil {
		return 0, "", err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.R, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.R, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, "", err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(c.R, p)
	return head[0], string(p), err
}

// CloseCode reads frames until the close frame and returns its code and reason.
func (c *RawConn) CloseCode() (int, string) {
	c.T.Helper()
	code, reason, err := c.CloseFrame()
	if err != nil {
		c.T.Fatalf("no close frame: %v", err)
	}
	return code, reason
}

// CloseFrame is CloseCode for an end that may come without a close frame.
func (c *RawConn) CloseFrame() (code int, reason string, err error) {
	for {
		first, p, err := c.Next()
		switch {
		case err != nil:
			return 0, "", err
		case first == 0x88 && len(p) >= 2:
			return int(binary.BigEndian.Uint16([]byte(p))), p[2:], nil
		case first == 0x88:
			return 1005, "", nil
		}
	}
}

// pipeListener is a net.Listener in memory, for servers inside a synctest bubble.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// NewPipeListener returns a listener whose Dial connects to it.
func NewPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// Dial connects a new pipe to the server.
func (l *pipeListener) Dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, errors.New("listener is closed")
	}
}

// PipeServer serves a hub over pipes, in a bubble with fake time.
type PipeServer struct {
	T  *testing.T
	Ln *pipeListener
}

// InBubble runs f with a server of hub in a bubble; all goroutines must end with it.
func InBubble(t *testing.T, newHub func() *wsroom.Hub, f func(t *testing.T, s *PipeServer, hub *wsroom.Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := newHub()
		s := &PipeServer{T: t, Ln: NewPipeListener()}
		srv := &http.Server{Handler: hub}
		go srv.Serve(s.Ln)
		defer srv.Close()
		defer Shutdown(t, hub)
		f(t, s, hub)
	})
}

// DialRaw connects a client over a pipe.
func (s *PipeServer) DialRaw(path string, headers ...string) *RawConn {
	s.T.Helper()
	conn, err := s.Ln.Dial(s.T.Context(), "", "")
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { conn.Close() })
	return UpgradeRaw(s.T, conn, path, headers...)
}

// SinkListener accepts clients in memory that take every frame at once and send nothing.
type SinkListener struct {
	*pipeListener
	sinks  []*sink
	Frames atomic.Int64 // received by all peers; one write holds one frame if one is sent at a time
}

// NewSinkListener returns a listener without clients.
func NewSinkListener() *SinkListener { return &SinkListener{pipeListener: NewPipeListener()} }

// Connect connects one more client.
func (l *SinkListener) Connect(path string) {
	s := &sink{frames: &l.Frames, request: strings.NewReader(fmt.Sprintf(Handshake, path, ""))}
	s.change = sync.NewCond(&s.mu)
	l.sinks = append(l.sinks, s)
	l.conns <- s
}

// Disconnect closes all clients' connections.
func (l *SinkListener) Disconnect() {
	for _, s := range l.sinks {
		s.Close()
	}
}

type sink struct {
	request *strings.Reader
	frames  *atomic.Int64

	mu     sync.Mutex // guards the rest
	change *sync.Cond
	past   bool // the read deadline has passed
	closed bool
}

func (s *sink) Read(p []byte) (int, error) {
	if n, _ := s.request.Read(p); n > 0 {
		return n, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && !s.past {
		s.change.Wait()
	}
	if s.closed {
		return 0, io.EOF
	}
	return 0, os.ErrDeadlineExceeded
}

func (s *sink) Write(p []byte) (int, error) {
	if p[0] != 'H' { // of HTTP/1.1 101
		s.frames.Add(1)
	}
	return len(p), nil
}

func (s *sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.change.Broadcast()
	return nil
}

// SetReadDeadline knows deadlines that have passed, with which net/http and the hub end a read.
func (s *sink) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past = !t.IsZero() && t.Before(time.Now())
	s.change.Broadcast()
	return nil
}

func (s *sink) SetDeadline(time.Time) error      { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) LocalAddr() net.Addr              { return &net.UnixAddr{Name: "sink"} }
func (s *sink) RemoteAddr() net.Addr             { return &net.UnixAddr{Name: "sink"} }
