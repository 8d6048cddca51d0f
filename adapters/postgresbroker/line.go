package postgresbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
)

// silence is after how much time the line asks whether the server is still there.
const silence = 5 * time.Second

var errIdle = errors.New("postgresbroker: there are no subscriptions")

// line listens over a connection of its own, and over a new one when that breaks. Its goroutine runs while
// there are topics. All topics share one channel of PostgreSQL, so to subscribe takes one round trip, and any
// number of subscriptions share it.
type line struct {
	broker *Broker

	mu        sync.Mutex // guards what follows; a message reaches its inboxes under it
	running   bool
	topics    map[string][]*inbox
	joining   []*inbox // subscribed when the connection has answered
	interrupt func()   // ends what the goroutine waits for
	err       error    // with which the last connection ended
}

func (l *line) add(topic string, i *inbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = append(l.topics[topic], i)
	l.joining = append(l.joining, i)
	if l.running {
		l.interrupt()
		return
	}
	l.running = true
	go l.run() // runs until there are no topics
}

func (l *line) remove(topic string, i *inbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	others := slices.DeleteFunc(l.topics[topic], func(other *inbox) bool { return other == i })
	if l.topics[topic] = others; len(others) == 0 {
		delete(l.topics, topic)
	}
	if len(l.topics) == 0 {
		l.joining = nil
		l.interrupt()
	}
}

func (l *line) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// run keeps a connection while there are topics. After a connection breaks it pauses for 10 ms to 1 s before
// the next.
func (l *line) run() {
	const shortest, longest = 10 * time.Millisecond, time.Second
	for pause := shortest; ; pause = min(2*pause, longest) {
		began := time.Now()
		if !l.ended(l.serve()) {
			return
		}
		if time.Since(began) > longest {
			pause = shortest
		}
		l.wait(pause/2 + rand.N(pause/2))
	}
}

// ended notes a connection's end and reports whether another one is needed.
func (l *line) ended(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != errIdle {
		l.err = fmt.Errorf("postgresbroker: connection lost: %w", err)
	}
	l.joining = l.joining[:0]
	for _, inboxes := range l.topics {
		l.joining = append(l.joining, inboxes...)
	}
	l.running = len(l.topics) > 0
	return l.running
}

// wait waits, or until there are no topics.
func (l *line) wait(d time.Duration) {
	ctx, cancel := l.patience(d)
	defer cancel()
	<-ctx.Done()
}

// patience returns a context that ends after that time, and when there are no topics.
func (l *line) patience(d time.Duration) (context.Context, func()) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = func() {
		if len(l.topics) == 0 {
			cancel()
		}
	}
	l.interrupt()
	return ctx, cancel
}

// serve listens on one connection, until it breaks or there are no topics.
func (l *line) serve() error {
	conn, err := l.connect()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx) // nothing is waited for on it
	}()
	clean := time.Now().Add(rand.N(l.broker.every))
	for {
		if err := l.confirm(conn); err != nil {
			return err
		}
		if time.Now().After(clean) {
			if err := l.broker.clean(conn); err != nil && conn.IsClosed() {
				return err
			}
			clean = time.Now().Add(l.broker.every/2 + rand.N(l.broker.every))
		}
		if err := l.hear(conn); err != nil {
			return err
		}
	}
}

// connect makes a connection that listens.
func (l *line) connect() (*pgx.Conn, error) {
	ctx, cancel := l.patience(callTime)
	defer cancel()
	pool := l.broker.pool.Config()
	config := pool.ConnConfig
	config.OnNotification = nil
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.DeadlineContextWatcherHandler{Conn: c.Conn()} // so that a wait ends and the connection goes on
	}
	if pool.BeforeConnect != nil {
		if err := pool.BeforeConnect(ctx, config); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// confirm asks whether the server is there. If so, those that wait are subscribed.
func (l *line) confirm(conn *pgx.Conn) error {
	l.mu.Lock()
	joining, idle := l.joining, len(l.topics) == 0
	l.joining = nil
	l.mu.Unlock()
	if idle {
		return errIdle
	}
	ctx, cancel := l.patience(callTime)
	defer cancel()
	if err := conn.Ping(ctx); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.broker.pool.Reset() // its connections have likely carried nothing since then, either
		}
		return err
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range joining {
		i.subscribed(l.err)
	}
	return nil
}

// hear passes on what the connection receives, until somebody subscribes, or for a while.
func (l *line) hear(conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), silence)
	defer cancel()
	l.mu.Lock()
	l.interrupt = cancel
	if len(l.joining) > 0 || len(l.topics) == 0 {
		cancel()
	}
	l.mu.Unlock()

	for {
		n, err := conn.WaitForNotification(ctx)
		switch {
		case err == nil:
			l.message(n.Payload)
		case ctx.Err() != nil && !conn.IsClosed():
			return nil
		default:
			return err
		}
	}
}

// message takes a notification, in the order of the connection.
func (l *line) message(payload string) {
	words := strings.Split(payload, " ")
	switch {
	case words[0] == "p":
		for i := 2; i+1 < len(words); i += 2 {
			l.pass(words[i], words[i+1], 0)
		}
	case words[0] == "k" && len(words) >= 3:
		position, err := strconv.ParseUint(words[1], 10, 63)
		if err == nil {
			l.pass(words[2], strings.Join(words[3:], ""), position)
		}
	}
}

// pass passes a message on to the inboxes of its topic.
func (l *line) pass(topic, data string, position uint64) {
	name, err := decode(topic)
	if err != nil {
		return // of somebody else
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	inboxes := l.topics[name]
	if len(inboxes) == 0 {
		return
	}
	it := item{position: position}
	if id, ok := strings.CutPrefix(data, "*"); ok {
		it.large = id
	} else if it.data, err = decode(data); err != nil {
		it.lost = fmt.Errorf("postgresbroker: a message can't be read: %w", err)
	}
	for _, i := range inboxes {
		i.put(it)
	}
}
