// Package redisbroker carries the rooms of wsroom's hubs between nodes over Redis 7 or newer, or Valkey, by
// publish and subscribe. It also keeps there the last messages of each room, in streams, and who is in which
// room.
//
//	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:6379"}})
//	…
//	hub := wsroom.New(wsroom.WithBroker(redisbroker.New(client)), …)
//
// Channels and keys begin with "wsroom:". On a cluster, channels are sharded: the topics are spread over 16
// hash slots. So each topic has one server, which orders its messages.
package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// MaxData is the size of the largest message, in bytes. It is half of Redis' default limit for what
	// waits for a subscriber (client-output-buffer-limit pubsub).
	MaxData = 16 << 20

	// MaxBacklog is how much may wait for one slow subscriber, in bytes. What comes beyond that isn't
	// delivered, and lost is called in its place.
	MaxBacklog = 16 << 20

	partitions = 16              // of the topics, on a cluster; all nodes must use the same number
	batch      = 500             // channels in a command
	reads      = 256             // of what is kept, at the same time over each line
	roleTime   = 5 * time.Second // between two looks whether the server of a line has become a replica

	// together is the longest time between two messages that came in one read. The second one is delivered by
	// another goroutine, so that those of many topics use all processors.
	together = 20 * time.Microsecond
	// atOnce is how long a delivery takes at most for the next one to be direct.
	atOnce = time.Millisecond
	// small is the size of the largest message that is sent over the connection of the subscriptions, and of the
	// largest one that is delivered directly, in bytes. On a slow line a larger one would hold up too much.
	small = 64 << 10
)

// Broker implements [wsroom.Broker] and [wsroom.Keeper]. [New] makes it. Its methods may be called concurrently.
type Broker struct {
	client  rueidis.Client
	sharded bool
	lines   []*line
	hold    time.Duration // see keptBase
}

// New returns a broker over a client, which it doesn't close. The caller closes the client when all
// subscriptions have been stopped. The client's mode says whether it is a cluster. While there are
// subscriptions the broker has a connection of its own for them, on a cluster up to 16. It sends messages of up to
// 64 KiB over these, too, so rueidis.ClientOption.RingScaleEachConn must not be less than 10, its default.
func New(client rueidis.Client) *Broker {
	b := &Broker{client: client, sharded: client.Mode() == rueidis.ClientModeCluster, hold: 2 * time.Minute}
	n := 1
	if b.sharded {
		n = partitions
	}
	for range n {
		b.lines = append(b.lines, &line{
			client: client, sharded: b.sharded, wake: make(chan struct{}, 1), reads: make(chan struct{}, reads),
			topics: map[string]*topic{}, changed: map[string]bool{},
		})
	}
	return b
}

// MaxData returns [MaxData], so that a hub refuses larger messages.
func (b *Broker) MaxData() int { return MaxData }

// locate returns the line that subscribes to a topic, and what its channel begins with. On a cluster, that
// is what says on which server the channel is.
func (b *Broker) locate(topic string) (l *line, prefix string) {
	if !b.sharded {
		return b.lines[0], "wsroom:"
	}
	h := fnv.New32a()
	h.Write([]byte(topic))
	n := h.Sum32() % partitions
	return b.lines[n], fmt.Sprintf("wsroom:{%d}:", n)
}

type tooLarge int

func (n tooLarge) Error() string {
	return fmt.Sprintf("redisbroker: a message of %d bytes is larger than %d", int(n), MaxData)
}

// Rejected reports that publishing the message again is of no use.
func (tooLarge) Rejected() bool { return true }

// Publish implements [wsroom.Broker]. It returns once Redis has passed the message on. While Redis is away
// it fails at once, or when ctx ends. The error for more than [MaxData] has a method Rejected that returns
// true.
func (b *Broker) Publish(ctx context.Context, topic string, data []byte) error {
	l, prefix := b.locate(topic)
	return l.offer(ctx, "publish", data, func(over rueidis.CommandClient, message string) error {
		if b.sharded {
			return over.Do(ctx, over.B().Spublish().Channel(prefix+topic).Message(message).Build()).Error()
		}
		return over.Do(ctx, over.B().Publish().Channel(prefix+topic).Message(message).Build()).Error()
	})
}

