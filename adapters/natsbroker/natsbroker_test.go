package natsbroker_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

var (
	_ wsroom.Broker        = (*natsbroker.Broker)(nil)
	_ wsroom.Keeper        = (*natsbroker.Broker)(nil)
	_ wsroom.PresenceStore = (*natsbroker.Presence)(nil)
)

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		s := startNATS(t)
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return natsbroker.New(connect(t, s.addr())) },
			Down: func(testing.TB) { s.stop() },
			Up:   s.start,
			Wipe: func(t testing.TB) {
				s.stop()
				s.start(t)
			},
		}
	})
}

// TestBrokerBehindCables: the server lives on, only the connections are gone.
func TestBrokerBehindCables(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		s, cables := startNATS(t), map[wsroom.Broker]*brokertest.Cable{}
		return brokertest.Setup{
			Hang: func(testing.TB) {
				for _, c := range cables {
					c.Hang()
				}
			},
			Resume: func(testing.TB) {
				for _, c := range cables {
					c.Resume()
				}
			},
			Open: func(t testing.TB) wsroom.Broker {
				c := brokertest.NewCable(t, s.addr())
				b := natsbroker.New(connect(t, c.Addr()))
				cables[b] = c
				return b
			},
			Down: func(testing.TB) {
				for _, c := range cables {
					c.Cut()
				}
			},
			Up: func(testing.TB) {
				for _, c := range cables {
					c.Heal()
				}
			},
			Cut:  func(_ testing.TB, b wsroom.Broker) { cables[b].Cut() },
			Heal: func(_ testing.TB, b wsroom.Broker) { cables[b].Heal() },
			Wipe: func(t testing.TB) { purge(t, connect(t, s.addr())) },
		}
	})
}

// TestGaps: a message that the server passed on but that never came is missed when the next one comes.
func TestGaps(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	nc := connect(t, s.addr())
	b := natsbroker.New(nc)
	e := listen(t, b, "topic")
	publish(t, b, "topic", "one")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "wsroom")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	deaf := config
	deaf.RePublish = &jetstream.RePublish{Source: "wsroom.in.nobody", Destination: "wsroom.out.nobody"}
	if _, err := js.UpdateStream(t.Context(), deaf); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "topic", "two")
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "topic", "three")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 2 })
	if n := e.losses.Load(); n != 1 {
		t.Errorf("lost is called %d times", n)
	}
	publish(t, b, "topic", "four")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 3 })
	if n := e.losses.Load(); n != 1 {
		t.Errorf("lost is called %d times", n)
	}
}

// TestSlowSubscriber: what is too much for a subscriber's backlog is left out, and lost called in its place.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	b := natsbroker.New(connect(t, startNATS(t).addr()))
	opened := make(chan struct{})
	var heard []string // by the subscriber, one call at a time
	var ended atomic.Bool
	stop, err := b.Subscribe(t.Context(), "topic", func(data []byte) {
		<-opened
		heard = append(heard, string(data[:2]))
		ended.Store(string(data) == "zz")
	}, func(error) { heard = append(heard, "lost") })
	if err != nil {
		t.Fatal(err)
	}
	filler := strings.Repeat("x", 1<<20-1000)
	for i := range 30 {
		publish(t, b, "topic", fmt.Sprintf("%02d", i)+filler)
	}
	other := listen(t, b, "other")
	publish(t, b, "other", "not kept waiting")
	until(t, "a message arrives", func() bool { return other.messages.Load() == 1 })
	close(opened)
	until(t, "the end arrives", func() bool {
		publish(t, b, "topic", "zz")
		return ended.Load()
	})
	stop()
	i := slices.Index(heard, "lost")
	if i < 10 || i > 25 || heard[0] != "00" || heard[i-1] != fmt.Sprintf("%02d", i-1) {
		t.Errorf("heard %d, the first are %q", len(heard), heard[:min(35, len(heard))])
	}
}

