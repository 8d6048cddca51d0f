package postgresbroker

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// version is that of the schema. Nodes with different versions don't share a database.
const version = 1

// Schema is the SQL that [Open] runs where the schema "wsroom" isn't there yet. A role that may not create
// schemas needs that somebody else runs it before, and these rights: USAGE of the schema, and SELECT, INSERT,
// UPDATE and DELETE of its tables.
const Schema = `
CREATE SCHEMA wsroom;

CREATE TABLE wsroom.meta (
	version int PRIMARY KEY,
	cleaned timestamptz NOT NULL DEFAULT '-infinity'
);

-- What is published and too large for a notification. It is needed for seconds, so no log is written for it.
CREATE UNLOGGED TABLE wsroom.large (
	id text PRIMARY KEY,
	data bytea NOT NULL,
	since timestamptz NOT NULL DEFAULT now()
);

-- One row for each topic that is kept. Whoever keeps a message holds the lock of the row until the commit, so
-- positions are committed in their order.
CREATE TABLE wsroom.topics (
	name bytea PRIMARY KEY,
	id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
	first bigint NOT NULL,           -- position of the first message of the last call
	last bigint NOT NULL,            -- position of the last message
	before bigint NOT NULL,          -- position of the one before first, or 0
	most bigint NOT NULL,            -- how many messages are kept
	age bigint NOT NULL,             -- for how many microseconds
	untrimmed bigint NOT NULL        -- messages since the last trim
) WITH (fillfactor = 50);

CREATE TABLE wsroom.messages (
	topic bigint,
	position bigint,
	before bigint NOT NULL,          -- position of the topic's message before, or 0
	data bytea NOT NULL,
	PRIMARY KEY (topic, position)
);

CREATE TABLE wsroom.leases (
	node bytea PRIMARY KEY,
	until timestamptz NOT NULL,
	renewed boolean NOT NULL,        -- false for a lease that the node doesn't know of
	ended boolean NOT NULL DEFAULT false -- within a transaction only
);

CREATE TABLE wsroom.entries (
	room bytea,
	identity bytea,
	node bytea,
	PRIMARY KEY (room, identity, node)
);
CREATE INDEX ON wsroom.entries (node);

CREATE TABLE wsroom.shown (
	room bytea,
	identity bytea,
	info bytea NOT NULL,
	PRIMARY KEY (room, identity)
);

-- Who has left, until the node that is to tell of it has said that it has the answer of that call.
CREATE TABLE wsroom.gone (
	teller bytea,
	room bytea,
	identity bytea,
	call bigint NOT NULL,
	PRIMARY KEY (teller, room, identity)
);

INSERT INTO wsroom.meta (version) VALUES (1);
`

// Numbers of advisory locks: "wsrm" as the first of two, so that they meet no others.
const (
	lockSpace    = 0x7773726d
	schemaLock   = 1
	presenceLock = 2
)

const lockSQL = `SELECT pg_advisory_xact_lock($1, $2)`

// createSchema creates the schema where there is none. Of several nodes that do so at once, one does.
func createSchema(ctx context.Context, pool *pgxpool.Pool) error {
	found, err := schemaVersion(ctx, pool)
	if err == nil && found == 0 {
		err = pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, lockSQL, lockSpace, schemaLock); err != nil {
				return err
			}
			if found, err = schemaVersion(ctx, tx); err != nil || found != 0 {
				return err
			}
			found = version
			_, err := tx.Exec(ctx, Schema, pgx.QueryExecModeSimpleProtocol)
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("postgresbroker: open: %w", err)
	}
	if found != version {
		return fmt.Errorf("postgresbroker: open: the schema wsroom has version %d, and this package needs %d", found, version)
	}
	return nil
}

