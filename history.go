package wsroom

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/goroutine"
	"github.com/wsroom/wsroom/internal/history"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/resume"
)

const (
	defaultHistoryTotal = 64 << 20 // bytes
	leastResumeKey      = 32       // bytes
)

// WithHistory keeps the last messages of each room for clients that come back: up to n messages and bytes of
// frames, none older than age. A client that speaks the subprotocol wsroom.v1 and comes back in that time is sent
// what it has missed, each message once and in order, before any other of the room, whichever node it comes
// to; see [Conn.Resumed]. All other clients get plain messages as ever. docs/resume.md has the subprotocol and the
// clients that speak it.
//
// Messages to one connection and to all aren't kept. Nor does a room have a history before its first member has
// come, or once it has had no member for age.
//
// With a broker, the broker must be a [Keeper], and [WithResumeKey] must be set. [WithOutage]([DeliverLocally])
// isn't possible then.
func WithHistory(n int, bytes int64, age time.Duration) Option {
	return func(c *config) error {
		c.history = history.Limits{Messages: n, Bytes: bytes, Age: age}
		return errors.Join(positive("WithHistory: messages", n), positive("WithHistory: bytes", bytes), positive("WithHistory: age", age))
	}
}

// WithHistoryTotal bounds the memory that the histories of all rooms take on this node, 64 MiB by default: the
// messages' frames, and 160 bytes for each message. Beyond it the room's history goes first whose last message is the
// oldest. Its clients then aren't resumed, except those that have missed nothing (with a broker, only some of those).
func WithHistoryTotal(bytes int64) Option {
	return func(c *config) error {
		c.historyTotal = bytes
		return positive("WithHistoryTotal", bytes)
	}
}

// WithResumeKey sets the keys that sign the positions of clients. So a client can't ask for what was said before
// it came. The first key signs, and all of them verify. To replace a key, add the new one behind it, put the new one
// in front once all nodes have it, and drop the old one after the age of [WithHistory]. A key has 32 bytes or more,
// of a random source. All nodes that share a broker need the same keys. The default is a key of this process.
func WithResumeKey(keys ...[]byte) Option {
	own := make([][]byte, len(keys))
	for i, key := range keys {
		own[i] = bytes.Clone(key)
	}
	return func(c *config) error {
		c.resumeKeys = own
		if len(own) == 0 {
			return errors.New("WithResumeKey: there is no key")
		}
		for i, key := range own {
			if len(key) < leastResumeKey {
				return fmt.Errorf("WithResumeKey: key %d has %d bytes, fewer than %d", i, len(key), leastResumeKey)
			}
		}
		return nil
	}
}

// Keeper is what a [Broker] may be besides: it keeps the last messages of a topic, and gives them to nodes
// that come to the topic later or were cut off from it. WithHistory needs one. What [Broker] says of topics,
// data, MaxData and concurrency holds for these methods, too. The suite in adapters/brokertest checks them.
//
// Each kept message has a position. Positions are greater than 0 and rise within a topic, in steps of any
// size. A message has the same position for all followers, whether they hear it at once or later. No
// position comes again on its topic, whatever becomes of the broker's data: after a restart, a failover or
// the loss of all data, new messages have higher positions than all that any follower has seen.
//
// All nodes use a topic in the same way: with Keep and Follow, or with Publish and Subscribe. If a topic is
// used in both ways, it isn't defined which messages arrive.
//
// A Keeper may also have a method FollowDirect with the parameters and results of Follow. It is Follow for functions
// that return at once, as a Broker's SubscribeDirect is Subscribe for those; see [Broker].
type Keeper interface {
	// Keep does what Publish does, for the topic's followers, and has data kept until n newer messages are
	// on the topic or d has passed, whichever is first. The broker may keep some more, and for somewhat
	// longer. What is kept of a topic ends by itself, also if the topic gets no more messages. n and d are
	// greater than 0. If calls for a topic differ in n or d, those of the latest call may count for all of
	// the topic's messages.
	//
	// Once Keep has returned nil, each call of Follow that begins afterwards, on any node, finds data as
	// long as it is kept. While the broker is known to be away, Keep may fail at once. What one goroutine
	// keeps on a topic has rising positions. Keep must not keep the slice. It waits no longer than ctx
	// allows. After an error the data may be on the topic nevertheless. The hub may then keep it again, which
	// is one more message with a position of its own. An error with a method Rejected() bool that returns
	// true says that this data can never be kept.
	Keep(ctx context.Context, topic string, data []byte, n int, d time.Duration) error
	// Follow is a Subscribe that begins with what is kept. It calls deliver for the last messages that are
	// kept, at most n, oldest first, and calls live once. deliver then goes on with what is kept from then
	// on, and Follow returns. From the first message delivered on, none is left out and none comes twice. If
	// nothing is kept, live is called first. n is greater than 0.
	//
	// ctx bounds only the wait until Follow returns, which includes the time that deliver and live take.
	// deliver must not keep data. A topic may be followed several times. A slow deliver holds up no other
	// follower and no subscription. If too much waits for it after live, some may be left out, and lost is
	// called in its place.
	//
	// A follower survives a reconnect. If all messages that it has missed are still kept, deliver goes on
	// with them, even if they are more than n, and lost isn't called. Otherwise lost is called in the place
	// of those that are gone, once the topic is followed again; deliver then goes on with the oldest
	// message after that place that is still kept. Where the last message that was delivered isn't kept any
	// more, or none was delivered, lost may be called although nothing was missed. If the connection breaks
	// while Follow waits, lost may be called before live.
	//
	// deliver, live and lost are called one at a time. When stop returns, none of them is running and none
	// will run again. stop may be called more than once, but not from one of them. When Follow returns an
	// error, none of them is running and none will run again; some may have run.
	Follow(
		ctx context.Context, topic string, n int,
		deliver func(position uint64, data []byte), live func(), lost func(error),
	) (stop func(), err error)
}

