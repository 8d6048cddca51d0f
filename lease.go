package wsroom

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// storeTime bounds one call of a PresenceStore.
	storeTime = 5 * time.Second
	// leaseTime is after what time what a node that died entered lapses. It renews at a third of it.
	leaseTime = 30 * time.Second
	// auditTime is how often a node compares what the store has with what it should have.
	auditTime = time.Minute
)

// mayHaveLapsed reports whether the lease may have. It hasn't where a renewal had its effect though it failed.
func (p *presence) mayHaveLapsed() bool {
	return p.renewal != nil && time.Since(p.renewed) >= leaseTime
}

// lease makes the node known to the store, before its first entry and where the lease may have lapsed.
func (p *presence) lease(ctx context.Context) error {
	if p.leased && !p.mayHaveLapsed() {
		return nil
	}
	return p.prolong(ctx, leaseTime)
}

// renew prolongs the lease. It goes before what else there is to do, so that the lease doesn't lapse by that.
func (p *presence) renew() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return
	}
	p.renewal.Reset(leaseTime / 3)
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	err := p.prolong(ctx, leaseTime)
	if err == nil {
		err = p.audit(ctx)
	}
	p.note(err)
}

// prolong renews the lease, has everything entered again where it has lapsed, and tells of those who were
// there by way of a node that has died.
func (p *presence) prolong(ctx context.Context, ttl time.Duration) error {
	begin := time.Now()
	held, left, err := p.store.Renew(ctx, p.node, ttl)
	if err != nil {
		p.tellLeft(left)
		return err
	}
	if !held || p.mayHaveLapsed() { // that it had may have been the answer to a renewal that failed
		p.enterAgain(!held)
	}
	p.leased, p.renewed = true, begin
	p.tellLeft(left)
	return nil
}

// tellLeft tells of those whose nodes are gone, by the store's names of their rooms.
func (p *presence) tellLeft(left map[string][]string) {
	for _, key := range slices.Sorted(maps.Keys(left)) {
		room, own := strings.CutPrefix(key, p.prefix())
		for _, identity := range left[key] {
			if own {
				p.announce(false, room, identity)
			}
		}
	}
}

// enterAgain has everything entered that is present. Where it is certain that the store has forgotten all,
// there is nothing that has to exit.
func (p *presence) enterAgain(certain bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, in := range p.rooms {
		for _, a := range in {
			a.entered = a.entered && !a.present && !certain
			a.unsure = a.unsure && !certain
			p.tidy(a)
			if a.present {
				p.align(a)
			}
		}
	}
}

// listStore is a PresenceStore that says what it has by way of a node; see there.
type listStore interface {
	Entries(ctx context.Context, node string) (map[string][]string, error)
}

// audit compares what the store has of this node with what it was told, after an outage and now and then, and has
// the differences mended. A store that loses something by itself (by eviction, a failover) says nothing of it.
func (p *presence) audit(ctx context.Context) error {
	store, ok := p.store.(listStore)
	if !ok || !p.failing && time.Since(p.audited) < auditTime {
		return nil
	}
	entries, err := store.Entries(ctx, p.node)
	if err != nil {
		return err
	}
	p.audited = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	has := map[*attendance]bool{}
	for key, identities := range entries {
		room, own := strings.CutPrefix(key, p.prefix())
		for _, identity := range identities {
			if own {
				has[p.attendance(room, identity)] = true
			}
		}
	}
	for _, in := range p.rooms {
		for _, a := range in {
			if has[a] != a.entered {
				a.unsure = true
				p.align(a)
			}
		}
	}
	return nil
}

// part ends the lease at Shutdown: after the grace, in which members come back by way of other nodes, or
// at once where there is none.
func (p *presence) part() {
	if !p.leased {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	if grace := p.hub.cfg.grace; grace > 0 {
		p.note(p.prolong(ctx, grace))
		return
	}
	left, err := p.store.Leave(ctx, p.node)
	p.note(err)
	p.tellLeft(left)
}

// alone is the store of a node that shares none: nobody else is there before or after.
type alone struct{}

func (alone) Enter(context.Context, string, string, string) (bool, error) { return true, nil }
func (alone) Exit(context.Context, string, string, string) (bool, error)  { return true, nil }
func (alone) Identities(context.Context, string) ([]string, error)        { return nil, nil }
func (alone) Renew(context.Context, string, time.Duration) (bool, map[string][]string, error) {
	return true, nil, nil
}
func (alone) EnterAll(_ context.Context, entries [][2]string, _ string) ([]bool, error) {
	return slices.Repeat([]bool{true}, len(entries)), nil
}
func (alone) ExitAll(_ context.Context, entries [][2]string, _ string) ([]bool, error) {
	return slices.Repeat([]bool{true}, len(entries)), nil
}
func (alone) Leave(context.Context, string) (map[string][]string, error) { return nil, nil }
