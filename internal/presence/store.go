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

// infoStore is a Store that keeps what members show. Each entry is a room, an identity and what it shows: ""
// leaves that as it is.
type infoStore interface {
	// EnterInfo is EnterAll, and has each identity show that from now on. changed says for which another info
	// was shown before.
	EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error)
	// Infos is Identities with what each shows, or "".
	Infos(ctx context.Context, room string) (map[string]string, error)
}

// KeepsInfos reports whether a store keeps what members show.
func KeepsInfos(s Store) bool {
	_, ok := s.(infoStore)
	return ok
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

// EnterInfo is only called for what changes something.
func (localStore) EnterInfo(_ context.Context, entries [][3]string, _ string) (first, changed []bool, err error) {
	yes := slices.Repeat([]bool{true}, len(entries))
	return yes, yes, nil
}

func (localStore) Infos(context.Context, string) (map[string]string, error) { return nil, nil }
