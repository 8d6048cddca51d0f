package brokertest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wsroom/wsroom"
)

var errGone = errors.New("brokertest: messages that were missed are not kept any more")

// past is what a [Memory] keeps of all topics. It outlasts outages. The server's lock guards it.
type past struct {
	position uint64 // of the last message, on any topic; also after all data is lost
	wiped    uint64 // what position was when all data was lost
	logs     map[string]*log
}

// log is what is kept of one topic, oldest first. Only what is oldest is ever dropped, so it has no holes.
type log struct {
	kept    []kept
	dropped uint64 // the position of the last message that was dropped
}

// kept is a message that is kept until n newer ones are in its log, or until a time.
type kept struct {
	position uint64
	data     []byte
	n        int
	until    time.Time
}

// Wipe loses all that is kept, as a server without a disk does that starts again. Connected nodes don't
// notice. Later messages have higher positions than all before.
func (m *Memory) Wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.past.logs, m.past.wiped = map[string]*log{}, m.past.position
}

// Trim drops what is kept of each topic, except for the last n messages.
func (m *Memory) Trim(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.past.logs {
		l.drop(len(l.kept) - n)
	}
}

// Keep implements [wsroom.Keeper]. It waits only while the server hangs.
func (n *Node) Keep(ctx context.Context, topic string, data []byte, most int, d time.Duration) error {
	if err := n.server.wait(ctx); err != nil {
		return err
	}
	data = slices.Clone(data)
	n.server.mu.Lock()
	defer n.server.mu.Unlock()
	if n.cut {
		return ErrAway
	}

	p := &n.server.past
	it := item{position: p.next(), data: data}
	if n.server.lose > 0 {
		n.server.lose--
		p.lose(topic)
		it = item{lost: errLose}
	} else {
		p.add(topic, kept{it.position, data, most, time.Now().Add(d)})
	}

	for _, other := range n.server.nodes {
		if other.cut {
			continue
		}
		for _, i := range other.follows[topic] {
			i.put(it)
		}
	}
	return nil
}

// Follow implements [wsroom.Keeper].
func (n *Node) Follow(
	ctx context.Context, topic string, most int, deliver func(uint64, []byte), live func(), lost func(error),
) (stop func(), err error) {
	isLive := make(chan struct{})
	i := newInbox(deliver, lost)
	i.live = func() {
		live()
		close(isLive)
	}

	stop, err = n.begin(ctx, &n.follows, topic, i, func() { n.server.past.begin(topic, most, i) })
	if err != nil {
		return nil, err
	}
	select {
	case <-isLive:
		return stop, nil
	case <-ctx.Done():
		stop()
		return nil, context.Cause(ctx)
	}
}

// next returns the position of the next message. Positions follow the clock, as those of servers do that
// have no other memory of what they have lost.
func (p *past) next() uint64 {
	p.position = max(p.position+1, uint64(time.Now().UnixMilli())<<20)
	return p.position
}

// of returns a topic's log without what has lapsed.
func (p *past) of(topic string) *log {
	l := p.logs[topic]
	if l == nil {
		l = &log{}
		p.logs[topic] = l
	}

	lapsed, now := 0, time.Now()
	for i, k := range l.kept {
		if len(l.kept)-1-i < k.n && now.Before(k.until) {
			break
		}
		lapsed++
	}
	l.drop(lapsed)
	return l
}

func (p *past) add(topic string, k kept) {
	l := p.of(topic)
	l.kept = append(l.kept, k)
	p.of(topic)
}

// lose drops all that is kept of a topic, up to the position that the last message would have.
func (p *past) lose(topic string) {
	l := p.of(topic)
	l.drop(len(l.kept))
	l.dropped = p.position
}

// begin has a follower begin with the last messages of a topic.
func (p *past) begin(topic string, most int, i *inbox) {
	all := p.of(topic).kept
	for _, k := range all[max(0, len(all)-most):] {
		i.put(item{position: k.position, data: k.data})
	}
	i.put(item{live: true})
}

// catchUp has a follower go on after the position that it has seen.
func (p *past) catchUp(topic string, i *inbox) {
	l := p.of(topic)
	if i.seen < max(l.dropped, p.wiped) {
		i.put(item{lost: errGone})
	}
	for _, k := range l.kept {
		if k.position > i.seen {
			i.put(item{position: k.position, data: k.data})
		}
	}
}

// drop drops the n oldest messages, if n is greater than 0.
func (l *log) drop(n int) {
	if n <= 0 {
		return
	}
	l.dropped = l.kept[n-1].position
	clear(l.kept[:n])
	l.kept = l.kept[n:]
}

var _ wsroom.Keeper = (*Node)(nil)
