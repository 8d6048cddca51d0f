package wsroom

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

// Member is somebody who is present in a room, by however many connections.
type Member struct {
	Identity string
}

// WithIdentity has f say who makes the request, such as a user's name; "" for nobody that is to be
// counted. It is asked once the request is authorized, and may be called concurrently. See Hub.Presence,
// OnMemberJoin, OnMemberLeave and Conn.Identity.
func WithIdentity(f func(*http.Request) string) Option {
	return func(c *config) error {
		c.identity = f
		return notNil("WithIdentity", f == nil)
	}
}

// WithPresenceStore shares presence with the hubs of other nodes, by the name of WithName. Hubs of
// different names must not share a store's namespace. By default it is of this process.
func WithPresenceStore(s PresenceStore) Option {
	return func(c *config) error {
		c.presence = s
		return notNil("WithPresenceStore", s == nil)
	}
}

// WithPresenceGrace sets for how long a member whose last connection has left the room counts as there,
// so that a reload of a page isn't noticed, nor that a node is shut down and its clients go to another. The
// default is 5 s.
func WithPresenceGrace(d time.Duration) Option {
	return func(c *config) error {
		c.grace = d
		return notNegative("WithPresenceGrace", d)
	}
}

// OnMemberJoin calls f when the first connection of an identity has entered a room, on the node where
// that happened. It and OnMemberLeave run one at a time, and outside of any connection's callbacks; however long
// they take, nothing of presence waits for them. What waits for them is merged: of a member that comes and goes,
// or goes and comes back, while another call runs, neither is told. When this node has lost its lease of the
// PresenceStore, members may be reported to have joined again.
func OnMemberJoin(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberJoin = f
		return notNil("OnMemberJoin", f == nil)
	}
}

// OnMemberLeave calls f when the last connection of an identity has left a room and hasn't come back
// within the grace of WithPresenceGrace, on the node where that happened; for those of a node that has
// died or shut down on one of the others, within 45 s, or after the grace.
func OnMemberLeave(f func(room string, m Member)) Option {
	return func(c *config) error {
		c.onMemberLeave = f
		return notNil("OnMemberLeave", f == nil)
	}
}

// Presence returns who is present in the room, on all nodes that share the PresenceStore, sorted: nobody by way
// of a node whose lease of 30 s has lapsed. It fails only where the store does, and then returns those of this
// node with the error.
func (h *Hub) Presence(ctx context.Context, room string) ([]Member, error) {
	if h.presence == nil {
		return nil, nil
	}
	return h.presence.members(ctx, room)
}

// Identity returns what the function of WithIdentity said; "" without it.
func (c *Conn) Identity() string {
	id, _ := c.Get(identityKey{})
	s, _ := id.(string)
	return s
}

type identityKey struct{}

// identify asks whose connection it is.
func (c *Conn) identify(r *http.Request) {
	if f := c.hub.cfg.identity; f != nil {
		if id := f(r); id != "" {
			c.Set(identityKey{}, strings.Clone(id))
		}
	}
}

// presence keeps who is in which room of this hub, and brings its store into line with that. A hub
// without WithIdentity has none.
//
// The store is called by one errand at a time, of work; the application by others, of news and logs.
type presence struct {
	hub    *Hub
	store  PresenceStore
	shared bool // there may be other nodes
	node   string
	most   int // how many attendances the store takes at once
	news   memberNews
	logs   serial.Queue

	work    serial.Queue
	probing bool      // a call has failed: one at a time, until one works; this and the rest belong to work
	leased  bool      // the store knows this node
	renewed time.Time // the lease, last
	audited time.Time // what the store has, last
	failing bool      // the last call of the store failed

	mu      sync.Mutex                        // guards the rest
	rooms   map[string]map[string]*attendance // by room and identity
	todo    []*attendance                     // of which the store may not know
	renewal *time.Timer                       // nil for a node that shares no store
	closed  bool
}

// attendance is an identity's in a room. It is kept until the store has forgotten it.
type attendance struct {
	room, identity string

	standing
	conns  int           // may be negative for a moment, where what leaves overtakes what enters
	grace  *time.Timer   // from when the last has left; nil if it never has
	queued bool          // in todo
	busy   bool          // the store is being told
	among  int           // the store isn't to be told of more at a time, for a call for twice as many has failed; 0: any
	retry  time.Duration // what it waited for after its last call, which failed; 0: it worked
	again  *time.Timer   // after retry; nil if no call has failed
}

// standing is how an attendance is, and how it is known to others.
type standing struct {
	present bool // there are connections, or were within the grace
	entered bool // into the store, and others have been told
	unsure  bool // a call that failed may have had its effect, of which nobody was told
}

// call is one of the store's.
type call int

const (
	none call = iota
	enter
	exit
)

// duty is what is to be done for an attendance: two calls, and to tell where the second makes a difference.
type duty struct {
	first, then call
	news        bool
}