// offer has send, which uses ctx, take data to Redis, and waits no longer than ctx allows. It does so over the
// connection of the subscriptions if there is one, unless data is large.
func (l *line) offer(
	ctx context.Context, what string, data []byte, send func(over rueidis.CommandClient, message string) error,
) error {
	if len(data) > MaxData {
		return tooLarge(len(data))
	}
	message := string(data) // a command whose context has ended may still be written a little later
	if s := l.sender.Load(); s != nil && len(data) <= small && ctx.Err() == nil {
		done, err := s.try(ctx, func(over rueidis.CommandClient) error { return send(over, message) })
		if err != nil {
			return fmt.Errorf("redisbroker: %s: %w", what, err)
		}
		if done {
			return nil
		}
	}

	for ctx.Err() == nil {
		done := make(chan error, 1)
		go func() { done <- send(l.client, message) }() // rueidis waits for a dial in progress, whatever ctx says
		select {
		case err := <-done:
			switch {
			case err == nil:
				return nil
			case errors.Is(err, context.Canceled) && ctx.Err() == nil: // of another caller, whose dial this call shared
			default:
				return fmt.Errorf("redisbroker: %s: %w", what, err)
			}
		case <-ctx.Done():
		}
	}
	return fmt.Errorf("redisbroker: %s: %w", what, ctx.Err())
}

// Subscribe implements [wsroom.Broker]. It waits for Redis as long as ctx allows.
func (b *Broker) Subscribe(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	return b.subscribe(ctx, topic, deliver, lost, nil)
}

// SubscribeDirect is [Broker.Subscribe] for a deliver that returns at once; see [wsroom.Broker]. A message that
// comes alone is delivered by the goroutine that reads from Redis, unless it is larger than 64 KiB or the last one
// took long.
func (b *Broker) SubscribeDirect(ctx context.Context, topic string, deliver func(data []byte), lost func(error)) (stop func(), err error) {
	return b.subscribe(ctx, topic, deliver, lost, func(item) bool { return true })
}

func (b *Broker) subscribe(
	ctx context.Context, topic string, deliver func(data []byte), lost func(error), direct func(item) bool,
) (stop func(), err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("redisbroker: subscribe: %w", err)
	}
	l, prefix := b.locate(topic)
	i := &inbox{direct: direct, joined: make(chan struct{})}
	i.handle = func(it item) {
		i.call(func() {
			if it.lost != nil {
				lost(it.lost)
			} else {
				deliver([]byte(it.data))
			}
		})
	}

	l.add(prefix+topic, i)
	stop = func() {
		l.remove(prefix+topic, i)
		i.stop()
	}
	select {
	case <-i.joined:
		return stop, nil
	case <-ctx.Done():
		stop()
		return nil, fmt.Errorf("redisbroker: subscribe: %w (last error: %v)", ctx.Err(), l.lastError())
	}
}

// line subscribes to topics over a connection of its own, and over a new one when that breaks. Its
// goroutine runs while there are topics.
type line struct {
	client  rueidis.Client
	sharded bool
	wake    chan struct{}          // holds one element when topics have been added or removed
	reads   chan struct{}          // holds one element for each read of what is kept that is going on
	newest  atomic.Uint64          // the highest position seen on any topic
	sender  atomic.Pointer[sender] // nil while no connection has subscribed to anything

	reading sync.Mutex // held while a message goes to its inboxes, so that none does when its connection has ended
	freeAt  time.Time  // when the last message had done so; guarded by reading

	mu      sync.Mutex // guards what follows
	running bool
	number  int               // of the connection
	topics  map[string]*topic // by channel
	changed map[string]bool   // channels of topics added or removed since the connection was last told
	err     error             // with which the last connection ended
}

type topic struct {
	asked      bool // a subscription was asked for on this connection
	subscribed bool
	inboxes    []*inbox // is replaced, never changed
}

func (l *line) add(channel string, i *inbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[channel]
	if t == nil {
		t = &topic{}
		l.topics[channel] = t
	}
	t.inboxes = append(slices.Clip(t.inboxes), i)
	if t.subscribed {
		i.subscribed(nil)
		return
	}
	l.changed[channel] = true
	if !l.running {
		l.running = true
		go l.run() // runs until there are no topics
	}
	notify(l.wake)
}

func (l *line) remove(channel string, i *inbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[channel]
	if t == nil {
		return
	}
	t.inboxes = slices.DeleteFunc(slices.Clone(t.inboxes), func(other *inbox) bool { return other == i })
	if len(t.inboxes) == 0 {
		l.changed[channel] = true
		notify(l.wake)
	}
}

