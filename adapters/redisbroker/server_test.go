package redisbroker_test

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom/internal/redistest"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// redisServer is a server with clients.
type redisServer struct{ *redistest.Server }

func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	return &redisServer{redistest.Start(t, args...)}
}

func (s *redisServer) connect(t testing.TB) rueidis.Client {
	t.Helper()
	return connect(t, s.Addr)
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

// flush has servers lose all their data.
func flush(t testing.TB, servers ...*redisServer) {
	t.Helper()
	for _, s := range servers {
		command(t, s, "FLUSHALL")
	}
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
		host, port, _ := net.SplitHostPort(nodes[0].Addr)
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
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{nodes[0].Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}
