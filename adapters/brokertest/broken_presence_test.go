package brokertest

import (
	"context"
	"errors"
	"maps"
	"slices"
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

	identities func(m *Memory, ctx context.Context, room string) ([]string, error)
	enterAll   func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error)
	exitAll    func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error)
	entries    func(m *Memory, ctx context.Context, node string) (map[string][]string, error)
	enterInfo  func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error)
	infos      func(m *Memory, ctx context.Context, room string) (map[string]string, error)
}

func (s *brokenStore) EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
	if s.enterInfo == nil {
		return s.Memory.EnterInfo(ctx, entries, node)
	}
	return s.enterInfo(s.Memory, ctx, entries, node)
}

func (s *brokenStore) Infos(ctx context.Context, room string) (map[string]string, error) {
	if s.infos == nil {
		return s.Memory.Infos(ctx, room)
	}
	return s.infos(s.Memory, ctx, room)
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

func (s *brokenStore) Identities(ctx context.Context, room string) ([]string, error) {
	if s.identities == nil {
		return s.Memory.Identities(ctx, room)
	}
	return s.identities(s.Memory, ctx, room)
}

func (s *brokenStore) EnterAll(ctx context.Context, entries [][2]string, node string) ([]bool, error) {
	if s.enterAll == nil {
		return s.Memory.EnterAll(ctx, entries, node)
	}
	return s.enterAll(s.Memory, ctx, entries, node)
}

func (s *brokenStore) ExitAll(ctx context.Context, entries [][2]string, node string) ([]bool, error) {
	if s.exitAll == nil {
		return s.Memory.ExitAll(ctx, entries, node)
	}
	return s.exitAll(s.Memory, ctx, entries, node)
}

func (s *brokenStore) Entries(ctx context.Context, node string) (map[string][]string, error) {
	if s.entries == nil {
		return s.Memory.Entries(ctx, node)
	}
	return s.entries(s.Memory, ctx, node)
}

// slowly waits, as for a server, and returns an error where the context ends first.
func slowly(ctx context.Context) error {
	select {
	case <-time.After(time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
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
				mustExplain(t, check.name, promisesOf(check.name, false), tryStore(t, check, c.store))
			}
			if found != len(strings.Fields(c.checks)) {
				t.Errorf("there are no such checks as %s", c.checks)
			}
		})
	}
}

// TestSoundStores: the same way of trying finds nothing where there is no fault: in a store, in one that has nothing
// but the methods that it must have, and in one that returns with an error what it has found.
func TestSoundStores(t *testing.T) {
	for name, store := range map[string]brokenStore{
		"all": {},
		"what it has found": {
			renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
				if err := slowly(ctx); err != nil {
					return false, nil, err
				}
				held, left, err := m.Renew(ctx, node, ttl)
				if err == nil {
					err = slowly(ctx)
				}
				return held, left, err
			},
			leave: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
				left, err := m.Leave(ctx, node)
				if err == nil {
					err = slowly(ctx)
				}
				return left, err
			}},
	} {
		for _, check := range presenceChecks {
			for _, f := range tryStore(t, check, store) {
				t.Errorf("%s: %s: %s", name, check.name, f)
			}
		}
	}
	for _, check := range presenceChecks {
		for _, f := range try(t, func(t testing.TB) {
			store := struct{ wsroom.PresenceStore }{NewMemory()}
			check.run(t, newPresenceTest(t, PresenceSetup{Open: func(testing.TB) wsroom.PresenceStore { return store }}))
		}) {
			t.Errorf("no more than it must have: %s: %s", check.name, f)
		}
	}
}

func tryStore(t *testing.T, check presenceCheck, store brokenStore) []string {
	return try(t, func(t testing.TB) {
		store.Memory = NewMemory()
		check.try(t, newPresenceTest(t, PresenceSetup{Open: func(testing.TB) wsroom.PresenceStore { return &store }}))
	})
}

