package resume

import (
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/history"
)

const (
	// maxRun bounds the messages of one run.
	maxRun = 128
	// maxUnnamed bounds the messages of a room that follow on without a position.
	maxUnnamed = 64
	// unnamedPart is the part of a room's history that may follow on without a position: so where the client
	// is can be found in the history, although some of that has gone meanwhile.
	unnamedPart = 4
)

// Session is what a hub knows of one client that speaks this protocol. Claim, SetEntered, Has, Holders and Resumed
// may be called concurrently. The other methods belong to the writer of the connection.
type Session struct {
	// Subprotocol is the application's own, "" if the client asked for none.
	Subprotocol string

	// Resumed says that the client resumed the room of its route.
	Resumed atomic.Bool

	key    *Key
	offers []Offer
	limits *history.Limits // of each room's history; zero: there is none

	mu      sync.Mutex          // guards claimed and holders
	claimed map[string]comeback // rooms for which Claim has found an offer
	holders map[uint64]int64    // see Holders; until when each may be presented again, by frame.Now

	hello []byte // the first message; nil once it is written
	rooms []*room
	next  int   // the number of the next room that is entered
	last  *room // that the last run was of; nil: messages to this connection alone
	begun bool  // there was a run
}

// room is a room that the client knows to be in.
type room struct {
	id      uint64
	index   int              // the number by which the client knows the room
	name    string           // for tokens
	number  uint64           // of the last message that was written or accounted for; 0: no history
	at      history.Position // of that message; zero: the client has no position, and the next message must be named
	unnamed history.Limits   // what was written since the last position
	namedAt int64            // when the message at that position was made, by frame.Now; 0: it isn't known
}

// NewSession returns the session of a client that presents these positions. Something is written to it at least
// once in beat. limits are those of each room's history. Both may be zero.
func NewSession(key *Key, subprotocol string, offers []Offer, beat time.Duration, limits *history.Limits) *Session {
	return &Session{
		Subprotocol: subprotocol, key: key, offers: offers, limits: limits,
		hello: Hello(beat, limits.Age).Bytes(false),
	}
}

// Claimed is the position that a client presents for a room.
type Claimed struct {
	Index int // of the offer; -1: there is none for the room
	Valid bool
	Claim
	At history.Position
	N  uint64 // messages after At
}

// Claim returns the position that the client presents for a room. Only the first call for a room finds it.
func (s *Session) Claim(room string) Claimed {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.claimed[room]; ok {
		return Claimed{Index: -1}
	}
	i, claim, ok := s.key.find(s.offers, room)
	if i < 0 {
		return Claimed{Index: -1}
	}
	if s.claimed == nil {
		s.claimed = map[string]comeback{}
	}
	s.claimed[room] = comebackBegun
	o := s.offers[i]
	return Claimed{Index: i, Claim: claim, At: o.at, N: o.n, Valid: ok && !o.at.Before(claim.Floor)}
}

// SetEntered notes that the client has entered a room for which Claim has found an offer. If it has resumed the room,
// that was with the token of this holder.
func (s *Session) SetEntered(room string, resumed bool, holder uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claimed[room] = comebackFresh; !resumed {
		return
	}
	s.claimed[room] = comebackResumed
	if s.holders == nil {
		s.holders = map[uint64]int64{}
	}
	s.holders[holder] = frame.Now() + int64(handover)
}

// comeback is how a client has come back to a room.
type comeback uint8

const (
	comebackNone  comeback = iota
	comebackBegun          // its position is read
	comebackResumed
	comebackFresh
)

// handover is how long a client may come back once more with the token that it has resumed a room with: its line
// may break again before the new token comes.
const handover = time.Minute

// Holders returns the earlier connections, by ConnTag, whose tokens the client may present again. What isn't for
// this connection isn't for them.
func (s *Session) Holders() (tags []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := frame.Now()
	for tag, until := range s.holders {
		if now < until {
			tags = append(tags, tag)
		}
	}
	return tags
}

// Having says whether a client has all that was sent to a room, or gets it when it comes back to the room.
type Having uint8

// The answers of [Session.Has].
const (
	HasNot Having = iota
	HasMaybe
	HasAll
)

