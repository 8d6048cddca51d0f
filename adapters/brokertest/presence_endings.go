package brokertest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// lapsedAreNotListed: an identity that is in a room only through nodes that have died isn't listed, even if
// no node has renewed since.
func lapsedAreNotListed(t testing.TB, p *presenceTest) {
	p.lease("n1", "dead 1", "dead 2")
	p.enter("room", "ann", "n1")
	p.enter("room", "ann", "dead 1")
	p.enter("room", "bob", "dead 1")
	p.enter("room", "bob", "dead 2")
	p.enter("hall", "eve", "dead 2")
	p.renew("dead 1", p.ttl) // their last ones
	p.renew("dead 2", p.ttl)
	<-time.After(p.ttl + p.ttl/2)
	p.expect("room", "ann")
	p.expect("hall")
	_, left := p.renew("n1", long)
	p.check("left", left, "hall/eve room/bob")
	p.expect("room", "ann")
}

// tale counts, by identity, how often callers were told that it has left.
type tale struct {
	p    *presenceTest
	told map[string]int
}

// crowd is how many enter by way of a node that ends.
func crowd() int { return scaled(100) }

// crowdOf enters many identities through a node, and returns a count of them to be told.
func (p *presenceTest) crowdOf(node string) *tale {
	each(p.t, crowd(), func(i int) { p.enter(fmt.Sprint("room ", i%5), fmt.Sprint("member ", i), node) })
	return &tale{p, map[string]int{}}
}

func (a *tale) note(left map[string][]string) {
	for room, identities := range left {
		for _, identity := range identities {
			a.told[room+"/"+identity]++
		}
	}
}

// finish makes nodes renew until every identity has been told of, and once more. It checks that each was
// told of once.
func (a *tale) finish(when string, nodes ...string) {
	a.p.t.Helper()
	renew := func() {
		for _, node := range nodes {
			ctx, cancel := a.p.context()
			_, left, err := a.p.of(node).Renew(ctx, node, long)
			cancel()
			if err != nil {
				a.p.t.Errorf("Renew: %v", err)
			}
			a.note(left)
		}
	}
	for deadline := time.Now().Add(patience / 2); len(a.told) < crowd() && time.Now().Before(deadline); {
		renew()
		<-time.After(time.Millisecond)
	}
	renew()
	twice := 0
	for _, n := range a.told {
		if n > 1 {
			twice++
		}
	}
	if len(a.told) != crowd() || twice > 0 {
		a.p.t.Errorf("%s: %d of %d who have left were told of, %d of them more than once", when, len(a.told), crowd(), twice)
	}
}

// brokenRenewal: a Renew that runs out of time loses none of the identities that it has found, and reports
// none twice.
func brokenRenewal(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.breakOff(func(d time.Duration, store wsroom.PresenceStore, dead string) (map[string][]string, error) {
		p.renew(dead, time.Millisecond)
		<-time.After(2 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		_, left, err := p.of("n1").Renew(ctx, "n1", long)
		return left, err
	})
}

// brokenLeave: the same holds for Leave.
func brokenLeave(t testing.TB, p *presenceTest) {
	p.lease("n1", "n2")
	p.breakOff(func(d time.Duration, store wsroom.PresenceStore, node string) (map[string][]string, error) {
		p.renew(node, p.ttl) // it lapses if the Leave doesn't get that far
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return store.Leave(ctx, node)
	})
}

// breakOff calls f to end a node, with more time each round until it succeeds. The steps are larger under the race
// detector.
func (p *presenceTest) breakOff(f func(d time.Duration, store wsroom.PresenceStore, node string) (map[string][]string, error)) {
	next := func(d time.Duration) time.Duration { return d * 4 / 3 }
	if reduced {
		next = func(d time.Duration) time.Duration { return 2 * d }
	}
	for round, d := 0, 100*time.Microsecond; d < patience && !p.t.Failed(); round, d = round+1, next(d) {
		node := fmt.Sprint("dead ", round)
		tale := p.crowdOf(node)
		left, err := f(d, p.of(node), node)
		tale.note(left)
		tale.finish(fmt.Sprintf("the call of node %d had %v (%v)", round, d, err), "n1", "n2")
		if err == nil {
			return
		}
	}
}

// presenceContextEnds: a context that has ended is an error.
func presenceContextEnds(t testing.TB, p *presenceTest) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	store := p.stores[0]
	for name, call := range map[string]func() error{
		"Enter":      func() error { _, err := store.Enter(ctx, "room", "ann", "n1"); return err },
		"Exit":       func() error { _, err := store.Exit(ctx, "room", "ann", "n1"); return err },
		"Identities": func() error { _, err := store.Identities(ctx, "room"); return err },
		"Renew":      func() error { _, _, err := store.Renew(ctx, "n1", long); return err },
		"Leave":      func() error { _, err := store.Leave(ctx, "n1"); return err },
		"EnterInfo": func() error {
			if s, ok := store.(infosOf); ok {
				_, _, err := s.EnterInfo(ctx, [][3]string{{"room", "ann", "1"}}, "n1")
				return err
			}
			return ctx.Err()
		},
	} {
		if call() == nil {
			t.Errorf("%s returns nil though its context has ended", name)
		}
	}
	p.expect("room")
}

