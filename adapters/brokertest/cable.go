package brokertest

import (
	"net"
	"sync"
	"testing"
)

// Cable is a TCP connection's way to a server, over loopback, that can be cut, hang, and lose what it carries.
type Cable struct {
	addr, server string

	mu      sync.Mutex // guards what follows
	cut     bool
	hangs   bool
	conns   map[net.Conn]bool // the two ends of each connection; false: it carries nothing any more
	changed chan struct{}     // closed with the next change
}

// NewCable returns a cable to the server at that address, which lasts until the test's end.
func NewCable(t testing.TB, server string) *Cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cable{addr: ln.Addr().String(), server: server, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
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
	c.change(func() {
		c.cut = true
		for conn := range c.conns {
			conn.Close()
		}
	})
}

// Heal undoes Cut.
func (c *Cable) Heal() { c.change(func() { c.cut = false }) }

// Hang has all connections, new ones too, carry nothing until Resume. They stay open.
func (c *Cable) Hang() { c.change(func() { c.hangs = true }) }

// Resume undoes Hang. What was sent meanwhile arrives.
func (c *Cable) Resume() { c.change(func() { c.hangs = false }) }

// Drop has the connections that there are carry nothing any more, for good. They stay open; new ones work.
func (c *Cable) Drop() {
	c.change(func() {
		for conn := range c.conns {
			c.conns[conn] = false
		}
	})
}

func (c *Cable) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// carries reports whether a connection that has this end carries data, and what to wait for otherwise: nil where
// it is over.
func (c *Cable) carries(end net.Conn) (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false, nil
	}
	return !c.hangs && c.conns[end], c.changed
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
	var back sync.WaitGroup
	back.Go(func() { c.copy(near, far) })
	c.copy(far, near)
	back.Wait()
}

// copy carries data one way until either end is closed, and then closes the other.
func (c *Cable) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		for {
			ok, changed := c.carries(from)
			if ok {
				break
			}
			if changed == nil {
				return
			}
			<-changed
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
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
