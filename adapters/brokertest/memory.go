package brokertest

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/lookup"
)

var (
	// ErrAway is what [Node.Publish] and [Node.Keep] return while the node is cut off.
	ErrAway = errors.New("brokertest: the broker is away")

	errCut  = errors.New("brokertest: the broker was away")
	errLose = errors.New("brokertest: messages were lost on purpose")
)

// Memory is a broker's server and a presence store within this process, with outages on demand. It keeps
// the promises of [wsroom.Broker], [wsroom.Keeper] and [wsroom.PresenceStore], works in testing/synctest's
// bubbles, and needs no closing. What waits for a slow subscriber or follower isn't bounded.
type Memory struct {
	presence

	mu    sync.Mutex // guards what follows, what is in the nodes, and the order of messages
	past  past
	nodes []*Node
	lose  int
	runs  chan struct{} // closed unless the server hangs
}

// NewMemory returns a server with no nodes.
func NewMemory() *Memory {
	m := &Memory{past: past{logs: map[string]*log{}}, runs: make(chan struct{})}
	close(m.runs)
	return m
}

// Open returns the broker of one more node, which isn't cut off.
func (m *Memory) Open() *Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := &Node{server: m, back: make(chan struct{}), topics: map[string][]*inbox{}, follows: map[string][]*inbox{}}
	close(n.back)
	m.nodes = append(m.nodes, n)
	return n
}

// Down cuts off all nodes, and presence, which then returns [ErrAway]. [Memory.Up] undoes that.
func (m *Memory) Down() {
	m.setAway(true)
	for _, n := range m.all() {
		n.Down()
	}
}

// Up connects all nodes and presence again.
func (m *Memory) Up() {
	m.setAway(false)
	for _, n := range m.all() {
		n.Up()
	}
}

// Lose drops the next n messages, of any topic, for all their subscribers and followers. Publish and Keep
// return nil, and lost is called in their place. With a message of Keep, all that was kept before it on its
// topic is lost.
func (m *Memory) Lose(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lose += n
}

// Hang makes calls of Publish, Subscribe, Keep and Follow on all nodes wait until [Memory.Resume], or until
// their context ends.
func (m *Memory) Hang() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.runs:
		m.runs = make(chan struct{})
	default:
	}
}

// Resume undoes [Memory.Hang].
func (m *Memory) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.runs:
	default:
		close(m.runs)
	}
}

// wait returns when the server doesn't hang, or when ctx is done.
func (m *Memory) wait(ctx context.Context) error {
	m.mu.Lock()
	runs := m.runs
	m.mu.Unlock()
	select {
	case <-runs:
		return ctx.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *Memory) all() []*Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.nodes)
}

// Node is the [wsroom.Broker] of one node on a [Memory], and its [wsroom.Keeper].
type Node struct {
	server *Memory

	// The server's lock guards what follows.
	back    chan struct{} // closed unless the node is cut off
	cut     bool
	topics  map[string][]*inbox // the subscriptions
	follows map[string][]*inbox

	mostTopics, mostFollows int // see lookup.Delete
}

// Down cuts this node off: Publish and Keep fail, Subscribe and Follow wait, and the node misses what others
// publish and keep.
func (n *Node) Down() {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	if n.cut {
		return
	}
	n.cut, n.back = true, make(chan struct{})
	for _, inboxes := range n.follows {
		for _, i := range inboxes {
			i.seen = n.server.past.position
		}
	}
}

// Up connects the node again. lost is called for each of its subscriptions. Each follower goes on where it
// was; where something that it missed isn't kept any more, lost is called first.
func (n *Node) Up() {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	if !n.cut {
		return
	}
	n.cut = false
	for _, inboxes := range n.topics {
		for _, i := range inboxes {
			i.put(item{lost: errCut})
		}
	}
	for topic, inboxes := range n.follows {
		for _, i := range inboxes {
			n.server.past.catchUp(topic, i)
		}
	}
	close(n.back)
}

