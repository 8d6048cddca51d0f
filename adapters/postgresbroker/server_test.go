package postgresbroker_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/postgresbroker"
	"github.com/wsroom/wsroom/internal/postgrestest"
)

// patience bounds what a test waits for; nothing takes that long unless it is broken.
const patience = time.Minute

// server is a PostgreSQL server with clients.
type server struct{ *postgrestest.Server }

func startPostgres(t testing.TB, settings ...string) *server {
	t.Helper()
	return &server{postgrestest.Start(t, settings...)}
}

func (s *server) connect(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return connect(t, s.Addr)
}

func connect(t testing.TB, addr string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), postgrestest.URL(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func open(t testing.TB, pool *pgxpool.Pool) *postgresbroker.Broker {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b, err := postgresbroker.Open(ctx, pool)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *server) open(t testing.TB) *postgresbroker.Broker {
	t.Helper()
	return open(t, s.connect(t))
}

// exec has the server do something.
func (s *server) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	pool := s.connect(t)
	defer pool.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := pool.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// count returns what a query counts.
func (s *server) count(t testing.TB, sql string, args ...any) (n int) {
	t.Helper()
	pool := s.connect(t)
	defer pool.Close()
	if err := pool.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// wipe has the server lose all its data.
func (s *server) wipe(t testing.TB) {
	t.Helper()
	s.exec(t, `TRUNCATE wsroom.meta, wsroom.large, wsroom.topics, wsroom.messages, wsroom.leases, wsroom.entries, wsroom.shown, wsroom.gone`)
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

// cabled opens brokers whose ways to the server are cables, which hang and are cut.
type cabled struct {
	server *server
	cables map[any]*brokertest.Cable
}

func (c *cabled) open(t testing.TB) *postgresbroker.Broker {
	cable := brokertest.NewCable(t, c.server.Addr)
	b := open(t, connect(t, cable.Addr()))
	c.cables[b] = cable
	return b
}

func (c *cabled) each(f func(*brokertest.Cable)) func(testing.TB) {
	return func(testing.TB) {
		for _, cable := range c.cables {
			f(cable)
		}
	}
}

// journal is a subscriber or follower that writes down what it hears.
type journal struct {
	mu     sync.Mutex // guards what follows
	heard  []string
	losses int
	err    error // the last one that lost was called with
}

func (j *journal) deliver(data []byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.heard = append(j.heard, string(data))
}

func (j *journal) lost(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.losses++
	j.err = err
}

func (j *journal) count() (messages, losses int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.heard), j.losses
}

// hears waits until there are that many messages, and returns them.
func (j *journal) hears(t testing.TB, n int) []string {
	t.Helper()
	t.Cleanup(func() {
		if got, losses := j.count(); t.Failed() {
			t.Logf("a journal has %d messages and %d losses: %v", got, losses, j.err)
		}
	})
	until(t, fmt.Sprint(n, " messages arrive"), func() bool { got, _ := j.count(); return got >= n })
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.heard)
}

func subscribe(t testing.TB, b *postgresbroker.Broker, topic string) *journal {
	t.Helper()
	j := &journal{}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop, err := b.Subscribe(ctx, topic, j.deliver, j.lost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return j
}

func follow(t testing.TB, b *postgresbroker.Broker, topic string, n int) *journal {
	t.Helper()
	j := &journal{}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop, err := b.Follow(ctx, topic, n, func(_ uint64, data []byte) { j.deliver(data) }, func() {}, j.lost)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return j
}

func publish(t testing.TB, b *postgresbroker.Broker, topic string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := b.Publish(t.Context(), topic, []byte(m)); err != nil {
			t.Error(err)
		}
	}
}

// keep keeps messages, 100 of the topic for an hour.
func keep(t testing.TB, b *postgresbroker.Broker, topic string, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := b.Keep(t.Context(), topic, []byte(m), 100, time.Hour); err != nil {
			t.Error(err)
		}
	}
}
