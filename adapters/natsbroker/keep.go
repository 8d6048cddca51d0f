package natsbroker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	keptStream = "wsroom-kept"
	keptIn     = "wsroom.keep." // to the stream, before the topic and one of these:
	keptData   = ".data"
	keptProbe  = ".probe"
	keptOut    = "wsroom.kept." // from it
)

var (
	errGone  = errors.New("natsbroker: messages that were missed aren't kept any more")
	errUsage = errors.New("natsbroker: n and d must be greater than 0")
)

// keptConfig is the stream of kept messages before any are asked for. Probes have subjects of their own, so
// that they displace no message.
func keptConfig(c config) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: keptStream, Description: "the last messages of wsroom's topics", Subjects: []string{keptIn + "*.*"},
		Storage: jetstream.MemoryStorage, Replicas: c.replicas, AllowDirect: true,
		MaxMsgsPerSubject: 1, MaxBytes: c.keep, MaxAge: shortest,
		RePublish: &jetstream.RePublish{Source: keptIn + "*.*", Destination: keptOut + "{{wildcard(1)}}"},
	}
}

// Keep implements [wsroom.Keeper]. It does what [Broker.Publish] says, by the stream wsroom-kept. That keeps
// of each topic as many messages as any call has asked for, for the longest time, within [WithKeepLimit].
// The limits of an existing stream are raised where they are lower.
func (b *Broker) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	if n < 1 || d <= 0 {
		return errUsage
	}
	b.kept.want(n, d)
	return b.publish(ctx, b.kept, topic, &nats.Msg{Subject: keptIn + encode(topic) + keptData, Data: data})
}

// Follow implements [wsroom.Keeper]. A position is the message's number in the stream. What is too much for
// a slow follower's backlog is read when it has room again, if it is still kept.
func (b *Broker) Follow(
	ctx context.Context, topic string, n int,
	deliver func(position uint64, data []byte), live func(), lost func(error),
) (stop func(), err error) {
	return b.follow(ctx, topic, n, deliver, live, lost, false)
}

// FollowDirect is [Broker.Follow] for a deliver that returns at once, as [Broker.SubscribeDirect] is for
// Subscribe; see [wsroom.Keeper].
func (b *Broker) FollowDirect(
	ctx context.Context, topic string, n int,
	deliver func(position uint64, data []byte), live func(), lost func(error),
) (stop func(), err error) {
	return b.follow(ctx, topic, n, deliver, live, lost, true)
}

func (b *Broker) follow(
	ctx context.Context, topic string, n int,
	deliver func(position uint64, data []byte), live func(), lost func(error), direct bool,
) (stop func(), err error) {
	if n < 1 {
		return nil, errUsage
	}
	b.kept.want(n, shortest)
	f := &follower{link: b.newLink(b.kept, topic, keptIn+encode(topic)+keptProbe), n: n, catching: true, lively: make(chan struct{})}
	f.inbox = &inbox{deliver: deliver, lost: lost, direct: direct, live: func() {
		live()
		close(f.lively)
	}}
	f.link.step, f.wait = f.step, f.inbox.room
	return b.listen(ctx, f, keptOut+encode(topic))
}

// follower is one follower of one topic.
//
// As long as each message that comes names the one before as its predecessor, it goes to the inbox. When
// one doesn't, after a reconnect, and when the inbox is full, the follower catches up: what comes is held,
// what is kept since the last message is read, and what is held follows on that.
type follower struct {
	*link
	n      int
	lively chan struct{} // closed when live has returned

	// Guarded by the link's lock.
	at       uint64    // the number of the last message that went to the inbox; 0: none
	stored   time.Time // when it was, by the server's clock
	gone     bool      // it is known not to be kept any more
	began    bool      // live is in the inbox
	past     int       // how many messages are in the inbox before live
	last     uint64    // the number of the last message that came, probes included
	now      time.Time // when the last probe was stored that came back, by the server's clock
	catching bool
	cause    error  // of catching up
	sure     uint64 // while catching up: all messages up to this number of the stream have come
	held     []*nats.Msg
	bytes    int // of these
	dropped  int // how many messages nats.go has dropped on the way
}