// Publish implements [wsroom.Broker]. It waits only while the server hangs.
func (n *Node) Publish(ctx context.Context, topic string, data []byte) error {
	if err := n.server.wait(ctx); err != nil {
		return err
	}
	it := item{data: slices.Clone(data)}
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	if n.cut {
		return ErrAway
	}
	if n.server.lose > 0 {
		n.server.lose--
		it = item{lost: errLose}
	}
	for _, other := range n.server.nodes {
		if other.cut {
			continue
		}
		for _, i := range other.topics[topic] {
			i.put(it)
		}
	}
	return nil
}

// Subscribe implements [wsroom.Broker].
func (n *Node) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	i := newInbox(func(_ uint64, data []byte) { deliver(data) }, lost)
	stop, err := n.begin(ctx, &n.topics, topic, i, func() {})
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// begin adds an inbox to those of a topic once the node is connected. It calls first under the server's
// lock, before anything is put into the inbox. to is one of the node's maps, which remove replaces.
func (n *Node) begin(ctx context.Context, to *map[string][]*inbox, topic string, i *inbox, first func()) (stop func(), err error) {
	if err := n.server.wait(ctx); err != nil {
		return nil, err
	}
	for !n.add(to, topic, i, first) {
		select {
		case <-n.connected():
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}

	return func() {
		n.remove(topic, i)
		i.stop()
	}, nil
}

func (n *Node) connected() <-chan struct{} {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	return n.back
}

// add returns false while the node is cut off.
func (n *Node) add(to *map[string][]*inbox, topic string, i *inbox, first func()) bool {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	if n.cut {
		return false
	}
	first()
	(*to)[topic] = append((*to)[topic], i)
	return true
}

func (n *Node) remove(topic string, i *inbox) {
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	n.topics = removed(n.topics, topic, i, &n.mostTopics)
	n.follows = removed(n.follows, topic, i, &n.mostFollows)
}

// removed returns the inboxes without one of them.
func removed(from map[string][]*inbox, topic string, i *inbox, most *int) map[string][]*inbox {
	rest := slices.DeleteFunc(from[topic], func(other *inbox) bool { return other == i })
	if len(rest) == 0 {
		return lookup.Delete(from, topic, most)
	}
	from[topic] = rest
	return from
}

// inbox holds what waits for one subscriber or follower. While it isn't empty, a goroutine delivers it.
type inbox struct {
	deliver func(position uint64, data []byte)
	live    func() // of a follower
	lost    func(error)
	turn    chan struct{} // holds one element while the subscriber is called; a channel, because of synctest
	seen    uint64        // of a follower that is cut off: the position up to which it missed nothing; see Memory.mu

	mu      sync.Mutex // guards what follows
	waiting []item
	busy    bool
	stopped bool
}

func newInbox(deliver func(uint64, []byte), lost func(error)) *inbox {
	return &inbox{deliver: deliver, lost: lost, turn: make(chan struct{}, 1)}
}

// item is a message, the end of what was kept, or a report that some messages may have been missed.
type item struct {
	position uint64
	data     []byte
	live     bool
	lost     error
}

func (i *inbox) put(it item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped {
		return
	}
	i.waiting = append(i.waiting, it)
	if !i.busy {
		i.busy = true
		go i.work() // ends when nothing waits; stop waits for the current call
	}
}

func (i *inbox) work() {
	for {
		i.turn <- struct{}{}
		it, ok := i.next()
		switch {
		case !ok:
			<-i.turn
			return
		case it.lost != nil:
			i.lost(it.lost)
		case it.live:
			i.live()
		default:
			i.deliver(it.position, slices.Clone(it.data))
		}
		<-i.turn
	}
}

func (i *inbox) next() (it item, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == 0 {
		i.busy = false
		return item{}, false
	}
	it = i.waiting[0]
	i.waiting = i.waiting[1:]
	return it, true
}

// stop returns when the subscriber isn't being called, and won't be called again.
func (i *inbox) stop() {
	i.mu.Lock()
	i.stopped, i.waiting = true, nil
	i.mu.Unlock()
	i.turn <- struct{}{}
	<-i.turn
}

var _ wsroom.Broker = (*Node)(nil)
