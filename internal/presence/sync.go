package presence

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wsroom/wsroom/internal/serial"
)

var errAnswers = errors.New("the presence store returned too few answers")

// state is whether a member is present, and what the store and the other nodes know of it.
type state struct {
	present   bool // it has connections, or had within the grace
	entered   bool // the store has its entry, and its join was reported
	uncertain bool // a call that failed may have taken effect, which wasn't reported
}

// call is a call of the store.
type call int

const (
	none call = iota
	enter
	exit
)

// change brings the store into line with a state, by up to two calls.
type change struct {
	undo, last call
	differs    bool // a join or leave, if last is the first entry or the last exit of all nodes
}

const (
	no  = false
	yes = true
)

// changes has the change for each state. If a call that failed may have made the difference already, which wasn't
// reported, the opposite call goes first: then the last call's answer can be trusted.
var changes = map[state]change{
	// present, entered, uncertain: undo, last, differs
	{no, no, no}:    {none, none, no},
	{no, no, yes}:   {none, exit, no}, // Enter may have taken effect, and nobody was told
	{no, yes, no}:   {none, exit, yes},
	{no, yes, yes}:  {enter, exit, yes}, // Exit may have taken effect
	{yes, no, no}:   {none, enter, yes},
	{yes, no, yes}:  {exit, enter, yes}, // Enter may have taken effect
	{yes, yes, no}:  {none, none, no},
	{yes, yes, yes}: {none, enter, no}, // Exit may have taken effect, and nobody was told
}

// task is one member's sync while it runs.
type task struct {
	*member
	change
	began    state  // the member's, when the task began
	info     string // what it showed then; the last call stores it if it enters
	shown    string // what this node had stored then
	onlyNode bool   // the last call's answer: the member is there by way of no other node
	changed  bool   // the last call's answer: the member showed something else before
	done     bool
	failed   bool // a call failed, and may have taken effect
}

// sync has the store brought into line with the member; mu is locked.
func (b *Book) sync(m *member) {
	if m.queued {
		return
	}
	m.queued = true
	b.todo = append(b.todo, m)
	b.calls.Add("sync", b.syncNext)
}

// syncNext brings the store into line with the next members of todo. If a call fails, they are tried again later; once
// the Book is closed, their entries lapse instead.
func (b *Book) syncNext() {
	members := b.takeNext()
	if len(members) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTime)
	defer cancel()

	err := b.ensureLease(ctx)
	tasks := b.newTasks(members) // the lease may have changed their states
	if err == nil {
		err = b.run(ctx, tasks)
	}
	b.noteResult(err)
	b.finish(tasks, err != nil)

	for _, t := range tasks {
		b.reportTask(t)
	}
}

// reportTask reports what a task has changed. An update whose call failed may have taken effect.
func (b *Book) reportTask(t *task) {
	m := Member{t.room, t.identity, t.info}
	switch {
	case !t.done:
	case t.differs && t.onlyNode && t.began.present:
		b.event(joined, m)
	case t.differs && t.onlyNode:
		b.event(left, m)
	case t.last == enter && (t.changed || t.began.uncertain && t.info != t.shown):
		b.event(updated, m)
	}
}

// takeNext takes the next members from todo, as many as one call may have, and schedules the rest.
func (b *Book) takeNext() []*member {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed && b.failing {
		return nil
	}

	n := b.nextBatch()
	members := b.todo[:n:n]
	for _, m := range members {
		m.queued, m.busy = false, true
	}

	if b.todo = b.todo[n:]; len(b.todo) > 0 {
		b.calls.Add("sync", b.syncNext)
	} else {
		b.todo = nil
	}
	return members
}

// nextBatch returns how many members of todo one call may have: no more than the store takes, and than the limit of
// any of them allows; mu is locked.
func (b *Book) nextBatch() int {
	limit := b.batch
	if b.probing {
		limit = 1
	}

	for n, m := range b.todo {
		if m.limit > 0 {
			limit = min(limit, m.limit)
		}
		if n >= limit {
			return n
		}
	}
	return len(b.todo)
}

// newTasks makes the members' tasks.
func (b *Book) newTasks(members []*member) []*task {
	b.mu.Lock()
	defer b.mu.Unlock()

	tasks := make([]*task, len(members))
	for i, m := range members {
		t := &task{member: m, change: changes[m.state], began: m.state, info: m.info, shown: m.shown}
		if t.last == none && m.newer && m.present {
			t.last = enter // again, with its info
		}
		m.newer = false
		t.done = t.last == none
		tasks[i] = t
	}
	return tasks
}

