package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// lookEvery is how often a stream's limits are looked at: two nodes that raise them at the same moment
	// may undo each other's change.
	lookEvery = time.Minute

	// ahead is how many numbers there are at least between a stream's last message and those that it goes on
	// with if its data is lost.
	ahead = 1 << 28

	// shortest is the shortest time that a stream keeps messages.
	shortest = time.Second
)

// flow is a stream that publishes again what it takes. It is created if there is none.
type flow struct {
	js   jetstream.JetStream
	turn chan struct{} // holds one element while the limits are looked at

	mu     sync.Mutex             // guards what follows
	config jetstream.StreamConfig // what the stream must have at least
	found  jetstream.StreamConfig // what it had when its limits were last looked at
	looked time.Time              // when that was; zero if it must be looked at again
	newest uint64                 // the highest number that the stream is known to have given
	heard  map[uint64]uint64      // the last number that has come from it, by the connection's number
}

func newFlow(js jetstream.JetStream, config jetstream.StreamConfig) *flow {
	return &flow{js: js, turn: make(chan struct{}, 1), config: config, heard: map[uint64]uint64{}}
}

// want raises what the stream must keep of each topic, at least: n messages, for d.
func (f *flow) want(n int, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if int64(n) > f.config.MaxMsgsPerSubject || d > f.config.MaxAge {
		f.config.MaxMsgsPerSubject = max(f.config.MaxMsgsPerSubject, int64(n))
		f.config.MaxAge = max(f.config.MaxAge, d)
		f.looked = time.Time{}
	}
}

// due reports whether the stream's limits must be looked at.
func (f *flow) due() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return (f.config.Replicas > 1 || f.config.AllowDirect) && time.Since(f.looked) > lookEvery
}

// prepare raises the limits of an existing stream, unless that was done in the last minute.
func (f *flow) prepare(ctx context.Context) error {
	if !f.due() {
		return nil
	}
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if !f.due() { // another call has just done so
		return nil
	}

	f.mu.Lock()
	want := f.config
	f.mu.Unlock()
	found, err := raise(ctx, f.js, want)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // it will be created as wanted
		return nil
	}
	if err != nil {
		return err
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = found
	if f.config.MaxMsgsPerSubject == want.MaxMsgsPerSubject && f.config.MaxAge == want.MaxAge {
		f.looked = time.Now()
	}
	return nil
}

// create makes the stream, unless there is one. Its numbers rise even after those of a deleted stream.
func (f *flow) create(ctx context.Context) error {
	f.mu.Lock()
	config := f.config
	config.FirstSeq = max(uint64(time.Now().UnixNano()), f.newest+1)
	f.looked = time.Time{}
	f.mu.Unlock()
	return makeStream(ctx, f.js, config)
}

// stored notes the number of a message. The stream is looked at again if its numbers have come to where they
// begin when its data is lost.
func (f *flow) stored(seq uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = max(f.newest, seq)
	if f.config.AllowDirect && seq >= f.found.FirstSeq {
		f.looked = time.Time{}
	}
}

// age returns how long the stream keeps messages. 0 means for ever, or that it isn't known.
func (f *flow) age() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found.MaxAge
}

// hear notes the number of a message that has come from the stream on a connection.
func (f *flow) hear(epoch, seq uint64) {
	const connections = 16
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard[epoch] = seq
	f.newest = max(f.newest, seq)
	if len(f.heard) > connections {
		for e := range f.heard {
			if e+connections <= epoch {
				delete(f.heard, e)
			}
		}
	}
}

// heardOn returns the number of the last message that has come from the stream on a connection. Messages
// come in order, so what was published before it has come as well, for all that was subscribed to.
func (f *flow) heardOn(epoch uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard[epoch]
}

// raise raises an existing stream's replicas and, if it is read from, its limits. It never lowers them. It
// returns what the stream has then.
func raise(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig) (has jetstream.StreamConfig, err error) {
	if want.Replicas <= 1 && !want.AllowDirect {
		return want, nil
	}
	found := false
	err = insist(ctx, func(ctx context.Context) error { // a call without an answer may have taken effect
		s, err := js.Stream(ctx, want.Name)
		if err != nil {
			return err
		}
		info := s.CachedInfo()
		found, has = true, info.Config
		config := has
		if !lift(&config, want, info.State.LastSeq) {
			return nil
		}
		_, err = js.UpdateStream(ctx, config)
		if err == nil {
			has = config
		}
		return err
	})
	switch {
	case err == nil || !found:
		return has, err
	case has.Replicas < want.Replicas:
		return has, fmt.Errorf("WithReplicas(%d): the stream %s has %d, and the server doesn't change that: %w", want.Replicas, want.Name, has.Replicas, err)
	default:
		return has, fmt.Errorf("the stream %s keeps %d messages of a topic for %v, and the server doesn't change that to %d for %v: %w",
			want.Name, has.MaxMsgsPerSubject, has.MaxAge, want.MaxMsgsPerSubject, want.MaxAge, err)
	}
}

// lift raises what is lower in has than wanted, and reports whether it has changed something.
func lift(has *jetstream.StreamConfig, want jetstream.StreamConfig, last uint64) bool {
	changed := false
	set := func(lower bool, change func()) {
		if lower {
			change()
			changed = true
		}
	}
	set(has.Replicas < want.Replicas, func() { has.Replicas = want.Replicas })
	if !want.AllowDirect {
		return changed
	}
	set(!has.AllowDirect, func() { has.AllowDirect = true })
	set(has.MaxMsgsPerSubject > 0 && has.MaxMsgsPerSubject < want.MaxMsgsPerSubject,
		func() { has.MaxMsgsPerSubject = want.MaxMsgsPerSubject })
	set(has.MaxAge > 0 && has.MaxAge < want.MaxAge, func() { has.MaxAge = want.MaxAge })
	set(has.MaxBytes > 0 && has.MaxBytes < want.MaxBytes, func() { has.MaxBytes = want.MaxBytes })

	// A cluster begins again with FirstSeq when the data is lost. It must be higher than all numbers before.
	set(has.FirstSeq <= last+ahead/2, func() { has.FirstSeq = max(last+ahead, uint64(time.Now().UnixNano())) })
	return changed
}

// makeStream creates a stream unless it exists.
func makeStream(ctx context.Context, js jetstream.JetStream, config jetstream.StreamConfig) error {
	err := insist(ctx, func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, config)
		return err
	})
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("make the stream: %w", err)
	}
	return nil
}

// insist asks again after half a second, because a cluster doesn't answer requests about a stream that has
// no leader yet.
func insist(ctx context.Context, ask func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		err := ask(try)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
	}
}
