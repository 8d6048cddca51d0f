package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/internal/underrace"
)

var (
	_ wsroom.Broker        = (*redisbroker.Broker)(nil)
	_ wsroom.Keeper        = (*redisbroker.Broker)(nil)
	_ wsroom.PresenceStore = (*redisbroker.Presence)(nil)
)

func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		s := startRedis(t)
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return redisbroker.New(s.connect(t)) },
			Down: func(testing.TB) { s.Stop() },
			Up:   s.Start,
			Wipe: func(t testing.TB) { flush(t, s) },

			Hang:   func(t testing.TB) { s.Signal(t, syscall.SIGSTOP) },
			Resume: func(t testing.TB) { s.Signal(t, syscall.SIGCONT) },
		}
	})
}

// TestBrokerBehindCables: the server lives on, only the connections are gone.
func TestBrokerBehindCables(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		s, cables := startRedis(t), map[wsroom.Broker]*brokertest.Cable{}
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker {
				c := brokertest.NewCable(t, s.Addr)
				b := redisbroker.New(connect(t, c.Addr()))
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
			Wipe: func(t testing.TB) { flush(t, s) },
		}
	})
}

func TestPresence(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
		client := s.connect(t)
		if err := client.Do(t.Context(), client.B().Flushall().Build()).Error(); err != nil {
			t.Fatal(err)
		}
		return brokertest.PresenceSetup{
			Open: func(t testing.TB) wsroom.PresenceStore { return redisbroker.NewPresence(s.connect(t)) },
		}
	})
}

// TestCluster: on a cluster of three masters topics are sharded, and presence has one slot.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := startCluster(t)
	open := func(t testing.TB) wsroom.Broker { return redisbroker.New(connectCluster(t, nodes)) }
	t.Run("Broker", func(t *testing.T) {
		brokertest.Run(t, func(testing.TB) brokertest.Setup {
			return brokertest.Setup{Open: open, Wipe: func(t testing.TB) { flush(t, nodes...) }}
		})
	})
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
			flush(t, nodes...)
			return brokertest.PresenceSetup{
				Open: func(t testing.TB) wsroom.PresenceStore { return redisbroker.NewPresence(connectCluster(t, nodes)) },
			}
		})
	})
	t.Run("Cut", func(t *testing.T) {
		var ears []*ear
		b := open(t)
		for i := range 50 {
			ears = append(ears, listen(t, b, fmt.Sprint("cut ", i)))
		}
		for _, s := range nodes {
			command(t, s, "CLIENT", "KILL", "TYPE", "PUBSUB")
		}
		for i, e := range ears {
			until(t, "lost is called", func() bool { return e.losses.Load() == 1 })
			publish(t, b, fmt.Sprint("cut ", i), "after")
			until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
		}
	})
	t.Run("CutFollowers", func(t *testing.T) {
		var logs []*journal
		b := redisbroker.New(connectCluster(t, nodes))
		topic := func(i int) string { return fmt.Sprint("followed ", i) }
		for i := range 50 {
			keep(t, b, topic(i), "1")
			logs = append(logs, follow(t, b, topic(i), 10))
		}
		for _, s := range nodes {
			command(t, s, "CLIENT", "KILL", "TYPE", "PUBSUB")
		}
		for i, l := range logs {
			keep(t, b, topic(i), "2")
			l.hears(t, "2")
			l.expect(t, "1", "2")
		}
	})
	t.Run("SlotMoves", func(t *testing.T) { slotMoves(t, nodes, open(t)) })
}

// slotMoves: where a slot gets another master, Redis ends the subscriptions, and subscribers are told once
// they are subscribed there.
func slotMoves(t *testing.T, nodes []*redisServer, b wsroom.Broker) {
	flush(t, nodes...) // a slot with keys doesn't move
	e := listen(t, b, "moves")
	var slot, from int
	for i, s := range nodes {
		for _, channel := range command(t, s, "PUBSUB", "SHARDCHANNELS") {
			key := command(t, s, "CLUSTER", "KEYSLOT", channel)
			slot, from = atoi(t, key[0]), i
		}
	}
	to := command(t, nodes[(from+1)%len(nodes)], "CLUSTER", "MYID")[0]
	for i := range nodes { // the new master first
		command(t, nodes[(from+1+i)%len(nodes)], "CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", to)
	}
	until(t, "lost is called", func() bool { return e.losses.Load() > 0 })
	publish(t, b, "moves", "after")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
}

// TestSlowSubscriber: what is too much for a subscriber's backlog is left out, and lost called in its place.
func TestSlowSubscriber(t *testing.T) {
	t.Parallel()
	b := redisbroker.New(startRedis(t).connect(t))
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
	filler := strings.Repeat("x", 1<<20)
	for i := range 30 {
		publish(t, b, "topic", fmt.Sprintf("%02d", i)+filler)
	}
	other := listen(t, b, "other") // when it hears, all else has been received
	publish(t, b, "other", "fence")
	until(t, "a message arrives", func() bool { return other.messages.Load() == 1 })
	close(opened)
	until(t, "the end arrives", func() bool {
		publish(t, b, "topic", "zz")
		return ended.Load()
	})
	stop()
	i := slices.Index(heard, "lost")
	if i < 10 || i > 25 || heard[0] != "00" || heard[i-1] != fmt.Sprintf("%02d", i-1) || heard[i+1] != "zz" {
		t.Errorf("heard %d, the first are %q", len(heard), heard[:min(35, len(heard))])
	}
}

