package wsroom

import (
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/lifecycle"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/resume"
)

// shardCount is the number of parts of the store. With so many, rooms seldom wait for each other. It is a
// power of two.
const shardCount = 64 // as many as a set in a uint64 has

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

	lastRoom atomic.Uint64 // the id of the room that was opened last
	tagging  atomic.Int64  // clients that are told of rooms, and running calls of Enter; see placeLocked

	maxRooms, maxMembers int // 0: no limit
	observer             Observer
	histories            *history.Store   // nil without WithHistory
	lives                *lifecycle.Rooms // nil unless the application is told of rooms
}

// shard is a part of the store: the rooms whose names belong to it, and some of the connections.
type shard struct {
	mu         sync.Mutex // guards the rest, and the members of rooms, identities and everyone
	rooms      map[string]*room
	identities map[string]*room // the connections of each identity; nil until there is one
	everyone   room             // the connections of the hub whose IDs belong to this shard
	byID       map[string]*Conn // the same by ID; nil until it is needed

	mostRooms, mostIdentities, mostByID int // see lookup.Delete
}

// room is a room of a shard. It has at least one member: when the last one leaves, the room is removed from
// the shard. The connections of an identity are kept as a room's are. A shard's everyone has the same type,
// but may be empty.
type room struct {
	name    string
	members []seat
	id      uint64
	log     *history.Log   // nil without WithHistory; appending needs the shard's lock
	tag     *history.Place // of its messages without a history; nil until it is needed
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
	r.members = lookup.Trim(r.members[:last])
	m.room = nil
}

// enter makes c a member. e tells its client so; nil: it isn't told. The room's shard and c.mu are locked.
func (r *room) enter(c *Conn, e *entry) {
	r.add(c, c.rooms.add(r.name))
	if e != nil {
		e.enter(c, r)
	}
	c.enteredLocked(r.name)
}

func (r *room) each(f func(*Conn)) {
	for i := range r.members {
		f(r.members[i].conn)
	}
}