// run calls the store: first all that undoes something, then all last calls. It stops where a call fails.
func (b *Book) run(ctx context.Context, tasks []*task) error {
	undo := func(t *task) call { return t.undo }
	last := func(t *task) call { return t.last }

	for _, c := range []call{exit, enter} {
		if err := b.callFor(ctx, c, only(tasks, c, undo)); err != nil {
			return err
		}
	}

	for _, c := range []call{exit, enter} {
		group := only(tasks, c, last)
		if err := b.callFor(ctx, c, group); err != nil {
			return err
		}
		for _, t := range group {
			t.done = true
		}
	}
	return nil
}

// only returns the tasks whose step is the call.
func only(tasks []*task, c call, step func(*task) call) []*task {
	var group []*task
	for _, t := range tasks {
		if step(t) == c {
			group = append(group, t)
		}
	}
	return group
}

// callFor enters or exits, and notes which tasks have failed.
func (b *Book) callFor(ctx context.Context, c call, tasks []*task) (err error) {
	showing := c == enter && slices.ContainsFunc(tasks, func(t *task) bool { return t.info != "" })
	switch store, ok := b.store.(infoStore); {
	case len(tasks) == 0:
		return nil
	case showing && ok:
		err = b.enterInfo(ctx, store, tasks)
	case len(tasks) == 1:
		err = b.callOne(ctx, c, tasks[0])
	default:
		err = b.callAll(ctx, c, tasks)
	}

	if err != nil {
		for _, t := range tasks {
			t.failed = true
		}
	}
	return err
}

// callOne enters or exits one member.
func (b *Book) callOne(ctx context.Context, c call, t *task) (err error) {
	method := b.store.Enter
	if c == exit {
		method = b.store.Exit
	}
	t.onlyNode, err = method(ctx, b.key(t.room), t.identity, b.node)
	return err
}

// enterInfo enters members with what they show.
func (b *Book) enterInfo(ctx context.Context, store infoStore, tasks []*task) error {
	entries := make([][3]string, len(tasks))
	for i, t := range tasks {
		entries[i] = [3]string{b.key(t.room), t.identity, t.info}
	}
	first, changed, err := store.EnterInfo(ctx, entries, b.node)
	if err == nil && (len(first) != len(tasks) || len(changed) != len(tasks)) {
		err = errAnswers
	}
	if err != nil {
		return err
	}

	for i, t := range tasks {
		t.onlyNode, t.changed = first[i], changed[i]
	}
	return nil
}

// callAll enters or exits many members by one call. The store is a batchStore: else there is one task at a time.
func (b *Book) callAll(ctx context.Context, c call, tasks []*task) error {
	store := b.store.(batchStore)
	method := store.EnterAll
	if c == exit {
		method = store.ExitAll
	}

	entries := make([][2]string, len(tasks))
	for i, t := range tasks {
		entries[i] = [2]string{b.key(t.room), t.identity}
	}
	answers, err := method(ctx, entries, b.node)
	if err == nil && len(answers) != len(tasks) {
		err = errAnswers
	}
	if err != nil {
		return err
	}

	for i, t := range tasks {
		t.onlyNode = answers[i]
	}
	return nil
}

// finish notes the results. A call may have failed because of one member, or because of the store. So the next call
// has one member, and those of the failed call are tried again in calls of half the size.
func (b *Book) finish(tasks []*task, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.probing = failed
	for _, t := range tasks {
		m := t.member
		m.busy = false

		if t.done {
			m.entered, m.uncertain = t.began.present, false
			m.limit, m.retryDelay = 0, 0
			if t.last == enter {
				m.shown = t.info
			}
			b.dropIfUnused(m)
			continue
		}

		m.uncertain = m.uncertain || t.failed
		m.newer = m.newer || t.info != ""
		if t.failed && len(tasks) > 1 {
			m.limit = len(tasks) / 2
		}
		b.retryLater(m)
	}
}

// retryLater syncs a member after a while; mu is locked.
func (b *Book) retryLater(m *member) {
	m.retryDelay = serial.NextRetry(m.retryDelay)
	if m.retry != nil { // one timer, however often the member changes meanwhile
		m.retry.Reset(m.retryDelay)
		return
	}

	m.retry = time.AfterFunc(m.retryDelay, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if !b.closed {
			b.sync(m)
		}
	})
}
