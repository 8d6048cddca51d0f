package history

import (
	"cmp"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/lookup"
)

// Config configures a [Store]. All fields but Mark are required.
type Config struct {
	Limits       // of each log
	Total  int64 // bytes of memory of all logs: their messages' frames, and some more for each message
	Shared bool  // a broker keeps and numbers the messages, too; a log ends by [Store.End] only
	// Count is called with the number of bytes by which all logs have grown, with no lock held.
	Count func(bytes int)
	// Mark is called, with Shared, for a log whose end needs a position: members are told of positions, and
	// the newest message will soon be too old. It is called with no lock held. It may be nil.
	Mark func(room string)
}

// Store has the logs of all rooms of a hub. A log may outlive its room's last member. The methods may be called
// concurrently.
type Store struct {
	cfg       Config
	bytes     atomic.Int64 // that all logs use
	uncounted atomic.Int64 // the part of it that Config.Count hasn't been told yet

	mu       sync.Mutex // guards the rest
	logs     map[string]*Log
	most     int         // see lookup.Delete
	lastRoom uint64      // the id of the room whose log was begun last
	sweeping *time.Timer // calls sweep; nil if none is due
	closed   bool
}

// NewStore returns an empty [Store]. [Store.Close] ends it.
func NewStore(cfg Config) *Store { return &Store{cfg: cfg, logs: map[string]*Log{}} }

// Open returns the log of a room that has a member. It begins one if there is none.
func (s *Store) Open(room string) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.open(room)
	log.SetIdle(0)
	return log
}

// Find returns the room's log, for a message that comes. It returns nil if there is none: then nobody can come
// back to the room. With Config.Shared it begins one, because a member of another node may come here.
func (s *Store) Find(room string) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Shared {
		return s.open(room)
	}
	return s.logs[room]
}

func (s *Store) open(room string) *Log {
	log := s.logs[room]
	if log != nil {
		return log
	}

	var birth uint64
	var start Position
	if !s.cfg.Shared { // no number comes twice; should the clock be set back, birth differs
		birth = mathrand.Uint64() | 1
		start.Stream = uint64(time.Now().UnixMicro())
	}
	s.lastRoom++
	log = New(&s.cfg.Limits, s.lastRoom, birth, start)
	log.store, log.over = s, s.closed
	s.logs[room] = log
	s.sweepLater()
	return log
}

// End ends a room's log. Nothing that is appended to it later counts.
func (s *Store) End(room string) {
	s.mu.Lock()
	s.end(room)
	s.mu.Unlock()
	s.tell()
}

func (s *Store) end(room string) {
	log := s.logs[room]
	if log == nil {
		return
	}
	s.logs = lookup.Delete(s.logs, room, &s.most)
	log.mu.Lock()
	defer log.mu.Unlock()
	log.clear()
	log.over = true
}

// Close ends all logs.
func (s *Store) Close() {
	s.mu.Lock()
	s.closed = true
	if s.sweeping != nil {
		s.sweeping.Stop()
	}
	for room := range s.logs {
		s.end(room)
	}
	s.mu.Unlock()
	s.tell()
}

func (s *Store) count(bytes int64) {
	s.bytes.Add(bytes)
	s.uncounted.Add(bytes)
}

// tell tells Config.Count what it hasn't been told yet.
func (s *Store) tell() {
	if n := s.uncounted.Swap(0); n != 0 {
		s.cfg.Count(int(n))
	}
}

// Settle does what is left after messages were appended. The caller holds no lock of a room.
func (s *Store) Settle() {
	s.trim()
	s.tell()
}

// sweepLater has sweep called if it isn't due already. mu is locked.
func (s *Store) sweepLater() {
	if s.sweeping == nil && !s.closed {
		s.sweeping = time.AfterFunc(max(s.cfg.Age/4, time.Second), s.sweep)
	}
}

// sweep drops messages that are too old, and logs to which nobody can come back.
func (s *Store) sweep() {
	unnamed := s.sweepLogs(frame.Now())
	s.tell()
	for _, room := range unnamed {
		s.cfg.Mark(room)
	}
}

// sweepLogs returns the rooms that need a mark.
func (s *Store) sweepLogs(now int64) (unnamed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for room, log := range s.logs {
		over, mark := log.sweep(now)
		if over && !s.cfg.Shared {
			s.end(room)
		}
		if mark && s.cfg.Shared && s.cfg.Mark != nil {
			unnamed = append(unnamed, room)
		}
	}
	if s.sweeping = nil; len(s.logs) > 0 {
		s.sweepLater()
	}
	return unnamed
}

// sweep drops messages that are too old. over reports that nobody can come back to the log: the room has had no
// member for as long as a message is kept. mark reports that its end needs a mark.
func (l *Log) sweep(now int64) (over, mark bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expire(now)
	over = l.idle != 0 && now-l.idle > int64(l.limits.Age)
	return over, l.told > 0 && l.markLocked(now, l.limits.Age/2)
}

// trim brings what all logs keep below Config.Total. The log goes first whose last message is the oldest. trim
// frees an eighth more than it must, because it looks at all logs.
func (s *Store) trim() {
	if s.bytes.Load() <= s.cfg.Total {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bytes.Load() <= s.cfg.Total { // another call has trimmed meanwhile
		return
	}

	type candidate struct {
		log    *Log
		newest int64
	}
	all := make([]candidate, 0, len(s.logs))
	for _, log := range s.logs {
		log.mu.Lock()
		if log.len > 0 {
			all = append(all, candidate{log, log.newest()})
		}
		log.mu.Unlock()
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.newest, b.newest) })

	for _, c := range all {
		if s.bytes.Load() <= s.cfg.Total-s.cfg.Total/8 {
			return
		}
		c.log.Clear()
	}
}