// Has reports whether the client has what was sent to a room while a connection was in another one. holder is that
// connection, by ConnTag.
func (s *Session) Has(room string, holder uint64) Having {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.claimed[room] {
	case comebackResumed:
		return HasAll
	case comebackFresh:
		return HasNot
	}

	switch _, claim, ok := s.key.find(s.offers, room); {
	case !ok:
		return HasNot
	case claim.Holder == holder: // it was in both rooms, and comes back to this one, too
		return HasAll
	default: // it was in this room at some time
		return HasMaybe
	}
}

// Control is the [frame.Message.Tag] of messages that are sent as they are, with no run.
type Control struct{}

// Latest is the tag of a message that isn't kept, because it is only the newest value of its key. A client is
// sent it at the position that it has.
type Latest struct {
	Room uint64 // 0: to all connections
	Key  string
}

// Enter is the tag of a message without a frame, which tells the client that it has entered a room.
type Enter struct {
	Room    uint64
	Name    string
	Number  uint64           // of the message after which the room's messages follow; 0: no history
	At      history.Position // that message's; zero: it isn't known
	Was     int              // the offer that was for this room; -1: none was
	Resumed bool
	Pending bool // the positions begin with a Start
	Claim
}

// Start is the tag of a message without a frame. It tells the client that the room's positions begin after
// this message.
type Start struct {
	Room   uint64
	Number uint64
	At     history.Position // zero: it isn't known
	Claim  *Claim           // nil: the client keeps its token
}

// Leave is the tag of a message without a frame, which tells the client that it has left a room.
type Leave struct{ Room uint64 }

// Gap is the tag of a message without a frame, which tells the client that messages of the room are missing
// up to this number.
type Gap struct {
	Room   uint64
	Number uint64
}

// Skip is the tag of a message without a frame. It accounts for messages of a room that aren't for this
// client: those from the number First up to Place.
type Skip struct {
	First uint64
	Place *history.Place
}

// Hello returns the first message to a client. Something is written to it at least once in beat; a position
// is good for keep. Each may be 0.
func Hello(beat, keep time.Duration) *frame.Message {
	b := append([]byte(nil), `{"v":1,"beat":`...)
	b = strconv.AppendInt(b, beat.Milliseconds(), 10)
	b = strconv.AppendInt(append(b, `,"keep":`...), keep.Milliseconds(), 10)
	return control(append(b, '}'))
}

// Answer reads a text message of a client. ok reports that it is one of this protocol; answer is what it is
// answered with, nil if there is nothing to say. Otherwise rest is the application's message.
func Answer(text []byte) (answer *frame.Message, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != 0 {
		return nil, text, false
	}
	rest = text[1:]
	switch {
	case len(rest) == 0:
		return Beat, nil, true
	case rest[0] == 0:
		return nil, rest, false
	default: // the answer to an ack, or of a later version
		return nil, nil, true
	}
}

// Beat is sent when nothing else was.
var Beat = control([]byte("0"))

func control(payload []byte) *frame.Message {
	m := frame.NewMessage(frame.Text, payload, false)
	m.Tag = Control{}
	return m
}

// run is a number of messages of one room that follow each other, as it stands in a control message.
type run struct {
	count int
	room  *room            // nil: messages to this connection alone
	at    history.Position // of the first message; of a count of 0: to which the room's position moves
	named bool             // at is given
}

// Append appends what is written for these messages: their frames, and the control messages between them.
func (s *Session) Append(b []byte, messages []*frame.Message, deflate bool) []byte {
	b = s.appendHello(b)
	var space [8]run
	runs, first, count := space[:0], 0, 0
	flush := func(end int) {
		b = s.appendRuns(b, runs)
		for _, m := range messages[first:end] {
			b = append(b, m.Bytes(deflate)...)
		}
		runs, first, count = runs[:0], end, 0
	}

	for i, m := range messages {
		switch m.Tag.(type) {
		case Control:
			flush(i)
			b, first = append(b, m.Bytes(deflate)...), i+1
			continue
		case *Enter, *Start, *Leave, *Gap:
			flush(i) // before the control message, which may leave a room
			first = i + 1
			if text := s.control(m.Tag); text != nil {
				b = appendText(b, text)
			}
			continue
		}

		if text := s.missing(m.Tag); text != nil {
			flush(i)
			b = appendText(b, text)
		}
		runs = s.account(runs, m)
		if count++; count == maxRun {
			flush(i + 1)
		}
	}
	flush(len(messages))
	return b
}

