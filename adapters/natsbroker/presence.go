package natsbroker

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// provisional is the lease of a node that enters something before its first Renew.
const provisional = time.Minute

// Presence implements wsroom.PresenceStore. Create one with NewPresence. It is a key-value bucket in memory,
// named wsroom-presence, by the server's clock: a key for each identity in a room, one for each node's lease.
type Presence struct{ bucket bucket }

// NewPresence returns a store over a connection, which it doesn't close; it does nothing before it is used,
// and makes the bucket when there is none. It panics if the connection's options exclude JetStream.
func NewPresence(nc *nats.Conn, opts ...Option) *Presence {
	return &Presence{newBucket(newJetStream(nc), settingsOf(opts).replicas)}
}

// entry is an identity in a room. Names are bytes, which JSON's strings aren't.
type entry struct {
	Room, Identity []byte
	Holders        []holder
}

// holder is a node by way of which an identity is in a room. Lease is the number of its lease, so that
// what a node enters when it has come back isn't taken for what it had before.
type holder struct {
	Node  []byte
	Lease uint64
}

// find returns the place of the holder that is that node.
func (e *entry) find(node string) int {
	return slices.IndexFunc(e.Holders, func(h holder) bool { return string(h.Node) == node })
}

// lease is a node's. That it has ended is noted before its entries are ended; when they have, it goes.
type lease struct {
	Node   []byte
	Number uint64
	TTL    time.Duration
	Held   bool     // the node knows of it, and has entered all under its number
	Ended  bool     // it is being ended
	Past   []uint64 // numbers it had, under which entries may be left
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

// Enter implements wsroom.PresenceStore.
func (p *Presence) Enter(ctx context.Context, room, identity, node string) (first bool, err error) {
	err = p.bucket.do(ctx, "enter", func(kv jetstream.KeyValue) error {
		number, err := leaseOf(ctx, kv, node)
		for err == nil {
			err = change(ctx, kv, entryKey(room, identity), func(s *stored[entry]) verdict {
				e := &s.value
				e.Room, e.Identity = []byte(room), []byte(identity)
				if i := e.find(node); i < 0 {
					first = len(e.Holders) == 0
					e.Holders = append(e.Holders, holder{[]byte(node), number})
				} else if e.Holders[i].Lease == number {
					return keep
				} else {
					e.Holders[i].Lease = number
				}
				return write
			})
			if err != nil {
				break
			}
			before := number // whose end may have come before this entry did
			if number, err = leaseOf(ctx, kv, node); number == before {
				break
			}
		}
		return err
	})
	return first, err
}

// leaseOf returns the number of a node's lease, of a provisional one if it has none.
func leaseOf(ctx context.Context, kv jetstream.KeyValue, node string) (number uint64, err error) {
	for {
		var ending bool
		err = change(ctx, kv, leaseKey(node), func(s *stored[lease]) verdict {
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

// Exit implements wsroom.PresenceStore.
func (p *Presence) Exit(ctx context.Context, room, identity, node string) (last bool, err error) {
	err = p.bucket.do(ctx, "exit", func(kv jetstream.KeyValue) error {
		last, err = exit(ctx, kv, entryKey(room, identity), func(h holder) bool { return string(h.Node) == node })
		return err
	})
	return last, err
}

// exit takes holders from an entry and reports whether they were there and no others.
func exit(ctx context.Context, kv jetstream.KeyValue, key string, whose func(holder) bool) (last bool, err error) {
	err = change(ctx, kv, key, func(s *stored[entry]) verdict {
		e := &s.value
		before := len(e.Holders)
		e.Holders = slices.DeleteFunc(e.Holders, whose)
		last = before > 0 && len(e.Holders) == 0
		switch {
		case last:
			return remove
		case len(e.Holders) == before:
			return keep
		default:
			return write
		}
	})
	return last, err
}

// Identities implements wsroom.PresenceStore.
func (p *Presence) Identities(ctx context.Context, room string) (identities []string, err error) {
	err = p.bucket.do(ctx, "identities", func(kv jetstream.KeyValue) error {
		identities = nil
		return scan(ctx, kv, "e."+hash(room)+".*", func(e stored[entry]) {
			identities = append(identities, string(e.value.Identity))
		})
	})
	return identities, err
}

// Renew implements wsroom.PresenceStore.
func (p *Presence) Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error) {
	err = p.bucket.do(ctx, "renew", func(kv jetstream.KeyValue) error {
		own, err := extend(ctx, kv, node, ttl)
		if err != nil {
			return err
		}
		held = own.value.Held
		var lapsed []stored[lease]
		err = scan(ctx, kv, "l.*", func(l stored[lease]) {
			if l.key != own.key && l.value.lapsed(l.written, own.written) {
				lapsed = append(lapsed, l)
			}
		})
		if err != nil {
			return err
		}
		if left, err = end(ctx, kv, lapsed, own.value.Past); err != nil || held {
			return err
		}
		return change(ctx, kv, own.key, func(s *stored[lease]) verdict {
			s.value.Held, s.value.Past = true, nil
			return write
		})
	})
	return held, left, err
}

// extend writes a node's lease anew. One that has lapsed gets another number.
func extend(ctx context.Context, kv jetstream.KeyValue, node string, ttl time.Duration) (own stored[lease], err error) {
	var old stored[lease]
	key := leaseKey(node)
	err = change(ctx, kv, key, func(s *stored[lease]) verdict {
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
	own, err = get[lease](ctx, kv, key) // when it was written is now
	if err != nil || old.value.Number != own.value.Number || !old.value.lapsed(old.written, own.written) {
		return own, err
	}
	err = change(ctx, kv, key, func(s *stored[lease]) verdict {
		s.value.retire()
		own.value = s.value
		return write
	})
	return own, err
}

// Leave implements wsroom.PresenceStore.
func (p *Presence) Leave(ctx context.Context, node string) (left map[string][]string, err error) {
	err = p.bucket.do(ctx, "leave", func(kv jetstream.KeyValue) error {
		l, err := get[lease](ctx, kv, leaseKey(node))
		if err == nil && l.revision != 0 {
			left, err = end(ctx, kv, []stored[lease]{l}, nil)
		}
		return err
	})
	return left, err
}

// end ends leases, and what was entered under them or under these numbers, and returns those who have left
// by that. Many may be at the same lease: who takes the last holder from an entry is told, which is one.
func end(ctx context.Context, kv jetstream.KeyValue, leases []stored[lease], numbers []uint64) (left map[string][]string, err error) {
	var ending []stored[lease]
	for _, l := range leases {
		err := change(ctx, kv, l.key, func(s *stored[lease]) verdict {
			if s.revision != l.revision || s.value.Ended { // it has been renewed, is gone, or others are at it
				return keep
			}
			s.value.Ended = true
			return write
		})
		if err != nil {
			return nil, err
		}
		now, err := get[lease](ctx, kv, l.key)
		if err != nil {
			return nil, err
		}
		if now.value.Ended {
			ending = append(ending, now)
			numbers = append(append(numbers, now.value.Number), now.value.Past...)
		}
	}
	if left, err = endEntries(ctx, kv, numbers); err != nil {
		return nil, err
	}
	for _, l := range ending {
		if err := drop(ctx, kv, l.key, l.revision); err != nil && !isConflict(err) { // another one has done so
			return left, err
		}
	}
	return left, nil
}

// endEntries takes the holders with these numbers from all entries.
func endEntries(ctx context.Context, kv jetstream.KeyValue, numbers []uint64) (left map[string][]string, err error) {
	left = map[string][]string{}
	if len(numbers) == 0 {
		return left, nil
	}
	whose := func(h holder) bool { return slices.Contains(numbers, h.Lease) }
	var entries []stored[entry]
	err = scan(ctx, kv, "e.>", func(e stored[entry]) {
		if slices.ContainsFunc(e.value.Holders, whose) {
			entries = append(entries, e)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		last, err := exit(ctx, kv, e.key, whose)
		if err != nil {
			return left, err
		}
		if last {
			room := string(e.value.Room)
			left[room] = append(left[room], string(e.value.Identity))
		}
	}
	return left, nil
}
