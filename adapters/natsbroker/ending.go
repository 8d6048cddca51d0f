package natsbroker

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ending ends leases and the entries made under them, on behalf of a node, which must report the identities
// that have left by that.
//
// It may be cut short by its context or by the end of the process, and several nodes may end the same
// lease. Each identity that has left must be reported once. So an entry without holders stays until its
// teller has it in an answer, and the lease stays until all entries are done.
type ending struct {
	bucket  *bucket
	kv      jetstream.KeyValue
	node    string
	numbers []uint64            // of ended leases
	gone    []string            // nodes whose leases have ended: this node reports what they had to report
	left    map[string][]string // identities that have left, by room
	final   bool                // the node makes no more calls
}

// tellTime is how long Leave may continue after its context has ended, to record what it reports.
const tellTime = time.Second

// end ends leases, and the numbers that are already in e. On an error, left has what was found.
func (p *Presence) end(ctx context.Context, e *ending, leases []stored[lease]) error {
	p.mu.Lock()
	told := p.told[e.node]
	delete(p.told, e.node)
	again := p.unfinished[e.node]
	p.unfinished[e.node] = true
	p.mu.Unlock()
	told = e.remove(ctx, told)
	err := e.endLeases(ctx, leases)
	if err == nil && (again || len(e.numbers) > 0) {
		var more removals
		more, err = e.endEntries(ctx, told)
		told = e.remove(ctx, more)
	}
	if err == nil {
		err = e.dropLeases(ctx, leases)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(told) > 0 {
		p.told[e.node] = told
	}
	if err == nil {
		delete(p.unfinished, e.node)
	}
	return err
}

// endLeases marks leases as ended, unless they have been renewed.
func (e *ending) endLeases(ctx context.Context, leases []stored[lease]) error {
	for i, l := range leases {
		now, err := change(ctx, e.kv, l.key, func(s *stored[lease]) verdict {
			if s.revision != l.revision || s.value.Ended { // it has been renewed, is gone, or another node is ending it
				return keep
			}
			s.value.Ended = true
			return write
		})
		if err != nil {
			return err
		}
		if leases[i] = now; now.value.Ended {
			e.gone = append(e.gone, string(now.value.Node))
			e.numbers = append(append(e.numbers, now.value.Number), now.value.Past...)
		}
	}
	return nil
}

func (e *ending) dropLeases(ctx context.Context, leases []stored[lease]) error {
	for _, l := range leases {
		if !l.value.Ended {
			continue
		}
		if err := drop(ctx, e.kv, l.key, l.revision); err != nil && !isConflict(err) { // another node has done so
			return err
		}
	}
	return nil
}

// endEntries removes the holders with these numbers from all entries, and returns the entries to be removed
// next.
func (e *ending) endEntries(ctx context.Context, told removals) (removals, error) {
	found, _, err := e.bucket.scan(ctx, e.kv, "e.>")
	if err != nil {
		return told, err
	}
	entries, err := decodeAll[entry](found, "e.")
	if err != nil {
		return told, err
	}
	entries = slices.DeleteFunc(entries, func(s stored[entry]) bool { return e.endEntry(&s) == keep && !e.tells(s.value) })
	done := make([]bool, len(entries))
	err = each(len(entries), func(i int) error {
		now, err := change(ctx, e.kv, entries[i].key, e.endEntry)
		if err == nil {
			entries[i], done[i] = now, true
		}
		return err
	})
	for i, s := range entries {
		if !done[i] || !e.tells(s.value) {
			continue
		}
		if told[s.key] != s.revision {
			room := string(s.value.Room)
			e.left[room] = append(e.left[room], string(s.value.Identity))
		}
		if told == nil {
			told = removals{}
		}
		told[s.key] = s.revision
	}
	return told, err
}

// endEntry removes the holders from an entry, and makes the node its teller if no other holder is left.
func (e *ending) endEntry(s *stored[entry]) verdict {
	v := &s.value
	before := len(v.Holders)
	holders := slices.Clone(v.Holders)
	v.Holders = slices.DeleteFunc(holders, func(h holder) bool { return slices.Contains(e.numbers, h.Lease) })
	switch {
	case before > 0 && len(v.Holders) == 0, before == 0 && slices.Contains(e.gone, string(v.Teller)) && !e.tells(*v):
		v.Teller = []byte(e.node)
		return write
	case len(v.Holders) < before:
		return write
	}
	return keep
}

// tells reports whether the entry has left and the node must report it.
func (e *ending) tells(v entry) bool { return len(v.Holders) == 0 && string(v.Teller) == e.node }

// remove removes entries, and returns those that may still be there.
func (e *ending) remove(ctx context.Context, all removals) (rest removals) {
	if e.final { // other nodes would report what isn't removed
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), tellTime)
		defer cancel()
	}
	var keys []string
	for key := range all {
		keys = append(keys, key)
	}
	unsure := make([]bool, len(keys))
	for i := range unsure {
		unsure[i] = true
	}
	_ = each(len(keys), func(i int) error { // what fails is in rest
		err := drop(ctx, e.kv, keys[i], all[keys[i]])
		if isConflict(err) { // the identity has entered again
			err = nil
		}
		unsure[i] = err != nil
		return err
	})
	for i, key := range keys {
		if unsure[i] {
			if rest == nil {
				rest = removals{}
			}
			rest[key] = all[key]
		}
	}
	return rest
}