// Enter is [Conn.Join] for rooms whose newcomers are sent something first: what welcome sends to c comes before
// any message of the room, and none after it is lost. Until welcome returns, messages of all rooms are held back for
// c, as in [OnConnect]. resumed says that the client has come back and is sent what it has missed; see
// [Conn.Resumed].
//
// If c is in the room already, Enter returns nil and doesn't call welcome. Otherwise its errors are those of Join,
// and that of welcome, after which c isn't in the room and gets none of its messages. Only one goroutine at a time
// holds messages back for c: Enter waits for another one, so welcome must not wait for a goroutine that calls Enter.
// Within OnConnect or welcome, Enter may be called on the same goroutine.
func (c *Conn) Enter(room string, welcome func(resumed bool) error) error {
	if err := checkRoomName(room); err != nil {
		return err
	}

	room = strings.Clone(room)
	if err := c.subscribe(room); err != nil {
		return err
	}
	c.hub.store.tagging.Add(1) // so that Forget finds the room's messages
	defer c.hub.store.tagging.Add(-1)
	release, err := c.hold()
	if err != nil {
		c.hub.unsubscribe(room)
		return err
	}
	defer release()

	joined, err := c.hub.store.join(c, room)
	if !joined.entered {
		c.hub.unsubscribe(room)
		return owned(err)
	}
	c.hub.entered(c, room)
	defer c.runEventsAsync()
	return c.welcome(room, joined, welcome)
}

// hold has messages of others wait until release is called.
func (c *Conn) hold() (release func(), err error) {
	for by := goroutine.Current(); ; {
		nested, busy := c.line.Hold(by)
		switch {
		case nested:
			return func() {}, nil
		case busy == nil:
			return c.line.Release, nil
		}
		select {
		case <-busy:
		case <-c.Context().Done():
			return nil, ErrClosed
		}
	}
}

// welcome calls the function of Enter. If that fails, it takes the connection out of the room again.
func (c *Conn) welcome(room string, joined joined, f func(resumed bool) error) (err error) {
	before, welcomed := c.line.SetEntering(joined.room), false
	defer func() {
		c.line.SetEntering(before)
		if welcomed {
			return
		}
		if left, _ := c.hub.store.leave(c, room); left {
			c.hub.left(c, room)
		}
		c.line.Forget(joined.room)
	}()
	err = f(joined.resumed)
	welcomed = err == nil
	return err
}

// DropHeld forgets the messages that have been held back for c until now, because the snapshot that is sent next
// has them: in [Conn.Enter] those to the room that is entered, in [OnConnect] those to all rooms and to all
// connections. Call it, and take the snapshot, under the lock under which the application changes its state and
// sends. With a broker that isn't enough: a message that the snapshot has may still be on its way, and comes after it.
// docs/resume.md has what is right then. Elsewhere DropHeld has no effect.
func (c *Conn) DropHeld() { c.line.DropHeld() }

