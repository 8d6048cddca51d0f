package brokertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/lookup"
)

// unleased is how long the entries of a node are kept before its first Renew.
const unleased = time.Minute

// presence is the part of [Memory] that is a [wsroom.PresenceStore]. The zero value is empty.
type presence struct {
	mu    sync.Mutex // guards what follows
	away  bool
	rooms map[string]map[string]map[string]bool // room, identity, nodes
	infos map[[2]string]string                  // what they show, by room and identity
	ends  map[string]time.Time                  // when the nodes' leases end
	held  map[string]bool                       // the nodes that have renewed

	mostRooms, mostInfos int // see lookup.Delete
}

var _ wsroom.PresenceStore = (*Memory)(nil)

// lock takes the lock for one operation. It returns an error if the operation isn't possible.
func (p *presence) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	if p.away {
		p.mu.Unlock()
		return ErrAway
	}
	if p.rooms == nil {
		p.infos = map[[2]string]string{}
		p.rooms, p.ends, p.held = map[string]map[string]map[string]bool{}, map[string]time.Time{}, map[string]bool{}
	}
	return nil
}

func (p *presence) setAway(away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.away = away
}

// Enter implements [wsroom.PresenceStore]. Like the other methods it never waits.
func (p *presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	if err := p.lock(ctx); err != nil {
		return false, err
	}
	defer p.mu.Unlock()
	return p.enterLocked(room, identity, node), nil
}

// EnterAll does what Enter does, for each entry.
func (p *presence) EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	for _, e := range entries {
		first = append(first, p.enterLocked(e[0], e[1], node))
	}
	return first, nil
}

// EnterInfo does what EnterAll does, and has each identity show the info that is its entry's third part.
func (p *presence) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer p.mu.Unlock()
	for _, e := range entries {
		key, is := [2]string{e[0], e[1]}, p.enterLocked(e[0], e[1], node)
		first, changed = append(first, is), append(changed, !is && e[2] != "" && e[2] != p.infos[key])
		if e[2] != "" {
			p.infos[key] = e[2]
		}
	}
	return first, changed, nil
}

// Infos returns who is in the room, as Identities does, and what each shows.
func (p *presence) Infos(ctx context.Context, room string) (infos map[string]string, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	infos = map[string]string{}
	for _, identity := range p.thereLocked(room) {
		infos[identity] = p.infos[[2]string{room, identity}]
	}
	return infos, nil
}

func (p *presence) enterLocked(room, identity, node string) (first bool) {
	if _, ok := p.ends[node]; !ok {
		p.ends[node] = time.Now().Add(unleased)
	}
	if p.rooms[room] == nil {
		p.rooms[room] = map[string]map[string]bool{}
	}
	nodes := p.rooms[room][identity]
	if nodes == nil {
		p.rooms[room][identity] = map[string]bool{node: true}
		return true
	}
	nodes[node] = true
	return false
}

// Exit implements [wsroom.PresenceStore].
func (p *presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	if err := p.lock(ctx); err != nil {
		return false, err
	}
	defer p.mu.Unlock()
	return p.exitLocked(room, identity, node), nil
}

// ExitAll does what Exit does, for each entry.
func (p *presence) ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	for _, e := range entries {
		last = append(last, p.exitLocked(e[0], e[1], node))
	}
	return last, nil
}

func (p *presence) exitLocked(room, identity, node string) (last bool) {
	nodes := p.rooms[room][identity]
	if !nodes[node] {
		return false
	}
	if delete(nodes, node); len(nodes) > 0 {
		return false
	}
	p.infos = lookup.Delete(p.infos, [2]string{room, identity}, &p.mostInfos)
	if delete(p.rooms[room], identity); len(p.rooms[room]) == 0 {
		p.rooms = lookup.Delete(p.rooms, room, &p.mostRooms)
	}
	return true
}

// Identities implements [wsroom.PresenceStore].
func (p *presence) Identities(ctx context.Context, room string) ([]string, error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	return p.thereLocked(room), nil
}

func (p *presence) thereLocked(room string) (there []string) {
	for identity, nodes := range p.rooms[room] {
		for node := range nodes {
			if time.Now().Before(p.ends[node]) {
				there = append(there, identity)
				break
			}
		}
	}
	slices.Sort(there)
	return there
}

// Entries returns, by room, the identities that are there through node.
func (p *presence) Entries(ctx context.Context, node string) (entries map[string][]string, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	entries = map[string][]string{}
	for room, identities := range p.rooms {
		for identity, nodes := range identities {
			if nodes[node] {
				entries[room] = append(entries[room], identity)
			}
		}
	}
	return entries, nil
}

// Renew implements [wsroom.PresenceStore].
func (p *presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	if err := p.lock(ctx); err != nil {
		return false, nil, err
	}
	defer p.mu.Unlock()
	now, left := time.Now(), map[string][]string{}
	for other, end := range p.ends {
		if !now.Before(end) {
			p.endLocked(other, left)
		}
	}
	held = p.held[node]
	p.held[node], p.ends[node] = true, now.Add(ttl)
	return held, left, nil
}

// Leave implements [wsroom.PresenceStore].
func (p *presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	defer p.mu.Unlock()
	left = map[string][]string{}
	p.endLocked(node, left)
	return left, nil
}

// endLocked ends a node's entries and lease. It adds the identities that have left by that to left.
func (p *presence) endLocked(node string, left map[string][]string) {
	for room, identities := range p.rooms {
		for identity := range identities {
			if p.exitLocked(room, identity, node) {
				left[room] = append(left[room], identity)
			}
		}
	}
	delete(p.ends, node)
	delete(p.held, node)
}
