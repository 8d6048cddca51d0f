package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

const (
	readTime  = 10 * time.Second // for which a read of what was missed is tried, and for which one may take
	readBytes = 1 << 20          // after which a read ends
	readMost  = 1000             // messages in a read
)

var (
	errGone     = errors.New("what was missed isn't kept any more")
	errReplaced = errors.New("the server has started again or failed over, and may not have all")
	errBack     = errors.New("redisbroker: ids of messages have gone back")
	errForeign  = errors.New("redisbroker: a message that Keep hasn't sent")
)

// Keep implements [wsroom.Keeper]. It takes as long to fail as [Broker.Publish], and in the same cases, also
// for more than [MaxData]. Besides, it fails where Redis has no memory left. Redis trims in steps, so it keeps
// up to 100 messages more than n, about 4 KiB at most. It keeps all of a topic's messages until the last one
// has been kept for d, and up to 2 minutes more.
func (b *Broker) Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error {
	if n <= 0 || d <= 0 {
		return fmt.Errorf("redisbroker: keep: %d messages for %v: both must be greater than 0", n, d)
	}
	l, prefix := b.locate(topic)
	publish := "PUBLISH"
	if b.sharded {
		publish = "SPUBLISH"
	}

	return l.offer(ctx, "keep", data, func(over rueidis.CommandClient, message string) error {
		args := []string{
			message, strconv.Itoa(n), inMs(d),
			publish, prefix + topic, idOf(l.newest.Load()), inMs(b.hold),
		}
		var answer rueidis.RedisResult
		if client, ok := over.(rueidis.Client); ok {
			answer = keepScript.Exec(ctx, client, keys(prefix, topic), args)
		} else {
			answer = over.Do(ctx, over.B().Evalsha().Sha1(keepSHA).Numkeys(2).Key(keys(prefix, topic)...).Arg(args...).Build())
		}
		id, err := answer.ToString()
		l.saw(position(id))
		return err
	})
}

// keys returns the keys of a topic: those of keptBase.
func keys(prefix, topic string) []string {
	return []string{prefix + "h:" + topic, prefix + "l:" + topic}
}

func inMs(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

// position returns the position of the message with that id, ms-number, or 0 if Keep makes no such ids.
func position(id string) uint64 {
	ms, number, _ := strings.Cut(id, "-")
	high, err := strconv.ParseUint(ms, 10, 44)
	low, err2 := strconv.ParseUint(number, 10, 20)
	if err != nil || err2 != nil {
		return 0
	}
	return high<<20 | low
}

// idOf undoes position.
func idOf(position uint64) string { return fmt.Sprintf("%d-%d", position>>20, position&(1<<20-1)) }

// saw notes a position, so that those of streams that this broker begins are higher. That matters where Redis
// has lost its data and its clock was set back.
func (l *line) saw(position uint64) {
	for {
		newest := l.newest.Load()
		if position <= newest || l.newest.CompareAndSwap(newest, position) {
			return
		}
	}
}

// Follow implements [wsroom.Keeper]. It waits for Redis as long as ctx allows. An answer of Redis that says
// that the topic can't be read is an error at once. The past that it begins with is in memory as a whole,
// n messages at most. What comes later waits up to [MaxBacklog]; what is too much is read again when the
// follower has handled that, and lost is called only if it isn't kept any more.
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
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redisbroker: follow: %w", err)
	}
	l, prefix := b.locate(topic)
	f := &follower{
		inbox: inbox{follows: true, joined: make(chan struct{})},
		line:  l, keys: keys(prefix, topic), hold: b.hold, n: n,
		deliver: deliver, live: live, lost: lost, begun: make(chan error, 1),
	}
	f.handle = f.receive
	if direct {
		f.direct = f.goesOn
	}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	f.timer = time.AfterFunc(b.hold/4+rand.N(b.hold/4), func() { f.put(item{idle: true}) })

	l.add(prefix+topic, &f.inbox)
	stop = func() {
		l.remove(prefix+topic, &f.inbox)
		f.cancel()
		f.timer.Stop()
		f.stop()
	}
	select {
	case err = <-f.begun:
	case <-ctx.Done():
		err = fmt.Errorf("%w (last error: %v)", ctx.Err(), l.lastError())
	}
	if err != nil {
		stop()
		return nil, fmt.Errorf("redisbroker: follow: %w", err)
	}
	return stop, nil
}

// follower is an inbox with the place that it has reached in what is kept. What it receives tells it to go
// on, or to read. Except for what inbox says, only the inbox's goroutine uses what changes.
type follower struct {
	inbox
	line    *line
	keys    []string
	hold    time.Duration
	n       int
	deliver func(position uint64, data []byte)
	live    func()
	lost    func(error)
	ctx     context.Context // ends with the subscription
	cancel  func()
	begun   chan error // how the beginning went
	timer   *time.Timer

	isLive bool
	source string // the replication id of the last answer
	last   uint64 // the position that has been reached; later ones are higher
	heard  uint64 // of the last message that was published, or 0 right after a read
}

// receive takes what comes over the subscription.
func (f *follower) receive(it item) {
	id, data, _ := strings.Cut(it.data, " ")
	p := position(id)
	switch {
	case f.ctx.Err() != nil:
	case it.idle:
		f.rest()
	case it.lost != nil && !f.isLive:
		f.begin()
	case it.lost != nil:
		f.repair(it.lost)
	case !f.isLive: // of an earlier subscription that is ending; begin reads it
	case p == 0:
		f.tell(errForeign)
	case p > f.last:
		f.heard = p
		f.pass(p, data)
	case f.heard > 0 && p > f.heard: // it has been read
		f.heard = p
	default: // as it is for the first one that has been read, and where Redis has lost its data
		f.repair(errBack)
		f.heard = p
	}
}

