package brokertest

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// brokenStore is a Memory of which some methods do otherwise.
type brokenStore struct {
	*Memory
	enter func(m *Memory, ctx context.Context, room, identity, node string) (bool, error)
	exit  func(m *Memory, ctx context.Context, room, identity, node string) (bool, error)
	renew func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error)
	leave func(m *Memory, ctx context.Context, node string) (map[string][]string, error)
}

func (s *brokenStore) Enter(ctx context.Context, room, identity, node string) (bool, error) {
	if s.enter == nil {
		return s.Memory.Enter(ctx, room, identity, node)
	}
	return s.enter(s.Memory, ctx, room, identity, node)
}

func (s *brokenStore) Exit(ctx context.Context, room, identity, node string) (bool, error) {
	if s.exit == nil {
		return s.Memory.Exit(ctx, room, identity, node)
	}
	return s.exit(s.Memory, ctx, room, identity, node)
}

func (s *brokenStore) Renew(ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
	if s.renew == nil {
		return s.Memory.Renew(ctx, node, ttl)
	}
	return s.renew(s.Memory, ctx, node, ttl)
}

func (s *brokenStore) Leave(ctx context.Context, node string) (map[string][]string, error) {
	if s.leave == nil {
		return s.Memory.Leave(ctx, node)
	}
	return s.leave(s.Memory, ctx, node)
}

// TestBrokenStores: the suite finds what each of them does wrong.
func TestBrokenStores(t *testing.T) {
	for _, c := range brokenStores {
		t.Run(c.fault, func(t *testing.T) {
			found := 0
			for _, check := range presenceChecks {
				if !strings.Contains(" "+c.checks+" ", " "+check.name+" ") {
					continue
				}
				found++
				if len(tryStore(t, check, c.store)) == 0 {
					t.Errorf("%s doesn't find the fault", check.name)
				}
			}
			if found != len(strings.Fields(c.checks)) {
				t.Errorf("there are no such checks as %s", c.checks)
			}
		})
	}
}

// TestSoundStores: the same way of trying finds nothing where there is no fault.
func TestSoundStores(t *testing.T) {
	for _, check := range presenceChecks {
		for _, f := range tryStore(t, check, brokenStore{}) {
			t.Errorf("%s: %s", check.name, f)
		}
	}
}

func tryStore(t *testing.T, check presenceCheck, store brokenStore) []string {
	return try(t, func(t testing.TB) {
		store.Memory = NewMemory()
		check.run(t, newPresenceTest(t, PresenceSetup{Open: func(testing.TB) wsroom.PresenceStore { return &store }}))
	})
}

var brokenStores = []struct {
	fault  string
	checks string // those that must find it
	store  brokenStore
}{
	{"each Enter is the first", "FirstAndLast OneOfManyIsFirst", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			_, err := m.Enter(ctx, room, identity, node)
			return true, err
		}}},
	{"Enter looks, then enters", "OneOfManyIsFirst", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			there, err := m.Identities(ctx, room)
			<-time.After(time.Millisecond)
			m.Enter(ctx, room, identity, node)
			return len(there) == 0, err
		}}},
	{"Exit looks, then exits", "OneOfManyIsLast", brokenStore{
		exit: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			m.Exit(ctx, room, identity, node)
			<-time.After(time.Millisecond)
			there, err := m.Identities(ctx, room)
			return len(there) == 0, err
		}}},
	{"nodes aren't told apart", "FirstAndLast", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, _ string) (bool, error) {
			return m.Enter(ctx, room, identity, "node")
		},
		exit: func(m *Memory, ctx context.Context, room, identity, _ string) (bool, error) {
			return m.Exit(ctx, room, identity, "node")
		}}},
	{"small and capital letters are the same", "AnyPresenceName", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			return m.Enter(ctx, room, strings.ToLower(identity), node)
		}}},
	{"rooms are text", "AnyPresenceName", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			return m.Enter(ctx, strings.ToValidUTF8(room, "?"), identity, node)
		}}},
	{"nothing lapses", "LapseIsFoundOnce LapsedNodeIsTold LapsedNodeComesBack", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, _ time.Duration) (bool, map[string][]string, error) {
			return m.Renew(ctx, node, long)
		}}},
	{"everyone is told of a lapse", "LapseIsFoundOnce", brokenStore{
		renew: func() func(*Memory, context.Context, string, time.Duration) (bool, map[string][]string, error) {
			var told map[string][]string
			turn := make(chan struct{}, 1)
			return func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
				turn <- struct{}{}
				defer func() { <-turn }()
				held, left, err := m.Renew(ctx, node, ttl)
				if len(left) > 0 {
					told = left
				}
				return held, told, err
			}
		}()}},
	{"nobody is told of a lapse", "LapseIsFoundOnce LapsedNodeComesBack", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			held, _, err := m.Renew(ctx, node, ttl)
			return held, nil, err
		}}},
	{"a lease is always held", "LapsedNodeIsTold LapsedNodeComesBack Leave", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			_, left, err := m.Renew(ctx, node, ttl)
			return true, left, err
		}}},
	{"a lease is never held", "LapseIsFoundOnce LapsedNodeIsTold", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			_, left, err := m.Renew(ctx, node, ttl)
			return false, left, err
		}}},
	{"Leave does nothing", "Leave ManyEntries AnyPresenceName", brokenStore{
		leave: func(*Memory, context.Context, string) (map[string][]string, error) { return nil, nil }}},
	{"Leave tells nothing", "Leave ManyEntries", brokenStore{
		leave: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
			_, err := m.Leave(ctx, node)
			return nil, err
		}}},
	{"ignores the context", "PresenceContextEnds", brokenStore{
		enter: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			return m.Enter(context.WithoutCancel(ctx), room, identity, node)
		}}},
}