// Announce appends what must stand before a message that goes out by itself: the control message for it.
func (s *Session) Announce(b []byte, m *frame.Message) []byte {
	b = s.appendHello(b)
	if _, ok := m.Tag.(Control); ok {
		return b
	}
	if text := s.missing(m.Tag); text != nil {
		b = appendText(b, text)
	}
	var space [1]run
	return s.appendRuns(b, s.account(space[:0], m))
}

// Foreign returns what must stand before a message of which the hub knows nothing.
func (s *Session) Foreign() []byte {
	return s.appendRuns(s.appendHello(nil), []run{{count: 1}})
}

// appendHello appends the first message to the client, if it isn't written yet.
func (s *Session) appendHello(b []byte) []byte {
	b = append(b, s.hello...)
	s.hello = nil
	return b
}

// control returns the control message that a tag stands for. It returns nil if there is nothing to say.
func (s *Session) control(tag any) []byte {
	switch t := tag.(type) {
	case *Enter:
		return s.enter(t)
	case *Start:
		return s.start(t)
	case *Leave:
		return s.leave(t)
	case *Gap:
		return s.gap(t)
	default:
		return nil
	}
}

func (s *Session) enter(e *Enter) []byte {
	r := &room{id: e.Room, index: s.next, name: e.Name, number: e.Number}
	s.next++
	s.rooms = append(s.rooms, r)

	b := strconv.AppendInt([]byte(`{"in":`), int64(r.index), 10)
	name, _ := json.Marshal(e.Name) // a string can be encoded
	b = append(append(b, `,"room":`...), name...)
	if e.Was >= 0 {
		b = strconv.AppendInt(append(b, `,"was":`...), int64(e.Was), 10)
	}
	if e.Resumed {
		b = append(b, `,"resumed":true`...)
	}
	if e.Number > 0 && !e.Pending {
		b = s.appendStart(b, r, e.At, &e.Claim)
	}
	return append(b, '}')
}

func (s *Session) start(t *Start) []byte {
	r := s.room(t.Room)
	if r == nil {
		return nil
	}
	r.number = t.Number
	b := strconv.AppendInt([]byte(`{"start":`), int64(r.index), 10)
	return append(s.appendStart(b, r, t.At, t.Claim), '}')
}

// appendStart appends from where the client may resume the room, and with which token.
func (s *Session) appendStart(b []byte, r *room, at history.Position, c *Claim) []byte {
	r.unnamed, r.namedAt, r.at = history.Limits{}, 0, at
	if at != (history.Position{}) {
		b = appendPosition(append(b, `,"at":"`...), at)
		b = append(b, '"')
	}
	if c == nil {
		return b
	}
	b = append(append(b, `,"token":"`...), s.key.sign(r.name, *c)...)
	return append(b, '"')
}

func (s *Session) leave(l *Leave) []byte {
	r := s.room(l.Room)
	if r == nil {
		return nil
	}
	s.rooms = slices.DeleteFunc(s.rooms, func(other *room) bool { return other == r })
	if s.last == r {
		s.last, s.begun = nil, false
	}
	return append(strconv.AppendInt([]byte(`{"out":`), int64(r.index), 10), '}')
}

func (s *Session) gap(g *Gap) []byte {
	r := s.room(g.Room)
	if r == nil || g.Number <= r.number {
		return nil
	}
	return r.miss(g.Number, history.Position{})
}

// missing returns the control message for messages that are missing before this one. It returns nil if none
// are: what isn't for this client has been accounted for.
func (s *Session) missing(tag any) []byte {
	place, first := PlaceOf(tag)
	if place == nil || place.Number == 0 {
		return nil
	}
	r := s.room(place.Room)
	if r == nil || first <= r.number+1 {
		return nil
	}
	if first < place.Number {
		return r.miss(first-1, history.Position{})
	}
	return r.miss(first-1, place.Prev)
}

