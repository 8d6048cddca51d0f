// Package presence keeps who is in which room, and syncs that with a store that several nodes share.
//
// It knows how many connections of this node an identity has in a room, which entries of the store are leased to this
// node, and which joins and leaves are still to be reported. It doesn't know connections, requests or messages.
package presence

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/lookup"
	"github.com/wsroom/wsroom/internal/serial"
)

// Config is what a Book is made of.
type Config struct {
	// Store is shared with other nodes; nil for a node that shares none.
	Store Store
	// Name is the hub's. Books of different names use different rooms of the store.
	Name string
	// Grace is how long a member without connections is still present.
	Grace time.Duration
	// Infos says that members may show something. All nodes of a name say the same.
	Infos bool
	// Log gets one line when the store begins to fail.
	Log *slog.Logger
	// Joined and Left report a member's first connection of all nodes, and the end of its last one's grace.
	// Updated reports that a member that was there shows another info. They are called one at a time, with no
	// lock held. Each may be nil.
	Joined, Updated, Left func(Member)
}

// Member is an identity in a room, with what it shows: "" if it shows nothing, or has left.
type Member struct{ Room, Identity, Info string }

// Book keeps who is in which room of one hub, and syncs the store with that. It is made by New. All methods may be
// called concurrently.
//
// Three serial queues run what may take time: calls of the store, reports, and log lines. So neither the application
// nor a logger delays the lease.
type Book struct {
	config Config
	store  Store
	shared bool   // other nodes may use the store
	node   string // this node's name in the store
	prefix string // of this hub's rooms in the store
	batch  int    // how many members one call of the store takes

	events events
	logs   serial.Queue
	calls  serial.Queue // of the store

	// These belong to the goroutine of calls.
	probing bool      // a call has failed: one member at a time, until one works
	leased  bool      // the store knows this node
	renewed time.Time // when the lease was renewed last
	audited time.Time // when the store's entries were compared last
	failing bool      // the last call of the store failed

	mu      sync.Mutex // guards the rest, and the members
	rooms   map[string]room
	most    int       // see lookup.Delete
	todo    []*member // to be synced
	leaving graces
	renewal *time.Timer // nil for a node that shares no store
	closed  bool
}

// room has the members of one room. The zero value has none.
type room struct {
	members map[string]*member // by identity
	most    int                // see lookup.Delete
}

// member is an identity in a room, by way of this node. It is kept until the store has forgotten it.
type member struct {
	room, identity string

	state
	info       string        // what the newest connection here shows; "" if none has shown anything
	shown      string        // the info that this node stored last
	newer      bool          // info is to be stored; it may be equal to shown, and another node has stored one since
	conns      int           // may be negative for a moment: a leave can overtake its join
	graceEnd   time.Time     // since the last connection has left
	waiting    int           // in leaving, plus 1; 0: it isn't there
	queued     bool          // in todo
	busy       bool          // a sync is running
	limit      int           // members that a call with this one may take, since a larger call failed; 0: any number
	retryDelay time.Duration // after the last sync; 0: it worked
	retry      *time.Timer   // nil if no sync has failed
}

// New returns a Book. It starts to renew its lease if it shares a store, even without members: this node may be the
// one that finds that another node has died.
func New(c Config) *Book {
	b := &Book{
		config: c,
		store:  c.Store,
		shared: c.Store != nil,
		node:   rand.Text(),
		prefix: url.QueryEscape(c.Name) + ":", // escaped, a name has no colon
		batch:  1,
		rooms:  map[string]room{},
	}
	b.events.report = b.report

	if b.shared {
		b.mu.Lock()
		b.renewal = time.AfterFunc(leaseTime/3, func() { b.calls.AddFirst("renew", b.renew) })
		b.mu.Unlock()
	} else {
		b.store, b.leased = localStore{}, true
	}

	if _, ok := b.store.(batchStore); ok {
		b.batch = maxBatch
	}
	return b
}

