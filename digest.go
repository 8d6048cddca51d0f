package wsroom

import (
	"sync"
	"time"
)

// digestTime is for how long what is reported is merged.
const digestTime = time.Second

// digest merges reports of rooms. The first of a room is told at once, and what follows within a second once more
// at its end. The log has one line for a second of all rooms.
type digest struct {
	tell func(room string, err error) // nil: nobody is told
	log  func(line digestLine)

	mu    sync.Mutex // guards the rest
	rooms map[string]*digestRoom
	line  digestLine
	timer *time.Timer // until the end of a second; nil: nothing is merged
}

// digestRoom is what is known of a room within a second.
type digestRoom struct {
	reports int
	err     error // the last that isn't told yet; nil: all are
}

// digestLine is what the log is to have: the first report, and their number.
type digestLine struct {
	room, cause    string
	err            error
	rooms, reports int
}

func (d *digest) add(room, cause string, err error) {
	d.mu.Lock()
	if d.timer == nil {
		d.rooms = map[string]*digestRoom{}
		d.timer = time.AfterFunc(digestTime, d.flush)
	}
	r, known := d.rooms[room]
	if !known {
		r = new(digestRoom)
		d.rooms[room] = r
	} else {
		r.err = err
	}
	if r.reports++; r.reports == 1 {
		d.line.rooms++
	}
	if d.line.reports++; d.line.reports == 1 {
		d.line.room, d.line.cause, d.line.err = room, cause, err
	}
	d.mu.Unlock()

	if !known && d.tell != nil {
		d.tell(room, err)
	}
}

// flush ends a second. A room of which something was told now is known in the next one.
func (d *digest) flush() {
	d.mu.Lock()
	line, rooms := d.line, d.rooms
	if d.timer != nil {
		d.timer.Stop()
	}
	d.line, d.rooms, d.timer = digestLine{}, map[string]*digestRoom{}, nil
	for room, r := range rooms {
		if r.err != nil {
			d.rooms[room] = new(digestRoom)
		}
	}
	if len(d.rooms) > 0 {
		d.timer = time.AfterFunc(digestTime, d.flush)
	}
	d.mu.Unlock()

	if line.reports > 0 {
		d.log(line)
	}
	for room, r := range rooms {
		if r.err != nil && d.tell != nil {
			d.tell(room, r.err)
		}
	}
}
