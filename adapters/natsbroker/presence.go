package natsbroker

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// provisional is the lease of a node that enters something before its first Renew.
const provisional = time.Minute

// Presence implements [wsroom.PresenceStore]. [NewPresence] makes it. It is a key-value bucket in memory,
// named wsroom-presence, which uses the server's clock. It has a key for each identity in a room, and a key
// for each node's lease.
type Presence struct {
	bucket *bucket

	mu         sync.Mutex          // guards what follows
	unfinished map[string]bool     // nodes whose last Renew failed after it had begun to end other nodes' entries
	told       map[string]removals // by node
}

// removals are entries without holders that a node has reported and that must still be removed: their
// revisions by key.
type removals map[string]uint64

// NewPresence returns a store over a connection, which it doesn't close. It does nothing before it is used,
// and creates the bucket if there is none. It panics if the connection's options exclude JetStream.
func NewPresence(nc *nats.Conn, opts ...Option) *Presence {
	return &Presence{
		bucket:     newBucket(newJetStream(nc), newConfig(opts).replicas),
		unfinished: map[string]bool{}, told: map[string]removals{},
	}
}

// entry is an identity in a room. Its names are bytes, because JSON's strings aren't. An entry without
// holders has left. The teller, a node, returns it from Renew and then removes it.
type entry struct {
	Room, Identity []byte
	Holders        []holder
	Info           []byte `json:",omitempty"` // what it shows
	Teller         []byte `json:",omitempty"`
}

// holder is a node through which an identity is in a room. Lease is the number of the node's lease. So what
// a node enters after a lapse isn't taken for what it had before.
type holder struct {
	Node  []byte
	Lease uint64
}

// find returns the index of the holder that is that node.
func (e *entry) find(node string) int {
	return slices.IndexFunc(e.Holders, func(h holder) bool { return string(h.Node) == node })
}

// lease is a node's lease. It is marked as ended before its entries are ended, and deleted after that.
type lease struct {
	Node   []byte
	Number uint64
	TTL    time.Duration
	Held   bool     // the node knows of it, and has entered everything under its number
	Ended  bool     // it is being ended
	Past   []uint64 // its former numbers, under which entries may be left
}

func (l lease) lapsed(written, now time.Time) bool { return l.Ended || !now.Before(written.Add(l.TTL)) }

// retire gives the lease another number.
func (l *lease) retire() {
	l.Past = append(l.Past, l.Number)
	l.Number, l.Held, l.Ended = newNumber(), false, false
}

func newNumber() uint64 { return rand.Uint64() | 1 }

func entryKey(room, identity string) string { return "e." + hash(room) + "." + hash(identity) }

func leaseKey(node string) string { return "l." + hash(node) }

// Enter implements [wsroom.PresenceStore].
func (p *Presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	all, err := p.EnterAll(ctx, [][2]string{{room, identity}}, node)
	return err == nil && all[0], err
}

// EnterAll does what [Presence.Enter] does, for each entry of a room and an identity.
func (p *Presence) EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error) {
	infos := make([][3]string, len(entries))
	for i, e := range entries {
		infos[i] = [3]string{e[0], e[1]}
	}
	first, _, err = p.EnterInfo(ctx, infos, node)
	return first, err
}

