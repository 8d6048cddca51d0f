package presence

import (
	"container/heap"
	"time"

	"github.com/wsroom/wsroom/internal/lookup"
)

// graces are members in their grace, and some that have come back since: a heap by when it ends. One timer is enough
// for all. With a timer each, as many goroutines would begin at once as members have left at once, and Go keeps some
// memory of each goroutine for ever.
type graces struct {
	members []*member
	timer   *time.Timer // nil until there is a member
}

var _ heap.Interface = (*graces)(nil)

func (g *graces) Len() int           { return len(g.members) }
func (g *graces) Less(i, j int) bool { return g.members[i].graceEnd.Before(g.members[j].graceEnd) }

func (g *graces) Swap(i, j int) {
	m := g.members
	m[i], m[j] = m[j], m[i]
	m[i].waiting, m[j].waiting = i+1, j+1
}

func (g *graces) Push(x any) {
	m := x.(*member)
	g.members = append(g.members, m)
	m.waiting = len(g.members)
}

func (g *graces) Pop() any {
	last := len(g.members) - 1
	m := g.members[last]
	m.waiting = 0
	g.members[last] = nil
	g.members = lookup.Trim(g.members[:last])
	return m
}

// beginGrace begins a member's grace anew; mu is locked.
func (b *Book) beginGrace(m *member) {
	m.graceEnd = time.Now().Add(b.config.Grace)
	if m.waiting > 0 {
		heap.Fix(&b.leaving, m.waiting-1)
	} else {
		heap.Push(&b.leaving, m)
	}
	switch {
	case b.leaving.timer == nil:
		b.leaving.timer = time.AfterFunc(b.config.Grace, b.endGraces)
	case len(b.leaving.members) == 1:
		b.leaving.timer.Reset(b.config.Grace)
	}
}

// maxGraces is how many graces end before mu is free for a moment.
const maxGraces = 256

// endGraces ends the presence of members without connections whose grace is over.
func (b *Book) endGraces() {
	for b.endSomeGraces() {
	}
}

// endSomeGraces ends a part of them. It reports whether there may be more. If not, it has set the timer.
func (b *Book) endSomeGraces() (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range maxGraces {
		if b.closed || len(b.leaving.members) == 0 {
			return false
		}
		m := b.leaving.members[0]
		if left := time.Until(m.graceEnd); left > 0 {
			b.leaving.timer.Reset(left)
			return false
		}
		heap.Pop(&b.leaving)
		if m.conns <= 0 && m.present {
			m.present = false
			b.sync(m)
		}
	}
	return true
}