// goesOn reports whether the item is the next message, for which nothing is read. The inbox isn't busy, and mu is
// locked.
func (f *follower) goesOn(it item) bool {
	id, _, _ := strings.Cut(it.data, " ")
	return f.isLive && position(id) > f.last
}

func (f *follower) pass(p uint64, data string) {
	f.last = p
	f.line.saw(p)
	f.call(func() { f.deliver(p, []byte(data)) })
}

func (f *follower) tell(err error) { f.call(func() { f.lost(err) }) }

// begin delivers the end of what is kept.
func (f *follower) begin() {
	past, err := f.past()
	if err != nil {
		f.cancel()
		f.begun <- err // the only one: nothing is received any more
		return
	}
	for _, m := range past {
		f.pass(m.position, m.data)
	}
	f.isLive = true
	f.call(f.live)
	f.begun <- nil
}

// past reads the last messages that are kept, up to n. It tries for as long as Follow waits.
func (f *follower) past() (past []message, err error) {
	from := "+"
	for more := true; more && len(past) < f.n; {
		page, err := f.insist(0, from, "XREVRANGE", "-", min(f.n-len(past), readMost))
		if err != nil {
			return nil, err
		}
		if from == "+" {
			f.source, f.last = page.source, page.end
			if len(page.messages) > 0 {
				f.last = max(f.last, page.messages[0].position)
			}
		}
		past = append(past, page.messages...)
		from, more = "("+idOf(page.end), page.more
	}
	slices.Reverse(past)
	return past, nil
}

// repair delivers what was missed. If something is missing of it, lost is called before.
func (f *follower) repair(cause error) {
	f.heard = 0
	for more := true; more; {
		page, err := f.insist(readTime, idOf(f.last), "XRANGE", "+", readMost)
		switch {
		case f.ctx.Err() != nil:
			return
		case err != nil:
			f.tell(fmt.Errorf("%w; what was missed can't be read: %w", cause, err))
			return
		case !page.found:
			f.tell(fmt.Errorf("%w; %w", cause, errGone))
		case page.source != f.source:
			f.tell(fmt.Errorf("%w; %w", cause, errReplaced))
		}

		f.source = page.source
		for _, m := range page.messages {
			f.pass(m.position, m.data)
		}
		f.last = max(f.last, page.end)
		more = page.more
	}
}

// rest keeps the id of the last message from being forgotten where nothing comes for long. So a follower
// that is cut off then knows afterwards that it has missed nothing.
func (f *follower) rest() {
	if f.isLive {
		ctx, cancel := context.WithTimeout(f.ctx, readTime)
		defer cancel()
		args := []string{idOf(f.last), inMs(f.hold)}
		_ = idleScript.Exec(ctx, f.line.client, f.keys, args).Error() // at worst, lost is called
	}
	if f.ctx.Err() == nil {
		f.timer.Reset(f.hold / 2)
	}
}

// page is an answer of readScript.
type page struct {
	source   string
	found    bool
	end      uint64
	more     bool
	messages []message
}

type message struct {
	position uint64
	data     string
}

// insist reads what is kept, again when that fails, for that time or, if it is 0, until the follower is
// stopped.
func (f *follower) insist(d time.Duration, from, command, to string, most int) (page, error) {
	const shortest, longest = 10 * time.Millisecond, time.Second
	began := time.Now()
	for pause := shortest; ; pause = min(2*pause, longest) {
		p, err := f.read(from, command, to, most)
		if err == nil || hopeless(err) || d > 0 && time.Since(began) > d {
			return p, err
		}
		select {
		case <-f.ctx.Done():
			return p, err
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// hopeless reports whether Redis has answered that it can't, and isn't in one of the states that pass.
func hopeless(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return errors.Is(err, errForeign)
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	return !slices.Contains([]string{
		"LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "MOVED", "ASK", "NOREPLICAS",
	}, word)
}

// read is one read. Few of a line's followers read at the same time.
func (f *follower) read(from, command, to string, most int) (page, error) {
	select {
	case f.line.reads <- struct{}{}:
		defer func() { <-f.line.reads }()
	case <-f.ctx.Done():
		return page{}, f.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(f.ctx, readTime)
	defer cancel()
	above := max(f.last, f.line.newest.Load())
	if from != "+" {
		above = f.last
	}
	answer, err := readScript.Exec(ctx, f.line.client, f.keys, []string{
		from, command, to, strconv.Itoa(most), strconv.Itoa(readBytes), idOf(above), inMs(f.hold),
	}).AsStrSlice()
	if err != nil {
		return page{}, err
	}
	p, err := pageOf(answer)
	f.line.saw(p.end) // what is kept from now on comes after it, even if Redis loses this, too
	return p, err
}

func pageOf(answer []string) (page, error) {
	p := page{source: answer[0], found: answer[1] == "1", end: position(answer[2]), more: answer[3] == "1"}
	for i := 4; i < len(answer); i += 2 {
		m := message{position(answer[i]), answer[i+1]}
		if m.position == 0 {
			return page{}, fmt.Errorf("%w: its id is %s", errForeign, answer[i])
		}
		p.messages = append(p.messages, m)
	}
	if p.end == 0 {
		return page{}, fmt.Errorf("%w: its id is %s", errForeign, answer[2])
	}
	return p, nil
}
