package serial

import (
	"context"
	"sync"
)

// Chain runs calls one after the other that must first wait for something: all wait at the same time, each on
// a goroutine of its own, and then run in the order in which they were added. The zero value is ready to use.
// All methods may be called concurrently.
type Chain struct {
	mu   sync.Mutex    // guards the rest
	last chan struct{} // closed when the last call has run; nil if there is none
	n    int           // calls that haven't run
}

// Add adds a call, unless limit calls are there already: then it returns false. ready is called at once, and
// run with its error once ready and all calls before have returned.
func (c *Chain) Add(limit int, ready func() error, run func(error)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n >= limit {
		return false
	}

	before, done := c.last, make(chan struct{})
	c.n++
	c.last = done
	go func() {
		defer c.end(done)
		err := ready()
		if before != nil {
			<-before
		}
		run(err)
	}()
	return true
}

func (c *Chain) end(done chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(done)
	if c.n--; c.n == 0 {
		c.last = nil
	}
}

// Len returns how many calls haven't returned, those that run included.
func (c *Chain) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// Wait returns when the calls that there are have run, or when ctx is done.
func (c *Chain) Wait(ctx context.Context) {
	c.mu.Lock()
	last := c.last
	c.mu.Unlock()
	if last != nil {
		select {
		case <-last:
		case <-ctx.Done():
		}
	}
}
