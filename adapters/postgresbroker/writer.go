package postgresbroker

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const (
	mostPosts = 1000    // in a transaction
	maxTopic  = 600     // bytes
	postBytes = 1 << 20 // after which a transaction takes no more messages
)

// writer sends messages in the order in which they come: at each time, in one transaction, all that wait. Its
// goroutine runs while some do.
type writer struct {
	send  func(ctx context.Context, posts []*post) error
	after func(ctx context.Context) // runs when those posts have been answered

	mu      sync.Mutex // guards what follows
	waiting []*post
	busy    bool
}

// post is a message on its way.
type post struct {
	ctx   context.Context
	topic []byte
	note  string // the topic and, if that is small, the data, as they stand in a notification
	data  []byte // if that isn't small, or is kept
	most  int64  // of a message that is kept
	age   int64  // of that, in microseconds
	done  chan error
}

// offer has a message sent, and waits no longer than ctx allows.
func (w *writer) offer(ctx context.Context, what, topic string, data []byte, n int, d time.Duration) error {
	if len(data) > MaxData {
		return tooLarge(len(data))
	}
	err := ctx.Err()
	if len(topic) > maxTopic {
		err = fmt.Errorf("a topic of %d bytes is longer than %d", len(topic), maxTopic) // and would fail others with it
	}
	if err == nil {
		p := newPost(ctx, topic, data, n, d)
		w.add(p)
		select {
		case err = <-p.done:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("postgresbroker: %s: %w", what, err)
	}
	return nil
}

// newPost copies data, which may be sent after ctx has ended.
func newPost(ctx context.Context, topic string, data []byte, n int, d time.Duration) *post {
	p := &post{
		ctx: ctx, topic: []byte(topic), note: encode(topic),
		most: int64(n), age: max(d.Microseconds(), 1), done: make(chan error, 1),
	}
	small := len(data) <= maxSmall
	if small {
		p.note += " " + encode(data)
	}
	if !small || n > 0 {
		p.data = append([]byte{}, data...)
	}
	return p
}

func (w *writer) add(p *post) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, p)
	if !w.busy {
		w.busy = true
		go w.work() // ends when nothing waits
	}
}

func (w *writer) work() {
	for posts := w.take(); posts != nil; posts = w.take() {
		w.handle(posts)
	}
}

func (w *writer) handle(posts []*post) {
	ctx, cancel := context.WithTimeout(context.Background(), callTime)
	defer cancel()
	err := w.send(ctx, posts)
	for _, p := range posts {
		p.done <- err
	}
	if err == nil && w.after != nil {
		w.after(ctx)
	}
}

// take returns what is to be sent next, in the order in which it came, or nil. It leaves out those for which
// nobody waits any more.
func (w *writer) take() (posts []*post) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size, taken := 0, 0
	for _, p := range w.waiting {
		if len(posts) == mostPosts || size > postBytes {
			break
		}
		taken++
		if p.ctx.Err() == nil {
			posts = append(posts, p)
			size += len(p.note) + len(p.data)
		}
	}
	clear(w.waiting[:taken])
	w.waiting = w.waiting[taken:]
	if len(posts) == 0 {
		w.waiting, w.busy = nil, false
	}
	return posts
}
