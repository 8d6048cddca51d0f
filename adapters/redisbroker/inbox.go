package redisbroker

import (
	"cmp"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

var (
	errSlow  = errors.New("redisbroker: the subscriber is too slow")
	errBegin = errors.New("redisbroker: subscribed for the first time")
)

// inbox holds what waits for one subscriber. While it isn't empty, a goroutine handles it.
type inbox struct {
	handle  func(item)      // calls the subscriber by way of call
	direct  func(item) bool // reports whether the line's goroutine may handle the item; nil: none. mu is locked
	follows bool            // it is told of its first subscription, too
	joined  chan struct{}   // closed by the line once it has subscribed
	turn    sync.Mutex      // held while the subscriber is called
	stopped atomic.Bool

	mu      sync.Mutex // guards what follows
	waiting []item
	bytes   int // of the messages that wait
	busy    bool
	took    time.Duration // for the last item, if direct isn't nil
}

// item is a message, a report that some messages may have been missed, or a follower's timer.
type item struct {
	data string
	lost error
	idle bool
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

// hear takes a message. If it is alone, the caller may handle it.
func (i *inbox) hear(it item, alone bool) {
	i.mu.Lock()
	if !alone || len(it.data) > small || i.direct == nil || i.busy || i.took > atOnce || !i.direct(it) {
		i.add(it)
		i.mu.Unlock()
		return
	}
	i.busy = true
	i.mu.Unlock()
	i.timed(it)

	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy = len(i.waiting) > 0; i.busy {
		go i.work()
	}
}

// put never waits. It drops what is too much, and a report takes its place.
func (i *inbox) put(it item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.add(it)
}

func (i *inbox) add(it item) {
	if i.stopped.Load() {
		return
	}
	if i.bytes > 0 && i.bytes+len(it.data) > MaxBacklog {
		if i.waiting[len(i.waiting)-1].lost != nil {
			return
		}
		it = item{lost: errSlow}
	}
	i.waiting = append(i.waiting, it)
	i.bytes += len(it.data)
	if !i.busy {
		i.busy = true
		go i.work() // ends when nothing waits; stop waits for the current call
	}
}

func (i *inbox) work() {
	for it, ok := i.take(); ok; it, ok = i.take() {
		i.timed(it)
	}
}

// timed handles an item and notes how long that took. The inbox is busy.
func (i *inbox) timed(it item) {
	if i.direct == nil {
		i.handle(it)
		return
	}
	began := time.Now()
	i.handle(it)
	took := time.Since(began)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.took = took
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
	i.bytes -= len(it.data)
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
	i.mu.Lock()
	i.waiting, i.bytes = nil, 0
	i.mu.Unlock()
	i.turn.Lock() // waits for the current call
	defer i.turn.Unlock()
}
