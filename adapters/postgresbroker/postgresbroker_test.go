package postgresbroker_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
	"github.com/wsroom/wsroom/internal/postgrestest"
)

var (
	_ wsroom.Broker = (*postgresbroker.Broker)(nil)
	_ wsroom.Keeper = (*postgresbroker.Broker)(nil)
)

func TestBroker(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return s.open(t) },
			Down: func(testing.TB) { s.Stop() },
			Up:   s.Start,
			Wipe: s.wipe,
		}
	})
}

// TestBrokerBehindCables: the server lives on, only the connections are gone, or hang.
func TestBrokerBehindCables(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	brokertest.Run(t, func(t testing.TB) brokertest.Setup {
		c := &cabled{s, map[any]*brokertest.Cable{}}
		return brokertest.Setup{
			Open: func(t testing.TB) wsroom.Broker { return c.open(t) },
			Down: c.each((*brokertest.Cable).Cut), Up: c.each((*brokertest.Cable).Heal),
			Hang: c.each((*brokertest.Cable).Hang), Resume: c.each((*brokertest.Cable).Resume),
			Cut:  func(_ testing.TB, b wsroom.Broker) { c.cables[b].Cut() },
			Heal: func(_ testing.TB, b wsroom.Broker) { c.cables[b].Heal() },
			Wipe: s.wipe,
		}
	})
}

// TestOpenAtOnce: many nodes open a new database at the same time, and a schema of another version is
// refused.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	pools := make([]*pgxpool.Pool, 12)
	for i := range pools {
		pools[i] = s.connect(t)
	}
	var opening sync.WaitGroup
	for _, pool := range pools {
		opening.Go(func() {
			if _, err := postgresbroker.Open(t.Context(), pool); err != nil {
				t.Error(err)
			}
		})
	}
	opening.Wait()

	s.exec(t, `UPDATE wsroom.meta SET version = 2`)
	if _, err := postgresbroker.Open(t.Context(), pools[0]); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("a schema of version 2: %v", err)
	}
}