// TestTooLarge: what can't be published is rejected for good.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	b := natsbroker.New(nc)
	topic := strings.Repeat("t", natsbroker.MaxTopic)
	e := listen(t, b, topic)
	largest := make([]byte, nc.MaxPayload())
	var rejected interface{ Rejected() bool }
	if err := b.Publish(t.Context(), topic, append(largest, 0)); !errors.As(err, &rejected) || !rejected.Rejected() {
		t.Errorf("the error for the message is %v", err)
	}
	if err := b.Publish(t.Context(), topic, make([]byte, b.MaxData())); err != nil {
		t.Errorf("the error for MaxData is %v", err)
	}
	until(t, "what MaxData allows arrives", func() bool { return e.messages.Load() == 1 })
	rejected = nil
	if err := b.Publish(t.Context(), topic+"t", nil); !errors.As(err, &rejected) || !rejected.Rejected() {
		t.Errorf("the error for the topic is %v", err)
	}
	if _, err := b.Subscribe(t.Context(), topic+"t", func([]byte) {}, func(error) {}); err == nil {
		t.Error("Subscribe to a topic that is too long returns nil")
	}
	publish(t, b, topic, string(largest))
	until(t, "the largest message arrives", func() bool { return e.messages.Load() == 2 })
}

// TestPermissions: what README.md says that a user needs is enough.
func TestPermissions(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	subjects := &server.SubjectPermission{Allow: []string{"wsroom.>", "$KV.wsroom-presence.>", "$JS.API.>", "_INBOX.>"}}
	s.options.Users = []*server.User{{
		Username: "wsroom", Password: "secret", Permissions: &server.Permissions{Publish: subjects, Subscribe: subjects},
	}}
	s.start(t)
	nc := connect(t, "nats://wsroom:secret@"+s.addr())
	b := natsbroker.New(nc)
	e := listen(t, b, "topic")
	publish(t, b, "topic", "message")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	store := natsbroker.NewPresence(nc)
	if _, _, err := store.Renew(t.Context(), "node", time.Hour); err != nil {
		t.Error(err)
	}
	if _, err := store.Enter(t.Context(), "room", "ann", "node"); err != nil {
		t.Error(err)
	}
	if all, err := store.Identities(t.Context(), "room"); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	if _, err := store.Leave(t.Context(), "node"); err != nil {
		t.Error(err)
	}
	if err := nc.LastError(); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeft: no subscription is left on the server when all have been stopped, and in the bucket no
// key when all nodes have left.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	nc := connect(t, s.addr())
	b := natsbroker.New(nc)
	before := nc.NumSubscriptions()
	retain(t, b, "topic 1", 10, time.Hour, "kept")
	var stops []func()
	for i := range 20 {
		stop, err := b.Subscribe(t.Context(), fmt.Sprint("topic ", i%10), func([]byte) {}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
		stop, err = b.Follow(t.Context(), fmt.Sprint("topic ", i%10), 10, func(uint64, []byte) {}, func() {}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	for _, stop := range stops {
		stop()
	}
	if n := nc.NumSubscriptions(); n > before+1 { // one for all answers
		t.Errorf("%d subscriptions are left", n-before)
	}
	store := natsbroker.NewPresence(nc)
	if _, _, err := store.Renew(t.Context(), "node", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Enter(t.Context(), "room", "ann", "node"); err != nil {
		t.Fatal(err)
	}
	if left, err := store.Leave(t.Context(), "node"); err != nil || len(left) != 1 {
		t.Fatalf("left is %v, the error %v", left, err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), "wsroom-presence")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := kv.Keys(t.Context())
	if !slices.Equal(keys, []string{"mark"}) { // by which a reader knows how far it has read
		t.Errorf("the keys %q are left: %v", keys, err)
	}
}

// TestPresenceAfterRestart: what was in memory is gone with the server, which nodes are told.
func TestPresenceAfterRestart(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	nc := connect(t, s.addr())
	store := natsbroker.NewPresence(nc)
	for range 2 {
		until(t, "the server is back", nc.IsConnected)
		if held, left, err := store.Renew(t.Context(), "node", time.Hour); held || len(left) > 0 || err != nil {
			t.Errorf("held is %v, left %v, the error %v", held, left, err)
		}
		if first, err := store.Enter(t.Context(), "room", "ann", "node"); !first || err != nil {
			t.Errorf("first is %v, the error %v", first, err)
		}
		s.stop()
		until(t, "the connection is gone", func() bool { return !nc.IsConnected() })
		s.start(t)
	}
}

// BenchmarkPublish is the time from Publish to its return.
func BenchmarkPublish(b *testing.B) {
	brokertest.BenchmarkPublish(b, natsbroker.New(connect(b, startNATS(b).addr())))
}

var cluster = flag.Bool("cluster", false, "test on a cluster of three servers, too: a minute")

// TestCluster: on three servers, each broker and store on the next one. It runs with the flag -cluster.
func TestCluster(t *testing.T) {
	if !*cluster {
		t.Skip("it takes a minute: go test -run Cluster . -cluster")
	}
	nodes := startCluster(t)
	next := 0
	addr := func() string {
		next++
		return nodes[next%len(nodes)].addr()
	}
	t.Run("Broker", func(t *testing.T) {
		brokertest.Run(t, func(testing.TB) brokertest.Setup {
			return brokertest.Setup{
				Open: func(t testing.TB) wsroom.Broker {
					return natsbroker.New(connect(t, addr()), natsbroker.WithReplicas(3))
				},
				Retain: func(t testing.TB, _ int, _ time.Duration) { forget(t, connect(t, addr())) }, // of the check before
				Wipe:   func(t testing.TB) { purge(t, connect(t, addr())) },
			}
		})
	})
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
			js, err := jetstream.New(connect(t, addr()))
			if err != nil {
				t.Fatal(err)
			}
			err = js.DeleteStream(t.Context(), "KV_wsroom-presence") // of the check before
			if err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
				t.Fatal(err)
			}
			open := func(t testing.TB) wsroom.PresenceStore {
				return natsbroker.NewPresence(connect(t, addr()), natsbroker.WithReplicas(3))
			}
			if _, err := open(t).Identities(t.Context(), "room"); err != nil { // makes the bucket
				t.Fatal(err)
			}
			return brokertest.PresenceSetup{TTL: time.Second, Open: open}
		})
	})
	t.Run("Replicas", func(t *testing.T) { replicasAreRaised(t, nodes) })
	t.Run("KeptServerRestarts", func(t *testing.T) { keptServerRestarts(t, nodes) })
	t.Run("KeptServerDies", func(t *testing.T) { keptServerDies(t, nodes) })
	t.Run("ServerDies", func(t *testing.T) { serverDies(t, nodes) })
}

