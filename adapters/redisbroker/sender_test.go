package redisbroker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

// TestRESP2: with RESP2 rueidis has two connections for subscriptions, and commands go over the one that nobody
// listens to. When it breaks, messages take another one.
func TestRESP2(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true, AlwaysRESP2: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := redisbroker.New(client)
	e := listen(t, b, "topic")
	publish(t, b, "topic", "before")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	command(t, s, "CLIENT", "KILL", "TYPE", "NORMAL")
	until(t, "Publish succeeds", func() bool { return b.Publish(t.Context(), "topic", []byte("after")) == nil })
	until(t, "a message arrives", func() bool { return e.messages.Load() > 1 })
	if e.losses.Load() > 0 {
		t.Error("the subscription was lost, too")
	}
}

// TestSubscriptionsHang: where the connection of the subscriptions carries nothing any more, messages take another one
// once one has waited in vain, and come back to it once it goes on.
func TestSubscriptionsHang(t *testing.T) {
	t.Parallel()
	s, goOn := startRedis(t), make(chan struct{})
	var hangs atomic.Bool
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, DisableCache: true, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			c, err := d.DialContext(ctx, "tcp", addr)
			return &hanging{Conn: c, hangs: &hangs, goOn: goOn, closed: make(chan struct{})}, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := redisbroker.New(client)
	e := listen(t, b, "topic")
	publish(t, b, "topic", "before")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })

	hangs.Store(true)
	inTime := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return b.Publish(ctx, "topic", []byte("meanwhile"))
	}
	if inTime(10*time.Millisecond) == nil {
		t.Error("a message isn't sent over the connection of the subscriptions")
	}
	for range 2000 { // more than rueidis queues
		if err := inTime(patience); err != nil {
			t.Fatal(err)
		}
	}
	close(goOn)
	until(t, "messages go over the connection of the subscriptions again", func() bool {
		keep(t, b, "kept", "message")
		subscribers := clients(t, s, "sub=1")
		return len(subscribers) == 1 && strings.Contains(subscribers[0], " cmd=evalsha ")
	})
	if e.losses.Load() > 0 {
		t.Error("the connection of the subscriptions was replaced")
	}
}

// hanging is a connection whose writes wait if it has subscribed to something.
type hanging struct {
	net.Conn
	subscribes   atomic.Bool
	hangs        *atomic.Bool
	goOn, closed chan struct{}
	once         sync.Once
}

func (c *hanging) Write(data []byte) (int, error) {
	if bytes.Contains(data, []byte("SUBSCRIBE")) {
		c.subscribes.Store(true)
	}
	if c.subscribes.Load() && c.hangs.Load() {
		select {
		case <-c.goOn:
		case <-c.closed:
		}
	}
	return c.Conn.Write(data)
}

func (c *hanging) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// TestMasterBecomesReplica: where the server of the subscriptions has become a replica and the client goes to the
// new master, messages go there, too. A replica would take them, and nobody else would hear them.
func TestMasterBecomesReplica(t *testing.T) {
	t.Parallel()
	old, master := startRedis(t), startRedis(t)
	var failedOver atomic.Bool
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"redis:6379"}, DisableCache: true, ForceSingleClient: true,
		DialCtxFn: func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			if failedOver.Load() {
				return d.DialContext(ctx, "tcp", master.Addr)
			}
			return d.DialContext(ctx, "tcp", old.Addr)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b, other := redisbroker.New(client), redisbroker.New(master.connect(t))
	here, there := listen(t, b, "topic"), listen(t, other, "topic")
	publish(t, b, "topic", "before")
	until(t, "a message arrives", func() bool { return here.messages.Load() == 1 })

	failedOver.Store(true)
	host, port, _ := net.SplitHostPort(master.Addr)
	command(t, old, "REPLICAOF", host, port)
	command(t, old, "CLIENT", "KILL", "TYPE", "NORMAL")
	until(t, "messages go to the new master", func() bool {
		_ = b.Publish(t.Context(), "topic", []byte("after"))
		return there.messages.Load() > 0
	})
	before := here.messages.Load()
	until(t, "messages come from there", func() bool {
		publish(t, other, "topic", "after")
		return here.messages.Load() > before
	})
	if here.losses.Load() > 0 {
		t.Error("the connection of the subscriptions was replaced")
	}
}
