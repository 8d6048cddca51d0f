package brokertest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Cable is the path of a TCP connection to a server, over loopback. It can be cut, hang, and lose data.
type Cable struct {
	addr, server string

	mu      sync.Mutex // guards what follows
	cut     bool
	hangs   bool
	delay   time.Duration
	conns   map[net.Conn]bool // the two ends of each connection; false: it carries nothing any more
	changed chan struct{}     // closed at the next change
}

// NewCable returns a [Cable] to the server at that address. It lasts until the test's end.
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

// Addr returns the address to connect to instead of the server's.
func (c *Cable) Addr() string { return c.addr }

// Cut closes all connections. Until [Cable.Heal] new ones are closed at once.
func (c *Cable) Cut() {
	c.change(func() {
		c.cut = true
		for conn := range c.conns {
			conn.Close()
		}
	})
}

// Heal undoes [Cable.Cut].
func (c *Cable) Heal() { c.change(func() { c.cut = false }) }

// Hang stops all connections, including new ones, from carrying data until [Cable.Resume]. They stay open.
func (c *Cable) Hang() { c.change(func() { c.hangs = true }) }

// Resume undoes [Cable.Hang]. Data sent meanwhile arrives.
func (c *Cable) Resume() { c.change(func() { c.hangs = false }) }

// Drop stops the existing connections from carrying data, for good. They stay open. New ones work.
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

// carries reports whether a connection with this end carries data. If not, it returns a channel to wait
// for, or nil if the connection has ended.
func (c *Cable) carries(end net.Conn) (bool, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return false, nil
	}
	return !c.hangs && c.conns[end], c.changed
}

// Delay delays the data of connections that are made from now on, in each direction. It doesn't limit how
// much data is on its way at a time.
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
	back.Go(func() { c.copy(near, far, delay) })
	c.copy(far, near, delay)
	back.Wait()
}

// piece is data on its way.
type piece struct {
	data []byte
	due  time.Time
}

// copy carries data in one direction until either end is closed, and then closes the other end.
func (c *Cable) copy(to, from net.Conn, delay time.Duration) {
	way := make(chan piece, 4096)
	var arriving sync.WaitGroup
	arriving.Go(func() {
		defer to.Close()
		open := true
		for p := range way {
			open = open && c.arrive(to, from, p)
		}
	})
	for {
		data := make([]byte, 32<<10)
		n, err := from.Read(data)
		if err != nil {
			break
		}
		way <- piece{data[:n], time.Now().Add(delay)}
	}
	close(way)
	arriving.Wait()
}

// arrive passes on a piece when it is due and the connection carries data. It reports whether more may
// follow.
func (c *Cable) arrive(to, from net.Conn, p piece) bool {
	if wait := time.Until(p.due); wait > 0 {
		<-time.After(wait)
	}
	for {
		ok, changed := c.carries(from)
		if ok {
			break
		}
		if changed == nil {
			from.Close()
			return false
		}
		<-changed
	}
	if _, err := to.Write(p.data); err != nil {
		from.Close()
		return false
	}
	return true
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
