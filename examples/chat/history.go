package main

import (
	"database/sql"
	"slices"

	_ "modernc.org/sqlite"
)

// A text that somebody has seen is in the file, also if the process is killed. With synchronous = FULL it is there
// if the power fails, too, and each text takes longer.
const schema = `
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
CREATE TABLE IF NOT EXISTS texts
	(id INTEGER PRIMARY KEY, room TEXT, sender TEXT, conn TEXT, name TEXT, text TEXT, key TEXT);
CREATE INDEX IF NOT EXISTS by_room ON texts (room, id);
CREATE UNIQUE INDEX IF NOT EXISTS once ON texts (room, sender, key) WHERE key <> '';`

const (
	told = 100     // texts for a newcomer
	most = 100_000 // texts of all rooms; then the oldest go,
	step = 1_000   // so many at a time
)

// history keeps the texts of the rooms. One goroutine at a time may call its methods.
type history struct {
	db   *sql.DB
	last int64 // the newest text's ID when it was opened
	news int   // texts since the oldest went
}

// openHistory opens the database in a file; ":memory:" is none.
func openHistory(name string) (*history, error) {
	db, err := sql.Open("sqlite", name)
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1) // each would have a memory of its own
	h := &history{db: db}
	if _, err = db.Exec(schema); err == nil {
		err = db.QueryRow("SELECT coalesce(max(id), 0) FROM texts").Scan(&h.last)
	}
	return h, err
}

// keep keeps a text, but not one that the sender has sent before.
func (h *history) keep(e event) (isNew bool, err error) {
	if h.news++; h.news%step == 0 {
		_, err = h.db.Exec("DELETE FROM texts WHERE id <= (SELECT id FROM texts ORDER BY id DESC LIMIT 1 OFFSET ?)", most)
		if err != nil {
			return false, err
		}
	}
	done, err := h.db.Exec("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (room, sender, key) WHERE key <> '' DO NOTHING",
		e.ID, e.Room, e.By, e.Conn, e.Name, e.Text, e.Key)
	if err != nil {
		return false, err
	}
	n, err := done.RowsAffected()
	return n == 1, err
}

// texts returns the last texts of a room, the oldest first.
func (h *history) texts(room string) (texts []event, err error) {
	rows, err := h.db.Query("SELECT id, sender, conn, name, text, key FROM texts WHERE room = ? ORDER BY id DESC LIMIT ?", room, told)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		e := event{Type: "text", Room: room}
		if err := rows.Scan(&e.ID, &e.By, &e.Conn, &e.Name, &e.Text, &e.Key); err != nil {
			return nil, err
		}
		texts = append(texts, e)
	}
	slices.Reverse(texts)
	return texts, rows.Err()
}
