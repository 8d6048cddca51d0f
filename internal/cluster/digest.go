package cluster

import (
	"sync"
	"time"
)

// digestTime is how long reports are merged.
const digestTime = time.Second

// digest merges reports about rooms. The first report for a room and a cause is passed on at once. Those
// that follow within a second are passed on as one at its end. The log gets one line a second for all
// rooms.
type digest struct {
	report func(room string, err error) // nil: only the log gets the reports
	log    func(line digestLine)

	mu    sync.Mutex // guards the rest
	known map[digestKey]*digestEntry
	line  digestLine
	timer *time.Timer // runs until the end of a second; nil: nothing is merged
}

type digestKey struct{ room, cause string }

// digestEntry is what is known of a room and a cause within a second.
type digestEntry struct {
	count int
	err   error // the last that isn't reported yet; nil: all are reported
}

// digestLine is what the log gets: the first report, and the number of reports.
type digestLine struct {
	room, cause  string
	err          error
	rooms, count int
}

func (d *digest) add(room, cause string, err error) {
	d.mu.Lock()
	if d.timer == nil {
		d.known = map[digestKey]*digestEntry{}
		d.timer = time.AfterFunc(digestTime, d.flush)
	}

	key := digestKey{room, cause}
	e, known := d.known[key]
	if !known {
		e = new(digestEntry)
		d.known[key] = e
	} else {
		e.err = err
	}
	e.count++
	if d.line.count++; d.line.count == 1 {
		d.line.room, d.line.cause, d.line.err = room, cause, err
	}
	d.mu.Unlock()

	if !known && d.report != nil {
		d.report(room, err)
	}
}

// flush ends a second. What is reported at its end counts as known in the next second.
func (d *digest) flush() {
	d.mu.Lock()
	line, known := d.line, d.known
	if d.timer != nil {
		d.timer.Stop()
	}
	d.line, d.known, d.timer = digestLine{}, map[digestKey]*digestEntry{}, nil

	rooms := map[string]bool{}
	for key, e := range known {
		if e.err != nil {
			d.known[key] = new(digestEntry)
		}
		if e.count > 0 {
			rooms[roomOf(key.room)] = true
		}
	}
	if len(d.known) > 0 {
		d.timer = time.AfterFunc(digestTime, d.flush)
	}
	d.mu.Unlock()

	if line.rooms = len(rooms); line.count > 0 {
		d.log(line)
	}
	for key, e := range known {
		if e.err != nil && d.report != nil {
			d.report(key.room, e.err)
		}
	}
}
