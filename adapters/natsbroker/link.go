package natsbroker

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	probeHeader = "Wsroom-Probe"
	probePause  = 100 * time.Millisecond
)

// listener is a subscription or a follower.
type listener interface {
	// receive takes a message from the stream, in the stream's order. If mine is true, the caller is to have the
	// inbox handle it. That may be for one that came alone.
	receive(m *nats.Msg, alone bool) (it item, mine bool)
	begin(ctx context.Context) error // returns when it is joined for the first time
	cut()                            // after a reconnect
	base() *link
}

// link is the way of a topic's messages from a stream to a subscription or follower. It is joined when a
// probe, a message without content, has come back: then all that the stream takes comes this way.
type link struct {
	b      *Broker
	flow   *flow
	topic  string
	probes string // the subject
	inbox  *inbox
	sub    *nats.Subscription
	step   func(ctx context.Context) (done bool, err error) // of joining again; err is for good
	wait   func(ctx context.Context)                        // before each step
	ctx    context.Context                                  // ends with the link
	end    context.CancelFunc

	mu         sync.Mutex // guards what follows
	epoch      uint64     // of the connection on which a probe last came back
	joining    bool       // a goroutine is joining it again
	again      bool       // and must begin anew
	token      string     // of the current probe
	tokenEpoch uint64
	returned   chan struct{} // closed when the current probe has come back
}

func (b *Broker) newLink(from *flow, topic, probes string) *link {
	l := &link{b: b, flow: from, topic: topic, probes: probes, wait: func(context.Context) {}}
	l.ctx, l.end = context.WithCancel(context.Background())
	return l
}

func (l *link) base() *link { return l }

// isBack reports whether this is the current probe, on the current connection. It is called with the lock
// held.
func (l *link) isBack(m *nats.Msg) bool {
	probe := m.Header.Get(probeHeader)
	return probe != "" && probe == l.token && l.tokenEpoch == l.b.epoch()
}

// back notes that the current probe has come back. It is called with the lock held.
func (l *link) back() {
	l.epoch, l.token = l.tokenEpoch, ""
	close(l.returned)
}

// rejoin has the link joined again. It is called with the lock held.
func (l *link) rejoin() {
	l.again = true
	if !l.joining {
		l.joining = true
		go l.join() // runs until it is joined or ends
	}
}

func (l *link) join() {
	for {
		l.wait(l.ctx) // takes no turn from others
		l.b.turns <- struct{}{}
		l.mu.Lock()
		l.again = false
		l.mu.Unlock()
		done, err := l.step(l.ctx)
		<-l.b.turns

		l.mu.Lock()
		l.joining = err == nil && (!done || l.again || l.epoch != l.b.epoch())
		again := l.joining
		l.mu.Unlock()
		if !again {
			return
		}
	}
}

func (l *link) stale() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch != l.b.epoch()
}

// probe publishes probes until one of them has come back. Then messages from the stream reach this link.
func (l *link) probe(ctx context.Context) error {
	var err error
	for {
		token, back := l.newToken()
		m := nats.NewMsg(l.probes)
		m.Header.Set(probeHeader, token)
		if failed := l.b.publish(ctx, l.flow, l.topic, m); failed != nil {
			err = failed
		}
		if r := (rejected{}); errors.As(err, &r) {
			return err
		}
		select {
		case <-back:
			return nil
		case <-ctx.Done():
			return cmp.Or(err, context.Cause(ctx))
		case <-time.After(probePause):
		}
	}
}

func (l *link) newToken() (token string, back <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.token, l.tokenEpoch, l.returned = nats.NewInbox(), l.b.epoch(), make(chan struct{})
	return l.token, l.returned
}

func sequence(m *nats.Msg, header string) uint64 {
	n, _ := strconv.ParseUint(m.Header.Get(header), 10, 64)
	return n
}