// Rewind sends c the last n messages of a room that it is in, before those held back, in [OnConnect] or
// [Conn.Enter]. It returns how many there were: with [WithHistory] up to what is kept, otherwise 0. It works for
// every client. Elsewhere Rewind returns 0.
func (c *Conn) Rewind(room string, n int) int {
	sent := 0
	for _, m := range c.hub.store.tail(c, room, n) {
		p := c.line.PushSnapshot(m.With(outbound.Own{}), goroutine.Current())
		if p.Refused == outbound.Slow {
			c.end(line.TooSlow)
		}
		if p.Refused != outbound.Taken {
			break
		}
		sent++
	}
	return sent
}

// Resumed reports, from [OnConnect] on, whether the client has come back to [Conn.Room] with a position that is
// still known: it is sent what it has missed, and needs no snapshot. See [WithHistory].
func (c *Conn) Resumed() bool {
	s := c.line.Session()
	return s != nil && s.Resumed.Load()
}

// holders returns the earlier connections of the client with whose positions it may come back once more.
func (c *Conn) holders() []uint64 {
	s := c.line.Session()
	if s == nil {
		return nil
	}
	return s.Holders()
}

// newHistories returns the histories of the hub's rooms.
func newHistories(cfg *config, o Observer, mark func(room string)) *history.Store {
	return history.NewStore(history.Config{
		Limits: cfg.history, Total: cfg.historyTotal, Shared: cfg.broker != nil, Mark: mark,
		Count: func(bytes int) { o.Add(MetricHistory, "", "", bytes) },
	})
}

// lose notes that messages of the room are missing.
func (s *store) lose(name string) {
	s.tell(name, func(log *history.Log) any { return &resume.Gap{Room: log.Room(), Number: log.Lose()} })
}

// mark gives the end of the room's history a position.
func (s *store) mark(name string, at history.Position) {
	s.tell(name, func(log *history.Log) any {
		place := log.Append(new(frame.Message), at, nil, frame.Now())
		return &resume.Skip{First: place.Number, Place: place}
	})
}

// tell changes the room's history, and tells the members that are told of positions what f returns.
func (s *store) tell(name string, f func(*history.Log) any) {
	t := tallies.Get().(*tally)
	sh := s.shardOf(name)
	sh.mu.Lock()
	m := &frame.Message{Tag: f(s.histories.Find(name))}
	sh.each(name, func(c *Conn) {
		if c.line.Session() != nil {
			t.note(c, c.line.PushEmpty(m))
		}
	})
	sh.mu.Unlock()

	t.settle()
	tallies.Put(t)
	s.histories.Settle()
}

