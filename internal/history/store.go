package history

import (
	"cmp"
	"hash/maphash"
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

	lastRoom atomic.Uint64 // the id of the room whose log was begun last
	seed     maphash.Seed
	parts    [partCount]part

	trimming sync.Mutex // held while messages are dropped for Config.Total

	mu       sync.Mutex  // guards the rest
	sweeping *time.Timer // calls sweep; nil if none is due
	closed   bool        // set before the parts are cleared
}

// partCount is the number of parts of a store: a part is swept under its lock, so it mustn't have too many logs.
const partCount = 64

// part has some of the logs.
type part struct {
	mu   sync.Mutex // guards the rest
	logs map[string]*Log
	most int // see lookup.Delete
}

// NewStore returns an empty [Store]. [Store.Close] ends it.
func NewStore(cfg Config) *Store {
	s := &Store{cfg: cfg, seed: maphash.MakeSeed()}
	for i := range s.parts {
		s.parts[i].logs = map[string]*Log{}
	}
	return s
}

func (s *Store) part(room string) *part { return &s.parts[maphash.String(s.seed, room)%partCount] }

// Open returns the log of a room that has a member. It begins one if there is none.
func (s *Store) Open(room string) *Log {
	p := s.part(room)
	p.mu.Lock()
	defer p.mu.Unlock()
	log := s.open(p, room)
	log.SetIdle(0)
	return log
}

// Find returns the room's log, for a message that comes. It returns nil if there is none: then nobody can come
// back to the room. With Config.Shared it begins one, because a member of another node may come here.
func (s *Store) Find(room string) *Log {
	p := s.part(room)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.cfg.Shared {
		return s.open(p, room)
	}
	return p.logs[room]
}

// open is Open for a caller that has locked the room's part.
func (s *Store) open(p *part, room string) *Log {
	log := p.logs[room]
	if log != nil {
		return log
	}

	var birth uint64
	var start Position
	if !s.cfg.Shared { // no number comes twice; should the clock be set back, birth differs
		birth = mathrand.Uint64() | 1
		start.Stream = uint64(time.Now().UnixMicro())
	}
	log = New(&s.cfg.Limits, s.lastRoom.Add(1), birth, start)
	log.store, log.over = s, s.sweepLater()
	p.logs[room] = log
	return log
}

// End ends a room's log. Nothing that is appended to it later counts.
func (s *Store) End(room string) {
	p := s.part(room)
	p.mu.Lock()
	p.end(room)
	p.mu.Unlock()
	s.tell()
}

// end is End for a caller that has locked the part.
func (p *part) end(room string) {
	log := p.logs[room]
	if log == nil {
		return
	}
	p.logs = lookup.Delete(p.logs, room, &p.most)
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
	s.mu.Unlock()
	for i := range s.parts {
		s.parts[i].clear()
	}
	s.tell()
}

func (p *part) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for room := range p.logs {
		p.end(room)
	}
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

// sweepLater has sweep called if it isn't due already. It reports whether the store is closed.
func (s *Store) sweepLater() (closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeping == nil && !s.closed {
		s.sweeping = time.AfterFunc(max(s.cfg.Age/4, time.Second), s.sweep)
	}
	return s.closed
}

// sweep drops messages that are too old, and logs to which nobody can come back.
func (s *Store) sweep() {
	s.mu.Lock()
	s.sweeping = nil // a log that is begun from now on may be in a part that has been swept
	s.mu.Unlock()

	now, left := frame.Now(), 0
	for i := range s.parts {
		unnamed, logs := s.sweepPart(&s.parts[i], now)
		for _, room := range unnamed {
			s.cfg.Mark(room)
		}
		left += logs
	}
	if s.tell(); left > 0 {
		s.sweepLater()
	}
}

// sweepPart returns the rooms that need a mark, and how many logs are left.
func (s *Store) sweepPart(p *part, now int64) (unnamed []string, left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for room, log := range p.logs {
		over, mark := log.sweep(now)
		if over && !s.cfg.Shared {
			p.end(room)
		}
		if mark && s.cfg.Shared && s.cfg.Mark != nil {
			unnamed = append(unnamed, room)
		}
	}
	return unnamed, len(p.logs)
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
	s.trimming.Lock()
	defer s.trimming.Unlock()
	if s.bytes.Load() <= s.cfg.Total { // another call has trimmed meanwhile
		return
	}

	var all []candidate
	for i := range s.parts {
		all = s.parts[i].candidates(all)
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.newest, b.newest) })

	for _, c := range all {
		if s.bytes.Load() <= s.cfg.Total-s.cfg.Total/8 {
			return
		}
		c.log.Clear()
	}
}

// candidate is a log that has something to drop.
type candidate struct {
	log    *Log
	newest int64 // when its last message came
}

// candidates appends those of the part.
func (p *part) candidates(all []candidate) []candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, log := range p.logs {
		log.mu.Lock()
		if log.len > 0 {
			all = append(all, candidate{log, log.newest()})
		}
		log.mu.Unlock()
	}
	return all
}
