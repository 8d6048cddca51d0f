package wsroom

import (
	"context"
	"slices"
	"sync"
)

// errands are run one after the other, on a goroutine that there is only while there are any. Each has a
// key, and isn't added while one with its key waits. The zero value is ready.
type errands struct {
	mu      sync.Mutex // guards the rest
	todo    []errand
	waiting map[string]bool
	running bool
	idle    chan struct{} // closed when none is left; nil if nobody waits
}

type errand struct {
	key string
	run func()
}

func (e *errands) add(key string, run func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.insert(len(e.todo), errand{key, run})
}

// addFirst adds an errand that goes before all that wait.
func (e *errands) addFirst(key string, run func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.insert(0, errand{key, run})
}

func (e *errands) insert(at int, next errand) {
	if e.waiting[next.key] {
		return
	}
	if e.waiting == nil {
		e.waiting = map[string]bool{}
	}
	e.waiting[next.key] = true
	e.todo = slices.Insert(e.todo, at, next)
	if !e.running {
		e.running = true
		go e.runAll()
	}
}

func (e *errands) runAll() {
	over := false
	defer func() {
		if !over { // one of them ended the goroutine
			go e.runAll()
		}
	}()
	for run := e.next(); run != nil; run = e.next() {
		run()
	}
	over = true
}

func (e *errands) next() func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.todo) == 0 {
		e.running = false
		if e.idle != nil {
			close(e.idle)
			e.idle = nil
		}
		return nil
	}
	first := e.todo[0]
	e.todo[0] = errand{}
	e.todo = e.todo[1:]
	delete(e.waiting, first.key)
	return first.run
}

// wait returns when none is left, or ctx is done.
func (e *errands) wait(ctx context.Context) {
	e.mu.Lock()
	if e.running && e.idle == nil {
		e.idle = make(chan struct{})
	}
	idle := e.idle
	e.mu.Unlock()
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
		}
	}
}