// Count adds n connections of the identity to those in the room. They show info, unless that is "". Count
// ignores the identity "". It calls neither the store nor a hook, so the caller may hold locks.
func (b *Book) Count(room, identity, info string, n int) {
	if identity == "" {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	m := b.member(room, identity)
	m.conns += n
	if info != "" {
		b.show(m, info)
	}
	switch {
	case m.conns > 0 && !b.closed && (!m.present || m.newer):
		m.present = true
		b.sync(m)
	case m.conns > 0 || !m.present:
		b.dropIfUnused(m)
	default:
		b.beginGrace(m)
	}
}

// Show has the identity show info in the room, if it has a connection there. Like Count it only notes that.
func (b *Book) Show(room, identity, info string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.rooms[room].members[identity]
	if m == nil || m.conns <= 0 {
		return
	}
	if b.show(m, info); m.newer && m.present && !b.closed {
		b.sync(m)
	}
}

// show notes what a member shows; mu is locked.
func (b *Book) show(m *member, info string) {
	m.info, m.newer = info, b.shared || info != m.shown
}

// Members returns who is present in the room on all nodes, each once, sorted. That includes members of this
// node that the store doesn't know yet, and what those show. If the store fails, Members returns those of
// this node and the store's error.
func (b *Book) Members(ctx context.Context, room string) ([]Member, error) {
	infos, err := b.infos(ctx, b.key(room))

	b.mu.Lock()
	for identity, m := range b.rooms[room].members {
		if !m.present {
			continue
		}
		if _, listed := infos[identity]; !listed || m.newer || m.busy {
			infos[identity] = m.info
		}
	}
	b.mu.Unlock()

	members := make([]Member, 0, len(infos))
	for identity, info := range infos {
		members = append(members, Member{room, identity, info})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Identity, b.Identity) })
	return members, err
}

// infos returns who is in a room of the store, and what each shows, as far as the store keeps that. The map
// isn't nil.
func (b *Book) infos(ctx context.Context, key string) (infos map[string]string, err error) {
	if store, ok := b.store.(infoStore); ok && b.config.Infos {
		infos, err = store.Infos(ctx, key)
		if infos == nil {
			infos = map[string]string{}
		}
		return infos, err
	}

	identities, err := b.store.Identities(ctx, key)
	infos = make(map[string]string, len(identities))
	for _, identity := range identities {
		infos[identity] = ""
	}
	return infos, err
}

// Close ends the node's part. With a shared store its members get the grace to come back by way of another node: the
// lease lapses then. Without one they leave. Close waits for the store and the reports until ctx is done.
func (b *Book) Close(ctx context.Context) {
	b.mu.Lock()
	if !b.closed {
		b.close()
	}
	b.mu.Unlock()

	b.calls.Wait(ctx)
	b.events.calls.Wait(ctx)
	b.logs.Wait(ctx)
}

// close is Close's first call; mu is locked.
func (b *Book) close() {
	b.closed = true
	if b.renewal != nil {
		b.renewal.Stop()
	}
	if b.leaving.timer != nil {
		b.leaving.timer.Stop()
	}

	for _, in := range b.rooms {
		for _, m := range in.members {
			if m.present = false; !b.shared {
				b.sync(m)
			}
		}
	}

	if b.shared {
		b.calls.Add("close", b.releaseLease)
	}
}

// member returns the identity's member, which it makes if there is none; mu is locked.
func (b *Book) member(name, identity string) *member {
	in := b.rooms[name]
	if in.members == nil {
		in.members = map[string]*member{}
		b.rooms[name] = in
	}

	m := in.members[identity]
	if m == nil {
		m = &member{room: name, identity: identity}
		in.members[identity] = m
	}
	return m
}

// dropIfUnused forgets a member that has no connections and that the store has forgotten; mu is locked.
func (b *Book) dropIfUnused(m *member) {
	if m.conns != 0 || m.queued || m.busy || m.state != (state{}) {
		return
	}
	in := b.rooms[m.room]
	if in.members[m.identity] != m {
		return
	}
	in.members = lookup.Delete(in.members, m.identity, &in.most)
	if b.rooms[m.room] = in; len(in.members) == 0 {
		b.rooms = lookup.Delete(b.rooms, m.room, &b.most)
	}
}

// key is the room's name in the store.
func (b *Book) key(room string) string { return b.prefix + room }

// event has something reported of a member.
func (b *Book) event(k kind, m Member) {
	if b.config.Joined != nil || b.config.Left != nil || b.config.Updated != nil {
		b.events.add(k, m)
	}
}

// report calls the hook.
func (b *Book) report(k kind, m Member) {
	if hook := b.hook(k); hook != nil {
		hook(m)
	}
}

// hook returns what reports events of that kind.
func (b *Book) hook(k kind) func(Member) {
	switch k {
	case joined:
		return b.config.Joined
	case left:
		return b.config.Left
	default:
		return b.config.Updated
	}
}

// noteResult logs the first failure of the store after a success.
func (b *Book) noteResult(err error) {
	if err != nil && !b.failing {
		b.logs.Add("failing", func() { b.config.Log.Warn("wsroom: presence store failed", "err", err) })
	}
	b.failing = err != nil
}