// schemaVersion returns the version of the schema that is there, or 0.
func schemaVersion(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (found int, err error) {
	var there bool
	// Not to_regclass: in a transaction that has waited for another one it may still say what was before.
	const sql = `SELECT EXISTS (SELECT FROM pg_catalog.pg_tables WHERE schemaname = 'wsroom' AND tablename = 'meta')`
	if err := db.QueryRow(ctx, sql).Scan(&there); err != nil || !there {
		return 0, err
	}
	err = db.QueryRow(ctx, `SELECT coalesce(max(version), $1) FROM wsroom.meta`, version).Scan(&found) // empty: all data was lost
	return found, err
}

// The server's clock in microseconds, and that of the transaction's beginning.
const (
	clock = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`
	began = `(extract(epoch FROM now()) * 1000000)::bigint`
)

// history is the number of the server's history ("timeline"). It changes when a replica takes over, or a
// backup is restored: then the last messages may be missing.
const history = `left(pg_walfile_name(pg_current_wal_lsn()), 8)`

const (
	// publishSQL takes notifications, and ids and data of what is too large for them.
	publishSQL = `
WITH large AS (
	INSERT INTO wsroom.large (id, data) SELECT * FROM unnest($2::text[], $3::bytea[])
)
SELECT pg_notify('wsroom', note)::text FROM unnest($1::text[]) WITH ORDINALITY AS n(note, number) ORDER BY number`

	largeSQL = `SELECT data FROM wsroom.large WHERE id = $1`

	// keepSQL takes, for each message, its topic, the data, the end of its notification, and how many are kept
	// for how long; and the highest position that the node knows. Rows of topics are locked in the order of
	// their names. It returns the last position, and the ids of topics that are to be trimmed.
	keepSQL = `
WITH m AS MATERIALIZED (
	SELECT *, row_number() OVER (PARTITION BY name ORDER BY number) AS rank
	FROM unnest($1::bytea[], $2::bytea[], $3::text[], $4::bigint[], $5::bigint[])
		WITH ORDINALITY AS m(name, data, note, most, age, number)
), t AS (
	INSERT INTO wsroom.topics AS t (name, first, last, before, most, age, untrimmed)
	SELECT name, now, now + count(*) - 1, 0,
		(array_agg(most ORDER BY number DESC))[1], (array_agg(age ORDER BY number DESC))[1], count(*)
	FROM m, (SELECT greatest(` + clock + `, $6::bigint + 1) AS now) AS c
	GROUP BY name, now ORDER BY name
	ON CONFLICT (name) DO UPDATE SET
		first = greatest(t.last + 1, EXCLUDED.first),
		last = greatest(t.last + 1, EXCLUDED.first) + EXCLUDED.untrimmed - 1,
		before = t.last,
		most = EXCLUDED.most,
		age = EXCLUDED.age,
		untrimmed = EXCLUDED.untrimmed + CASE WHEN t.untrimmed >= greatest(16, t.most / 4) THEN 0 ELSE t.untrimmed END
	RETURNING id, name, first, before, untrimmed >= greatest(16, most / 4) AS trim
), k AS (
	SELECT t.id, t.first + rank - 1 AS position, CASE rank WHEN 1 THEN t.before ELSE t.first + rank - 2 END AS before,
		data, note, number, trim
	FROM m JOIN t USING (name)
), i AS (
	INSERT INTO wsroom.messages (topic, position, before, data) SELECT id, position, before, data FROM k
)
SELECT position, CASE WHEN trim THEN id ELSE 0 END, pg_notify('wsroom', 'k ' || position || ' ' || note)::text
FROM k ORDER BY number`

	// trimSQL takes ids of topics.
	trimSQL = `
DELETE FROM wsroom.messages AS m
USING wsroom.topics AS t, LATERAL (
	SELECT greatest(
		(SELECT position FROM wsroom.messages WHERE topic = t.id ORDER BY position DESC OFFSET t.most LIMIT 1),
		` + clock + ` - t.age
	) AS old OFFSET 0
) AS upto
WHERE t.id = ANY($1::bigint[]) AND m.topic = t.id AND m.position <= upto.old`

	// pastSQL takes a topic and how many messages to return, oldest first. It returns no row if there is no such
	// topic, and one without a message if nothing is kept.
	pastSQL = `
SELECT ` + history + `, t.last, m.position, 0, m.data
FROM wsroom.topics AS t LEFT JOIN LATERAL (
	SELECT position, data FROM wsroom.messages
	WHERE topic = t.id AND position > ` + began + ` - t.age ORDER BY position DESC LIMIT $2
) AS m ON true
WHERE t.name = $1 ORDER BY m.position`

	// missedSQL takes a topic, a position, how many messages to return at most, and after how many bytes to end.
	missedSQL = `
SELECT ` + history + `, t.last, m.position, m.before, m.data
FROM wsroom.topics AS t LEFT JOIN LATERAL (
	SELECT * FROM (
		SELECT position, before, data, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS bytes
		FROM wsroom.messages WHERE topic = t.id AND position > $2 ORDER BY position LIMIT $3
	) AS m WHERE bytes < $4
) AS m ON true
WHERE t.name = $1 ORDER BY m.position`

	// beginSQL takes a topic that isn't there yet, and a position that its messages are to be after.
	beginSQL = `
INSERT INTO wsroom.topics (name, first, last, before, most, age, untrimmed)
VALUES ($1, 0, greatest($2::bigint, ` + clock + `), 0, 1, 0, 0)
ON CONFLICT (name) DO NOTHING`

	// raiseSQL takes a topic whose data was lost, and a position that new messages are to be after.
	raiseSQL = `
INSERT INTO wsroom.topics AS t (name, first, last, before, most, age, untrimmed)
VALUES ($1, 0, $2, 0, 1, 0, 0)
ON CONFLICT (name) DO UPDATE SET last = EXCLUDED.last WHERE t.last < EXCLUDED.last`
)

// What cleans up: each takes how long ago somebody has done it, or how long what isn't needed stays.
const (
	turnSQL = `
INSERT INTO wsroom.meta AS m (version, cleaned) VALUES ($1, now())
ON CONFLICT (version) DO UPDATE SET cleaned = now() WHERE m.cleaned < now() - $2::interval`

	cleanMessagesSQL = `
WITH old AS (
	SELECT id FROM wsroom.topics AS t
	WHERE last < ` + clock + ` - age AND EXISTS (SELECT FROM wsroom.messages WHERE topic = t.id)
	ORDER BY name LIMIT 1000 FOR UPDATE SKIP LOCKED
)
DELETE FROM wsroom.messages USING old WHERE topic = old.id`

	cleanTopicsSQL = `
DELETE FROM wsroom.topics WHERE name IN (
	SELECT name FROM wsroom.topics AS t
	WHERE last < ` + clock + ` - age - 1000000 * extract(epoch FROM $1::interval)::bigint
		AND NOT EXISTS (SELECT FROM wsroom.messages WHERE topic = t.id)
	ORDER BY name LIMIT 1000 FOR UPDATE SKIP LOCKED
)`

	cleanLargeSQL = `DELETE FROM wsroom.large WHERE since < now() - $1::interval`
)
