// Package serial runs calls one after the other with no lock held. It also says when a failed call is tried
// again. It knows nothing of what it runs.
package serial

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/wsroom/wsroom/internal/lookup"
)

// Queue runs calls one after the other, on a goroutine that exists only while there are calls. Each call
// has a key. A call isn't added while another one with the same key waits. The zero value is ready to use.
// All methods may be called concurrently.
type Queue struct {
	mu      sync.Mutex // guards the rest
	waiting []call
	keys    map[string]bool // keys of the waiting calls
	most    int             // see lookup.Delete
	running bool
	idle    chan struct{} // closed when no call is left; nil if nobody waits for that
}

type call struct {
	key string
	run func()
}

// Add adds a call after all that wait.
func (q *Queue) Add(key string, run func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.insert(len(q.waiting), call{key, run})
}

// AddFirst adds a call before all that wait.
func (q *Queue) AddFirst(key string, run func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.insert(0, call{key, run})
}

func (q *Queue) insert(at int, next call) {
	if q.keys[next.key] {
		return
	}
	if q.keys == nil {
		q.keys = map[string]bool{}
	}
	q.keys[next.key] = true
	q.waiting = slices.Insert(q.waiting, at, next)
	if !q.running {
		q.running = true
		go q.runAll()
	}
}

// runAll runs calls until none waits.
func (q *Queue) runAll() {
	over := false
	defer func() {
		if !over { // a call has ended the goroutine
			go q.runAll()
		}
	}()
	for run := q.next(); run != nil; run = q.next() {
		run()
	}
	over = true
}

func (q *Queue) next() func() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.running, q.waiting = false, nil
		if q.idle != nil {
			close(q.idle)
			q.idle = nil
		}
		return nil
	}
	first := q.waiting[0]
	q.waiting[0] = call{}
	q.waiting = q.waiting[1:]
	q.keys = lookup.Delete(q.keys, first.key, &q.most)
	return first.run
}

// Wait returns when no call is left, or when ctx is done.
func (q *Queue) Wait(ctx context.Context) {
	q.mu.Lock()
	if q.running && q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
}

// minRetry and maxRetry bound the time after which a failed call is tried again.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
)

// NextRetry returns how long to wait before a failed call is tried again: twice the last wait, at least 50
// ms and at most 1 s.
func NextRetry(last time.Duration) time.Duration { return min(max(2*last, minRetry), maxRetry) }