// PlaceOf returns the place of a message with this tag, or nil if it has none, and the number of the first message
// that is accounted for with it.
func PlaceOf(tag any) (place *history.Place, first uint64) {
	switch t := tag.(type) {
	case *history.Place:
		return t, t.Number
	case *Skip:
		return t.Place, t.First
	default:
		return nil, 0
	}
}

// miss notes that the room's messages up to this one are missing, and returns the control message for it.
func (r *room) miss(number uint64, at history.Position) []byte {
	r.number, r.unnamed.Messages, r.at = number, maxUnnamed, at
	b := strconv.AppendInt([]byte(`{"gap":`), int64(r.index), 10)
	if at != (history.Position{}) {
		b = append(appendPosition(append(b, `,"at":"`...), at), '"')
	}
	return append(b, '}')
}

// account adds a message to the runs.
func (s *Session) account(runs []run, m *frame.Message) []run {
	place, _ := PlaceOf(m.Tag)
	var r *room
	if place != nil {
		r = s.room(place.Room)
	}

	_, empty := m.Tag.(*Skip)
	if empty && r == nil {
		return runs
	}
	next := run{count: 1, room: r}
	if empty {
		next.count = 0
	}
	if r != nil && place.Number > 0 {
		next.at = place.At
		next.named = empty || r.at == history.Position{} || s.isDue(r, place)
		r.advance(m, place, next.named)
	}
	if latest, ok := m.Tag.(*Latest); ok {
		next = s.latest(latest)
		r = next.room
	}

	if last := len(runs) - 1; last >= 0 && runs[last].room == r {
		switch {
		case empty && runs[last].count == 0:
			runs[last] = next
			return runs
		case !empty && !next.named && runs[last].count > 0:
			runs[last].count++
			return runs
		}
	}
	return append(runs, next)
}

// isDue reports whether the message at that place must be named.
func (s *Session) isDue(r *room, place *history.Place) bool {
	return r.unnamed.Messages >= min(maxUnnamed, s.limits.Messages/unnamedPart) ||
		r.unnamed.Bytes >= s.limits.Bytes/unnamedPart ||
		r.namedAt != 0 && place.Made-r.namedAt >= int64(s.limits.Age/unnamedPart)
}

// latest returns the run of a newest value. It leaves the client's position as it is. Without a position the
// value is announced as one to this connection alone.
func (s *Session) latest(l *Latest) run {
	r := s.room(l.Room)
	switch {
	case r == nil || r.number == 0:
		return run{count: 1, room: r}
	case r.at == history.Position{}:
		return run{count: 1}
	}
	r.unnamed = history.Limits{}
	return run{count: 1, room: r, at: r.at, named: true}
}

// advance notes that the client is told of a message.
func (r *room) advance(m *frame.Message, place *history.Place, named bool) {
	r.number, r.at = place.Number, place.At
	r.unnamed.Messages++
	r.unnamed.Bytes += m.Size()
	if r.namedAt == 0 {
		r.namedAt = place.Made
	}
	if named {
		r.unnamed, r.namedAt = history.Limits{}, place.Made
	}
}

// appendRuns appends the control message that says which messages follow.
func (s *Session) appendRuns(b []byte, runs []run) []byte {
	if len(runs) == 0 {
		return b
	}

	var space [64]byte
	text := space[:0]
	if only := runs[0]; len(runs) == 1 && only.count > 0 && !only.named && s.begun && s.last == only.room {
		text = strconv.AppendInt(text, int64(only.count), 10)
	} else {
		for i, r := range runs {
			text = r.append(append(text, "[,"[min(i, 1)]))
		}
		text = append(text, ']')
	}
	s.last, s.begun = runs[len(runs)-1].room, true
	return appendText(b, text)
}

func (r *run) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, '['), int64(r.count), 10)
	if r.room != nil {
		b = strconv.AppendInt(append(b, ','), int64(r.room.index), 10)
	}
	if r.named {
		b = append(appendPosition(append(b, `,"`...), r.at), '"')
	}
	return append(b, ']')
}

// room returns the room with this id, or nil if the client isn't known to be in it.
func (s *Session) room(id uint64) *room {
	if s.last != nil && s.last.id == id {
		return s.last
	}
	for _, r := range s.rooms {
		if r.id == id {
			return r
		}
	}
	return nil
}

func appendText(b, text []byte) []byte { return frame.Append(b, frame.Text, text) }
