package presence

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// storeTime bounds one call of the store.
	storeTime = 5 * time.Second
	// leaseTime is how long a dead node's entries survive. A node renews its lease at a third of it.
	leaseTime = 30 * time.Second
	// auditTime is how often a node compares the store's entries with its own members.
	auditTime = time.Minute
)

// mayHaveLapsed reports whether the lease may have lapsed. It hasn't if a renewal took effect although it failed.
func (b *Book) mayHaveLapsed() bool {
	return b.shared && time.Since(b.renewed) >= leaseTime
}

// ensureLease makes the node known to the store before its first entry, and when the lease may have lapsed.
func (b *Book) ensureLease(ctx context.Context) error {
	if b.leased && !b.mayHaveLapsed() {
		return nil
	}
	return b.extendLease(ctx, leaseTime)
}

// renew renews the lease and audits the store, from the timer. It runs ahead of the waiting syncs, so that they don't
// let the lease lapse.
func (b *Book) renew() {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.renewal.Reset(leaseTime / 3)
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	err := b.extendLease(ctx, leaseTime)
	if err == nil {
		err = b.audit(ctx)
	}
	b.noteResult(err)
}

// extendLease leases the node's entries for ttl. If the lease has lapsed, it has all members entered again. It reports
// the members of nodes that have died.
func (b *Book) extendLease(ctx context.Context, ttl time.Duration) error {
	begin := time.Now()
	held, left, err := b.store.Renew(ctx, b.node, ttl)
	if err != nil {
		b.reportLeft(left)
		return err
	}

	// A held lease may have been made by a renewal that failed, after the one before had lapsed.
	if !held || b.mayHaveLapsed() {
		b.enterAgain(!held)
	}
	b.leased, b.renewed = true, begin

	b.reportLeft(left)
	return nil
}

// releaseLease ends the lease when the Book closes: after the grace, in which members come back by way of other
// nodes, or at once if there is none.
func (b *Book) releaseLease() {
	if !b.leased {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()

	if b.config.Grace > 0 {
		b.noteResult(b.extendLease(ctx, b.config.Grace))
		return
	}

	left, err := b.store.Leave(ctx, b.node)
	b.noteResult(err)
	b.reportLeft(left)
}

// reportLeft reports the members whose nodes are gone. It skips rooms of other hubs.
func (b *Book) reportLeft(gone map[string][]string) {
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		room, ours := strings.CutPrefix(key, b.prefix)
		if !ours {
			continue
		}
		for _, identity := range gone[key] {
			b.event(left, Member{Room: room, Identity: identity})
		}
	}
}

// enterAgain has every present member entered again. If forgotten, the store certainly has no entry of this node, so
// none has to exit.
func (b *Book) enterAgain(forgotten bool) {
	b.mu.Lock()
	defer b.mu.Unlock()

	for _, in := range b.rooms {
		for _, m := range in.members {
			m.entered = m.entered && !m.present && !forgotten
			m.uncertain = m.uncertain && !forgotten
			b.dropIfUnused(m)
			if m.present {
				b.sync(m)
			}
		}
	}
}

// audit compares the store's entries of this node with its members, after an outage and once a minute, and has the
// differences synced. A store that loses entries by itself (by eviction, a failover) doesn't report that.
func (b *Book) audit(ctx context.Context) error {
	store, ok := b.store.(listStore)
	if !ok || !b.failing && time.Since(b.audited) < auditTime {
		return nil
	}
	entries, err := store.Entries(ctx, b.node)
	if err != nil {
		return err
	}
	b.audited = time.Now()

	b.mu.Lock()
	defer b.mu.Unlock()

	stored := b.storedMembers(entries)
	for _, in := range b.rooms {
		for _, m := range in.members {
			if stored[m] != m.entered {
				m.uncertain = true
				b.sync(m)
			}
		}
	}
	return nil
}

// storedMembers returns the members of the store's entries. It makes those that this node didn't know; mu is locked.
func (b *Book) storedMembers(entries map[string][]string) map[*member]bool {
	stored := map[*member]bool{}
	for key, identities := range entries {
		room, ours := strings.CutPrefix(key, b.prefix)
		if !ours {
			continue
		}
		for _, identity := range identities {
			stored[b.member(room, identity)] = true
		}
	}
	return stored
}
