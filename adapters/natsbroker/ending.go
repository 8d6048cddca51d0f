package natsbroker

import (
	"context"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ending ends leases and what was entered under them, on behalf of a node, which is to tell who has left by that.
//
// It may end in between, by its context or with the process, and many may be at the same lease. So that each of those
// who have left is told of once, an entry without holders stays until its teller has them in an answer, and the
// lease until all entries are through.
type ending struct {
	kv      jetstream.KeyValue
	node    string
	numbers []uint64            // of leases that have ended
	gone    []string            // nodes whose leases have ended: what they were to tell of falls to this node
	left    map[string][]string // who has left, by room
	final   bool                // the node makes no more calls
}

// tellTime is for how long Leave may go on after its context has ended, to note of whom it tells.
const tellTime = time.Second

// end ends leases, and the numbers that are there already. With an error, left has those that were found.
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

// endLeases notes that leases have ended, unless they have been renewed.
func (e *ending) endLeases(ctx context.Context, leases []stored[lease]) error {
	for i, l := range leases {
		now, err := change(ctx, e.kv, l.key, func(s *stored[lease]) verdict {
			if s.revision != l.revision || s.value.Ended { // it has been renewed, is gone, or others are at it
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
		if err := drop(ctx, e.kv, l.key, l.revision); err != nil && !isConflict(err) { // another one has done so
			return err
		}
	}
	return nil
}

// endEntries takes the holders with these numbers from all entries, and returns what is to be removed then.
func (e *ending) endEntries(ctx context.Context, told removals) (removals, error) {
	found, _, err := scan(ctx, e.kv, "e.>")
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

// endEntry takes the holders from an entry, and makes the node the teller where there are no others.
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

// tells reports whether an entry has left, of which the node is to tell.
func (e *ending) tells(v entry) bool { return len(v.Holders) == 0 && string(v.Teller) == e.node }

// remove removes entries, and returns those of which it doesn't know that they are.
func (e *ending) remove(ctx context.Context, all removals) (rest removals) {
	if e.final { // others would tell of what isn't removed
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
		if isConflict(err) { // somebody has entered again
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
