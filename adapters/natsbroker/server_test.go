package natsbroker_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wsroom/wsroom/internal/loopback"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// natsServer runs within the test.
type natsServer struct {
	options server.Options
	running *server.Server // nil while it is stopped
}

// newServer returns a server with JetStream on a free port, to be started.
func newServer(t testing.TB) *natsServer {
	t.Helper()
	_, port, _ := net.SplitHostPort(loopback.FreeAddr(t))
	s := &natsServer{options: server.Options{
		Host: "127.0.0.1", JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
	}}
	s.options.Port, _ = strconv.Atoi(port)
	t.Cleanup(s.stop)
	return s
}

func startNATS(t testing.TB) *natsServer {
	t.Helper()
	s := newServer(t)
	s.start(t)
	return s
}

// startCluster starts three servers with JetStream on all.
func startCluster(t testing.TB) []*natsServer {
	t.Helper()
	var nodes []*natsServer
	var routes []*url.URL
	for i := range 3 {
		routes = append(routes, &url.URL{Scheme: "nats", Host: loopback.FreeAddr(t)})
		s := newServer(t)
		s.options.ServerName = fmt.Sprint("node", i)
		nodes = append(nodes, s)
	}
	for i, s := range nodes {
		port, _ := strconv.Atoi(routes[i].Port())
		s.options.Cluster = server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: port}
		s.options.Routes = routes
		s.start(t)
	}
	js, err := jetstream.New(connect(t, nodes[0].addr()))
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the cluster is ready", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "ready", Replicas: 3, Storage: jetstream.MemoryStorage})
		return err == nil
	})
	return nodes
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
