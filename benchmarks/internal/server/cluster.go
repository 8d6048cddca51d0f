package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/natsbroker"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/benchmarks/internal/load"
)

// Brokers that carry rooms between nodes.
const (
	Redis = "redis"
	NATS  = "nats"
)

// Clustered are the libraries that are compared where there are several nodes, the project's own first.
// Those without a broker have one node with all members: what they would be without a cluster.
var Clustered = []Library{
	{Name: "wsroom redis", Dialect: load.Plain, Broker: Redis, New: newWsroomRedis},
	{Name: "centrifuge redis", Dialect: load.Centrifuge, Broker: Redis, New: newCentrifuge},
	{Name: "socket.io redis", Dialect: load.SocketIO, Broker: Redis, Run: runSocketIO, Missing: socketIOMissing},
	{Name: "wsroom nats", Dialect: load.Plain, Broker: NATS, New: newWsroomNATS},
	{Name: "wsroom", Dialect: load.Plain, New: newWsroom},
	{Name: "centrifuge", Dialect: load.Centrifuge, New: newCentrifuge},
	{Name: "socket.io", Dialect: load.SocketIO, Run: runSocketIO, Missing: socketIOMissing},
}

// Distant are the libraries whose nodes are compared far from their broker.
var Distant = Clustered[:2]

// Returning are the libraries whose clients can come back to another node, and get what they have missed.
var Returning = []Library{
	{Name: "wsroom.v1 redis", Broker: Redis, New: newWsroomRedisKept},
	{Name: "centrifuge recover", Broker: Redis, New: newCentrifugeKept},
	{Name: "socket.io recover", Broker: Redis, Run: runSocketIORecover, Missing: socketIOMissing},
}

func newWsroomRedisKept(o Options) http.Handler {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{o.Broker}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		panic(err)
	}
	return newWsroomHub(o, wsroom.WithBroker(redisbroker.New(client)), wsroom.WithHistory(256, 256<<10, keptFor),
		wsroom.WithResumeKey(make([]byte, 32)))
}

func newWsroomRedis(o Options) http.Handler {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{o.Broker}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		panic(err)
	}
	return newWsroomHub(o, wsroom.WithBroker(redisbroker.New(client)))
}

func newWsroomNATS(o Options) http.Handler {
	conn, err := nats.Connect(o.Broker, nats.MaxReconnects(-1))
	if err != nil {
		panic(err)
	}
	return newWsroomHub(o, wsroom.WithBroker(natsbroker.New(conn)))
}

// useRedis has a centrifuge node share its channels over Redis.
func useRedis(node *centrifuge.Node, addr string) error {
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: addr})
	if err != nil {
		return err
	}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: []*centrifuge.RedisShard{shard}})
	if err != nil {
		return err
	}
	node.SetBroker(broker)
	return nil
}

// runNATS is a NATS server with JetStream: it prints its address and returns when in ends.
func runNATS(in io.Reader, out io.Writer) error {
	dir, err := os.MkdirTemp("", "benchmarks-nats-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := natsserver.NewServer(&natsserver.Options{
		Host: "127.0.0.1", Port: natsserver.RANDOM_PORT, JetStream: true, StoreDir: dir, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("server: NATS isn't ready")
	}
	fmt.Fprintln(out, s.Addr())
	_, err = io.Copy(io.Discard, in)
	return err
}