func (s *store) init(cfg *config, o Observer, mark func(room string), lives *lifecycle.Rooms) {
	s.seed, s.observer, s.lives = maphash.MakeSeed(), o, lives
	s.maxRooms, s.maxMembers = cfg.maxRooms, cfg.maxMembers
	for i := range s.shards {
		s.shards[i].rooms = map[string]*room{}
	}
	if cfg.history.Messages > 0 {
		s.histories = newHistories(cfg, o, mark)
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
	if home.byID != nil {
		home.byID[c.id] = c
	}
	home.mu.Unlock()
	s.addIdentity(c)

	if c.line.Session() != nil {
		s.tagging.Add(1) // before it is in a room
	}
	if c.line.Deflate {
		s.deflated.Add(1)
	}

	if _, err := s.join(c, c.room); err != nil {
		s.remove(c, nil)
		if err == ErrClosed { // Shutdown ended c after it was added
			return errShutDown
		}
		return err
	}
	return nil
}

// remove takes c out of every room and out of the hub. It returns the rooms; space is for them, and may be nil.
// The caller has marked c as ended, or the application doesn't have c yet.
func (s *store) remove(c *Conn, space []string) (left []string) {
	defer s.removeHome(c)
	s.removeIdentity(c)

	c.mu.Lock()
	names := c.rooms.appendNames(space[:0])
	c.mu.Unlock()
	slices.Sort(names)
	left = names[:0]
	for _, name := range names {
		if s.removeFrom(c, name) {
			left = append(left, name)
		}
	}
	return left
}

// removeFrom takes c out of the room, and reports whether it was there.
func (s *store) removeFrom(c *Conn, name string) bool {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer s.unlockRooms(sh, len(sh.rooms))
	return s.leaveLocked(sh, c, name) != nil
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
	home.byID = lookup.Delete(home.byID, c.id, &home.mostByID)
	if c.line.Deflate {
		s.deflated.Add(-1)
	}
	if c.line.Session() != nil {
		s.tagging.Add(-1)
	}
}

// addIdentity makes c one of its identity's connections, unless c is ending already.
func (s *store) addIdentity(c *Conn) {
	if c.identity == nil {
		return
	}
	name := c.identity.name
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if c.isEnded() { // what ends it takes it out only after that
		return
	}

	r := sh.identities[name]
	if r == nil {
		if sh.identities == nil {
			sh.identities = map[string]*room{}
		}
		r = &room{name: name}
		sh.identities[name] = r
	}
	r.add(c, &c.identity.member)
}

// removeIdentity undoes addIdentity.
func (s *store) removeIdentity(c *Conn) {
	if c.identity == nil {
		return
	}
	sh := s.shardOf(c.identity.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := c.identity.member.room
	if r == nil {
		return
	}
	r.remove(&c.identity.member)
	if len(r.members) == 0 {
		sh.identities = lookup.Delete(sh.identities, r.name, &sh.mostIdentities)
	}
}

// join makes c a member of the room, and creates the room if there is none.
func (s *store) join(c *Conn, name string) (j joined, err error) {
	e := newEntry(c, name)
	j, err = s.enter(c, name, e)
	if j.entered && e != nil {
		j.resumed = e.outcome == "resumed"
		e.settle(c)
	}
	return j, err
}

// joinAll makes c a member of all the rooms, or of none. The names are distinct. Those of the rooms that c
// wasn't in before are moved to the front; entered is their number.
func (s *store) joinAll(c *Conn, names []string) (entered int, err error) {
	var entries []*entry // of the names, if there are any
	if c.line.Session() != nil {
		for _, name := range names {
			entries = append(entries, newEntry(c, name))
		}
	}

	entered, opened, err := s.enterAll(c, names, entries)
	if opened > 0 {
		s.observer.Add(MetricRooms, "", "", opened)
	}
	for _, e := range entries[:min(entered, len(entries))] {
		e.settle(c)
	}
	return entered, err
}

// enterAll is joinAll with the entries. It returns how many rooms it has opened, too.
func (s *store) enterAll(c *Conn, names []string, entries []*entry) (entered, opened int, err error) {
	locked := s.lock(audience{rooms: names})
	defer s.unlock(locked)
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.isEnded() {
		return 0, 0, ErrClosed
	}
	for i, name := range names {
		if c.rooms.get(name) != nil {
			continue
		}
		names[entered], names[i] = name, names[entered]
		if entries != nil {
			entries[entered], entries[i] = entries[i], entries[entered]
		}
		entered++
	}
	if opened, err = s.openLocked(names[:entered]); err != nil {
		return 0, 0, err
	}

	for i, name := range names[:entered] {
		var e *entry
		if entries != nil {
			e = entries[i]
		}
		s.shardOf(name).rooms[name].enter(c, e)
	}
	return entered, opened, nil
}

// openLocked opens those of the rooms that don't exist, and returns how many these are. All of them then have
// space for one more member. On an error it opens none. The rooms' shards are locked.
func (s *store) openLocked(names []string) (opened int, err error) {
	for i, name := range names {
		r, err := s.roomLocked(s.shardOf(name), name)
		if err != nil {
			s.closeEmptyLocked(names[:i])
			return 0, err
		}
		if len(r.members) == 0 {
			opened++
		}
	}
	return opened, nil
}

// closeEmptyLocked closes those of the rooms that have no member. The rooms' shards are locked.
func (s *store) closeEmptyLocked(names []string) {
	for _, name := range names {
		sh := s.shardOf(name)
		if r := sh.rooms[name]; len(r.members) == 0 {
			s.closeLocked(sh, r)
		}
	}
}

// joined is the outcome of a join.
type joined struct {
	entered bool   // the connection wasn't a member before
	room    uint64 // the room's id
	resumed bool   // the client is sent what it has missed
}

func (s *store) enter(c *Conn, name string, e *entry) (j joined, err error) {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer s.unlockRooms(sh, len(sh.rooms))
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.isEnded() {
		return j, ErrClosed
	}
	if c.rooms.get(name) != nil {
		return j, nil
	}

	r, err := s.roomLocked(sh, name)
	if err != nil {
		return j, err
	}
	r.enter(c, e)
	return joined{entered: true, room: r.id}, nil
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
	if s.histories == nil {
		r.id = s.lastRoom.Add(1)
	} else {
		r.log = s.histories.Open(name)
		r.id = r.log.Room()
	}
	sh.rooms[name] = r
	return r, nil
}

// leave ends c's membership in the room. It reports whether there was one.
func (s *store) leave(c *Conn, name string) (left bool, err error) {
	left, pushed, err := s.leaveAndTell(c, name)
	c.settlePush(pushed)
	return left, err
}

// settlePush does what a push to c's queue leaves to do. No lock may be held.
func (c *Conn) settlePush(p outbound.Pushed) {
	if p.Wake {
		c.line.Wake()
	}
	if p.Refused == outbound.Slow {
		c.end(line.TooSlow)
	}
}

// leaveAndTell is leave. If the client is told of it, pushed is the outcome.
func (s *store) leaveAndTell(c *Conn, name string) (left bool, pushed outbound.Pushed, err error) {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer s.unlockRooms(sh, len(sh.rooms))
	if c.isEnded() { // the goroutine that ended it takes it out of its rooms
		return false, pushed, ErrClosed
	}

	r := s.leaveLocked(sh, c, name)
	if r != nil && c.line.Session() != nil {
		pushed = c.line.Leave(&resume.Leave{Room: r.id})
	}
	return r != nil, pushed, nil
}

// leaveLocked is leave for a caller that has locked sh.mu. It returns the room, nil if c wasn't a member.
func (s *store) leaveLocked(sh *shard, c *Conn, name string) *room {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.rooms.get(name)
	if m == nil {
		return nil
	}

	r := m.room
	r.remove(m)
	c.rooms.remove(name)
	c.leftLocked(name)
	if r.log != nil && c.line.Session() != nil {
		r.log.AddTold(-1)
	}

	if len(r.members) == 0 {
		s.closeLocked(sh, r)
	}
	return r
}

// closeLocked removes a room without members. sh.mu is locked.
func (s *store) closeLocked(sh *shard, r *room) {
	sh.rooms = lookup.Delete(sh.rooms, r.name, &sh.mostRooms)
	s.rooms.Add(-1)
	if r.log != nil {
		r.log.SetIdle(frame.Now())
	}
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

// audience is the connections that a send is for, on any node. The zero value is none. One field at most is
// set; each name stands in its list once.
type audience struct {
	all        bool     // everyone
	rooms      []string // their members
	identities []string // their connections
	conns      []string // connections by ID
}

var everyone = audience{all: true}

func (to *audience) nobody() bool { return !to.all && len(to.names()) == 0 }

// names returns the names of what the audience consists of.
func (to *audience) names() []string {
	switch {
	case len(to.rooms) > 0:
		return to.rooms
	case len(to.identities) > 0:
		return to.identities
	default:
		return to.conns
	}
}

// visit calls f once for each connection of the audience, under the locks that order a send to them. f may
// lock Conn.mu.
func (s *store) visit(to audience, f func(*Conn)) {
	names := to.names()
	if !to.all && len(names) == 1 {
		sh := s.shardOf(names[0])
		sh.mu.Lock()
		sh.visit(&to, names[0], f)
		sh.mu.Unlock()
		return
	}

	locked := s.lock(to)
	defer s.unlock(locked)
	switch {
	case to.all:
		for i := range s.shards {
			s.shards[i].everyone.each(f)
		}
		return
	case len(to.rooms) == 0: // a connection has one identity and one ID
		for _, name := range names {
			s.shardOf(name).visit(&to, name, f)
		}
		return
	}

	rooms := lookup.New(to.rooms)
	for i, name := range to.rooms {
		s.shardOf(name).each(name, func(c *Conn) {
			if i == 0 || !c.isWithin(&rooms, i) { // members of an earlier room got it there
				f(c)
			}
		})
	}
}

// visit calls f for each connection of the audience that it has by that name. mu is locked.
func (sh *shard) visit(to *audience, name string, f func(*Conn)) {
	switch {
	case len(to.rooms) > 0:
		sh.each(name, f)
	case len(to.identities) > 0:
		if r := sh.identities[name]; r != nil {
			r.each(f)
		}
	default:
		if c := sh.find(name); c != nil {
			f(c)
		}
	}
}

// find returns the connection with that ID, nil if there is none. mu is locked. The first call makes the
// index, so that hubs without such calls have none.
func (sh *shard) find(id string) *Conn {
	if sh.byID == nil {
		sh.byID = make(map[string]*Conn, len(sh.everyone.members))
		sh.everyone.each(func(c *Conn) { sh.byID[c.id] = c })
	}
	return sh.byID[id]
}

// lock locks the audience's shards by rising index. It returns them as the set bits.
func (s *store) lock(to audience) (locked uint64) {
	if to.all {
		locked = math.MaxUint64
	} else {
		for _, name := range to.names() {
			locked |= 1 << s.index(name)
		}
	}
	for set := locked; set != 0; set &= set - 1 {
		s.shards[bits.TrailingZeros64(set)].mu.Lock()
	}
	return locked
}

// unlock unlocks the shards that lock has locked.
func (s *store) unlock(locked uint64) {
	for set := locked; set != 0; set &= set - 1 {
		s.shards[bits.TrailingZeros64(set)].mu.Unlock()
	}
}

// each calls f for the members of the room. mu is locked.
func (sh *shard) each(name string, f func(*Conn)) {
	if r := sh.rooms[name]; r != nil {
		r.each(f)
	}
}

// send appends m to the queues of the audience, in the rooms' order, and to the rooms' histories. It leaves out
// the connections that omit names. Once the locks are free, send starts the writers that are needed.
func (s *store) send(to audience, omit omission, from origin, m *frame.Message) (receivers int) {
	t := tallies.Get().(*tally)
	_, latest := m.Tag.(*resume.Latest)
	switch {
	case len(to.rooms) == 0:
		s.visit(to, func(c *Conn) {
			if !omit.omits(c) {
				receivers++
				t.note(c, push(c, m, latest))
			}
		})
	case len(to.rooms) == 1:
		sh := s.shardOf(to.rooms[0])
		sh.mu.Lock()
		receivers = s.sendLocked(sh, to.rooms[0], s.tagging.Load() > 0, omit, from, m, t)
		sh.mu.Unlock()
	default:
		receivers = s.sendToSeveral(to, omit, from, m, t)
	}

	t.settle()
	tallies.Put(t)
	if s.histories != nil {
		s.histories.Settle()
	}
	return receivers
}

// sendToSeveral is send to several rooms. A member of more than one gets the message in the first.
func (s *store) sendToSeveral(to audience, omit omission, from origin, m *frame.Message, t *tally) (receivers int) {
	locked := s.lock(to)
	defer s.unlock(locked)

	t.rooms.Set(to.rooms)
	tagged := s.tagging.Load() > 0 // one answer for all rooms: they share m
	for i, name := range to.rooms {
		if i > 0 {
			omit.names, omit.first = &t.rooms, i
			if _, latest := m.Tag.(*resume.Latest); latest {
				m = m.With(m.Tag)
			} else if m.Tag != nil {
				m = m.With(nil)
			}
		}
		receivers += s.sendLocked(s.shardOf(name), name, tagged, omit, from, m, t)
	}
	return receivers
}

// sendLocked is send to one room. The shard is locked. tagged is placeLocked's.
func (s *store) sendLocked(sh *shard, name string, tagged bool, omit omission, from origin, m *frame.Message, t *tally) (receivers int) {
	r := sh.rooms[name]
	key, latest := m.Tag.(*resume.Latest)
	var place *history.Place // the values of Latest have none
	switch {
	case !latest:
		place = s.placeLocked(name, r, tagged, m, from.at, omit)
	case r != nil:
		m.Tag = &resume.Latest{Room: r.id, Key: key.Key}
	}
	if s.lives != nil { // what the broker has kept comes before the room is in use, and isn't taken
		s.lives.Take(name, m, from.trace)
	}
	if r == nil {
		return 0
	}

	var skip *frame.Message // for connections that are told of positions and don't get m
	for i := range r.members {
		c := r.members[i].conn
		if !omit.omits(c) {
			receivers++
			t.note(c, push(c, m, latest))
			continue
		}
		if place == nil || place.Number == 0 || c.line.Session() == nil {
			continue
		}
		if skip == nil {
			skip = skipOver(place)
		}
		t.note(c, c.line.PushEmpty(skip))
	}
	return receivers
}

// push queues a message for one of many receivers. latest says that it is one of Target.Latest.
func push(c *Conn, m *frame.Message, latest bool) outbound.Pushed {
	if latest {
		return c.line.PushLatest(m)
	}
	return c.line.Push(m)
}

// placeLocked gives a message to the room its place: in the room's history if there is one, otherwise just in
// the room, if somebody needs to know. It returns nil if the message has none. The shard is locked: so somebody
// that comes to need it isn't in the room yet, or is in tagged, which was read under the lock. r is nil if the room
// has no member.
func (s *store) placeLocked(name string, r *room, tagged bool, m *frame.Message, at history.Position, omit omission) *history.Place {
	switch {
	case s.histories != nil && r != nil:
		return r.log.Append(m, at, omit.hidden(), frame.Now())
	case s.histories != nil:
		if log := s.histories.Find(name); log != nil {
			return log.Append(m, at, omit.hidden(), frame.Now())
		}
		return nil
	case r == nil || !tagged:
		return nil
	case r.tag == nil:
		r.tag = &history.Place{Room: r.id}
	}
	m.Tag = r.tag
	return r.tag
}

// origin says where a message comes from. The zero value is this node, without a broker.
type origin struct {
	at    history.Position // the broker's
	trace string           // that it belongs to; "" for none
	key   string           // of Target.Latest; "" for none
}

// omission says who of an audience doesn't get a message. The zero value omits nobody.
type omission struct {
	conns func(*Conn) bool     // nil: none; it may lock Conn.mu
	names *lookup.List[string] // members of the first of these rooms got it there; nil: there are none
	first int                  // how many of names
	known *history.Hidden      // the same for the history, as far as conns says it; nil without WithHistory
}

func (o *omission) omits(c *Conn) bool {
	return o.first > 0 && c.isWithin(o.names, o.first) || o.conns != nil && o.conns(c)
}

// hidden returns what the history is to know of the omission.
func (o *omission) hidden() *history.Hidden {
	if o.first == 0 {
		return o.known
	}
	h := history.Hidden{Rooms: o.names.Values()[:o.first]}
	if o.known != nil {
		h.Conns, h.Identities = o.known.Conns, o.known.Identities
	}
	return &h
}

// snapshot returns the connections of the audience. Those of a hub are many: it locks one shard at a time for them,
// and may leave out a connection that comes meanwhile.
func (s *store) snapshot(to audience) (conns []*Conn) {
	if to.all {
		for i := range s.shards {
			conns = append(conns, s.connsOf(i)...)
		}
		return conns
	}
	if len(to.rooms) == 1 {
		return s.members(to.rooms[0])
	}
	s.visit(to, func(c *Conn) { conns = append(conns, c) })
	return conns
}

// members returns the members of a room.
func (s *store) members(name string) []*Conn {
	sh := s.shardOf(name)
	return sh.copyOf(func() *room { return sh.rooms[name] })
}

// copyOf returns the members of a room of the shard, which find returns, or nil. It makes no memory under the lock:
// the room may be large.
func (sh *shard) copyOf(find func() *room) []*Conn {
	for conns := []*Conn(nil); ; {
		missing := sh.appendTo(&conns, find)
		if missing == 0 {
			return conns
		}
		conns = make([]*Conn, 0, missing+missing/8)
	}
}

// appendTo appends the members of a room to conns, which is empty. If it has no space for them, appendTo returns how
// many they are.
func (sh *shard) appendTo(conns *[]*Conn, find func() *room) (missing int) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := find()
	if r == nil {
		return 0
	}
	if n := len(r.members); n > cap(*conns) {
		return n
	}
	for i := range r.members {
		*conns = append(*conns, r.members[i].conn)
	}
	return 0
}

// connsOf returns the connections of the hub that belong to the shard of that index.
func (s *store) connsOf(index int) []*Conn {
	sh := &s.shards[index]
	return sh.copyOf(func() *room { return &sh.everyone })
}

// roomNames returns the names of all rooms, sorted. It locks one shard at a time, and not while memory is made.
func (s *store) roomNames() []string {
	names := make([]string, 0, s.rooms.Load()+s.rooms.Load()/8+16)
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		names = slices.AppendSeq(names, maps.Keys(sh.rooms))
		sh.mu.Unlock()
	}
	slices.Sort(names)
	return slices.Clip(names)
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
	rooms    lookup.List[string] // to which it is sent, if they are several
	idle     []*outbound.Queue   // to wake
	dropped  []drops
	replaced []*Conn // for which a message was replaced, if somebody counts that
	slow     []*Conn // to end
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
	if p.Replaced && c.hub.cfg.observer != nil {
		t.replaced = append(t.replaced, c)
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
	for _, c := range t.replaced {
		c.hub.observer.Add(MetricDropped, c.route, "replaced", 1)
	}
	for _, c := range t.slow {
		c.end(line.TooSlow)
	}

	t.rooms.Set(nil)
	clear(t.idle)
	clear(t.dropped)
	clear(t.replaced)
	clear(t.slow)
	t.idle, t.dropped, t.replaced, t.slow = t.idle[:0], t.dropped[:0], t.replaced[:0], t.slow[:0]
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

// appendNames appends the names of the rooms, in no order.
func (ms *memberships) appendNames(names []string) []string {
	names = slices.Grow(names, len(ms.more)+1)
	if ms.first.room != nil {
		names = append(names, ms.first.room.name)
	}
	for name := range ms.more {
		names = append(names, name)
	}
	return names
}
