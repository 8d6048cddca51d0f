package wsroom

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"
)

// shardCount is the number of parts of the store. With so many, rooms seldom wait for each other. It is a
// power of two.
const shardCount = 64

// store holds the rooms and connections of this process.
//
// A shard's lock gives its rooms their order: a send to a room appends to the members' queues under that
// lock. A send to several rooms, or to all, locks all their shards by rising index. Nothing under a shard's
// lock waits, writes or calls the application.
type store struct {
	seed     maphash.Seed
	shards   [shardCount]shard
	rooms    atomic.Int64
	deflated atomic.Int64 // connections that negotiated compression
	closed   atomic.Bool  // no connection may be added

	maxRooms, maxMembers int // 0: no limit
	observer             Observer
}

// shard is a part of the store: the rooms whose names belong to it, and some of the connections.
type shard struct {
	mu       sync.Mutex // guards rooms, everyone and the members of both
	rooms    map[string]*room
	everyone room // the connections of the hub whose IDs belong to this shard
}

// room is a room of a shard. It has at least one member: when the last one leaves, the room is removed from
// the shard. A shard's everyone has the same type, but may be empty.
type room struct {
	name    string
	members []seat
}

// seat is a member as its room sees it. A send visits all seats, so a seat holds the connection directly.
type seat struct {
	conn   *Conn
	member *member
}

// member is one connection's membership in one room, as the connection sees it. The zero value is in no
// room.
type member struct {
	room  *room
	index int // in room.members
}

func (r *room) add(c *Conn, m *member) {
	m.room, m.index = r, len(r.members)
	r.members = append(r.members, seat{c, m})
}

func (r *room) remove(m *member) {
	last := len(r.members) - 1
	r.members[m.index] = r.members[last]
	r.members[m.index].member.index = m.index
	r.members[last] = seat{}
	r.members = r.members[:last]
	m.room = nil
}

func (r *room) each(f func(*Conn)) {
	for i := range r.members {
		f(r.members[i].conn)
	}
}

func (s *store) init(cfg *config, o Observer) {
	s.seed, s.observer = maphash.MakeSeed(), o
	s.maxRooms, s.maxMembers = cfg.maxRooms, cfg.maxMembers
	for i := range s.shards {
		s.shards[i].rooms = map[string]*room{}
	}
}

func (s *store) index(name string) uint64 { return maphash.String(s.seed, name) % shardCount }

func (s *store) shardOf(name string) *shard { return &s.shards[s.index(name)] }

// add makes c a connection of the hub and a member of its own room.
func (s *store) add(c *Conn) error {
	home := s.shardOf(c.id)
	home.mu.Lock()
	if s.closed.Load() { // Shutdown sets it before it visits the shards
		home.mu.Unlock()
		return errShutDown
	}
	home.everyone.add(c, &c.home)
	home.mu.Unlock()

	if c.line.Deflate {
		s.deflated.Add(1)
	}

	if _, err := s.join(c, c.room); err != nil {
		s.remove(c)
		if err == ErrClosed { // Shutdown ended c after it was added
			return errShutDown
		}
		return err
	}
	return nil
}

// remove takes c out of every room and out of the hub. It returns the rooms. The caller has marked c as
// ended, or the application doesn't have c yet.
func (s *store) remove(c *Conn) (left []string) {
	defer s.removeHome(c)
	return slices.DeleteFunc(c.Rooms(), func(name string) bool {
		sh := s.shardOf(name)
		sh.mu.Lock()
		defer s.unlockRooms(sh, len(sh.rooms))
		return !s.leaveLocked(sh, c, name)
	})
}

// removeHome takes c out of the hub, if it is there.
func (s *store) removeHome(c *Conn) {
	home := s.shardOf(c.id)
	home.mu.Lock()
	defer home.mu.Unlock()
	if c.home.room == nil {
		return
	}

	home.everyone.remove(&c.home)
	if c.line.Deflate {
		s.deflated.Add(-1)
	}
}

// join makes c a member of the room, and creates the room if there is none. It reports whether c wasn't a
// member before.
func (s *store) join(c *Conn, name string) (entered bool, err error) {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer s.unlockRooms(sh, len(sh.rooms))
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.isEnded() {
		return false, ErrClosed
	}
	if c.rooms.get(name) != nil {
		return false, nil
	}

	r, err := s.roomLocked(sh, name)
	if err != nil {
		return false, err
	}
	r.add(c, c.rooms.add(name))
	c.enteredLocked(name)
	return true, nil
}