// serverDies: where the server that leads the stream dies, what is published goes on to arrive, and each gap
// is reported.
func serverDies(t *testing.T, nodes []*natsServer) {
	until(t, "all servers have the stream", func() bool { // one that has started again holds nothing at first
		return !slices.ContainsFunc(nodes, func(s *natsServer) bool {
			return !s.running.JetStreamIsStreamCurrent(server.DEFAULT_GLOBAL_ACCOUNT, "wsroom")
		})
	})
	leader := leaderOf(t, nodes, "wsroom")
	here := natsbroker.New(connect(t, nodes[(leader+1)%3].addr()), natsbroker.WithReplicas(3))
	there := natsbroker.New(connect(t, nodes[(leader+2)%3].addr()), natsbroker.WithReplicas(3))
	var last atomic.Int64
	known := true
	stop, err := there.Subscribe(t.Context(), "dies", func(data []byte) {
		n := int64(atoi(t, string(data)))
		if before := last.Swap(n); known && n != before && n != before+1 {
			t.Errorf("after %d comes %d", before, n)
		}
		known = true
	}, func(error) { known = false })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for n := range 2000 {
		if n == 1000 {
			nodes[leader].stop()
		}
		until(t, "a message is published", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return here.Publish(ctx, "dies", []byte(strconv.Itoa(n))) == nil
		})
	}
	until(t, "the last message arrives", func() bool { return last.Load() == 1999 })
}

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestPresence(t *testing.T) {
	t.Parallel()
	brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
		s := startNATS(t)
		return brokertest.PresenceSetup{
			Open: func(t testing.TB) wsroom.PresenceStore { return natsbroker.NewPresence(connect(t, s.addr())) },
		}
	})
}

// ear counts what it hears.
type ear struct{ messages, losses atomic.Int32 }

func listen(t testing.TB, b wsroom.Broker, topic string) *ear {
	t.Helper()
	e := new(ear)
	stop, err := b.Subscribe(t.Context(), topic, func([]byte) { e.messages.Add(1) }, func(error) { e.losses.Add(1) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return e
}

func publish(t testing.TB, b wsroom.Broker, topic, message string) {
	t.Helper()
	if err := b.Publish(t.Context(), topic, []byte(message)); err != nil {
		t.Error(err)
	}
}
