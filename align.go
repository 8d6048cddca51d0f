package wsroom

import (
	"context"
	"errors"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

// maxBatch is how many attendances a store is told of at once.
const maxBatch = 1000

// batchStore is a PresenceStore that takes many entries at once; see there.
type batchStore interface {
	EnterAll(ctx context.Context, entries [][2]string, node string) (first []bool, err error)
	ExitAll(ctx context.Context, entries [][2]string, node string) (last []bool, err error)
}

var errAnswers = errors.New("the presence store returned too few answers")

// task is what is being done for an attendance.
type task struct {
	*attendance
	duty
	as      standing // when it began
	changed bool     // the last call made a difference to others
	done    bool
	failed  bool // a call has, which may have had its effect
}

// alignSome brings the store into line for some of those in todo, or has that tried again. After close, what a
// store that fails isn't told lapses.
func (p *presence) alignSome() {
	some := p.take()
	if len(some) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()
	err := p.lease(ctx)
	tasks := p.tasks(some)
	if err == nil {
		err = p.do(ctx, tasks)
	}
	p.note(err)
	p.finish(tasks, err != nil)
	for _, t := range tasks {
		if t.done && t.changed && t.news {
			p.announce(t.as.present, t.room, t.identity)
		}
	}
}

// take takes the next attendances from todo, and has those after them follow.
func (p *presence) take() (some []*attendance) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed && p.failing {
		return nil
	}
	n, most := 0, p.most
	if p.probing {
		most = 1
	}
	for n < len(p.todo) && n < most {
		if a := p.todo[n]; a.among > 0 && a.among < most {
			if most = a.among; n >= most {
				break
			}
		}
		n++
	}
	some = p.todo[:n:n]
	for _, a := range some {
		a.queued, a.busy = false, true
	}
	if p.todo = p.todo[n:]; len(p.todo) > 0 {
		p.work.Add("align", p.alignSome)
	} else {
		p.todo = nil
	}
	return some
}

// tasks says what is to be done for each.
func (p *presence) tasks(some []*attendance) []*task {
	p.mu.Lock()
	defer p.mu.Unlock()
	tasks := make([]*task, len(some))
	for i, a := range some {
		t := &task{attendance: a, duty: duties[a.standing], as: a.standing}
		t.done = t.then == none
		tasks[i] = t
	}
	return tasks
}

// do calls the store: first what undoes something, then what is to be. It stops where a call fails.
func (p *presence) do(ctx context.Context, tasks []*task) error {
	for _, last := range []bool{false, true} {
		for _, c := range []call{exit, enter} {
			var some []*task
			for _, t := range tasks {
				if !last && t.first == c || last && t.then == c {
					some = append(some, t)
				}
			}
			if err := p.call(ctx, c, some); err != nil {
				for _, t := range some {
					t.failed = true
				}
				return err
			}
			for _, t := range some {
				t.done = last
			}
		}
	}
	return nil
}

// call enters or exits, with one call of the store for all if there are many: most is 1 where it can't do that.
func (p *presence) call(ctx context.Context, c call, some []*task) error {
	switch len(some) {
	case 0:
		return nil
	case 1:
		f := p.store.Enter
		if c == exit {
			f = p.store.Exit
		}
		t := some[0]
		changed, err := f(ctx, p.key(t.room), t.identity, p.node)
		t.changed = changed
		return err
	}
	store := p.store.(batchStore)
	f := store.EnterAll
	if c == exit {
		f = store.ExitAll
	}
	entries := make([][2]string, len(some))
	for i, t := range some {
		entries[i] = [2]string{p.key(t.room), t.identity}
	}
	changed, err := f(ctx, entries, p.node)
	if err == nil && len(changed) != len(some) {
		err = errAnswers
	}
	if err != nil {
		return err
	}
	for i, t := range some {
		t.changed = changed[i]
	}
	return nil
}

// finish notes what became of the tasks. That a call fails may be due to one of many, or to the store: so one is tried by
// itself next, and those of the call then go with half as many.
func (p *presence) finish(tasks []*task, failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.probing = failed
	for _, t := range tasks {
		a := t.attendance
		a.busy = false
		if t.done {
			a.entered, a.unsure, a.among, a.retry = t.as.present, false, 0, 0
			p.tidy(a)
			continue
		}
		a.unsure = a.unsure || t.failed
		if t.failed && len(tasks) > 1 {
			a.among = len(tasks) / 2
		}
		p.tryAgain(a)
	}
}

// tryAgain aligns an attendance after a while; mu is locked.
func (p *presence) tryAgain(a *attendance) {
	a.retry = serial.NextRetry(a.retry)
	if a.again != nil { // one timer, however often it changes meanwhile
		a.again.Reset(a.retry)
		return
	}
	a.again = time.AfterFunc(a.retry, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.closed {
			p.align(a)
		}
	})
}
