package postgresbroker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Presence implements [wsroom.PresenceStore]. [Broker.Presence] makes it. Leases use PostgreSQL's clock. All
// changes are made one after the other, under one lock of the database. A change doesn't wait until it is on
// the disk: if the server crashes, the last ones may be lost, and a hub makes them again within about a
// minute.
type Presence struct {
	pool *pgxpool.Pool

	mu       sync.Mutex       // guards what follows
	call     int64            // the last Renew or Leave; later ones are higher
	answered map[string]int64 // by node: its last Renew whose answer has arrived
}

// Presence returns a store of the same database.
func (b *Broker) Presence() *Presence { return &Presence{pool: b.pool, answered: map[string]int64{}} }

// nextCall returns the number of a Renew or Leave. It is one of a clock, so that it is higher than those of
// before this process.
func (p *Presence) nextCall() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call = max(p.call+1, time.Now().UnixMicro())
	return p.call
}

// tellTime is how long Leave may continue after its context has ended, to say that its answer has arrived.
const tellTime = time.Second

// Enter implements [wsroom.PresenceStore].
func (p *Presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	return one(p.EnterAll(ctx, [][2]string{{room, identity}}, node))
}

// Exit implements [wsroom.PresenceStore].
func (p *Presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	return one(p.ExitAll(ctx, [][2]string{{room, identity}}, node))
}

func one(changed []bool, err error) (bool, error) { return err == nil && changed[0], err }

// EnterAll does what [Presence.Enter] does, for each entry of a room and an identity.
func (p *Presence) EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error) {
	infos := make([][3]string, len(entries))
	for i, e := range entries {
		infos[i] = [3]string{e[0], e[1]}
	}
	first, _, err = p.EnterInfo(ctx, infos, node)
	return first, err
}

// EnterInfo does what [Presence.EnterAll] does, and has each identity show the info that is its entry's third
// part.
func (p *Presence) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	var columns [3][][]byte
	for _, e := range entries {
		for i, s := range e {
			columns[i] = append(columns[i], []byte(s))
		}
	}
	err = p.change(ctx, "enter", func(batch *pgx.Batch) {
		batch.Queue(firstLeaseSQL, []byte(node))
		batch.Queue(enterSQL, []byte(node), columns[0], columns[1], columns[2]).Query(func(rows pgx.Rows) error {
			var isFirst, isChanged bool
			_, err := pgx.ForEachRow(rows, []any{&isFirst, &isChanged}, func() error {
				first, changed = append(first, isFirst), append(changed, isChanged)
				return nil
			})
			return err
		})
	})
	if err != nil {
		return nil, nil, err
	}
	return first, changed, nil
}

