package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// proxy is a bad network: it passes TCP connections on, late, slowly and not for long.
type proxy struct {
	net.Listener
	target string
	wg     sync.WaitGroup
	closed chan struct{}
	cuts   atomic.Int64
}

func newProxy(target string) (*proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{Listener: ln, target: target, closed: make(chan struct{})}
	p.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.pass(conn) })
		}
	})
	return p, nil
}

// Close takes no more connections and waits for those that there are.
func (p *proxy) Close() error {
	err := p.Listener.Close()
	close(p.closed)
	p.wg.Wait()
	return err
}

// weather is what becomes of one connection.
type weather struct {
	delay time.Duration // for each chunk
	chunk int           // bytes
	life  time.Duration // after which it is cut; 0: never
	hush  bool          // cut without a word: the other end just hears nothing more, for a while
}

func newWeather() weather {
	w := weather{chunk: 4 << 10}
	switch rand.IntN(4) {
	case 0: // far away
		w.delay = time.Duration(1+rand.IntN(100)) * time.Millisecond
	case 1: // narrow: 5 to 20 KB/s
		w.delay, w.chunk = 50*time.Millisecond, 256+rand.IntN(768)
	case 2: // shaky
		w.life = time.Duration(1+rand.IntN(20000)) * time.Millisecond
	case 3: // shaky, and it doesn't show
		w.life, w.hush = time.Duration(1+rand.IntN(20000))*time.Millisecond, true
	}
	return w
}

// pass copies both ways until either side ends or the weather cuts the line.
func (p *proxy) pass(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	w := newWeather()
	closeBoth := sync.OnceFunc(func() { client.Close(); server.Close() })
	defer closeBoth()
	if w.life > 0 {
		cut := time.AfterFunc(w.life, func() {
			p.cuts.Add(1)
			w.cut(client.(*net.TCPConn), server.(*net.TCPConn))
		})
		defer cut.Stop()
	}
	var wg sync.WaitGroup
	wg.Go(func() { defer closeBoth(); p.copy(w, server, client) })
	wg.Go(func() { defer closeBoth(); p.copy(w, client, server) })
	wg.Wait()
}

// cut resets both connections, or, without a word, lets nothing pass any more.
func (w weather) cut(conns ...*net.TCPConn) {
	for _, c := range conns {
		if w.hush {
			_ = c.SetReadDeadline(time.Unix(1, 0))
		} else {
			_ = c.SetLinger(0)
			c.Close()
		}
	}
}

// hushTime is longer than it takes a hub to find that its peer is gone.
const hushTime = 12 * time.Second

func (p *proxy) copy(w weather, to io.Writer, from io.Reader) {
	buf := make([]byte, w.chunk)
	for {
		n, err := from.Read(buf)
		if w.delay > 0 {
			time.Sleep(w.delay)
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			select {
			case <-time.After(hushTime):
			case <-p.closed:
			}
		}
		if err != nil {
			return
		}
	}
}