// hasSpace reports whether a room of that name exists or may be opened. Another goroutine may change that
// at once, because hasSpace keeps no lock.
func (s *store) hasSpace(name string) bool {
	if s.maxRooms == 0 || s.rooms.Load() < int64(s.maxRooms) {
		return true
	}
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.rooms[name] != nil
}

// roomLocked returns the room, which it creates if there is none, with space for one more member. sh.mu is
// locked.
func (s *store) roomLocked(sh *shard, name string) (*room, error) {
	if r := sh.rooms[name]; r != nil {
		if s.maxMembers > 0 && len(r.members) >= s.maxMembers {
			return nil, errTooManyMembers
		}
		return r, nil
	}

	if n := s.rooms.Add(1); s.maxRooms > 0 && n > int64(s.maxRooms) {
		s.rooms.Add(-1)
		return nil, errTooManyRooms
	}

	r := &room{name: name}
	sh.rooms[name] = r
	return r, nil
}

// leave ends c's membership in the room. It reports whether there was one.
func (s *store) leave(c *Conn, name string) (left bool, err error) {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer s.unlockRooms(sh, len(sh.rooms))
	if c.isEnded() { // the goroutine that ended it takes it out of its rooms
		return false, ErrClosed
	}
	return s.leaveLocked(sh, c, name), nil
}

// leaveLocked is leave for a caller that has locked sh.mu.
func (s *store) leaveLocked(sh *shard, c *Conn, name string) (left bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.rooms.get(name)
	if m == nil {
		return false
	}

	r := m.room
	r.remove(m)
	c.rooms.remove(name)
	c.leftLocked(name)

	if len(r.members) == 0 {
		delete(sh.rooms, name)
		s.rooms.Add(-1)
	}
	return true
}

// unlockRooms unlocks the shard. If the shard's number of rooms isn't what it was before, the observer gets
// the difference. Callers defer it right after they have locked the shard: Go evaluates before at once.
func (s *store) unlockRooms(sh *shard, before int) {
	opened := len(sh.rooms) - before
	sh.mu.Unlock()
	if opened != 0 {
		s.observer.Add(MetricRooms, "", "", opened)
	}
}

// audience is the connections that a send is for, on any node. The zero value is none.
type audience struct {
	all   bool     // everyone; rooms don't count then
	rooms []string // each once
}

var everyone = audience{all: true}

func (to audience) nobody() bool { return !to.all && len(to.rooms) == 0 }

// visit calls f once for each connection of the audience, under the locks that order a send to them. f may
// lock Conn.mu.
func (s *store) visit(to audience, f func(*Conn)) {
	if !to.all && len(to.rooms) == 1 {
		sh := s.shardOf(to.rooms[0])
		sh.mu.Lock()
		sh.each(to.rooms[0], f)
		sh.mu.Unlock()
		return
	}

	locked := s.lock(to)
	defer s.unlock(&locked)
	if to.all {
		for i := range s.shards {
			s.shards[i].everyone.each(f)
		}
		return
	}

	names := lookup.New(to.rooms)
	for i, name := range to.rooms {
		s.shardOf(name).each(name, func(c *Conn) {
			if i == 0 || !c.isWithin(&names, i) { // members of an earlier room got it there
				f(c)
			}
		})
	}
}

// lock locks the audience's shards by rising index.
func (s *store) lock(to audience) (locked [shardCount]bool) {
	for i := range locked {
		locked[i] = to.all
	}
	if !to.all {
		for _, name := range to.rooms {
			locked[s.index(name)] = true
		}
	}

	for i := range s.shards {
		if locked[i] {
			s.shards[i].mu.Lock()
		}
	}
	return locked
}

// unlock unlocks the shards that lock has locked.
func (s *store) unlock(locked *[shardCount]bool) {
	for i := range s.shards {
		if locked[i] {
			s.shards[i].mu.Unlock()
		}
	}
}

// each calls f for the members of the room. mu is locked.
func (sh *shard) each(name string, f func(*Conn)) {
	if r := sh.rooms[name]; r != nil {
		r.each(f)
	}
}

