package redisbroker_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = 20 * time.Second

// redisServer is Debian's redis-server, or whatever else of that name there is.
type redisServer struct {
	addr string
	args []string
	cmd  *exec.Cmd // nil while it is stopped
}

// startRedis starts a server on a free port, without persistence. Where there is none to be started the
// test is skipped; with WSROOM_INTEROP=all it fails.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		const missing = "redis-server isn't installed: apt-get install redis-server"
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s := &redisServer{addr: freeAddr(t)}
	_, port, _ := net.SplitHostPort(s.addr)
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)
	s.start(t)
	t.Cleanup(s.stop)
	return s
}

func (s *redisServer) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command("redis-server", s.args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.cmd = cmd
	until(t, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		fmt.Fprint(c, "PING\r\n")
		n, _ := c.Read(make([]byte, 16))
		return n > 0
	})
}

func (s *redisServer) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it was running until here, or the test has failed
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *redisServer) connect(t testing.TB) rueidis.Client {
	t.Helper()
	return connect(t, s.addr)
}

func connect(t testing.TB, addr string) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// freeAddr returns an address that no connection can take while a server isn't running: its port is below
// those that the system gives out.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprint("127.0.0.1:", 20000+rand.N(12000))
		if ln, err := net.Listen("tcp", addr); err == nil {
			ln.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	panic("unreachable")
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

// command has a server do one command and returns its answer, a list or one value.
func command(t testing.TB, s *redisServer, words ...string) []string {
	t.Helper()
	client := s.connect(t)
	defer client.Close()
	answer := client.Do(t.Context(), client.B().Arbitrary(words...).Build())
	if list, err := answer.AsStrSlice(); err == nil {
		return list
	}
	one, err := answer.ToAny()
	if err != nil {
		t.Fatalf("%q: %v", words, err)
	}
	return []string{fmt.Sprint(one)}
}

// startCluster starts three masters that share the slots.
func startCluster(t testing.TB) []*redisServer {
	t.Helper()
	var nodes []*redisServer
	for i, slots := range [][2]string{{"0", "5461"}, {"5462", "10922"}, {"10923", "16383"}} {
		s := startRedis(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "5000", "--cluster-config-file", fmt.Sprint("nodes", i, ".conf"))
		command(t, s, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		command(t, s, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1])
		nodes = append(nodes, s)
	}
	for _, s := range nodes[1:] {
		host, port, _ := net.SplitHostPort(nodes[0].addr)
		command(t, s, "CLUSTER", "MEET", host, port)
	}
	for _, s := range nodes {
		until(t, "the cluster is complete", func() bool {
			info := command(t, s, "CLUSTER", "INFO")[0]
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_size:3")
		})
	}
	return nodes
}

func connectCluster(t testing.TB, nodes []*redisServer) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{nodes[0].addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
