package brokertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// PresenceSetup gives the suite access to stores. What Open starts must be ended by t.Cleanup.
type PresenceSetup struct {
	// Open returns a store like that of a separate node. All stores opened by one setup share their
	// entries, and nobody else has entries in them.
	Open func(t testing.TB) wsroom.PresenceStore

	// TTL is a lease that is long enough to be renewed in time, and short enough for the suite to wait
	// until it ends. The default is 250 ms.
	TTL time.Duration
}

type presenceCheck struct {
	name string
	run  func(t testing.TB, s *presenceTest)
}

// RunPresence checks each promise of [wsroom.PresenceStore] in a subtest of its own, for which it calls
// setup. It also checks the optional methods that a store has. Under the race detector there are fewer entries.
func RunPresence(t *testing.T, setup func(t testing.TB) PresenceSetup) {
	for _, c := range presenceChecks {
		t.Run(c.name, func(t *testing.T) { c.try(t, newPresenceTest(t, setup(t))) })
	}
}

func (c presenceCheck) try(t testing.TB, p *presenceTest) {
	t.Cleanup(func() { explain(t, c.name, false) })
	c.run(t, p)
}

var presenceChecks = []presenceCheck{
	{"FirstAndLast", firstAndLast},
	{"Listed", listed},
	{"OneOfManyIsFirst", oneOfManyIsFirst},
	{"OneOfManyIsLast", oneOfManyIsLast},
	{"OneOfManyLeaves", oneOfManyLeaves},
	{"AnyPresenceName", anyPresenceName},
	{"ManyEntries", manyEntries},
	{"Leave", leave},
	{"LapseIsFoundOnce", lapseIsFoundOnce},
	{"LapsedNodeIsTold", lapsedNodeIsTold},
	{"LapsedNodeComesBack", lapsedNodeComesBack},
	{"LapsedAreNotListed", lapsedAreNotListed},
	{"BrokenRenewal", brokenRenewal},
	{"BrokenLeave", brokenLeave},
	{"ManyAtOnce", manyAtOnce},
	{"EntriesOfANode", entriesOfANode},
	{"Infos", infosOfMembers},
	{"InfosEnd", infosEnd},
	{"ManyInfos", manyInfos},
	{"PresenceContextEnds", presenceContextEnds},
}

// long is a lease that doesn't end during the test.
const long = time.Hour

// presenceTest has two stores, and fails the test if they return errors.
type presenceTest struct {
	t      testing.TB
	ttl    time.Duration
	stores [2]wsroom.PresenceStore
}

func newPresenceTest(t testing.TB, s PresenceSetup) *presenceTest {
	p := &presenceTest{t: t, ttl: s.TTL, stores: [2]wsroom.PresenceStore{s.Open(t), s.Open(t)}}
	if p.ttl <= 0 {
		p.ttl = 250 * time.Millisecond
	}
	return p
}

// of returns the store that a node uses.
func (p *presenceTest) of(node string) wsroom.PresenceStore {
	return p.stores[int(node[len(node)-1])%len(p.stores)]
}

func (p *presenceTest) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.t.Context(), patience)
}

func (p *presenceTest) enter(room, identity, node string) (first bool) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	first, err := p.of(node).Enter(ctx, room, identity, node)
	if err != nil {
		p.t.Errorf("Enter: %v", err)
	}
	return first
}

func (p *presenceTest) exit(room, identity, node string) (last bool) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	last, err := p.of(node).Exit(ctx, room, identity, node)
	if err != nil {
		p.t.Errorf("Exit: %v", err)
	}
	return last
}

func (p *presenceTest) renew(node string, ttl time.Duration) (held bool, left string) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	held, gone, err := p.of(node).Renew(ctx, node, ttl)
	if err != nil {
		p.t.Errorf("Renew: %v", err)
	}
	return held, list(gone)
}

func (p *presenceTest) leave(node string) (left string) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	gone, err := p.of(node).Leave(ctx, node)
	if err != nil {
		p.t.Errorf("Leave: %v", err)
	}
	return list(gone)
}

// expect checks which identities are in a room, as both stores list them.
func (p *presenceTest) expect(room string, want ...string) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	for _, store := range p.stores {
		got, err := store.Identities(ctx, room)
		if err != nil {
			p.t.Errorf("Identities: %v", err)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			p.t.Errorf("%d are in the room %s, want %d: %s; want %s", len(got), short(room), len(want), few(got), few(want))
		}
	}
}

func (p *presenceTest) check(what string, got, want any) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s is %s, want %s", what, brief(got), brief(want))
	}
}

// brief is how a value, which may be what list returns, stands in a failure.
func brief(v any) string {
	if s, ok := v.(string); ok && len(s) > 200 {
		return few(strings.Fields(s))
	}
	return fmt.Sprint(v)
}