// tail returns the last n messages of a room that c is in, of before those that are held back for c. It returns
// none unless the goroutine has them held back.
func (s *store) tail(c *Conn, name string, n int) []*frame.Message {
	sh := s.shardOf(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil || r.log == nil || n <= 0 || !c.line.IsHeldBy(goroutine.Current()) || !c.isIn(name) {
		return nil
	}

	r.log.Expire(frame.Now())
	last, _ := r.log.End()
	if held, ok := c.line.FirstHeld(r.id); ok {
		last = held - 1
	}
	return r.log.Tail(n, last, resume.ConnTag(c.id), c.Identity())
}

// skipOver returns a message without a frame that accounts for the one at that place.
func skipOver(place *history.Place) *frame.Message {
	return &frame.Message{Tag: &resume.Skip{First: place.Number, Place: place}}
}

// entry is how a client that is told of positions enters a room.
type entry struct {
	name    string
	claimed resume.Claimed
	outcome string // for metrics; "" if the client presented no position of the room
	missed  []*frame.Message
	resent  int
	has     map[string]resume.Having // by room; see has
	pushed  outbound.Pushed
	unnamed bool // the log's end needs a mark
}

// newEntry returns the entry of c into the room, nil if its client isn't told of positions.
func newEntry(c *Conn, room string) *entry {
	session := c.line.Session()
	if session == nil {
		return nil
	}
	return &entry{name: room, claimed: session.Claim(room)}
}

// enter tells the client that it is in the room, and what it has missed. The room's shard is locked, so what is
// sent to the room from then on follows.
func (e *entry) enter(c *Conn, r *room) {
	told := &resume.Enter{Room: r.id, Name: e.name, Was: e.claimed.Index}
	var start *resume.Start
	if r.log != nil {
		r.log.AddTold(1)
		start = e.begin(c, r.log, told)
	}
	if e.claimed.Index >= 0 {
		c.line.Session().SetEntered(e.name, told.Resumed, e.claimed.Holder)
	}
	if told.Resumed && e.name == c.room {
		c.line.Session().Resumed.Store(true)
	}
	e.pushed = c.line.Enter(told, e.missed, start)
}

// begin says in told where the client's positions begin. If something is sent before that, the beginning is
// what it returns.
func (e *entry) begin(c *Conn, log *history.Log, told *resume.Enter) (start *resume.Start) {
	now := frame.Now()
	log.Expire(now)
	claim := resume.Claim{Log: log.Birth(), Floor: log.Floor(), Holder: resume.ConnTag(c.id)}
	number, at := log.End()
	e.unnamed = at == history.Position{} && log.Mark(now, 0)

	from, known := e.resume(log)
	hidden, complete := false, false
	if known {
		hidden, complete = e.collect(c, log, from)
	}
	if !complete {
		told.Number, told.At, told.Claim = number, at, claim
		if told.Pending = c.line.IsHeld(); told.Pending {
			start = &resume.Start{Room: told.Room, Number: number, At: at, Claim: &claim}
		}
		return start
	}

	claim.Floor = e.claimed.Floor
	told.Resumed, told.Number, told.At, told.Claim = true, from, log.PositionOf(from), claim
	e.outcome = "resumed"
	if hidden { // what was hidden stays hidden until the client has all of it
		told.Claim.Holder = e.claimed.Holder
		start = &resume.Start{Room: told.Room, Number: number, At: at, Claim: &claim}
	}
	return start
}

// resume returns the number of the last message that the client has. known is false if the client can't have
// all that followed.
func (e *entry) resume(log *history.Log) (from uint64, known bool) {
	switch {
	case e.claimed.Index < 0:
		return 0, false
	case !e.claimed.Valid:
		e.outcome = "forged"
		return 0, false
	case e.claimed.Log != log.Birth():
		e.outcome = "unknown"
		return 0, false
	}

	e.outcome = "expired"
	return log.Find(e.claimed.At, e.claimed.N)
}

// collect collects what the client has missed. hidden reports that something of that wasn't for the client;
// complete, that it is known for each message whether it was.
func (e *entry) collect(c *Conn, log *history.Log, from uint64) (hidden, complete bool) {
	session, identity := c.line.Session(), c.Identity()
	complete = true
	log.After(from, func(m *frame.Message, place *history.Place) {
		had := e.had(session, place.Hidden)
		hidden = hidden || had == resume.HasAll
		complete = complete && had != resume.HasMaybe
		if had != resume.HasNot || m.Size() == 0 || place.Hidden.IsFrom(identity) {
			e.missed = append(e.missed, skipOver(place))
			return
		}
		e.missed = append(e.missed, m)
		e.resent++
	})
	if !complete {
		e.missed, e.resent = nil, 0
	}
	return hidden, complete
}

// had reports whether the client wasn't to get a message here: its sender had left it out, or it gets the
// message in another room.
func (e *entry) had(session *resume.Session, hidden *history.Hidden) (had resume.Having) {
	if hidden == nil {
		return resume.HasNot
	}
	if slices.Contains(hidden.Conns, e.claimed.Holder) {
		return resume.HasAll
	}
	for _, room := range hidden.Rooms {
		has, known := e.has[room]
		if !known {
			if e.has == nil {
				e.has = map[string]resume.Having{}
			}
			has = session.Has(room, e.claimed.Holder)
			e.has[room] = has
		}
		had = max(had, has)
	}
	return had
}

// settle does what is left once no lock is held.
func (e *entry) settle(c *Conn) {
	c.settlePush(e.pushed)
	if e.unnamed {
		c.hub.mark(e.name)
	}
	if e.outcome != "" {
		c.hub.observer.Add(MetricResumes, c.route, e.outcome, 1)
	}
	if e.resent > 0 {
		c.hub.observer.Add(MetricResent, c.route, "", e.resent)
	}
}