// EnterInfo does what [Presence.EnterAll] does, and has each identity show the info that is its entry's third
// part.
func (p *Presence) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	err = p.bucket.do(ctx, "enter", func(kv jetstream.KeyValue) error {
		first, changed = make([]bool, len(entries)), make([]bool, len(entries))
		number, err := leaseOf(ctx, kv, node)
		for err == nil {
			err = each(len(entries), func(i int) error {
				is, other, err := enter(ctx, kv, entries[i], holder{[]byte(node), number})
				first[i], changed[i] = first[i] || is, changed[i] || other
				return err
			})
			if err != nil {
				break
			}
			before := number // its end may have come before an entry was made
			if number, err = leaseOf(ctx, kv, node); number == before {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for i := range changed {
		changed[i] = changed[i] && !first[i]
	}
	return first, changed, nil
}

// enter adds a holder to an entry, or gives it the number of its lease, and sets the info unless that is "".
// changed says that the entry had a holder and another info.
func enter(ctx context.Context, kv jetstream.KeyValue, of [3]string, by holder) (first, changed bool, err error) {
	key, own := entryKey(of[0], of[1]), entry{Room: []byte(of[0]), Identity: []byte(of[1]), Holders: []holder{by}, Info: []byte(of[2])}
	_, err = put(ctx, kv, stored[entry]{key: key, value: own}) // mostly there is none
	if !isConflict(err) {
		return err == nil, false, err
	}
	_, err = change(ctx, kv, key, func(s *stored[entry]) verdict {
		e := &s.value
		e.Room, e.Identity, e.Teller = own.Room, own.Identity, nil
		if first = len(e.Holders) == 0; first {
			e.Info = nil
		}
		changed = len(own.Info) > 0 && !bytes.Equal(e.Info, own.Info)
		if changed {
			e.Info = own.Info
		}
		if i := e.find(string(by.Node)); i < 0 {
			e.Holders = append(e.Holders, by)
		} else if e.Holders[i].Lease == by.Lease && !changed {
			return keep
		} else {
			e.Holders[i].Lease = by.Lease
		}
		return write
	})
	return first, changed, err
}

// leaseOf returns the number of a node's lease. If the node has none, it makes a provisional one.
func leaseOf(ctx context.Context, kv jetstream.KeyValue, node string) (number uint64, err error) {
	for {
		var ending bool
		_, err = change(ctx, kv, leaseKey(node), func(s *stored[lease]) verdict {
			if number = s.value.Number; number != 0 {
				ending = s.value.Ended
				return keep
			}
			number, ending = newNumber(), false
			s.value = lease{Node: []byte(node), Number: number, TTL: provisional}
			return write
		})
		if err != nil || !ending {
			return number, err
		}
		if err = pause(ctx); err != nil { // it goes in a moment
			return 0, err
		}
	}
}

// Exit implements [wsroom.PresenceStore].
func (p *Presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	all, err := p.ExitAll(ctx, [][2]string{{room, identity}}, node)
	return err == nil && all[0], err
}

// ExitAll does what [Presence.Exit] does, for each entry of a room and an identity.
func (p *Presence) ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error) {
	err = p.bucket.do(ctx, "exit", func(kv jetstream.KeyValue) error {
		last = make([]bool, len(entries))
		return each(len(entries), func(i int) (err error) {
			last[i], err = exit(ctx, kv, entryKey(entries[i][0], entries[i][1]), node)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return last, nil
}

// exit removes a node from an entry and reports whether it was the only holder.
func exit(ctx context.Context, kv jetstream.KeyValue, key, node string) (last bool, err error) {
	_, err = change(ctx, kv, key, func(s *stored[entry]) verdict {
		i := s.value.find(node)
		if last = i >= 0 && len(s.value.Holders) == 1; last {
			return remove
		} else if i < 0 {
			return keep
		}
		s.value.Holders = slices.Delete(s.value.Holders, i, i+1)
		return write
	})
	return last, err
}

// Identities implements [wsroom.PresenceStore].
func (p *Presence) Identities(ctx context.Context, room string) (identities []string, err error) {
	infos, err := p.Infos(ctx, room)
	return slices.AppendSeq(identities, maps.Keys(infos)), err
}

// Infos returns who is in the room, as [Presence.Identities] does, and what each shows.
func (p *Presence) Infos(ctx context.Context, room string) (infos map[string]string, err error) {
	err = p.bucket.do(ctx, "identities", func(kv jetstream.KeyValue) error {
		infos = map[string]string{}
		found, now, err := p.bucket.scan(ctx, kv, "e."+hash(room)+".*", "l.*")
		if err != nil {
			return err
		}
		leases, err := decodeAll[lease](found, "l.")
		if err != nil {
			return err
		}
		live := map[uint64]bool{}
		for _, l := range leases {
			live[l.value.Number] = !l.value.lapsed(l.written, now)
		}
		entries, err := decodeAll[entry](found, "e.")
		for _, e := range entries {
			if slices.ContainsFunc(e.value.Holders, func(h holder) bool { return live[h.Lease] }) {
				infos[string(e.value.Identity)] = string(e.value.Info)
			}
		}
		return err
	})
	return infos, err
}

// Renew implements [wsroom.PresenceStore]. On an error it also returns what it has found.
func (p *Presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	left = map[string][]string{}
	err = p.bucket.do(ctx, "renew", func(kv jetstream.KeyValue) error {
		own, err := extend(ctx, kv, node, ttl)
		if err != nil {
			return err
		}
		held = own.value.Held
		found, now, err := p.bucket.scan(ctx, kv, "l.*")
		if err != nil {
			return err
		}
		leases, err := decodeAll[lease](found, "l.")
		if err != nil {
			return err
		}
		lapsed := slices.DeleteFunc(leases, func(l stored[lease]) bool { return l.key == own.key || !l.value.lapsed(l.written, now) })
		e := ending{bucket: p.bucket, kv: kv, node: node, numbers: own.value.Past, left: left}
		if err = p.end(ctx, &e, lapsed); err != nil || held {
			return err
		}
		_, err = change(ctx, kv, own.key, func(s *stored[lease]) verdict {
			s.value.Held, s.value.Past = true, nil
			return write
		})
		return err
	})
	return held, left, err
}

// extend renews a node's lease. A lease that has lapsed gets another number.
func extend(ctx context.Context, kv jetstream.KeyValue, node string, ttl time.Duration) (own stored[lease], err error) {
	var old stored[lease]
	key := leaseKey(node)
	_, err = change(ctx, kv, key, func(s *stored[lease]) verdict {
		old = *s
		switch l := &s.value; {
		case l.Number == 0:
			l.Node, l.Number = []byte(node), newNumber()
		case l.Ended:
			l.retire()
		}
		s.value.TTL = ttl
		return write
	})
	if err != nil {
		return own, err
	}
	own, err = get[lease](ctx, kv, key) // the time of writing is now
	if err != nil || old.value.Number != own.value.Number || !old.value.lapsed(old.written, own.written) {
		return own, err
	}
	_, err = change(ctx, kv, key, func(s *stored[lease]) verdict {
		s.value.retire()
		own.value = s.value
		return write
	})
	return own, err
}

// Leave implements [wsroom.PresenceStore]. It may return up to a second after its context has ended.
func (p *Presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	left = map[string][]string{}
	err = p.bucket.do(ctx, "leave", func(kv jetstream.KeyValue) error {
		l, err := get[lease](ctx, kv, leaseKey(node))
		if err == nil && l.revision != 0 {
			err = p.end(ctx, &ending{bucket: p.bucket, kv: kv, node: node, left: left, final: true}, []stored[lease]{l})
		}
		return err
	})
	return left, err
}