// notify puts an element into ch if it is empty.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (l *line) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// run keeps a connection while there are topics. After a connection breaks it pauses for 10 ms to 1 s
// before the next.
func (l *line) run() {
	const shortest, longest = 10 * time.Millisecond, time.Second
	for pause := shortest; ; pause = min(2*pause, longest) {
		began := time.Now()
		if !l.ended(l.serve()) {
			return
		}
		if time.Since(began) > longest {
			pause = shortest
		}
		time.Sleep(pause/2 + rand.N(pause/2))
	}
}

// serve subscribes and unsubscribes on one connection, until it breaks or there are no topics.
func (l *line) serve() error {
	conn, release := l.client.Dedicate()
	defer release()
	defer l.sender.Store(nil)
	l.mu.Lock()
	number := l.number
	l.mu.Unlock()
	moved := make(chan struct{}, 1)
	broken := conn.SetPubSubHooks(rueidis.PubSubHooks{
		OnMessage: func(m rueidis.PubSubMessage) { l.message(number, m) },
		OnSubscription: func(s rueidis.PubSubSubscription) {
			if !l.answer(number, s) {
				notify(moved)
			}
		},
	})
	s := &sender{conn: conn}
	var role <-chan time.Time
	for {
		join, leave, idle := l.changes()
		if err := l.ask(conn, join, leave); err != nil || idle {
			return err
		}
		if len(join) > 0 && role == nil {
			l.sender.Store(s)
			ticker := time.NewTicker(roleTime)
			defer ticker.Stop()
			role = ticker.C
		}
		select {
		case <-l.wake:
		case <-role:
			l.sender.Store(s.ofMaster())
		case err := <-broken:
			return fmt.Errorf("redisbroker: connection lost: %w", err)
		case <-moved:
			return fmt.Errorf("redisbroker: the cluster has moved the channels")
		}
	}
}

// ended notes a connection's end and reports whether another one is needed.
func (l *line) ended(err error) bool {
	l.reading.Lock()
	defer l.reading.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.number++
	l.err = err
	for channel, t := range l.topics {
		if t.asked, t.subscribed = false, false; len(t.inboxes) == 0 {
			delete(l.topics, channel)
		}
		l.changed[channel] = true // for the next connection
	}
	l.running = len(l.topics) > 0
	return l.running
}

// changes returns the channels to subscribe to, and those to unsubscribe from. It looks only at channels
// that have changed.
func (l *line) changes() (join, leave []string, idle bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for channel := range l.changed {
		switch t := l.topics[channel]; {
		case t == nil:
		case len(t.inboxes) == 0:
			delete(l.topics, channel)
			if t.asked {
				leave = append(leave, channel)
			}
		case !t.asked:
			t.asked = true
			join = append(join, channel)
		}
	}
	l.changed = map[string]bool{}
	return join, leave, len(l.topics) == 0
}

func (l *line) ask(conn rueidis.DedicatedClient, join, leave []string) error {
	for channels := range slices.Chunk(leave, batch) {
		cmd := conn.B().Unsubscribe().Channel(channels...).Build()
		if l.sharded {
			cmd = conn.B().Sunsubscribe().Channel(channels...).Build()
		}
		if err := conn.Do(context.Background(), cmd).Error(); err != nil {
			return fmt.Errorf("redisbroker: unsubscribe: %w", err)
		}
	}
	for channels := range slices.Chunk(join, batch) {
		cmd := conn.B().Subscribe().Channel(channels...).Build()
		if l.sharded {
			cmd = conn.B().Ssubscribe().Channel(channels...).Build()
		}
		if err := conn.Do(context.Background(), cmd).Error(); err != nil {
			return fmt.Errorf("redisbroker: subscribe: %w", err)
		}
	}
	return nil
}

// message and answer take what the connection of that number receives, in its order.
func (l *line) message(number int, m rueidis.PubSubMessage) {
	l.reading.Lock()
	defer l.reading.Unlock()
	alone := time.Since(l.freeAt) > together
	for _, i := range l.inboxes(number, m.Channel) {
		i.hear(item{data: m.Message}, alone)
	}
	l.freeAt = time.Now()
}

// inboxes returns those of a channel, or none if the connection of that number has ended.
func (l *line) inboxes(number int, channel string) []*inbox {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.topics[channel]; t != nil && l.number == number {
		return t.inboxes
	}
	return nil
}

// answer returns false if Redis has ended a subscription by itself.
func (l *line) answer(number int, s rueidis.PubSubSubscription) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.topics[s.Channel]
	if t == nil || !t.asked || l.number != number {
		return true
	}
	if s.Kind != "subscribe" && s.Kind != "ssubscribe" {
		return false
	}
	t.subscribed = true
	for _, i := range t.inboxes {
		i.subscribed(l.err)
	}
	return true
}
