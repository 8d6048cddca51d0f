// Package nodes_test runs hubs in processes of their own over real brokers, ends processes, brokers and
// networks under them, and accounts for every message.
package nodes_test

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/internal/postgrestest"
	"github.com/wsroom/wsroom/internal/redistest"
)

// how long members talk in each phase of a test. Run it longer for rarer faults.
var phase = flag.Duration("phase", 500*time.Millisecond, "how long members talk between faults")

// brokerKind is a broker that nodes can share.
type brokerKind struct {
	// connect is called in a node's process.
	connect func(addr string) (b wsroom.Broker, disconnect func(), err error)
	// start starts a server, or skips the test.
	start func(t *testing.T) brokerServer
}

// brokerServer is a broker's server.
type brokerServer struct {
	addr  string
	stop  func()
	start func(t testing.TB)
}

var brokers = map[string]brokerKind{
	"nats": {
		connect: func(addr string) (wsroom.Broker, func(), error) {
			nc, err := nats.Connect("nats://"+addr, nats.MaxReconnects(-1), nats.ReconnectWait(200*time.Millisecond))
			if err != nil {
				return nil, nil, err
			}
			return natsbroker.New(nc), nc.Close, nil
		},
		start: startNATS,
	},
	"postgres": {
		connect: func(addr string) (wsroom.Broker, func(), error) {
			b, pool, err := openPostgres(addr)
			if err != nil {
				return nil, nil, err
			}
			return b, pool.Close, nil
		},
		start: func(t *testing.T) brokerServer {
			s := postgrestest.Start(t)
			return brokerServer{s.Addr, s.Stop, s.Start}
		},
	},
	"redis": {
		connect: func(addr string) (wsroom.Broker, func(), error) {
			client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true})
			if err != nil {
				return nil, nil, err
			}
			return redisbroker.New(client), client.Close, nil
		},
		start: func(t *testing.T) brokerServer {
			s := redistest.Start(t)
			return brokerServer{s.Addr, s.Stop, s.Start}
		},
	},
}

// openPostgres returns a broker on the server at that address, over a pool of its own.
func openPostgres(addr string) (*postgresbroker.Broker, *pgxpool.Pool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pool, err := pgxpool.New(ctx, postgrestest.URL(addr))
	if err != nil {
		return nil, nil, err
	}
	b, err := postgresbroker.Open(ctx, pool)
	if err != nil {
		pool.Close()
		return nil, nil, err
	}
	return b, pool, nil
}

// overEach runs a test over each broker, with three nodes; the last one's way to the broker is a cable.
func overEach(t *testing.T, f func(t *testing.T, s brokerServer, nodes []*node, last *brokertest.Cable)) {
	for name, kind := range brokers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kind.start(t)
			last := brokertest.NewCable(t, s.addr)
			var nodes []*node
			for _, addr := range []string{s.addr, s.addr, last.Addr()} {
				nodes = append(nodes, startNode(t, name, addr))
			}
			f(t, s, nodes, last)
		})
	}
}

// Between nodes nothing is lost, nothing doubled, and all hear one order.
func TestNodesHearOneOrder(t *testing.T) {
	overEach(t, func(t *testing.T, s brokerServer, nodes []*node, _ *brokertest.Cable) {
		c := gather(t, nodes)
		stop := c.talk()
		time.Sleep(2 * *phase)
		stop()
		c.settle()
		c.audit()
		c.wantNoGaps(nodes...)
	})
}

// A node that is killed under load takes nothing from the others.
func TestNodeIsKilled(t *testing.T) {
	overEach(t, func(t *testing.T, s brokerServer, nodes []*node, _ *brokertest.Cable) {
		c := gather(t, nodes)
		stop := c.talk()
		time.Sleep(*phase)
		nodes[0].kill()
		time.Sleep(*phase)
		stop()
		c.settle()
		c.audit()
		c.wantNoGaps(nodes[1:]...)
	})
}

// While the broker's server is away nodes keep what is sent, and what they may have missed they say.
func TestBrokerIsStoppedAndStarted(t *testing.T) {
	overEach(t, func(t *testing.T, s brokerServer, nodes []*node, _ *brokertest.Cable) {
		c := gather(t, nodes)
		stop := c.talk()
		time.Sleep(*phase)
		s.stop()
		time.Sleep(2 * *phase)
		s.start(t)
		time.Sleep(2 * *phase)
		stop()
		c.settle()
		c.audit()
	})
}

// The network between one node and the broker is cut: the others lose nothing of each other's, and the
// node says that it may have missed something.
func TestNodeIsCutOff(t *testing.T) {
	overEach(t, func(t *testing.T, s brokerServer, nodes []*node, last *brokertest.Cable) {
		c := gather(t, nodes)
		stop := c.talk()
		time.Sleep(*phase)
		last.Cut()
		time.Sleep(2 * *phase)
		last.Heal()
		time.Sleep(2 * *phase)
		stop()
		c.settle()
		c.audit()
		c.wantNoGaps(nodes[:2]...)
		for _, room := range c.rooms {
			if nodes[2].gapsIn(room) == 0 {
				t.Errorf("the node that was cut off has reported no gap in %s", room)
			}
		}
	})
}