var brokenStores = []struct {
	fault  string
	checks string // those that must find it
	store  brokenStore
}{
	{"each info is a change", "Infos ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries, node)
			return first, slices.Repeat([]bool{true}, len(changed)), err
		}}},
	{"no info is a change", "Infos ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries, node)
			return first, make([]bool, len(changed)), err
		}}},
	{"with an info nobody is the first", "Infos InfosEnd ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries, node)
			return make([]bool, len(first)), changed, err
		}}},
	{"EnterInfo answers in another order", "ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries, node)
			slices.Reverse(first)
			return first, changed, err
		}}},
	{"the first info stays", "Infos InfosEnd ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			own := slices.Clone(entries)
			for i, e := range own {
				if before, _ := m.Infos(ctx, e[0]); before[e[1]] != "" {
					own[i][2] = before[e[1]]
				}
			}
			return m.EnterInfo(ctx, own, node)
		}}},
	{"no info takes the info away", "Infos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries, node)
			for _, e := range entries {
				if e[2] == "" {
					m.presence.mu.Lock()
					delete(m.presence.infos, [2]string{e[0], e[1]})
					m.presence.mu.Unlock()
				}
			}
			return first, changed, err
		}}},
	{"an info outlives its last node", "InfosEnd", brokenStore{
		infos: func(m *Memory, ctx context.Context, room string) (map[string]string, error) {
			infos, err := m.Infos(ctx, room)
			for identity, info := range infos {
				if info == "" && identity != "dog" && room != "room" {
					infos[identity] = "1"
				}
			}
			return infos, err
		}}},
	{"an info ends with the node that brought it", "InfosEnd", brokenStore{
		exit: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			last, err := m.Exit(ctx, room, identity, node)
			m.presence.mu.Lock()
			delete(m.presence.infos, [2]string{room, identity})
			m.presence.mu.Unlock()
			return last, err
		}}},
	{"Infos leaves out those that show nothing", "Infos InfosEnd", brokenStore{
		infos: func(m *Memory, ctx context.Context, room string) (map[string]string, error) {
			infos, err := m.Infos(ctx, room)
			maps.DeleteFunc(infos, func(_, info string) bool { return info == "" })
			return infos, err
		}}},
	{"Infos has those whose lease has lapsed", "InfosEnd", brokenStore{
		infos: func(m *Memory, ctx context.Context, room string) (map[string]string, error) {
			infos, err := m.Infos(ctx, room)
			m.presence.mu.Lock()
			defer m.presence.mu.Unlock()
			for identity := range m.presence.rooms[room] {
				infos[identity] = m.presence.infos[[2]string{room, identity}]
			}
			return infos, err
		}}},
	{"infos are text", "ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			own := slices.Clone(entries)
			for i := range own {
				own[i][2] = strings.ToValidUTF8(own[i][2], "?")
			}
			return m.EnterInfo(ctx, own, node)
		}}},
	{"infos of one room are shown in all", "Infos", brokenStore{
		infos: func(m *Memory, ctx context.Context, room string) (map[string]string, error) {
			infos, err := m.Infos(ctx, room)
			other, _ := m.Infos(ctx, "hall")
			for identity := range infos {
				if info, ok := other[identity]; ok {
					infos[identity] = info
				}
			}
			return infos, err
		}}},
	{"EnterInfo takes no more than 900", "ManyInfos", brokenStore{
		enterInfo: func(m *Memory, ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error) {
			first, changed, err = m.EnterInfo(ctx, entries[:min(900, len(entries))], node)
			rest := make([]bool, len(entries)-len(first))
			return append(first, rest...), append(changed, rest...), err
		}}},
	{"refuses a call while another one is running", "OneOfManyIsFirst", brokenStore{
		enter: func() func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			running := make(chan struct{}, 1)
			return func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
				select {
				case running <- struct{}{}:
					defer func() { <-running }()
					<-time.After(time.Microsecond)
					return m.Enter(ctx, room, identity, node)
				default:
					return false, errors.New("busy")
				}
			}
		}()}},
	{"leases last a millisecond", "LapsedAreNotListed", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			return m.Renew(ctx, node, min(ttl, time.Millisecond))
		}}},
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
	{"nodes aren't told apart", "FirstAndLast Listed", brokenStore{
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
	{"Leave looks, then leaves", "OneOfManyLeaves", brokenStore{
		leave: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
			entries, _ := m.Entries(ctx, node)
			left := map[string][]string{}
			m.presence.mu.Lock()
			for room, identities := range entries {
				for _, identity := range identities {
					if len(m.rooms[room][identity]) == 1 {
						left[room] = append(left[room], identity)
					}
				}
			}
			m.presence.mu.Unlock()
			<-time.After(time.Millisecond)
			_, err := m.Leave(ctx, node)
			return left, err
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
	{"ignores the context of Exit, Renew and Leave", "PresenceContextEnds", brokenStore{
		exit: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			return m.Exit(context.WithoutCancel(ctx), room, identity, node)
		},
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			return m.Renew(context.WithoutCancel(ctx), node, ttl)
		},
		leave: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
			return m.Leave(context.WithoutCancel(ctx), node)
		}}},
	{"who isn't there is the last", "FirstAndLast", brokenStore{
		exit: func(m *Memory, ctx context.Context, room, identity, node string) (bool, error) {
			last, err := m.Exit(ctx, room, identity, node)
			there, _ := m.Identities(ctx, room)
			return last || !slices.Contains(there, identity), err
		}}},
	{"who is there by way of two nodes is listed twice", "Listed", brokenStore{
		identities: func(m *Memory, ctx context.Context, room string) ([]string, error) {
			if err := m.presence.lock(ctx); err != nil {
				return nil, err
			}
			defer m.presence.mu.Unlock()
			var all []string
			for identity, nodes := range m.rooms[room] {
				for range nodes {
					all = append(all, identity)
				}
			}
			return all, nil
		}}},
	{"those of dead nodes are listed", "LapsedAreNotListed", brokenStore{
		identities: func(m *Memory, ctx context.Context, room string) ([]string, error) {
			if err := m.presence.lock(ctx); err != nil {
				return nil, err
			}
			defer m.presence.mu.Unlock()
			return slices.Sorted(maps.Keys(m.rooms[room])), nil
		}}},
	{"a Renew that runs out of time loses those whom it has found", "BrokenRenewal", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			held, left, err := m.Renew(ctx, node, ttl)
			if err := slowly(ctx); err != nil {
				return false, nil, err
			}
			return held, left, err
		}}},
	{"a Renew that runs out of time returns them, and the next one, too", "BrokenRenewal", brokenStore{
		renew: func() func(*Memory, context.Context, string, time.Duration) (bool, map[string][]string, error) {
			found := map[string]map[string][]string{} // by node
			return func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
				held, left, err := m.Renew(ctx, node, ttl)
				maps.Copy(left, found[node])
				if delete(found, node); slowly(ctx) != nil {
					found[node] = left
					return false, left, ctx.Err()
				}
				return held, left, err
			}
		}()}},
	{"a Renew finds no more than 64", "BrokenRenewal", brokenStore{
		renew: func(m *Memory, ctx context.Context, node string, ttl time.Duration) (bool, map[string][]string, error) {
			held, left, err := m.Renew(ctx, node, ttl)
			n := 0
			for room, identities := range left {
				left[room] = identities[:min(len(identities), 64-n)]
				n += len(left[room])
			}
			return held, left, err
		}}},
	{"a Leave that runs out of time loses those whom it has found", "BrokenLeave", brokenStore{
		leave: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
			left, err := m.Leave(ctx, node)
			if err := slowly(ctx); err != nil {
				return nil, err
			}
			return left, err
		}}},
	{"EnterAll says of all what holds for the first", "ManyAtOnce", brokenStore{
		enterAll: func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error) {
			first, err := m.EnterAll(ctx, entries, node)
			return slices.Repeat(first[:1], len(first)), err
		}}},
	{"EnterAll answers in another order", "ManyAtOnce", brokenStore{
		enterAll: func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error) {
			first, err := m.EnterAll(ctx, entries, node)
			slices.Reverse(first)
			return first, err
		}}},
	{"EnterAll takes no more than 1000", "ManyAtOnce", brokenStore{
		enterAll: func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error) {
			first, err := m.EnterAll(ctx, entries[:min(1000, len(entries))], node)
			return append(first, make([]bool, len(entries)-len(first))...), err
		}}},
	{"ExitAll leaves one", "ManyAtOnce", brokenStore{
		exitAll: func(m *Memory, ctx context.Context, entries [][2]string, node string) ([]bool, error) {
			last, err := m.ExitAll(ctx, entries[1:], node)
			return append([]bool{true}, last...), err
		}}},
	{"Entries has those of all nodes", "EntriesOfANode", brokenStore{
		entries: func(m *Memory, ctx context.Context, node string) (map[string][]string, error) {
			all := map[string][]string{}
			for _, room := range []string{"room", "hall"} {
				all[room], _ = m.Identities(ctx, room)
			}
			return all, nil
		}}},
	{"Entries has nothing", "EntriesOfANode", brokenStore{
		entries: func(*Memory, context.Context, string) (map[string][]string, error) { return nil, nil }}},
}
