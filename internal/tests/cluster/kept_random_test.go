package cluster_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/cluster"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

var (
	keptTime = flag.Duration("kept.time", time.Second, "for how long TestKeptLogsHideNothing plays")
	keptSeed = flag.Uint64("kept.seed", 0, "the one game that it plays; 0: many")
)

// Nodes that come and go at any time, while all send, have one log: the same messages at the same positions,
// as far as two logs go back. A sender whose calls fail although the message was kept changes nothing, where a log
// has no more than half of what is kept.
func TestKeptRoomHasOneLogOnAllNodes(t *testing.T) {
	for name, tc := range map[string]struct {
		keeps int
		fails int // once in so many calls; 0: never
	}{
		"all is kept":              {1 << 20, 0},
		"little is kept":           {20, 0},
		"sends fail, all is kept":  {1 << 20, 5},
		"sends fail, much is kept": {200, 20},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(3) {
				synctest.Test(t, func(t *testing.T) { loaded(t, seed, tc.keeps, tc.fails) })
			}
		})
	}
}

func loaded(t *testing.T, seed uint64, keeps, fails int) {
	server := brokertest.NewMemory()
	nodes := make([]*noter, 3)
	var wg sync.WaitGroup
	for i := range nodes {
		o := newNoter(t, server, keeps)
		o.most = keeps / 2
		nodes[i] = o
		calls, own := rand.New(rand.NewPCG(seed, uint64(i))), rand.New(rand.NewPCG(seed, uint64(i+10)))
		o.line.set(func([]byte) (int, error) {
			time.Sleep(time.Duration(calls.IntN(30)) * time.Millisecond)
			if fails > 0 && calls.IntN(fails) == 0 {
				return 1, kit.ErrDown
			}
			return 1, nil
		})
		o.join(t, "/a")
		wg.Go(func() {
			for n := range 300 {
				_ = cluster.Publish(o.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Text, fmt.Sprint(i, ".", n)) // it may be away
				time.Sleep(time.Duration(own.IntN(20)) * time.Millisecond)
			}
		})
	}
	for i, o := range nodes {
		own := rand.New(rand.NewPCG(seed, uint64(i+20)))
		wg.Go(func() {
			for range 4 {
				time.Sleep(time.Duration(own.IntN(500)) * time.Millisecond)
				o.Unsubscribe("/a")
				time.Sleep(time.Duration(own.IntN(3000)) * time.Millisecond)
				if err := o.Subscribe(t.Context, "/a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()

	for i, o := range nodes {
		wantSame(t, o, nodes[(i+1)%len(nodes)])
		if n := len(o.log("/a")); n < min(keeps/2, 800) {
			t.Errorf("the log has %d messages", n)
		}
		if text := o.texts("/a"); strings.Contains(text, "hole") {
			t.Errorf("the log has a hole: %s", text)
		}
		o.wantGaps(t, "each", 0)
		wantOnce(t, o)
	}
}

// wantOnce checks that members got nothing twice, and that the log has nothing twice.
func wantOnce(t *testing.T, o *noter) {
	t.Helper()
	var logged []string
	for _, e := range o.log("/a") {
		if e.text != "hole" {
			logged = append(logged, e.text)
		}
	}
	for of, texts := range map[string][]string{"a member": slices.Clone(o.live), "the log": logged} {
		slices.Sort(texts)
		if n := len(texts); len(slices.Compact(texts)) < n {
			t.Errorf("%s got a message twice", of)
		}
	}
}

// harbour is some nodes over a server that keeps 8 envelopes of a room, or fewer, and all that was kept there.
type harbour struct {
	t      *testing.T
	rnd    *rand.Rand
	server *brokertest.Memory
	nodes  []*noter
	joined map[*noter]bool
	sent   int

	mu   sync.Mutex // guards the rest
	kept []message  // each once
	had  map[string]bool
	last map[string]uint64 // sequence of each node's last message
}

// note notes what the server keeps.
func (h *harbour) note(position uint64, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range opened(position, data) {
		if key := fmt.Sprint(m.node, m.sequence); m.sequence > h.last[m.node] {
			h.last[m.node], h.had[key] = m.sequence, true
			h.kept = append(h.kept, m)
		}
	}
}

func (h *harbour) step() {
	o := h.nodes[h.rnd.IntN(len(h.nodes))]
	switch n := h.rnd.IntN(100); {
	case n < 55:
		h.sent++
		_ = cluster.Publish(o.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Text, fmt.Sprint(h.sent)) // it may be away
	case n < 60:
		h.join(o)
	case n < 65 && h.joined[o]:
		o.Unsubscribe("/a")
		h.joined[o] = false
	case n < 70:
		o.line.Down()
	case n < 77:
		o.line.Up()
	case n < 79:
		h.server.Trim(h.rnd.IntN(5))
	case n < 80:
		h.server.Wipe()
	case n < 84:
		h.pause(4 * time.Second)
	case n < 95:
		h.pause(100 * time.Millisecond)
	default:
		synctest.Wait()
		h.check()
	}
}

func (h *harbour) pause(most time.Duration) {
	time.Sleep(time.Duration(h.rnd.Int64N(int64(most))))
}

func (h *harbour) join(o *noter) {
	if h.joined[o] {
		return
	}
	if h.rnd.IntN(3) == 0 {
		o.line.fail(kit.ErrDown)
		time.AfterFunc(300*time.Millisecond, func() { o.line.fail(nil) })
	}
	if o.Subscribe(h.t.Context, "/a") == nil {
		h.joined[o] = true
	}
}

// faulty has a node's messages kept twice, not at all, or although Keep fails.
func (h *harbour) faulty(o *noter, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	o.line.bound = 1 + rnd.IntN(8)
	o.line.set(func([]byte) (int, error) {
		if rnd.IntN(4) == 0 {
			time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
		}
		switch n := rnd.IntN(100); {
		case n < 8:
			return rnd.IntN(3), kit.ErrDown
		case n < 11:
			return 2, nil
		case n < 13:
			return 0, nil
		default:
			return 1, nil
		}
	})
}

// check compares each log with what was kept: between two messages with no hole between them, nothing is missing.
func (h *harbour) check() {
	h.mu.Lock()
	defer h.mu.Unlock()
	place := map[string]int{}
	for i, m := range h.kept {
		place[m.text] = i
	}
	for _, o := range h.nodes {
		h.checkLog(o.log("/a"), place)
	}
}

func (h *harbour) checkLog(log []entry, place map[string]int) {
	var before, first entry // the last message, if no hole has come since, and the log's first
	holes := 0
	lastOf, holesAt, had := map[string]message{}, map[string]int{}, map[string]bool{}
	for _, e := range log {
		if e.text == "hole" {
			holes++
			before = entry{}
			continue
		}
		if first.text == "" {
			first = e
		}
		at, known := place[e.text]
		m := h.kept[at]
		second := less(m.at, e.at)                  // the node has missed the first copy
		gone := !first.past && less(m.at, first.at) // nothing was kept any more when the log began
		beside := before.text != "" && before.at.Stream != e.at.Stream
		switch {
		case !known || less(e.at, m.at):
			h.t.Errorf("%v: %q wasn't kept there", e.at, e.text)
		case had[e.text]:
			h.t.Errorf("%v: %q is there twice", e.at, e.text)
		case second && beside && !gone:
			h.t.Errorf("%q was kept at %v first, and stands at %v beside %q", e.text, m.at, e.at, before.text)
		case before.text != "" && h.keptBetween(before.at, e.at):
			h.t.Errorf("%v: %q follows %q, and between them nothing says that some are missing", e.at, e.text, before.text)
		}
		if last, known := lastOf[m.node]; known && last.sequence < m.sequence-m.back && holesAt[m.node] == holes {
			h.t.Errorf("%v: one of the same node is missing before %q, and nothing says so", e.at, e.text)
		}
		lastOf[m.node], holesAt[m.node] = m, holes
		before, had[e.text] = e, true
	}
}

func (h *harbour) keptBetween(from, to cluster.Position) bool {
	return slices.ContainsFunc(h.kept, func(m message) bool {
		return m.kind == frame.Text && less(from, m.at) && less(m.at, to)
	})
}

// wantAll checks that the logs of nodes with members have everything up to now.
func (h *harbour) wantAll() {
	for _, o := range h.nodes {
		o.line.Up()
		o.line.set(nil)
	}
	time.Sleep(time.Minute)
	for i, o := range h.nodes {
		h.join(o)
		_ = cluster.Publish(o.Node, cluster.Labels{}, cluster.Audience{Rooms: []string{"/a"}}, frame.Text, fmt.Sprint("end of ", i))
	}
	synctest.Wait()
	h.check()
	for _, o := range h.nodes {
		log := o.log("/a")
		if len(log) == 0 || log[len(log)-1].at != h.kept[len(h.kept)-1].at {
			h.t.Errorf("a log doesn't end with the last message, at %v: %v", h.kept[len(h.kept)-1].at, log)
		}
		live := slices.Clone(o.live)
		slices.Sort(live)
		if n := len(live); len(slices.Compact(live)) < n {
			h.t.Error("a member got a message twice")
		}
	}
}

func playKept(t *testing.T, seed uint64) {
	defer func() {
		if t.Failed() {
			t.Logf("play it again with -kept.seed=%d", seed)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		h := &harbour{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), server: brokertest.NewMemory(), joined: map[*noter]bool{}, had: map[string]bool{}, last: map[string]uint64{}}
		stop, err := h.server.Open().Follow(context.Background(), ":room:/a", 1, h.note, func() {}, func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		for i := range 3 {
			o := newNoter(t, h.server, 8)
			h.nodes = append(h.nodes, o)
			h.faulty(o, seed+uint64(i))
		}
		for range 300 {
			h.step()
		}
		h.wantAll()
	})
}

// However little is kept, whatever is trimmed, wiped, lost, kept twice or cut off, and whoever comes and goes:
// two messages that stand beside each other in a log, with no hole between them, have none between them. Play
// longer with -kept.time=1m.
func TestKeptLogsHideNothing(t *testing.T) {
	if *keptSeed > 0 {
		playKept(t, *keptSeed)
		return
	}
	for begin := time.Now(); !t.Failed(); {
		playKept(t, 1+rand.Uint64N(1<<32))
		// Many timers in bubbles crash Go 1.26's race detector (golang.org/issue/78156): one game does there.
		if kit.UnderRace() || time.Since(begin) >= *keptTime {
			return
		}
	}
}