func (f *follower) receive(m *nats.Msg, alone bool) (it item, mine bool) {
	seq := sequence(m, jetstream.SequenceHeader)
	defer f.flow.hear(f.b.epoch(), seq)
	f.mu.Lock()
	defer f.mu.Unlock()
	backward := seq <= f.last
	f.last = seq
	if m.Header.Get(probeHeader) != "" {
		if f.isBack(m) {
			f.now = storedAt(m)
			f.back()
		}
		return item{}, false
	}

	switch {
	case f.catching:
	case backward || !f.follows(m):
		f.catchUp(errGap)
	case seq <= f.at: // it has been read
		return item{}, false
	case !f.inbox.fits(len(m.Data)):
		f.catchUp(errSlow)
	default:
		it = f.next(m)
		return it, f.inbox.hear(it, alone)
	}
	f.hold(m)
	return item{}, false
}

// follows reports whether nothing is missing between the last message and this one.
func (f *follower) follows(m *nats.Msg) bool {
	before := sequence(m, jetstream.LastSequenceHeader)
	if before != 0 || f.at == 0 || f.gone {
		return before <= f.at
	}
	return f.aged(storedAt(m)) // the stream has no message before
}

func storedAt(m *nats.Msg) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, m.Header.Get(jetstream.TimeStampHeaer))
	return t
}

// put passes a message to the inbox.
func (f *follower) put(m *nats.Msg) { f.inbox.put(f.next(m)) }

// next notes that a message is the next one to go to the inbox.
func (f *follower) next(m *nats.Msg) item {
	f.at, f.stored, f.gone = sequence(m, jetstream.SequenceHeader), storedAt(m), false
	return item{position: f.at, data: m.Data}
}

// hold keeps a message back. If there are too many, they are read later.
func (f *follower) hold(m *nats.Msg) {
	if f.bytes+len(m.Data) > MaxBacklog {
		f.held, f.bytes = nil, 0
	}
	f.held = append(f.held, m)
	f.bytes += len(m.Data)
}

// cut has the follower catch up after a reconnect.
func (f *follower) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.catchUp(errCut)
}

func (f *follower) catchUp(cause error) {
	f.lag(cause)
	f.rejoin()
}

// lag has what comes from now on held, until the follower has caught up.
func (f *follower) lag(cause error) {
	if f.catching {
		return
	}
	f.catching, f.cause, f.sure = true, cause, f.flow.heardOn(f.epoch)
	if n, err := f.sub.Dropped(); err == nil && n != f.dropped { // then one that has come says nothing of others
		f.dropped, f.sure = n, f.at
	}
}

