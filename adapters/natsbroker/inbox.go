package natsbroker

import (
	"context"
	"errors"
	"sync"
	"time"
)

var errSlow = errors.New("natsbroker: the subscriber is too slow")

// inbox holds what waits for one subscriber. While it isn't empty, a goroutine delivers it.
type inbox struct {
	deliver func(position uint64, data []byte)
	live    func()
	lost    func(error)
	direct  bool       // what is received may be delivered by the goroutine that receives it
	turn    sync.Mutex // held while the subscriber is called

	mu      sync.Mutex // guards what follows
	waiting []item
	bytes   int // of the messages that wait
	busy    bool
	stopped bool
	took    time.Duration // for the last message, if direct
	freed   chan struct{} // if not nil: closed when there is room
}

// item is a message, a report that some messages may have been missed, or the end of what was kept.
type item struct {
	position uint64
	data     []byte
	lost     error
	live     bool
}

// hear takes a message. It returns true if the caller is to handle it. That may be if it is alone.
func (i *inbox) hear(it item, alone bool) (mine bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !alone || !i.direct || i.busy || i.stopped || i.took > atOnce || len(it.data) > small {
		i.add(it)
		return false
	}
	i.busy = true
	return true
}

// handle delivers what hear has left to the caller.
func (i *inbox) handle(it item) {
	i.turn.Lock()
	i.mu.Lock()
	stopped := i.stopped
	i.mu.Unlock()
	if !stopped {
		i.deliverTimed(it)
	}
	i.turn.Unlock()

	i.mu.Lock()
	defer i.mu.Unlock()
	if i.busy = len(i.waiting) > 0; i.busy {
		go i.work()
	}
}

// deliverTimed delivers a message and notes how long that took.
func (i *inbox) deliverTimed(it item) {
	if !i.direct {
		i.deliver(it.position, it.data)
		return
	}
	began := time.Now()
	i.deliver(it.position, it.data)
	took := time.Since(began)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.took = took
}

// put never waits. It drops what is too much, and lost takes its place.
func (i *inbox) put(it item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.add(it)
}

func (i *inbox) add(it item) {
	if i.stopped {
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
	for i.next() {
	}
}

// next delivers the oldest item, if there is one.
func (i *inbox) next() bool {
	i.turn.Lock()
	defer i.turn.Unlock()
	it, ok := i.take()
	switch {
	case !ok:
	case it.lost != nil:
		i.lost(it.lost)
	case it.live:
		i.live()
	default:
		i.deliverTimed(it)
	}
	return ok
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
	if i.freed != nil && i.bytes <= MaxBacklog/2 {
		close(i.freed)
		i.freed = nil
	}
	return it, true
}

// fits reports whether put takes this much.
func (i *inbox) fits(bytes int) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bytes == 0 || i.bytes+bytes <= MaxBacklog
}

// room waits until not much waits, or ctx ends.
func (i *inbox) room(ctx context.Context) {
	i.mu.Lock()
	if i.bytes <= MaxBacklog/2 {
		i.mu.Unlock()
		return
	}
	if i.freed == nil {
		i.freed = make(chan struct{})
	}
	freed := i.freed
	i.mu.Unlock()
	select {
	case <-freed:
	case <-ctx.Done():
	}
}

// stop returns when the subscriber isn't being called, and won't be called again.
func (i *inbox) stop() {
	i.mu.Lock()
	i.stopped, i.waiting, i.bytes = true, nil, 0
	i.mu.Unlock()
	i.turn.Lock() // waits for the current call
	defer i.turn.Unlock()
}
