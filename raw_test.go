package wsroom_test

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

// rawConn is a peer that speaks bytes and reads only when it is told to.
type rawConn struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

// dialRaw connects a peer that doesn't read by itself. The kernel takes some 4 MB for it all the same.
func dialRaw(t testing.TB, srv *httptest.Server, path string, headers ...string) *rawConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", srv.Listener.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return upgradeRaw(t, conn, path, headers...)
}

const handshake = "GET %s HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"

// offerDeflate is a header that the server may answer or not.
const offerDeflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n"

func upgradeRaw(t testing.TB, conn net.Conn, path string, headers ...string) *rawConn {
	t.Helper()
	if _, err := fmt.Fprintf(conn, handshake, path, strings.Join(headers, "")); err != nil {
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
	return &rawConn{Conn: conn, t: t, r: r}
}

// rawFrame is a client's frame, masked with zeros.
func rawFrame(first byte, payload string) []byte {
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

func (c *rawConn) frame(first byte, payload string) {
	c.t.Helper()
	if _, err := c.Write(rawFrame(first, payload)); err != nil {
		c.t.Fatal(err)
	}
}

// next reads one frame of the server.
func (c *rawConn) next() (first byte, payload string, err error) {
	var head [2]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, "", err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(c.r, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(c.r, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, "", err
	}
	p := make([]byte, n)
	_, err = io.ReadFull(c.r, p)
	return head[0], string(p), err
}

// closeCode reads frames until the close frame and returns its code and reason.
func (c *rawConn) closeCode() (int, string) {
	c.t.Helper()
	code, reason, err := c.closeFrame()
	if err != nil {
		c.t.Fatalf("no close frame: %v", err)
	}
	return code, reason
}

// closeFrame is closeCode for an end that may come without.
func (c *rawConn) closeFrame() (code int, reason string, err error) {
	for {
		first, p, err := c.next()
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

func newPipeListener() *pipeListener {
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

// dial connects a new pipe to the server.
func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, errors.New("listener is closed")
	}
}

// pipeServer serves a hub over pipes, in a bubble with fake time.
type pipeServer struct {
	t  *testing.T
	ln *pipeListener
}

// inBubble runs f with a server of hub in a bubble; all goroutines must end with it.
func inBubble(t *testing.T, newHub func() *wsroom.Hub, f func(t *testing.T, s *pipeServer, hub *wsroom.Hub)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hub := newHub()
		s := &pipeServer{t: t, ln: newPipeListener()}
		srv := &http.Server{Handler: hub}
		go srv.Serve(s.ln)
		defer srv.Close()
		defer shutdown(t, hub)
		f(t, s, hub)
	})
}

func (s *pipeServer) dialRaw(path string, headers ...string) *rawConn {
	s.t.Helper()
	conn, err := s.ln.dial(s.t.Context(), "", "")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return upgradeRaw(s.t, conn, path, headers...)
}

// sinkListener serves peers in memory that take every frame at once and send nothing.
type sinkListener struct {
	*pipeListener
	sinks  []*sink
	frames atomic.Int64 // received by all peers; one write holds one frame if one is sent at a time
}

func newSinkListener() *sinkListener { return &sinkListener{pipeListener: newPipeListener()} }

func (l *sinkListener) connect(path string) {
	s := &sink{frames: &l.frames, request: strings.NewReader(fmt.Sprintf(handshake, path, ""))}
	s.change = sync.NewCond(&s.mu)
	l.sinks = append(l.sinks, s)
	l.conns <- s
}

func (l *sinkListener) disconnect() {
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
