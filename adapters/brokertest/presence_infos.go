package brokertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// infosOf has the methods that a store may have for what members show.
type infosOf interface {
	EnterInfo(ctx context.Context, entries [][3]string, node string) (first, changed []bool, err error)
	Infos(ctx context.Context, room string) (infos map[string]string, err error)
}

// keepsInfos reports whether the store has the methods, and notes if it doesn't.
func (p *presenceTest) keepsInfos() bool {
	_, ok := p.of("n1").(infosOf)
	if !ok {
		p.t.Log("the store has no EnterInfo and Infos: not checked")
	}
	return ok
}

// show enters one member with an info. It returns what EnterInfo answers: "first", "changed", both or
// neither.
func (p *presenceTest) show(room, identity, info, node string) string {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	first, changed, err := p.of(node).(infosOf).EnterInfo(ctx, [][3]string{{room, identity, info}}, node)
	if err != nil || len(first) != 1 || len(changed) != 1 {
		p.t.Errorf("EnterInfo: %d and %d answers for one entry, %v", len(first), len(changed), err)
		return ""
	}
	var answer []string
	if first[0] {
		answer = append(answer, "first")
	}
	if changed[0] {
		answer = append(answer, "changed")
	}
	return strings.Join(answer, " ")
}

// shown checks who is in a room and what they show, as both stores list it: "ann=1 bob=".
func (p *presenceTest) shown(room, want string) {
	p.t.Helper()
	ctx, cancel := p.context()
	defer cancel()
	for _, store := range p.stores {
		infos, err := store.(infosOf).Infos(ctx, room)
		if err != nil {
			p.t.Errorf("Infos: %v", err)
		}
		var got []string
		for _, identity := range slices.Sorted(maps.Keys(infos)) {
			got = append(got, identity+"="+infos[identity])
		}
		p.check("what is shown in "+room, strings.Join(got, " "), want)
	}
	identities := []string{}
	for pair := range strings.FieldsSeq(want) {
		identity, _, _ := strings.Cut(pair, "=")
		identities = append(identities, identity)
	}
	p.expect(room, identities...)
}

// infosOfMembers: an identity shows in a room the info of the latest call, by way of whatever node. EnterInfo
// answers as Enter does, and whether the identity was there and has shown something else.
func infosOfMembers(t testing.TB, p *presenceTest) {
	if !p.keepsInfos() {
		return
	}
	p.lease("n1", "n2")
	p.shown("room", "")
	p.check("a first info", p.show("room", "ann", "1", "n1"), "first")
	p.shown("room", "ann=1")
	p.check("the same info again", p.show("room", "ann", "1", "n1"), "")
	p.check("another info", p.show("room", "ann", "2", "n1"), "changed")
	p.check("a second node with another info", p.show("room", "ann", "3", "n2"), "changed")
	p.shown("room", "ann=3")
	p.check("the first node with its info", p.show("room", "ann", "2", "n1"), "changed")
	p.shown("room", "ann=2")
	p.check("the second node with the same info", p.show("room", "ann", "2", "n2"), "")
	p.check("no info", p.show("room", "ann", "", "n1"), "")
	p.check("Enter again", p.enter("room", "ann", "n1"), false)
	p.shown("room", "ann=2")

	p.check("Enter without an info", p.enter("room", "bob", "n2"), true)
	p.check("a first one without an info", p.show("room", "cat", "", "n1"), "first")
	p.shown("room", "ann=2 bob= cat=")
	p.check("an info for one that showed nothing", p.show("room", "bob", "1", "n1"), "changed")
	p.check("the same identity elsewhere", p.show("hall", "ann", "x", "n1"), "first")
	p.shown("room", "ann=2 bob=1 cat=")
	p.shown("hall", "ann=x")
}

// infosEnd: what is shown ends when the identity is in the room through no node any more, however that comes.
func infosEnd(t testing.TB, p *presenceTest) {
	if !p.keepsInfos() {
		return
	}
	p.lease("n1", "n2")
	for _, room := range []string{"exit", "leave", "lapse"} {
		p.show(room, "ann", "1", "n1")
		p.show(room, "ann", "2", "n2")
		p.show(room, "bob", "3", "n1")
	}
	p.check("Exit by one of two nodes", p.exit("exit", "ann", "n2"), false)
	p.shown("exit", "ann=2 bob=3")
	p.check("Exit by the last node", p.exit("exit", "ann", "n1"), true)
	p.check("Enter after that", p.enter("exit", "ann", "n1"), true)
	p.shown("exit", "ann= bob=3")
	p.check("Exit of that", p.exit("exit", "ann", "n1"), true)
	p.check("an info after that", p.show("exit", "ann", "2", "n2"), "first")

	p.leave("n1")
	p.shown("leave", "ann=2")
	p.check("Enter after Leave", p.enter("leave", "bob", "n2"), true)
	p.shown("leave", "ann=2 bob=")

	p.lease("n1")
	p.enter("lapse", "ann", "n1")
	p.show("lapse", "cat", "4", "n1")
	p.renew("n1", p.ttl)
	until(t, "another node finds the lapse", func() bool {
		_, left := p.renew("n2", long)
		return strings.Contains(left, "lapse/cat")
	})
	p.shown("lapse", "ann=2")
	p.check("Enter after the lapse", p.enter("lapse", "cat", "n2"), true)
	p.shown("lapse", "ann=2 cat=")

	p.show("unseen", "dog", "5", "n1")
	p.renew("n1", p.ttl)
	<-time.After(p.ttl + p.ttl/2)
	p.shown("unseen", "") // although nobody has renewed since
}

// manyInfos: EnterInfo takes as many entries as EnterAll, with infos of any bytes, and answers in their
// order.
func manyInfos(t testing.TB, p *presenceTest) {
	if !p.keepsInfos() {
		return
	}
	p.lease("n1", "n2")
	names := append(oddNames(), strings.Repeat("l", 600))
	n := scaled(1000)
	entries, want := make([][3]string, 0, n), map[string]string{}
	for i := range n {
		e := [3]string{fmt.Sprint("room ", i%2), fmt.Sprint("member ", i), fmt.Sprint(i, names[i%len(names)])}
		if i < len(names) {
			e[1] = names[i]
		}
		if i == 7 {
			e[2] = strings.Repeat("\xff\x00", 2<<10)
		}
		entries = append(entries, e)
		want[e[0]+"/"+e[1]] = e[2]
	}
	p.show(entries[4][0], entries[4][1], "other", "n2")
	p.show(entries[5][0], entries[5][1], entries[5][2], "n2")

	ctx, cancel := p.context()
	defer cancel()
	store := p.of("n1").(infosOf)
	first, changed, err := store.EnterInfo(ctx, entries, "n1")
	if err != nil || len(first) != n || len(changed) != n {
		t.Errorf("EnterInfo: %d and %d answers for %d entries, %v", len(first), len(changed), n, err)
		return
	}
	for i := range n {
		if first[i] != (i != 4 && i != 5) || changed[i] != (i == 4) {
			t.Errorf("EnterInfo answers %v, %v for entry %d", first[i], changed[i], i)
			return
		}
	}
	for i := range 2 {
		room := fmt.Sprint("room ", i)
		infos, err := store.Infos(ctx, room)
		if err != nil {
			t.Errorf("Infos: %v", err)
		}
		for identity, info := range infos {
			if want[room+"/"+identity] != info {
				t.Errorf("%s shows %s in %s, want %s", short(identity), short(info), room, short(want[room+"/"+identity]))
				return
			}
			delete(want, room+"/"+identity)
		}
	}
	p.check("the number of those that show nothing", len(want), 0)
}
