package nodes_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/wsroom/wsroom/internal/loopback"
)

// startNATS starts a NATS server within the test. What it holds is gone when it is stopped.
func startNATS(t *testing.T) (s brokerServer) {
	s.addr = loopback.FreeAddr(t)
	_, port, _ := net.SplitHostPort(s.addr)
	options := server.Options{Host: "127.0.0.1", JetStream: true, NoLog: true, NoSigs: true}
	options.Port, _ = strconv.Atoi(port)
	var running *server.Server
	s.start = func(t testing.TB) {
		t.Helper()
		options := options // the server keeps what it is given
		options.StoreDir = t.TempDir()
		var err error
		if running, err = server.NewServer(&options); err != nil {
			t.Fatal(err)
		}
		running.Start()
		if !running.ReadyForConnections(patience) {
			t.Fatal("NATS doesn't start")
		}
	}
	s.stop = func() {
		running.Shutdown()
		running.WaitForShutdown()
	}
	s.start(t)
	t.Cleanup(func() { s.stop() })
	return s
}
