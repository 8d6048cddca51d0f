package presence

import (
	"context"
	"slices"
	"time"
)

// Store has the method set of wsroom.PresenceStore, whose comments are its contract.
type Store interface {
	// Enter reports whether node is the first by way of which identity is in the room.
	Enter(ctx context.Context, room, identity, node string) (first bool, err error)
	// Exit reports whether node was the last.
	Exit(ctx context.Context, room, identity, node string) (last bool, err error)
	// Identities returns those in the room, by way of any node.
	Identities(ctx context.Context, room string) ([]string, error)
	// Renew leases node's entries for ttl, and returns whose nodes' lease has lapsed, by room.
	Renew(ctx context.Context, node string, ttl time.Duration) (held bool, left map[string][]string, err error)
	// Leave ends node's entries and its lease, and returns those that were there by no other node, by room.
	Leave(ctx context.Context, node string) (left map[string][]string, err error)
}

// maxBatch is the most entries that one call of a batchStore gets.
const maxBatch = 1000

// batchStore is a Store that takes many entries at once, each a room and an identity.
type batchStore interface {
	EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error)
	ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error)
}

// listStore is a Store that lists a node's entries, by room.
type listStore interface {
	Entries(ctx context.Context, node string) (map[string][]string, error)
}

// localStore is the store of a node that shares none. It keeps nothing: the Book knows all members, and nobody is
// there by way of another node.
type localStore struct{}

func (localStore) Enter(context.Context, string, string, string) (bool, error) { return true, nil }
func (localStore) Exit(context.Context, string, string, string) (bool, error)  { return true, nil }
func (localStore) Identities(context.Context, string) ([]string, error)        { return nil, nil }
func (localStore) Leave(context.Context, string) (map[string][]string, error)  { return nil, nil }

func (localStore) Renew(context.Context, string, time.Duration) (bool, map[string][]string, error) {
	return true, nil, nil
}

func (localStore) EnterAll(_ context.Context, entries [][2]string, _ string) ([]bool, error) {
	return slices.Repeat([]bool{true}, len(entries)), nil
}

func (localStore) ExitAll(_ context.Context, entries [][2]string, _ string) ([]bool, error) {
	return slices.Repeat([]bool{true}, len(entries)), nil
}