// TestFewRights: a role that may not create anything uses a schema that is there, with the rights that Schema
// names.
func TestFewRights(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	s.exec(t, postgresbroker.Schema+`
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA wsroom TO app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA wsroom TO app;`, pgx.QueryExecModeSimpleProtocol)
	pool, err := pgxpool.New(t.Context(), strings.Replace(s.URL(), "postgres@", "app@", 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	b := open(t, pool)
	subscribed, followed := subscribe(t, b, "topic"), follow(t, b, "kept", 10)
	publish(t, b, "topic", "small", strings.Repeat("large", 2000))
	keep(t, b, "kept", "one", strings.Repeat("large", 2000))
	subscribed.hears(t, 2)
	followed.hears(t, 2)
	store := b.Presence()
	if _, _, err := store.Renew(t.Context(), "node", time.Hour); err != nil {
		t.Error(err)
	}
	if _, _, err := store.EnterInfo(t.Context(), [][3]string{{"room", "ann", "1"}}, "node"); err != nil {
		t.Error(err)
	}
	if _, err := store.Leave(t.Context(), "node"); err != nil {
		t.Error(err)
	}
}

// TestSameMessages: messages that are the same are as many, although PostgreSQL sends the same notification
// of a transaction once.
func TestSameMessages(t *testing.T) {
	t.Parallel()
	const publishers, messages = 20, 50
	b := startPostgres(t).open(t)
	subscribed, followed := subscribe(t, b, "topic"), follow(t, b, "kept", 10)
	same := strings.Repeat("same", 1000) // so that each has a notification of its own
	var publishing sync.WaitGroup
	for range publishers {
		publishing.Go(func() {
			for range messages {
				publish(t, b, "topic", same)
				keep(t, b, "kept", same)
			}
		})
	}
	publishing.Wait()
	publish(t, b, "topic", "end")
	keep(t, b, "kept", "end")
	for _, j := range []*journal{subscribed, followed} {
		until(t, "the last message arrives", func() bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			return len(j.heard) > 0 && j.heard[len(j.heard)-1] == "end"
		})
		if n, losses := j.count(); n != publishers*messages+1 || losses > 0 {
			t.Errorf("%d messages arrive of %d, and %d gaps", n, publishers*messages+1, losses)
		}
	}
}

// TestTopicTooLong: a topic that doesn't fit into a notification beside a message is an error, of its own call alone.
func TestTopicTooLong(t *testing.T) {
	t.Parallel()
	b := startPostgres(t).open(t)
	topic := strings.Repeat("x", 601)
	if b.Publish(t.Context(), topic, nil) == nil || b.Keep(t.Context(), topic, nil, 10, time.Hour) == nil {
		t.Error("a topic of 601 bytes is taken")
	}
	j := subscribe(t, b, topic[1:])
	publish(t, b, topic[1:], strings.Repeat("y", 5<<10))
	j.hears(t, 1)
}

// TestLargeAmongSmall: what goes by way of a table and what doesn't has one order.
func TestLargeAmongSmall(t *testing.T) {
	t.Parallel()
	const messages = 300
	b := startPostgres(t).open(t)
	subscribed, followed := subscribe(t, b, "topic"), follow(t, b, "kept", 10)
	want := make([]string, messages)
	for i := range want {
		want[i] = fmt.Sprint(i)
		if i%3 == 0 {
			want[i] += strings.Repeat("x", 5000+i*20) // from a little below the bound on
		}
	}
	publish(t, b, "topic", want...)
	for _, m := range want { // all are kept: of fewer some may be trimmed before the follower has read them
		if err := b.Keep(t.Context(), "kept", []byte(m), messages, time.Hour); err != nil {
			t.Error(err)
		}
	}
	for _, j := range []*journal{subscribed, followed} {
		if got := j.hears(t, messages); !slices.Equal(got, want) {
			t.Error("they arrive in another order")
		}
	}
}

// TestManyTopicsAtOnce: nodes publish to the same topics in different orders, under PostgreSQL's strictest
// isolation by default, and none fails.
func TestManyTopicsAtOnce(t *testing.T) {
	t.Parallel()
	const nodes, topics, rounds = 4, 40, 10
	s := startPostgres(t, "default_transaction_isolation=serializable", "deadlock_timeout=100ms")
	var publishing sync.WaitGroup
	brokers := make([]*postgresbroker.Broker, nodes)
	for i := range brokers {
		brokers[i] = s.open(t)
	}
	for _, b := range brokers {
		for topic := range topics {
			publishing.Go(func() {
				for range rounds {
					keep(t, b, fmt.Sprint("topic ", topic), "message")
				}
			})
		}
	}
	publishing.Wait()
	for topic := range topics {
		if n := len(follow(t, brokers[0], fmt.Sprint("topic ", topic), 1000).hears(t, nodes*rounds)); n != nodes*rounds {
			t.Errorf("of %d messages %d are kept", nodes*rounds, n)
		}
	}
}

// TestRestartIsNoGap: what Keep has taken outlives the server's crash, and a follower goes on behind it.
func TestRestartIsNoGap(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	b := s.open(t)
	quiet, busy := follow(t, b, "quiet", 10), follow(t, b, "busy", 10)
	keep(t, b, "quiet", "1")
	quiet.hears(t, 1)
	for i := range 3 {
		keep(t, b, "busy", "before")
		if s.Stop(); i == 2 {
			t.Log("once as an operator ends it")
			s.Start(t)
			s.Quit()
		}
		s.Start(t)
		until(t, "Keep succeeds", func() bool { return b.Keep(t.Context(), "busy", []byte("after"), 100, time.Hour) == nil })
		busy.hears(t, 2*(i+1))
	}
	keep(t, b, "quiet", "2")
	quiet.hears(t, 2)
	for _, j := range []*journal{quiet, busy} {
		if _, losses := j.count(); losses > 0 {
			t.Errorf("%d gaps are reported", losses)
		}
	}
}

// TestAnotherServerIsAGap: where a replica has taken over, the last messages may be missing.
func TestAnotherServerIsAGap(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	b := s.open(t)
	j := follow(t, b, "topic", 10)
	keep(t, b, "topic", "1")
	j.hears(t, 1)
	s.Quit()
	s.TakeOver(t)
	until(t, "lost is called", func() bool { _, losses := j.count(); return losses == 1 })
	keep(t, b, "topic", "2")
	j.hears(t, 2)
}

// TestOldIsDeleted: what is too old or too much is deleted, also of topics that get no more messages, and so
// are topics that nobody uses any more.
func TestOldIsDeleted(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	b := s.open(t)
	for i := range 2000 {
		if err := b.Keep(t.Context(), fmt.Sprint(i%2), []byte("message"), 100, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.count(t, `SELECT count(*) FROM wsroom.messages`); n < 200 || n > 2*130 {
		t.Errorf("of two topics with 100 messages to keep there are %d", n)
	}

	if err := b.Keep(t.Context(), "short", []byte("message"), 100, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "large", strings.Repeat("x", 10_000))
	cleaner := s.open(t)
	postgresbroker.SetHold(cleaner, time.Millisecond, 10*time.Millisecond)
	subscribe(t, cleaner, "topic") // so that its line runs
	left := func(sql string) func() bool { return func() bool { return s.count(t, sql) == 0 } }
	until(t, "old messages are deleted", left(`SELECT count(*) FROM wsroom.messages JOIN wsroom.topics ON topic = id WHERE name = 'short'`))
	until(t, "topics are deleted", left(`SELECT count(*) FROM wsroom.topics WHERE name = 'short'`))
	until(t, "large messages are deleted", left(`SELECT count(*) FROM wsroom.large`))
	if n := s.count(t, `SELECT count(*) FROM wsroom.messages`); n < 200 {
		t.Errorf("of two topics with 100 messages to keep there are %d", n)
	}
}

// TestSilentConnection: a node that only listens notices by itself that its connection carries nothing any
// more, and hears again.
func TestSilentConnection(t *testing.T) {
	t.Parallel()
	s := startPostgres(t)
	c := &cabled{s, map[any]*brokertest.Cable{}}
	b, other := c.open(t), s.open(t)
	j, kept := subscribe(t, b, "topic"), follow(t, b, "kept", 10)
	publish(t, other, "topic", "before")
	keep(t, other, "kept", "before")
	j.hears(t, 1)
	kept.hears(t, 1)
	c.cables[b].Drop()
	publish(t, other, "topic", "missed")
	keep(t, other, "kept", "missed")
	until(t, "lost is called", func() bool { _, losses := j.count(); return losses > 0 })
	publish(t, other, "topic", "after")
	keep(t, other, "kept", "after")
	if got := kept.hears(t, 3); !slices.Equal(got, []string{"before", "missed", "after"}) {
		t.Errorf("the follower hears %q", got)
	}
	if got := j.hears(t, 2); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("the subscriber hears %q", got)
	}
}

// TestStopLeavesNothing: when all subscriptions have been stopped, also in an outage, the broker has no
// goroutine and no connection of its own.
func TestStopLeavesNothing(t *testing.T) { // alone: it counts goroutines
	cable := brokertest.NewCable(t, startPostgres(t).Addr)
	before := runtime.NumGoroutine()
	pool, err := pgxpool.New(t.Context(), postgrestest.URL(cable.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	b := open(t, pool)
	for round := range 3 {
		var stops []func()
		for i := range 50 {
			stop, err := b.Subscribe(t.Context(), fmt.Sprint(i), func([]byte) {}, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			unfollow, err := b.Follow(t.Context(), fmt.Sprint("kept ", i), 10, func(uint64, []byte) {}, func() {}, func(error) {})
			if err != nil {
				t.Fatal(err)
			}
			stops = append(stops, stop, unfollow)
		}
		if round == 1 {
			cable.Cut()
		}
		for _, stop := range stops {
			stop()
		}
		cable.Heal()
	}
	pool.Close()
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}

// BenchmarkPublish is the time from Publish to its return, on a server that waits for the disk as it does by
// default.
func BenchmarkPublish(b *testing.B) {
	brokertest.BenchmarkPublish(b, startPostgres(b, "fsync=on").open(b))
}

// BenchmarkKeep is the time from Keep to its return: of the same messages as [BenchmarkPublish], 256 of which
// are kept of each topic for two minutes.
func BenchmarkKeep(b *testing.B) {
	brokertest.BenchmarkPublish(b, keeping{startPostgres(b, "fsync=on").open(b)})
}

// BenchmarkNodes is the time of a message that 16 publishers on one node send to a topic of which only that
// node has subscribers, until it is there, with other nodes that have nothing to do with it: each of them
// receives it, too.
func BenchmarkNodes(b *testing.B) {
	for _, nodes := range []int{1, 4, 16} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			s := startPostgres(b, "fsync=on")
			for i := range nodes - 1 {
				subscribe(b, s.open(b), fmt.Sprint("other ", i))
			}
			broker := s.open(b)
			j := subscribe(b, broker, "topic")
			var publishing sync.WaitGroup
			b.ResetTimer()
			for i := range 16 {
				publishing.Go(func() {
					for n := i; n < b.N; n += 16 {
						if err := broker.Publish(b.Context(), "topic", make([]byte, 128)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			publishing.Wait()
			j.hears(b, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

// keeping is a broker that keeps what is published.
type keeping struct{ *postgresbroker.Broker }

func (k keeping) Publish(ctx context.Context, topic string, data []byte) error {
	return k.Keep(ctx, topic, data, 256, 2*time.Minute)
}

func (k keeping) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	return k.Follow(ctx, topic, 256, func(_ uint64, data []byte) { deliver(data) }, func() {}, lost)
}
