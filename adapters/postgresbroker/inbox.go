package postgresbroker

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

var (
	errSlow  = errors.New("postgresbroker: the subscriber is too slow")
	errBegin = errors.New("postgresbroker: subscribed for the first time")
)

// inbox holds what waits for one subscriber. While it isn't empty, a goroutine handles it.
type inbox struct {
	handle  func(item)      // calls the subscriber by way of call
	follows bool            // it is told of its first subscription, too
	joined  chan struct{}   // closed by the line once it has subscribed
	ctx     context.Context // ends with the subscription
	cancel  func()
	turn    sync.Mutex // held while the subscriber is called
	stopped atomic.Bool

	mu      sync.Mutex // guards what follows
	waiting []item
	bytes   int // that they take
	busy    bool
}

// item is a message, or a report that some messages may have been missed.
type item struct {
	position uint64 // of a message that is kept
	data     string
	large    string // where the data of a message is that is too large for a notification
	lost     error
}

// size is what an item takes, in bytes.
func (it item) size() int { return 100 + len(it.data) }

func newInbox(follows bool) *inbox {
	i := &inbox{follows: follows, joined: make(chan struct{})}
	i.ctx, i.cancel = context.WithCancel(context.Background())
	return i
}

// subscribed is called by the line at each subscription. err is how the connection before ended.
func (i *inbox) subscribed(err error) {
	select {
	case <-i.joined: // on an earlier connection
		i.put(item{lost: err})
	default:
		close(i.joined)
		if i.follows {
			i.put(item{lost: cmp.Or(err, errBegin)})
		}
	}
}

// put never waits. It drops what is too much, and a report takes its place.
func (i *inbox) put(it item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopped.Load() {
		return
	}
	if i.bytes > 0 && i.bytes+it.size() > MaxBacklog {
		if i.waiting[len(i.waiting)-1].lost != nil {
			return
		}
		it = item{lost: errSlow}
	}
	i.waiting = append(i.waiting, it)
	i.bytes += it.size()
	if !i.busy {
		i.busy = true
		go i.work() // ends when nothing waits; stop waits for the current call
	}
}

func (i *inbox) work() {
	for it, ok := i.take(); ok; it, ok = i.take() {
		i.handle(it)
	}
}

func (i *inbox) take() (it item, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.waiting) == 0 {
		i.waiting, i.busy = nil, false
		return item{}, false
	}
	it = i.waiting[0]
	i.waiting[0] = item{}
	i.waiting = i.waiting[1:]
	i.bytes -= it.size()
	return it, true
}

// call runs f, which calls the subscriber, unless that has been stopped.
func (i *inbox) call(f func()) {
	i.turn.Lock()
	defer i.turn.Unlock()
	if !i.stopped.Load() {
		f()
	}
}

// stop returns when the subscriber isn't being called, and won't be called again.
func (i *inbox) stop() {
	i.stopped.Store(true)
	i.cancel()
	i.mu.Lock()
	i.waiting, i.bytes = nil, 0
	i.mu.Unlock()
	i.turn.Lock() // waits for the current call
	defer i.turn.Unlock()
}