// send appends m to the queues of the audience, in the rooms' order. It leaves out connections for which
// skip, if it isn't nil, reports true; skip may lock Conn.mu. Once the locks are free, send starts the
// writers that are needed.
func (s *store) send(to audience, skip func(*Conn) bool, m *frame.Message) (receivers int) {
	t := tallies.Get().(*tally)
	s.visit(to, func(c *Conn) {
		if skip == nil || !skip(c) {
			receivers++
			t.note(c, c.line.Push(m))
		}
	})
	t.settle()
	tallies.Put(t)
	return receivers
}

// snapshot returns the connections of the audience.
func (s *store) snapshot(to audience) []*Conn {
	var conns []*Conn
	s.visit(to, func(c *Conn) { conns = append(conns, c) })
	return conns
}

// eachConn calls f for each connection of the hub. It locks one shard at a time, so it costs senders little.
func (s *store) eachConn(f func(*Conn)) {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		sh.everyone.each(f)
		sh.mu.Unlock()
	}
}

func (s *store) roomNames() []string {
	var names []string
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		names = slices.AppendSeq(names, maps.Keys(sh.rooms))
		sh.mu.Unlock()
	}
	slices.Sort(names)
	return names
}

func (s *store) len() int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		n += len(sh.everyone.members)
		sh.mu.Unlock()
	}
	return n
}

// tally collects the work that a send leaves until its locks are free.
type tally struct {
	idle    []*outbound.Queue // to wake
	dropped []drops
	slow    []*Conn // to end
}

// drops are messages that were dropped for one connection.
type drops struct {
	conn     *Conn
	messages int
}

var tallies = sync.Pool{New: func() any { return new(tally) }}

// note adds what a push to c's queue leaves to do.
func (t *tally) note(c *Conn, p outbound.Pushed) {
	if p.Wake {
		t.idle = append(t.idle, &c.line.Queue)
	}
	if p.Dropped > 0 {
		t.dropped = append(t.dropped, drops{c, int(p.Dropped)})
	}
	if p.Refused == outbound.Slow {
		t.slow = append(t.slow, c)
	}
}

// settle does the work, and empties the tally. No lock may be held.
func (t *tally) settle() {
	outbound.WakeAll(t.idle)
	for _, d := range t.dropped {
		d.conn.noteDrops(d.messages)
	}
	for _, c := range t.slow {
		c.end(endingSlow)
	}

	clear(t.idle)
	clear(t.dropped)
	clear(t.slow)
	t.idle, t.dropped, t.slow = t.idle[:0], t.dropped[:0], t.slow[:0]
}

// memberships are the rooms of one connection, by name. Most connections are in one room, which needs no
// map. A member isn't moved while its membership lasts, because the room's seat points to it.
type memberships struct {
	first member
	more  map[string]*member
}

// get returns the membership of that name. It returns nil if there is none.
func (ms *memberships) get(name string) *member {
	if ms.first.room != nil && ms.first.room.name == name {
		return &ms.first
	}
	return ms.more[name]
}

// add returns a new membership. The caller adds it to its room.
func (ms *memberships) add(name string) *member {
	if ms.first.room == nil {
		return &ms.first
	}
	if ms.more == nil {
		ms.more = map[string]*member{}
	}
	m := new(member)
	ms.more[name] = m
	return m
}

// remove forgets a membership that has been removed from its room.
func (ms *memberships) remove(name string) {
	if delete(ms.more, name); len(ms.more) == 0 {
		ms.more = nil
	}
}

// within reports whether the connection is in a room that is among the first n of the names.
func (ms *memberships) within(names *lookup.List[string], n int) bool {
	if n <= len(ms.more) {
		return slices.ContainsFunc(names.Values()[:n], func(name string) bool { return ms.get(name) != nil })
	}
	among := func(name string) bool { i := names.Index(name); return 0 <= i && i < n }
	if ms.first.room != nil && among(ms.first.room.name) {
		return true
	}
	for name := range ms.more {
		if among(name) {
			return true
		}
	}
	return false
}

// names returns the names of the rooms, in no order.
func (ms *memberships) names() []string {
	names := make([]string, 0, len(ms.more)+1)
	if ms.first.room != nil {
		names = append(names, ms.first.room.name)
	}
	for name := range ms.more {
		names = append(names, name)
	}
	return names
}