// manyOf has the methods that a store may have besides those of wsroom.PresenceStore.
type manyOf interface {
	EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error)
	ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error)
}

// manyAtOnce: EnterAll and ExitAll do for each entry what Enter and Exit do, and answer in the order of the
// entries.
func manyAtOnce(t testing.TB, p *presenceTest) {
	n1, ok := p.of("n1").(manyOf)
	if !ok {
		t.Log("the store has no EnterAll and ExitAll: not checked")
		return
	}
	n2 := p.of("n2").(manyOf)
	p.lease("n1", "n2")
	n := scaled(2000)
	var all, some [][2]string
	for i := range n {
		e := [2]string{fmt.Sprint("room ", i%3), fmt.Sprint("member ", i/3)}
		if all = append(all, e); i%2 == 0 || i%7 == 0 {
			some = append(some, e)
		}
	}
	p.enter(all[4][0], all[4][1], "n2")
	changes := func(what string, f func(context.Context, [][2]string, string) ([]bool, error), of [][2]string, node string, want func(i int) bool) {
		t.Helper()
		ctx, cancel := p.context()
		defer cancel()
		got, err := f(ctx, of, node)
		if err != nil || len(got) != len(of) {
			t.Errorf("%s: %d answers for %d entries, %v", what, len(got), len(of), err)
			return
		}
		for i := range got {
			if got[i] != want(i) {
				t.Errorf("%s: for %q it is %v, want %v", what, of[i], got[i], want(i))
				return
			}
		}
	}
	among := map[[2]string]bool{all[4]: true}
	changes("EnterAll", n1.EnterAll, all, "n1", func(i int) bool { return !among[all[i]] })
	changes("EnterAll again", n1.EnterAll, all, "n1", func(int) bool { return false })
	changes("EnterAll of the second node", n2.EnterAll, some, "n2", func(int) bool { return false })
	for _, e := range some {
		among[e] = true
	}
	p.listed(all)
	changes("ExitAll", n1.ExitAll, all, "n1", func(i int) bool { return !among[all[i]] })
	changes("ExitAll again", n1.ExitAll, all, "n1", func(int) bool { return false })
	p.listed(some)
	changes("ExitAll of the second node", n2.ExitAll, some, "n2", func(int) bool { return true })
	p.listed(nil)
}

// listed checks that the entries are there, and that nothing else is in their rooms.
func (p *presenceTest) listed(entries [][2]string) {
	p.t.Helper()
	want := map[string][]string{"room 0": nil, "room 1": nil, "room 2": nil}
	for _, e := range entries {
		want[e[0]] = append(want[e[0]], e[1])
	}
	for room, identities := range want {
		p.expect(room, identities...)
	}
}

// entriesOfANode: Entries returns exactly what is there through a node.
func entriesOfANode(t testing.TB, p *presenceTest) {
	store, ok := p.of("n1").(interface {
		Entries(ctx context.Context, node string) (map[string][]string, error)
	})
	if !ok {
		t.Log("the store has no Entries: not checked")
		return
	}
	p.lease("n1", "n2")
	p.enter("room", "ann", "n1")
	p.enter("room", "bob", "n1")
	p.enter("hall", "eve", "n1")
	p.enter("room", "ann", "n2")
	p.enter("room", "cat", "n2")
	p.exit("hall", "eve", "n1")
	for node, want := range map[string]string{"n1": "room/ann room/bob", "n2": "room/ann room/cat", "n3": ""} {
		ctx, cancel := p.context()
		entries, err := store.Entries(ctx, node)
		cancel()
		if got := list(entries); got != want || err != nil {
			t.Errorf("the entries of %s are %s, %v; want %s", node, strings.TrimSpace(got), err, want)
		}
	}
}