// begin returns when live has returned.
func (f *follower) begin(ctx context.Context) error {
	for done := false; !done; {
		var err error
		f.wait(ctx)
		if done, err = f.step(ctx); err != nil {
			return err
		}
	}
	select {
	case <-f.lively:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// step reads what is kept after the last message, or the next part of it. It reports whether the follower
// has caught up.
func (f *follower) step(ctx context.Context) (done bool, err error) {
	f.mu.Lock()
	f.lag(errCut) // another reconnect may have come when it had just caught up
	f.mu.Unlock()
	if err := f.probe(ctx); err != nil {
		return false, err
	}

	f.mu.Lock()
	if f.at > f.last { // the stream's numbers have begun again with lower ones
		f.at, f.sure = 0, 0
	}
	at, heard, anew := f.at, f.last, f.anew()
	f.mu.Unlock()

	r, err := f.b.read(ctx, keptIn+encode(f.topic)+keptData, at)
	if err == nil && !anew && !r.has(at) {
		err = f.b.look(ctx, &r)
	}
	if err != nil {
		select {
		case <-ctx.Done():
			return false, cmp.Or(err, context.Cause(ctx))
		case <-time.After(probePause):
			return false, nil
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.merge(r, heard), nil
}

// anew reports whether nothing has been delivered or left out yet.
func (f *follower) anew() bool { return !f.began && f.at == 0 }

// merge passes on what has been read, and what is held if it follows on that. Messages up to the number
// heard had come before the read. It reports whether the follower has caught up.
func (f *follower) merge(r reading, heard uint64) (done bool) {
	if !f.anew() && !f.complete(r) {
		f.lose()
	}
	f.gone = !r.has(f.at)
	for i, m := range r.messages {
		seq := sequence(m, jetstream.SequenceHeader)
		switch {
		case seq <= f.at:
			continue
		case !f.began && f.past == 0 && r.after(i) >= f.n: // at most n before live
			f.at = seq
			continue
		case !f.inbox.fits(len(m.Data)):
			return false
		}
		if f.past++; f.past > f.n {
			f.goLive()
		}
		f.put(m)
	}
	if r.more > 0 {
		return false
	}
	f.goLive()
	f.sure = max(f.sure, heard)
	return f.release(heard)
}

// lose has lost called.
func (f *follower) lose() {
	f.inbox.put(item{lost: fmt.Errorf("%w: %w", errGone, cmp.Or(f.cause, errCut))})
}

func (f *follower) goLive() {
	if !f.began {
		f.began = true
		f.inbox.put(item{live: true})
	}
}

// complete reports whether all that came after the last message is still kept, so that nothing is missing
// before what has been read.
//
// The stream forgets the oldest first. So nothing is missing if the last message is still there. If it isn't,
// fewer than n newer ones have not displaced any of the topic. Then nothing is missing if the stream has
// forgotten only what was in it before the messages that have come on any topic, by age or by its limit. While
// the node was cut off, somebody may have removed messages of this topic.
func (f *follower) complete(r reading) bool {
	switch {
	case r.has(f.at):
		return true
	case len(r.messages) >= f.n || r.more > 0 || r.first <= f.at || r.first > f.sure+1:
		return false
	}
	return f.cause != errCut || f.at == 0 || f.gone || r.full || f.aged(f.now)
}

// aged reports whether the stream has forgotten the last message by its age.
func (f *follower) aged(now time.Time) bool {
	age := f.flow.age()
	return age > 0 && now.Sub(f.stored) >= age
}

// release passes on what is held. It reports whether all of it follows. What came before the read, and after
// a message that has not been found by that, comes after a gap.
func (f *follower) release(heard uint64) bool {
	for i, m := range f.held {
		seq, before := sequence(m, jetstream.SequenceHeader), sequence(m, jetstream.LastSequenceHeader)
		if seq > f.at {
			if before > f.at && seq > heard || !f.inbox.fits(len(m.Data)) {
				f.held = f.held[i:]
				return false
			}
			if before > f.at {
				f.lose()
			}
			f.put(m)
		}
		f.bytes -= len(m.Data)
	}
	f.held, f.bytes, f.catching, f.cause = nil, 0, false, nil
	return true
}

// beat publishes a probe for some follower, and looks for messages that nats.go has dropped on the way. By
// what comes a follower knows until when it has missed nothing, also if nothing comes for itself.
func (b *Broker) beat() {
	var one *follower
	b.mu.Lock()
	for l := range b.links {
		if f, ok := l.(*follower); ok {
			one = f
			f.check()
		}
	}
	b.mu.Unlock()

	if one != nil {
		m := nats.NewMsg(one.probes)
		m.Header.Set(probeHeader, "beat")
		_ = b.nc.PublishMsg(m) // fails if the connection is closed
	}
}

// check has the follower catch up if nats.go has dropped some of its messages.
func (f *follower) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n, err := f.sub.Dropped(); err == nil && n != f.dropped {
		f.catchUp(errSlow)
	}
}
