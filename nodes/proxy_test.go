package nodes_test

import (
	"io"
	"net"
	"sync"
	"testing"
)

// bridge passes TCP connections on to a server until it is cut.
type bridge struct {
	net.Listener
	target string

	mu    sync.Mutex // guards the rest
	cut   bool
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newBridge(t *testing.T, target string) *bridge {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &bridge{Listener: ln, target: target, conns: map[net.Conn]bool{}}
	b.wg.Go(b.accept)
	t.Cleanup(func() {
		ln.Close()
		b.setCut(true)
		b.wg.Wait()
	})
	return b
}

func (b *bridge) accept() {
	for {
		conn, err := b.Accept()
		if err != nil {
			return
		}
		b.wg.Go(func() { b.pass(conn) })
	}
}

func (b *bridge) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", b.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !b.keep(client, server) {
		return
	}
	var wg sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		wg.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // whichever way ends ends the other
			way[0].Close()
			way[1].Close()
		})
	}
	wg.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, client)
	delete(b.conns, server)
}

func (b *bridge) keep(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cut {
		return false
	}
	for _, c := range conns {
		b.conns[c] = true
	}
	return true
}

// setCut ends all connections and lets no new ones through, or lets them through again.
func (b *bridge) setCut(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = cut
	if cut {
		for c := range b.conns {
			c.Close()
		}
	}
}
