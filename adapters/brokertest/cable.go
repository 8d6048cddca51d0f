package brokertest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Cable is a TCP connection's way to a server, over loopback, that can be cut.
type Cable struct {
	addr, server string

	mu    sync.Mutex // guards what follows
	cut   bool
	delay time.Duration
	conns map[net.Conn]bool
}

// NewCable returns a cable to the server at that address, which lasts until the test's end.
func NewCable(t testing.TB, server string) *Cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{addr: ln.Addr().String(), server: server, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.carry(near) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		c.Cut()
		running.Wait()
	})
	return c
}

// Addr is the address to connect to instead of the server's.
func (c *Cable) Addr() string { return c.addr }

// Cut closes all connections. Until Heal new ones are closed at once.
func (c *Cable) Cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for conn := range c.conns {
		conn.Close()
	}
}

// Heal undoes Cut.
func (c *Cable) Heal() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = false
}

// Delay has what is sent over connections that are made from now on arrive so much later, each way; as much as ever
// is on its way at a time.
func (c *Cable) Delay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.delay = d
}

func (c *Cable) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.server)
	if err != nil {
		return
	}
	defer far.Close()
	defer c.remove(near, far)
	if !c.add(near, far) {
		return
	}
	c.mu.Lock()
	delay := c.delay
	c.mu.Unlock()
	var back sync.WaitGroup
	back.Go(func() {
		conduct(near, far, delay)
		near.Close()
	})
	conduct(far, near, delay)
	far.Close()
	back.Wait()
}

// conduct copies until one of them is closed.
func conduct(to, from net.Conn, delay time.Duration) {
	if delay == 0 {
		io.Copy(to, from)
		return
	}
	type piece struct {
		data []byte
		due  time.Time
	}
	way := make(chan piece, 4096)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		for p := range way {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
	})
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if n > 0 {
			way <- piece{data[:n], time.Now().Add(delay)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	arriving.Wait()
}

func (c *Cable) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = true
	}
	return !c.cut
}

func (c *Cable) remove(conns ...net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		delete(c.conns, conn)
	}
}