// TestRedisCutsSubscribersOff: subscribers that Redis finds too slow are told. What they are just publishing
// fails, because it takes the same connection.
func TestRedisCutsSubscribersOff(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--client-output-buffer-limit", "pubsub 1mb 1mb 1")
	b, other := redisbroker.New(s.connect(t)), redisbroker.New(s.connect(t))
	e := listen(t, b, "topic")
	publish(t, other, "topic", strings.Repeat("x", 4<<20))
	until(t, "lost is called", func() bool { return e.losses.Load() == 1 })
	publish(t, b, "topic", "after")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
}

// TestRedisCutsFollowersOff: a follower that Redis finds too slow reads what was too much.
func TestRedisCutsFollowersOff(t *testing.T) {
	t.Parallel()
	s := startRedis(t, "--client-output-buffer-limit", "pubsub 1mb 1mb 1")
	b, other := redisbroker.New(s.connect(t)), redisbroker.New(s.connect(t))
	l, large := follow(t, b, "topic", 1), strings.Repeat("x", 4<<20)
	keep(t, other, "topic", large, "after")
	l.hears(t, "after")
	l.expect(t, large, "after")
}

// TestHungServer: Publish, Keep, Subscribe and Follow return in time from a server that takes connections and says nothing.
func TestHungServer(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	cut, connected := redisbroker.New(s.connect(t)), redisbroker.New(s.connect(t))
	publish(t, cut, "topic", "before")
	command(t, s, "CLIENT", "KILL", "TYPE", "NORMAL")
	until(t, "it is connected again", func() bool { return connected.Publish(t.Context(), "topic", nil) == nil })
	s.Signal(t, syscall.SIGSTOP)
	var patient sync.WaitGroup
	defer patient.Wait()
	defer s.Signal(t, syscall.SIGCONT)
	patient.Go(func() { _ = cut.Publish(t.Context(), "topic", []byte("connects, and holds up the next")) })
	<-time.After(10 * time.Millisecond) // for it to be the first
	began := time.Now()
	var asking sync.WaitGroup
	for i := range 8 {
		b := []*redisbroker.Broker{cut, connected}[i%2]
		for name, call := range map[string]func(context.Context) error{
			"Publish": func(ctx context.Context) error { return b.Publish(ctx, "topic", []byte("hung")) },
			"Keep":    func(ctx context.Context) error { return b.Keep(ctx, "topic", []byte("hung"), 1, time.Hour) },
			"Subscribe": func(ctx context.Context) error {
				_, err := b.Subscribe(ctx, "topic", func([]byte) {}, func(error) {})
				return err
			},
			"Follow": func(ctx context.Context) error {
				_, err := b.Follow(ctx, "topic", 1, func(uint64, []byte) {}, func() {}, func(error) {})
				return err
			},
		} {
			asking.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i/2)*50*time.Millisecond)
				defer cancel()
				if call(ctx) == nil {
					t.Errorf("%s returns nil", name)
				}
			})
		}
	}
	asking.Wait()
	if took := time.Since(began); took > underrace.Or(20*time.Second, 4*time.Second) {
		t.Errorf("they took %v instead of 150ms", took)
	}
}

// TestPermissions: what README.md says that a user needs is enough.
func TestPermissions(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rules, _ := strings.Cut(string(readme), "ACL SETUSER wsroom ")
	rules, _, found := strings.Cut(rules, "\n")
	if !found {
		t.Fatal("README.md gives no ACL")
	}
	command(t, s, append([]string{"ACL", "SETUSER", "wsroom"}, strings.Fields(rules)...)...)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr}, DisableCache: true, Username: "wsroom", Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := redisbroker.New(client)
	e := listen(t, b, "topic")
	publish(t, b, "topic", "message")
	until(t, "a message arrives", func() bool { return e.messages.Load() == 1 })
	store := redisbroker.NewPresence(client)
	if _, _, err := store.Renew(t.Context(), "node", time.Hour); err != nil {
		t.Error(err)
	}
	if _, err := store.Enter(t.Context(), "room", "ann", "node"); err != nil {
		t.Error(err)
	}
	if all, err := store.Identities(t.Context(), "room"); err != nil || len(all) != 1 {
		t.Error(all, err)
	}
	if _, err := store.Exit(t.Context(), "room", "ann", "node"); err != nil {
		t.Error(err)
	}
	if _, err := store.Leave(t.Context(), "node"); err != nil {
		t.Error(err)
	}
}