// duties has all there is. Where something is news and a call that failed may have made the difference already,
// which nobody was told, the opposite goes first.
var duties = map[standing]duty{
	{}:                             {},
	{unsure: true}:                 {then: exit},
	{entered: true}:                {then: exit, news: true},
	{entered: true, unsure: true}:  {first: enter, then: exit, news: true},
	{present: true}:                {then: enter, news: true},
	{present: true, unsure: true}:  {first: exit, then: enter, news: true},
	{present: true, entered: true}: {},
	{present: true, entered: true, unsure: true}: {then: enter},
}

func newPresence(h *Hub) *presence {
	p := &presence{hub: h, store: h.cfg.presence, node: rand.Text(), most: 1, rooms: map[string]map[string]*attendance{}}
	p.news.tell = p.tell
	if p.store == nil {
		p.store, p.leased = alone{}, true
	} else { // even with nobody there, for this may be the one that finds that another node is dead
		p.shared = true
		p.mu.Lock()
		p.renewal = time.AfterFunc(leaseTime/3, func() { p.work.AddFirst("renew", p.renew) })
		p.mu.Unlock()
	}
	if _, ok := p.store.(batchStore); ok {
		p.most = maxBatch
	}
	return p
}

// count adds n connections of the identity to those in the room.
func (p *presence) count(room, identity string, n int) {
	if identity == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	a := p.attendance(room, identity)
	a.conns += n
	switch grace := p.hub.cfg.grace; {
	case a.conns > 0 && !a.present && !p.closed:
		a.present = true
		p.align(a)
	case a.conns > 0 || !a.present:
		p.tidy(a)
	case a.grace == nil:
		a.grace = time.AfterFunc(grace, func() { p.miss(a) })
	default:
		a.grace.Reset(grace)
	}
}

func (p *presence) attendance(room, identity string) *attendance {
	in := p.rooms[room]
	if in == nil {
		in = map[string]*attendance{}
		p.rooms[room] = in
	}
	a := in[identity]
	if a == nil {
		a = &attendance{room: room, identity: identity}
		in[identity] = a
	}
	return a
}

// tidy forgets what is over; mu is locked.
func (p *presence) tidy(a *attendance) {
	if a.conns != 0 || a.queued || a.busy || a.standing != (standing{}) {
		return
	}
	if in := p.rooms[a.room]; in[a.identity] == a {
		if delete(in, a.identity); len(in) == 0 {
			delete(p.rooms, a.room)
		}
	}
}

// miss notes that the grace has passed.
func (p *presence) miss(a *attendance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.conns <= 0 && a.present && !p.closed {
		a.present = false
		p.align(a)
	}
}

// align has the store brought into line; mu is locked.
func (p *presence) align(a *attendance) {
	if !a.queued {
		a.queued = true
		p.todo = append(p.todo, a)
		p.work.Add("align", p.alignSome)
	}
}

// key is the room's name in the store. Escaped, the hub's name has no colon.
func (p *presence) key(room string) string { return p.prefix() + room }

func (p *presence) prefix() string { return url.QueryEscape(p.hub.cfg.name) + ":" }

// tell calls OnMemberJoin or OnMemberLeave.
func (p *presence) tell(joined bool, room, identity string) {
	name, f := "OnMemberJoin", p.hub.cfg.onMemberJoin
	if !joined {
		name, f = "OnMemberLeave", p.hub.cfg.onMemberLeave
	}
	if f != nil {
		p.hub.guard(name, room, func() { f(room, Member{Identity: identity}) })
	}
}

// announce has it told.
func (p *presence) announce(joined bool, room, identity string) {
	if p.hub.cfg.onMemberJoin != nil || p.hub.cfg.onMemberLeave != nil {
		p.news.add(joined, room, identity)
	}
}

// note logs that the store begins to fail.
func (p *presence) note(err error) {
	if err != nil && !p.failing {
		p.logs.Add("failing", func() { p.hub.cfg.logger.Warn("wsroom: presence store failed", "err", err) })
	}
	p.failing = err != nil
}

// members returns those that the store knows and those of this node, which it may not know yet.
func (p *presence) members(ctx context.Context, room string) ([]Member, error) {
	identities, err := p.store.Identities(ctx, p.key(room))
	p.mu.Lock()
	for identity, a := range p.rooms[room] {
		if a.present {
			identities = append(identities, identity)
		}
	}
	p.mu.Unlock()
	slices.Sort(identities)
	identities = slices.Compact(identities)
	members := make([]Member, len(identities))
	for i, identity := range identities {
		members[i].Identity = identity
	}
	if err != nil {
		return members, fmt.Errorf("wsroom: presence: %w", err)
	}
	return members, nil
}

// close gives the members the grace to come back by way of another node: that is when the lease lapses
// then. Where there is no other, they leave.
func (p *presence) close(ctx context.Context) {
	p.mu.Lock()
	if !p.closed {
		p.end()
	}
	p.mu.Unlock()
	p.work.Wait(ctx)
	p.news.calls.Wait(ctx)
	p.logs.Wait(ctx)
}

func (p *presence) end() {
	p.closed = true
	if p.renewal != nil {
		p.renewal.Stop()
	}
	for _, in := range p.rooms {
		for _, a := range in {
			if a.present = false; !p.shared {
				p.align(a)
			}
		}
	}
	if p.shared {
		p.work.Add("close", p.part)
	}
}