// ExitAll does what [Presence.Exit] does, for each entry of a room and an identity.
func (p *Presence) ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error) {
	var columns [2][][]byte
	for _, e := range entries {
		for i, s := range e {
			columns[i] = append(columns[i], []byte(s))
		}
	}
	err = p.change(ctx, "exit", func(batch *pgx.Batch) {
		batch.Queue(exitSQL, []byte(node), columns[0], columns[1]).Query(func(rows pgx.Rows) (err error) {
			last, err = pgx.CollectRows(rows, pgx.RowTo[bool])
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return last, nil
}

// change makes a change as a whole. While it runs there is no other.
func (p *Presence) change(ctx context.Context, what string, fill func(*pgx.Batch)) error {
	err := transact(ctx, p.pool, func(batch *pgx.Batch) {
		batch.Queue(dontWaitDisk)
		batch.Queue(lockSQL, lockSpace, presenceLock)
		fill(batch)
	})
	if err != nil {
		return fmt.Errorf("postgresbroker: %s: %w", what, err)
	}
	return nil
}

// Identities implements [wsroom.PresenceStore].
func (p *Presence) Identities(ctx context.Context, room string) (identities []string, err error) {
	err = p.pairs(ctx, "identities", identitiesSQL, room, func(identity, _ string) { identities = append(identities, identity) })
	return identities, err
}

// Infos returns who is in the room, as [Presence.Identities] does, and what each shows.
func (p *Presence) Infos(ctx context.Context, room string) (map[string]string, error) {
	infos := map[string]string{}
	err := p.pairs(ctx, "infos", infosSQL, room, func(identity, info string) { infos[identity] = info })
	return infos, err
}

// Entries returns, by room, the identities that are there through node.
func (p *Presence) Entries(ctx context.Context, node string) (map[string][]string, error) {
	entries := map[string][]string{}
	err := p.pairs(ctx, "entries", entriesSQL, node, func(room, identity string) {
		entries[room] = append(entries[room], identity)
	})
	return entries, err
}

// pairs calls f for each row of an answer.
func (p *Presence) pairs(ctx context.Context, what, sql, arg string, f func(a, b string)) error {
	rows, err := p.pool.Query(ctx, sql, []byte(arg))
	if err == nil {
		err = eachPair(rows, f)
	}
	if err != nil {
		return fmt.Errorf("postgresbroker: %s: %w", what, err)
	}
	return nil
}

func eachPair(rows pgx.Rows, f func(a, b string)) error {
	var a, b []byte
	_, err := pgx.ForEachRow(rows, []any{&a, &b}, func() error {
		f(string(a), string(b))
		return nil
	})
	return err
}

// Renew implements [wsroom.PresenceStore].
func (p *Presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	call := p.nextCall()
	err = p.end(ctx, "renew", node, call, func(batch *pgx.Batch) {
		batch.Queue(endLapsedSQL)
	}, func(batch *pgx.Batch) {
		batch.Queue(heldSQL, []byte(node)).QueryRow(func(row pgx.Row) error { return row.Scan(&held) })
		batch.Queue(renewSQL, []byte(node), ttl)
	}, &left)
	if err != nil {
		return false, nil, err
	}
	p.setAnswered(node, call)
	p.told(ctx, node, call, left)
	return held, left, nil
}

// Leave implements [wsroom.PresenceStore]. It may return up to a second after its context has ended.
func (p *Presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	call := p.nextCall()
	err = p.end(ctx, "leave", node, call, func(batch *pgx.Batch) {
		batch.Queue(endNodeSQL, []byte(node))
	}, func(batch *pgx.Batch) {
		batch.Queue(unclaimedSQL, []byte(node))
	}, &left)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellTime) // no later call says so
	defer cancel()
	p.told(ctx, node, call, left)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.answered, node)
	return left, nil
}

// end ends the nodes that mark marks, and returns in left whom that node is to tell of.
func (p *Presence) end(ctx context.Context, what, node string, call int64, mark, renew func(*pgx.Batch), left *map[string][]string) error {
	all := map[string][]string{}
	*left = all
	teller := []byte(node)
	return p.change(ctx, what, func(batch *pgx.Batch) {
		batch.Queue(toldSQL, teller, p.lastAnswered(node))
		mark(batch)
		batch.Queue(endEntriesSQL, teller, call)
		batch.Queue(inheritSQL, teller, call)
		batch.Queue(endLeasesSQL)
		renew(batch)
		batch.Queue(backSQL, teller)
		batch.Queue(tellSQL, teller, call).Query(func(rows pgx.Rows) error {
			return eachPair(rows, func(room, identity string) { all[room] = append(all[room], identity) })
		})
	})
}

// told says that the answer of a call has arrived, so that PostgreSQL need not keep the identities that it
// returned. If told fails, the next Renew says so.
func (p *Presence) told(ctx context.Context, node string, call int64, left map[string][]string) {
	if len(left) > 0 {
		_ = p.change(ctx, "told", func(batch *pgx.Batch) {
			batch.Queue(toldSQL, []byte(node), call)
			batch.Queue(claimedSQL, []byte(node))
		})
	}
}

func (p *Presence) lastAnswered(node string) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.answered[node]
}

func (p *Presence) setAnswered(node string, call int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answered[node] = call
}

// Nothing is counted: who is first, last or there follows from the entries.
const (
	// firstLeaseSQL gives a node that dies before its first Renew a lease, too.
	firstLeaseSQL = `
INSERT INTO wsroom.leases (node, until, renewed) VALUES ($1, clock_timestamp() + '1 minute', false) ON CONFLICT DO NOTHING`

	// enterSQL takes a node, rooms, identities and infos. It returns for each whether it is the first, and whether
	// it was there and has shown something else.
	enterSQL = `
WITH e AS MATERIALIZED (
	SELECT * FROM unnest($2::bytea[], $3::bytea[], $4::bytea[]) WITH ORDINALITY AS e(room, identity, info, number)
), new AS (
	INSERT INTO wsroom.entries (room, identity, node) SELECT room, identity, $1 FROM e ON CONFLICT DO NOTHING
), show AS (
	INSERT INTO wsroom.shown (room, identity, info) SELECT room, identity, info FROM e WHERE info <> ''
	ON CONFLICT (room, identity) DO UPDATE SET info = EXCLUDED.info
)
SELECT NOT there, there AND e.info <> '' AND s.info IS DISTINCT FROM e.info
FROM e LEFT JOIN wsroom.shown AS s USING (room, identity), LATERAL (
	SELECT EXISTS (SELECT FROM wsroom.entries AS o WHERE o.room = e.room AND o.identity = e.identity) AS there
) AS o
ORDER BY number`

	// exitSQL takes a node, rooms and identities. It returns for each whether it was the last.
	exitSQL = `
WITH e AS MATERIALIZED (
	SELECT * FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS e(room, identity, number)
), old AS (
	DELETE FROM wsroom.entries AS o USING e
	WHERE o.room = e.room AND o.identity = e.identity AND o.node = $1
	RETURNING o.room, o.identity
), gone AS (
	SELECT room, identity FROM old WHERE NOT EXISTS (
		SELECT FROM wsroom.entries AS o WHERE o.room = old.room AND o.identity = old.identity AND o.node <> $1
	)
), hide AS (
	DELETE FROM wsroom.shown AS s USING gone WHERE s.room = gone.room AND s.identity = gone.identity
)
SELECT gone.room IS NOT NULL FROM e LEFT JOIN gone USING (room, identity) ORDER BY number`

	identitiesSQL = `
SELECT DISTINCT identity, ''::bytea FROM wsroom.entries JOIN wsroom.leases USING (node)
WHERE room = $1 AND until > clock_timestamp()`

	infosSQL = `
SELECT DISTINCT identity, coalesce(info, '') FROM wsroom.entries JOIN wsroom.leases USING (node)
LEFT JOIN wsroom.shown USING (room, identity)
WHERE room = $1 AND until > clock_timestamp()`

	entriesSQL = `SELECT room, identity FROM wsroom.entries WHERE node = $1`
)

// How nodes end, one statement after the other. Each takes the node that is to tell who has left, and the
// call.
const (
	// toldSQL forgets whom a call has returned whose answer has arrived.
	toldSQL = `DELETE FROM wsroom.gone WHERE teller = $1 AND call = $2`

	endLapsedSQL = `UPDATE wsroom.leases SET ended = true WHERE until <= clock_timestamp()`
	endNodeSQL   = `UPDATE wsroom.leases SET ended = true WHERE node = $1`

	endEntriesSQL = `
WITH ended AS MATERIALIZED (
	SELECT node FROM wsroom.leases WHERE ended
), old AS (
	DELETE FROM wsroom.entries AS o USING ended WHERE o.node = ended.node RETURNING o.room, o.identity
), left_ AS MATERIALIZED (
	SELECT DISTINCT room, identity FROM old WHERE NOT EXISTS (
		SELECT FROM wsroom.entries AS o
		WHERE o.room = old.room AND o.identity = old.identity AND o.node NOT IN (SELECT node FROM ended)
	)
), hide AS (
	DELETE FROM wsroom.shown AS s USING left_ WHERE s.room = left_.room AND s.identity = left_.identity
)
INSERT INTO wsroom.gone (teller, room, identity, call) SELECT $1::bytea, room, identity, $2::bigint FROM left_
ON CONFLICT (teller, room, identity) DO UPDATE SET call = EXCLUDED.call`

	// inheritSQL takes over whom nodes were to tell of that have no lease any more.
	inheritSQL = `
WITH orphans AS (
	DELETE FROM wsroom.gone AS g
	WHERE teller <> $1 AND NOT EXISTS (SELECT FROM wsroom.leases AS l WHERE l.node = g.teller AND NOT ended)
	RETURNING room, identity
)
INSERT INTO wsroom.gone (teller, room, identity, call) SELECT DISTINCT $1::bytea, room, identity, $2::bigint FROM orphans
ON CONFLICT (teller, room, identity) DO UPDATE SET call = EXCLUDED.call`

	endLeasesSQL = `DELETE FROM wsroom.leases WHERE ended`

	heldSQL  = `SELECT EXISTS (SELECT FROM wsroom.leases WHERE node = $1 AND renewed)`
	renewSQL = `
INSERT INTO wsroom.leases (node, until, renewed) VALUES ($1, clock_timestamp() + $2::interval, true)
ON CONFLICT (node) DO UPDATE SET until = EXCLUDED.until, renewed = true`

	// unclaimedSQL leaves a lease of a second to a node that is to tell of somebody, so that others do that if its
	// answer is lost.
	unclaimedSQL = `
INSERT INTO wsroom.leases (node, until, renewed)
SELECT $1, clock_timestamp() + '1 second', false WHERE EXISTS (SELECT FROM wsroom.gone WHERE teller = $1)`

	// claimedSQL ends it.
	claimedSQL = `
DELETE FROM wsroom.leases AS l
WHERE node = $1 AND NOT renewed AND NOT EXISTS (SELECT FROM wsroom.gone WHERE teller = $1)
	AND NOT EXISTS (SELECT FROM wsroom.entries AS e WHERE e.node = $1)`

	// backSQL forgets those that are back, of whom nobody was told that they left.
	backSQL = `
DELETE FROM wsroom.gone AS g
WHERE teller = $1 AND EXISTS (SELECT FROM wsroom.entries AS e WHERE e.room = g.room AND e.identity = g.identity)`

	// tellSQL has each belong to the latest call that returns it: an earlier one, for whose answer nobody waits any
	// more, may come after a later one.
	tellSQL = `UPDATE wsroom.gone SET call = greatest(call, $2) WHERE teller = $1 RETURNING room, identity`
)
