package main

import (
	"bufio"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A memoryFleet is clients without sockets. They take everything, count it, and answer pings and close frames.
type memoryFleet struct {
	rooms    []memoryRoom // whose messages are timed
	messages atomic.Int64 // frames of data that were written
	pings    atomic.Int64
	closes   atomic.Int64
}

// A memoryRoom times one message after the other.
type memoryRoom struct {
	left atomic.Int32 // members that the message hasn't reached
	done chan time.Time
}

// A memoryConn is the server's end of one of the clients: a net.Conn in 24 bytes.
//
// gate is locked while the client has nothing to say, which is while state is 0. So a Read waits for gate.
type memoryConn struct {
	fleet *memoryFleet
	gate  sync.Mutex
	state atomic.Uint32
	room  uint32 // of the fleet's rooms; one that isn't there if it isn't timed
}

// What a client has to say, and what ends a Read.
const (
	saysPong = 1 << iota
	saysClose
	pastDeadline
	isClosed
)

func newMemoryConn(f *memoryFleet, room uint32) *memoryConn {
	c := &memoryConn{fleet: f, room: room}
	c.gate.Lock()
	return c
}

// say opens the gate for a Read.
func (c *memoryConn) say(what uint32) {
	if c.state.Or(what) == 0 {
		c.gate.Unlock()
	}
}

// said takes back what a Read has returned. The caller has the gate.
func (c *memoryConn) said(what uint32) {
	if c.state.And(^what)&^what != 0 {
		c.gate.Unlock()
	}
}

func (c *memoryConn) Read(p []byte) (int, error) {
	c.gate.Lock()
	switch state := c.state.Load(); {
	case state&saysPong != 0:
		c.said(saysPong)
		return copy(p, "\x8a\x80\x00\x00\x00\x00"), nil
	case state&saysClose != 0:
		c.said(saysClose)
		return copy(p, "\x88\x80\x00\x00\x00\x00"), nil
	case state&isClosed != 0:
		c.gate.Unlock()
		return 0, net.ErrClosed
	default:
		c.gate.Unlock()
		return 0, os.ErrDeadlineExceeded
	}
}

// Write takes whole frames. They carry no mask.
func (c *memoryConn) Write(p []byte) (int, error) {
	if c.state.Load()&isClosed != 0 {
		return 0, net.ErrClosed
	}
	messages := int32(0)
	for rest := p; len(rest) > 1 && rest[0] != 'H'; { // of HTTP/1.1 101
		size := 2 + int(rest[1])
		if rest[1] == 126 {
			size = 4 + int(rest[2])<<8 + int(rest[3])
		}
		switch rest[0] {
		case 0x89:
			c.fleet.pings.Add(1)
			c.say(saysPong)
		case 0x88:
			c.fleet.closes.Add(1)
			c.say(saysClose)
		default:
			messages++
		}
		rest = rest[min(size, len(rest)):]
	}
	if messages > 0 {
		c.took(messages)
	}
	return len(p), nil
}

func (c *memoryConn) took(messages int32) {
	c.fleet.messages.Add(int64(messages))
	if int(c.room) >= len(c.fleet.rooms) {
		return
	}
	if r := &c.fleet.rooms[c.room]; r.left.Load() > 0 && r.left.Add(-messages) == 0 {
		r.done <- time.Now()
	}
}

func (c *memoryConn) Close() error {
	c.say(isClosed)
	return nil
}

// SetReadDeadline knows deadlines that have passed, with which the hub ends a read, and their end.
func (c *memoryConn) SetReadDeadline(t time.Time) error {
	switch past := !t.IsZero() && t.Before(time.Now()); {
	case past:
		c.say(pastDeadline)
	case c.state.Load()&pastDeadline != 0:
		c.gate.Lock()
		c.said(pastDeadline)
	}
	return nil
}

func (c *memoryConn) SetDeadline(time.Time) error      { return nil }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (c *memoryConn) LocalAddr() net.Addr              { return memoryAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// A memoryWriter is the ResponseWriter of a client without a socket.
type memoryWriter struct {
	conn   *memoryConn
	header http.Header
	status int
}

func (w *memoryWriter) Header() http.Header         { return w.header }
func (w *memoryWriter) WriteHeader(status int)      { w.status = status }
func (w *memoryWriter) Write(p []byte) (int, error) { return len(p), nil }

func (w *memoryWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReaderSize(w.conn, 16), bufio.NewWriterSize(w.conn, 256)), nil
}