// list formats what Renew and Leave return, for comparison.
func list(left map[string][]string) string {
	var all []string
	for room, identities := range left {
		for _, identity := range identities {
			all = append(all, room+"/"+identity)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func (p *presenceTest) lease(nodes ...string) {
	p.t.Helper()
	for _, n := range nodes {
		p.renew(n, long)
	}
}

// firstAndLast: of an identity that enters through two nodes, only the first Enter and the last Exit return true.
func firstAndLast(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.check("Enter by a first node", p.enter("room", "ann", "n1"), true)
	p.check("Enter again", p.enter("room", "ann", "n1"), false)
	p.check("Enter by a second node", p.enter("room", "ann", "n2"), false)
	p.check("Enter of somebody else", p.enter("room", "bob", "n2"), true)
	p.check("Enter into another room", p.enter("hall", "ann", "n2"), true)
	p.check("Exit by one of two nodes", p.exit("room", "ann", "n1"), false)
	p.check("Exit again", p.exit("room", "ann", "n1"), false)
	p.check("Exit of somebody who isn't there", p.exit("room", "eve", "n1"), false)
	p.check("Exit from a room that isn't there", p.exit("nowhere", "ann", "n1"), false)
	p.check("Exit by the last node", p.exit("room", "ann", "n2"), true)
	p.check("Exit of somebody else", p.exit("room", "bob", "n2"), true)
	p.check("Enter once more", p.enter("room", "ann", "n2"), true)
}

// listed: an identity is in a room once, although it is there through two nodes, and until it is there through none.
func listed(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.expect("room")
	p.enter("room", "ann", "n1")
	p.enter("room", "ann", "n1")
	p.enter("room", "ann", "n2")
	p.enter("room", "bob", "n2")
	p.enter("hall", "ann", "n2")
	p.expect("room", "ann", "bob")
	p.expect("hall", "ann")
	p.exit("room", "ann", "n1")
	p.exit("room", "ann", "n1")
	p.exit("room", "eve", "n1")
	p.expect("room", "ann", "bob")
	p.exit("room", "ann", "n2")
	p.exit("room", "bob", "n2")
	p.expect("room")
	p.expect("hall", "ann")
}

// race makes 8 nodes call f at the same time, and returns how many calls returned true.
func (p *presenceTest) race(f func(node string) bool) int {
	var yes atomic.Int32
	var racing sync.WaitGroup
	for i := range 8 {
		racing.Go(func() {
			if f(fmt.Sprint("node ", i)) {
				yes.Add(1)
			}
		})
	}
	racing.Wait()
	return int(yes.Load())
}

// oneOfManyIsFirst: when many nodes enter at the same time, exactly one is the first.
func oneOfManyIsFirst(t testing.TB, p *presenceTest) {
	p.race(func(node string) bool { p.lease(node); return false })
	for i := range scaled(16) {
		room := fmt.Sprint("room ", i)
		p.check("the number of first ones", p.race(func(node string) bool { return p.enter(room, "ann", node) }), 1)
		p.expect(room, "ann")
	}
}

// oneOfManyLeaves: when many nodes leave at the same time, exactly one reports an identity that was in a room
// through all of them.
func oneOfManyLeaves(t testing.TB, p *presenceTest) {
	for i := range scaled(16) {
		room := fmt.Sprint("room ", i)
		p.race(func(node string) bool { p.lease(node); return false })
		p.race(func(node string) bool { return p.enter(room, "ann", node) })
		leaving := p.race(func(node string) bool { return p.leave(node) != "" })
		p.check("the number of nodes that report", leaving, 1)
		p.expect(room)
	}
}

// oneOfManyIsLast: when many nodes exit at the same time, exactly one is the last.
func oneOfManyIsLast(t testing.TB, p *presenceTest) {
	p.race(func(node string) bool { p.lease(node); return false })
	for i := range scaled(16) {
		room := fmt.Sprint("room ", i)
		p.race(func(node string) bool { return p.enter(room, "ann", node) })
		p.check("the number of last ones", p.race(func(node string) bool { return p.exit(room, "ann", node) }), 1)
		p.expect(room)
	}
}

// anyPresenceName: rooms, identities and nodes are bytes.
func anyPresenceName(t testing.TB, p *presenceTest) {
	names := oddNames()
	if reduced { // each node looks at the leases of all
		names = names[:len(names)/3]
	}
	names = append(names, strings.Repeat("l", 600)+"1", strings.Repeat("l", 600)+"2")
	p.lease("n1", "n2")
	each(t, len(names), func(i int) {
		p.check("Enter of "+short(names[i]), p.enter("room", names[i], "n1"), true)
		p.check("Enter into "+short(names[i]), p.enter(names[i], "ann", "n2"), true)
		p.lease(names[i])
		p.enter("by any node", "ann", names[i])
	})
	p.expect("room", names...)
	p.expect("by any node", "ann")
	p.check("those who leave with n1", p.leave("n1") == list(map[string][]string{"room": names}), true)
	p.expect("room")
	each(t, len(names), func(i int) {
		p.expect(names[i], "ann")
		p.check("Exit from "+short(names[i]), p.exit(names[i], "ann", "n2"), true)
	})
	left := 0
	for _, name := range names {
		if p.leave(name) != "" {
			left++
		}
	}
	p.check("the number of nodes with which ann leaves", left, 1)
	p.expect("by any node")
}

// manyEntries: a node with many entries ends like one with few.
func manyEntries(t testing.TB, p *presenceTest) {
	rooms, identities := scaled(40), 10
	p.lease("n1", "n2")
	want := map[string][]string{}
	each(t, rooms*identities, func(i int) {
		room, identity := fmt.Sprint("room ", i%rooms), fmt.Sprint("identity ", i/rooms)
		p.enter(room, identity, "n1")
		if i%2 == 0 {
			p.enter(room, identity, "n2")
		}
	})
	for i := range rooms * identities {
		if room := fmt.Sprint("room ", i%rooms); i%2 != 0 {
			want[room] = append(want[room], fmt.Sprint("identity ", i/rooms))
		}
	}
	p.check("what is left is right", p.leave("n1") == list(want), true)
	for room := range maps.Keys(want) {
		p.expect(room)
	}
}

// leave: Leave ends a node's entries, returns the identities that were there only through them, and ends
// the lease.
func leave(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.enter("room", "ann", "n1")
	p.enter("room", "ann", "n2")
	p.enter("room", "bob", "n1")
	p.enter("hall", "bob", "n1")
	p.check("those who leave with n1", p.leave("n1"), "hall/bob room/bob")
	p.check("those who leave with it again", p.leave("n1"), "")
	p.expect("room", "ann")
	p.expect("hall")
	held, left := p.renew("n1", long)
	p.check("held after Leave", held, false)
	p.check("left after Leave", left, "")
	p.check("those who leave with n2", p.leave("n2"), "room/ann")
	p.expect("room")
}

// lapseIsFoundOnce: a node's entries lapse if it doesn't renew, and exactly one caller gets them.
func lapseIsFoundOnce(t testing.TB, p *presenceTest) {
	p.race(func(node string) bool { p.lease(node); return false })
	p.lease("dead 1", "dead 2")
	p.enter("room", "ann", "dead 1")
	p.enter("room", "ann", "node 1")
	p.enter("room", "bob", "dead 1")
	p.enter("room", "bob", "dead 2")
	p.enter("hall", "eve", "dead 2")
	p.expect("room", "ann", "bob")
	p.renew("dead 1", p.ttl) // their last ones: from here on it doesn't matter how long something takes
	p.renew("dead 2", p.ttl)
	var mu sync.Mutex
	var found []string
	until(t, "those who died are found", func() bool {
		p.race(func(node string) bool {
			held, left := p.renew(node, long)
			p.check("held of a node that lives", held, true)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, strings.Fields(left)...)
			return false
		})
		return len(found) >= 2
	})
	slices.Sort(found)
	p.check("who was found", strings.Join(found, " "), "hall/eve room/bob")
	p.expect("room", "ann")
	p.expect("hall")
	p.check("Enter after a lapse", p.enter("hall", "eve", "node 2"), true)
}

// lapsedNodeIsTold: held is true as long as a node renews in time. After a lapse it is false, once.
func lapsedNodeIsTold(t testing.TB, p *presenceTest) {
	held, _ := p.renew("n1", long)
	p.check("held of a new node", held, false)
	p.enter("room", "ann", "n1")
	held, left := p.renew("n1", p.ttl)
	p.check("held of a node that renews", held, true)
	p.check("left", left, "")
	<-time.After(p.ttl + p.ttl/2)
	held, left = p.renew("n1", long)
	p.check("held after the lease has lapsed", held, false)
	p.check("left by its own lapse", left, "room/ann")
	p.expect("room")
	p.check("Enter after that", p.enter("room", "ann", "n1"), true)
	held, left = p.renew("n1", long)
	p.check("held then", held, true)
	p.check("left then", left, "")
	p.expect("room", "ann")
}

// lapsedNodeComesBack: a node lapses, others find that, and the node comes back. What it enters then stays.
func lapsedNodeComesBack(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.enter("room", "ann", "n1")
	p.renew("n1", p.ttl)
	until(t, "another node finds the lapse", func() bool {
		_, left := p.renew("n2", long)
		return left == "room/ann"
	})
	p.check("Exit of what has lapsed", p.exit("room", "ann", "n1"), false)
	p.check("Enter before the node knows", p.enter("room", "bob", "n1"), true)
	held, _ := p.renew("n1", long)
	p.check("held after the lapse", held, false)
	p.enter("room", "bob", "n1")
	p.check("Enter again", p.enter("room", "ann", "n1"), true)
	_, left := p.renew("n2", long)
	p.check("left of a node that came back", left, "")
	p.expect("room", "ann", "bob")
}
