package natsbroker_test

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// natsServer runs within the test.
type natsServer struct {
	options server.Options
	running *server.Server // nil while it is stopped
}

// startNATS starts a server with JetStream on a free port.
func startNATS(t testing.TB) *natsServer {
	t.Helper()
	s := &natsServer{options: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}}
	s.start(t)
	_, port, err := net.SplitHostPort(s.running.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s.options.Port, _ = strconv.Atoi(port) // the same when it is started again
	t.Cleanup(s.stop)
	return s
}

// startCluster starts three servers with JetStream on all.
func startCluster(t testing.TB) []*natsServer {
	t.Helper()
	var nodes []*natsServer
	var routes []*url.URL
	for i := range 3 {
		routes = append(routes, &url.URL{Scheme: "nats", Host: freeAddr(t)})
		_, port, _ := net.SplitHostPort(freeAddr(t))
		s := &natsServer{options: server.Options{
			ServerName: fmt.Sprint("node", i), Host: "127.0.0.1", JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
		}}
		s.options.Port, _ = strconv.Atoi(port)
		nodes = append(nodes, s)
	}
	for i, s := range nodes {
		port, _ := strconv.Atoi(routes[i].Port())
		s.options.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}
		s.options.Routes = routes
		s.start(t)
		t.Cleanup(s.stop)
	}
	until(t, "the cluster is ready", func() bool {
		for _, s := range nodes {
			if !s.running.JetStreamIsCurrent() {
				return false
			}
		}
		return true
	})
	return nodes
}

func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func (s *natsServer) start(t testing.TB) {
	t.Helper()
	options := s.options
	srv, err := server.NewServer(&options)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server isn't ready")
	}
	s.running = srv
}

func (s *natsServer) stop() {
	if s.running != nil {
		s.running.Shutdown()
		s.running.WaitForShutdown()
		s.running = nil
	}
}

func (s *natsServer) addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.options.Port))
}

func connect(t testing.TB, addr string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(addr, nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// cable is a network between nodes and a server that can be cut.
type cable struct {
	addr   string
	target string

	mu    sync.Mutex // guards what follows
	cut   bool
	conns map[net.Conn]bool
}

func startCable(t testing.TB, target string) *cable {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cable{addr: ln.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() { c.carry(conn) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		c.set(true)
		running.Wait()
	})
	return c
}

func (c *cable) carry(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", c.target)
	if err != nil {
		return
	}
	defer far.Close()
	if !c.add(near, far) {
		return
	}
	var back sync.WaitGroup
	back.Go(func() { io.Copy(near, far); near.Close() })
	io.Copy(far, near)
	far.Close()
	back.Wait()
}

func (c *cable) add(conns ...net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range conns {
		c.conns[conn] = true
	}
	return !c.cut
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		for conn := range c.conns {
			conn.Close()
		}
		clear(c.conns)
	}
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
