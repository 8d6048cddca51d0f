package postgresbroker_test

import (
	"context"
	"fmt"
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

func startPostgres(t testing.TB) *server {
	t.Helper()
	return &server{postgrestest.Start(t)}
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

var _ = fmt.Sprint