// TestNothingIsLeft: the server has no subscription any more when all have been stopped.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	b := redisbroker.New(s.connect(t))
	left := func(n int) {
		t.Helper()
		until(t, fmt.Sprint(n, " channels are left"), func() bool { return len(command(t, s, "PUBSUB", "CHANNELS")) == n })
	}
	var stops []func()
	for i := range 50 {
		stop, err := b.Subscribe(t.Context(), fmt.Sprint("topic ", i%40), func([]byte) {}, func(error) {})
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	left(40)
	for _, stop := range stops[:40] {
		stop()
	}
	left(10)
	for _, stop := range stops[40:] {
		stop()
	}
	left(0)
}

// TestTooLarge: what can't be published is rejected for good.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	b := redisbroker.New(startRedis(t).connect(t))
	e := listen(t, b, "topic")
	var rejected interface{ Rejected() bool }
	if err := b.Publish(t.Context(), "topic", make([]byte, redisbroker.MaxData+1)); !errors.As(err, &rejected) || !rejected.Rejected() {
		t.Errorf("the error is %v", err)
	}
	publish(t, b, "topic", strings.Repeat("x", b.MaxData()))
	until(t, "the largest message arrives", func() bool { return e.messages.Load() == 1 })
}

// TestPresenceKeysExpire: nothing is kept for ever when all nodes die, and nothing is left when all leave.
func TestPresenceKeysExpire(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	store := redisbroker.NewPresence(s.connect(t))
	for _, node := range []string{"n1", "n2"} {
		if _, err := store.Enter(t.Context(), "before the lease", "ann", node); err != nil {
			t.Fatal(err)
		}
		if _, _, err := store.Renew(t.Context(), node, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := store.Enter(t.Context(), "room", "ann", node); err != nil {
			t.Fatal(err)
		}
	}
	keys := command(t, s, "KEYS", "*")
	if len(keys) != 7 {
		t.Errorf("the keys are %q", keys)
	}
	for _, key := range keys {
		if ttl := atoi(t, command(t, s, "TTL", key)[0]); ttl <= 0 || ttl > 24*3600 {
			t.Errorf("%s is kept for %d s", key, ttl)
		}
		command(t, s, "EXPIRE", key, "3600") // as if Renew had been going on for 23 hours
	}
	if _, _, err := store.Renew(t.Context(), "n1", time.Hour); err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		ttl := atoi(t, command(t, s, "TTL", key)[0])
		if others := strings.Contains(key, "n2"); ttl > 3600 == others {
			t.Errorf("after Renew %s is kept for %d s", key, ttl)
		}
	}
	for _, node := range []string{"n1", "n2"} {
		if _, err := store.Leave(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	if keys := command(t, s, "KEYS", "*"); len(keys) > 0 {
		t.Errorf("after Leave there are the keys %q", keys)
	}
}

// BenchmarkPublish is the time from Publish to its return.
func BenchmarkPublish(b *testing.B) {
	broker := redisbroker.New(startRedis(b).connect(b))
	brokertest.BenchmarkPublish(b, broker)
}

// BenchmarkKeep is the time from Keep to its return: of the same messages as [BenchmarkPublish], 256 of which are
// kept of each topic for two minutes.
func BenchmarkKeep(b *testing.B) {
	broker := keeping{redisbroker.New(startRedis(b).connect(b))}
	brokertest.BenchmarkPublish(b, broker)
}

// keeping is a broker that keeps what is published.
type keeping struct{ *redisbroker.Broker }

func (k keeping) Publish(ctx context.Context, topic string, data []byte) error {
	return k.Keep(ctx, topic, data, 256, 2*time.Minute)
}

func (k keeping) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	return k.Follow(ctx, topic, 256, func(_ uint64, data []byte) { deliver(data) }, func() {}, lost)
}

// BenchmarkFollow is the time that Follow takes of a topic of which 256 messages of 200 bytes are kept. It reports
// what a kept message takes of Redis' memory, and a topic of which only the last position is kept.
func BenchmarkFollow(b *testing.B) {
	const topics, most = 100, 256
	s := startRedis(b)
	broker := redisbroker.New(s.connect(b))
	before := usedMemory(b, s)
	for i := range topics * most {
		if err := broker.Keep(b.Context(), fmt.Sprint(i%topics), make([]byte, 200), most, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	kept := usedMemory(b, s) - before
	for i := 0; b.Loop(); i++ {
		stop, err := broker.Follow(b.Context(), fmt.Sprint(i%topics), most, func(uint64, []byte) {}, func() {}, func(error) {})
		if err != nil {
			b.Fatal(err)
		}
		stop()
	}
	b.ReportMetric(kept/topics/most, "B/message")

	before = usedMemory(b, s)
	const idle = 10_000
	for i := range idle {
		stop, err := broker.Follow(b.Context(), fmt.Sprintf("room %05d", i), most, func(uint64, []byte) {}, func() {}, func(error) {})
		if err != nil {
			b.Fatal(err)
		}
		stop()
	}
	b.ReportMetric((usedMemory(b, s)-before)/idle, "B/idle-topic")
}

func usedMemory(b *testing.B, s *redisServer) float64 {
	_, rest, _ := strings.Cut(command(b, s, "INFO", "memory")[0], "used_memory:")
	text, _, _ := strings.Cut(rest, "\r")
	return float64(atoi(b, text))
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

func atoi(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
