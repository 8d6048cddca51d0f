package inspector

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

const (
	interval    = time.Second     // between samples, at least
	linger      = 5 * time.Second // how long a sample is kept after the last look, for example for a reload
	maxShare    = 20              // a sample may take one part in maxShare of the time
	maxSlowest  = 10
	maxAlike    = 8 // events of one kind in a sample; more are merged into one with a count
	maxEvents   = 40
	historySize = 60
)

// sampler takes the samples. All pages and scripts share them.
type sampler struct {
	hub   *wsroom.Hub
	label func(*wsroom.Conn) string

	mu    sync.Mutex // guards what follows; held while a sample is taken, so that one serves all
	last  *sample    // nil if nobody has looked for a while
	noted []event    // for the next sample, newest first
	idle  *time.Timer
}

// current returns the newest sample. It takes one now if the last is too old.
func (s *sampler) current() *sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil || !time.Now().Before(s.last.until) {
		s.last = s.takeLocked()
		s.noted = nil
	}
	if s.idle == nil {
		s.idle = time.AfterFunc(linger, s.forget)
	} else {
		s.idle.Reset(max(linger, 2*time.Until(s.last.until)))
	}
	return s.last
}

// forget drops the sample, and with it the connections that it refers to.
func (s *sampler) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.idle != nil {
		s.idle.Stop()
	}
	s.last, s.noted, s.idle = nil, nil, nil
}

func (s *sampler) note(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.At, e.Count = time.Now(), 1
	s.noted = slices.Insert(s.noted, 0, e)
}

// find returns the connection with that ID in the newest sample, or nil.
func (s *sampler) find(id string) *wsroom.Conn {
	for c := range s.current().conns {
		if c.ID() == id {
			return c
		}
	}
	return nil
}

// load is what waits to be written.
type load struct {
	Messages int   `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

func (l load) plus(m load) load { return load{l.Messages + m.Messages, l.Bytes + m.Bytes} }

// sample is the hub's state at one moment and the events before it. It doesn't change once it is taken.
type sample struct {
	at, until time.Time // until: no new sample is taken before
	stats     wsroom.Stats
	causes    wsroom.Causes
	rooms     []*room // those with the most members first
	byName    map[string]*room
	conns     map[*wsroom.Conn]load // all that are in a room
	queued    load
	slowest   []*wsroom.Conn
	rates     *rates // nil in the first sample
	history   map[string][]int
	seen      int     // connections that were in any sample so far
	brief     int     // connections that opened and ended between two samples
	events    []event // the newest first
}

type room struct {
	name    string
	members []*wsroom.Conn
	queued  load
}

func (s *sampler) takeLocked() *sample {
	begin := time.Now()
	next := &sample{at: begin, stats: s.hub.Stats(), causes: s.hub.Causes(), events: s.noted}
	next.look(s.hub)
	if s.last != nil {
		next.compare(s.last, s.label)
	} else {
		next.seen = len(next.conns)
		next.brief = max(0, next.stats.Opened-next.seen) // a connection that is just being opened isn't counted yet
	}
	next.events = next.events[:min(len(next.events), maxEvents)]
	next.until = begin.Add(max(interval, maxShare*time.Since(begin)))
	return next
}

// look reads the rooms and their members.
func (s *sample) look(hub *wsroom.Hub) {
	s.conns = make(map[*wsroom.Conn]load, s.stats.Conns)
	s.byName = make(map[string]*room, s.stats.Rooms)
	for _, name := range hub.Rooms() {
		r := &room{name: name, members: hub.Members(name)}
		if len(r.members) == 0 {
			continue // it has left meanwhile
		}
		for _, c := range r.members {
			l, seen := s.conns[c]
			if !seen {
				l.Messages, l.Bytes = c.Queued()
				s.conns[c] = l
				s.queued = s.queued.plus(l)
				if l.Messages > 0 {
					s.slowest = append(s.slowest, c)
				}
			}
			r.queued = r.queued.plus(l)
		}
		s.rooms = append(s.rooms, r)
		s.byName[name] = r
	}
	slices.SortStableFunc(s.rooms, func(a, b *room) int { return cmp.Compare(len(b.members), len(a.members)) })
	slices.SortFunc(s.slowest, func(a, b *wsroom.Conn) int { return cmp.Compare(s.conns[b].Bytes, s.conns[a].Bytes) })
	s.slowest = slices.Clone(s.slowest[:min(len(s.slowest), maxSlowest)])
}

// rates are per second since the sample before.
type rates struct {
	Received      int `json:"received"` // messages
	Sent          int `json:"sent"`
	ReceivedBytes int `json:"receivedBytes"`
	SentBytes     int `json:"sentBytes"`
	Dropped       int `json:"dropped"`
}

// compare finds what has happened since the last sample.
func (s *sample) compare(last *sample, label func(*wsroom.Conn) string) {
	a, b, seconds := last.stats, s.stats, s.at.Sub(last.at).Seconds()
	rate := func(n int) int { return int(float64(n)/seconds + 0.5) }
	s.rates = &rates{
		Received: rate(b.Received - a.Received), Sent: rate(b.Sent - a.Sent), Dropped: rate(b.Dropped - a.Dropped),
		ReceivedBytes: rate(int(b.ReceivedBytes - a.ReceivedBytes)), SentBytes: rate(int(b.SentBytes - a.SentBytes)),
	}
	s.history = map[string][]int{}
	for name, value := range map[string]int{
		"conns": b.Conns, "received": s.rates.Received, "sent": s.rates.Sent, "queued": s.queued.Messages,
	} {
		values := append(slices.Clone(last.history[name]), value)
		s.history[name] = values[max(0, len(values)-historySize):]
	}
	s.events = slices.Concat(s.changes(last, label), s.events, last.events)
}

// event is something that happened since the sample before.
type event struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`  // opened, ended, brief, room, empty, dropped, refused, action
	Count  int       `json:"count"` // how many; with more than 1 there is no name
	Room   string    `json:"room,omitempty"`
	Conn   string    `json:"conn,omitempty"` // ID
	Label  string    `json:"label,omitempty"`
	Detail string    `json:"detail,omitempty"` // the cause
}

func (s *sample) changes(last *sample, label func(*wsroom.Conn) string) (events []event) {
	add := func(e event) {
		if e.At = s.at; e.Count > 0 {
			events = append(events, e)
		}
	}
	add(event{Kind: "dropped", Count: s.stats.Dropped - last.stats.Dropped})
	for _, cause := range slices.Sorted(maps.Keys(s.causes.Refused)) {
		add(event{Kind: "refused", Detail: cause, Count: s.causes.Refused[cause] - last.causes.Refused[cause]})
	}
	each(missing(last.conns, s.conns), "ended", add, func(c *wsroom.Conn, e *event) {
		e.Conn, e.Label, e.Room, e.Detail = c.ID(), label(c), c.Room(), cause(c)
	})
	each(missing(last.byName, s.byName), "empty", add, func(name string, e *event) { e.Room = name })
	opened := missing(s.conns, last.conns)
	s.seen = last.seen + len(opened)
	s.brief = max(last.brief, s.stats.Opened-s.seen)
	add(event{Kind: "brief", Count: s.brief - last.brief})
	each(opened, "opened", add, func(c *wsroom.Conn, e *event) {
		e.Conn, e.Label, e.Room, e.Detail = c.ID(), label(c), c.Room(), c.RemoteAddr()
	})
	each(missing(s.byName, last.byName), "room", add, func(name string, e *event) { e.Room = name })
	return events
}

// missing returns the keys of a that b doesn't have.
func missing[K comparable, V any](a, b map[K]V) (keys []K) {
	for k := range a {
		if _, ok := b[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}

// each adds an event of the kind for each key, or one event for all if there are many.
func each[K any](keys []K, kind string, add func(event), describe func(K, *event)) {
	if len(keys) > maxAlike {
		add(event{Kind: kind, Count: len(keys)})
		return
	}
	for _, k := range keys {
		e := event{Kind: kind, Count: 1}
		describe(k, &e)
		add(e)
	}
}

// cause returns why a connection that is in no room any more has ended.
func cause(c *wsroom.Conn) string {
	err := context.Cause(c.Context())
	var by websocket.CloseError
	switch {
	case err == nil:
		return "left all rooms"
	case errors.As(err, &by):
		return strings.TrimSpace(fmt.Sprintf("code %d %s", int(by.Code), by.Reason))
	default:
		return strings.TrimPrefix(err.Error(), "wsroom: ")
	}
}
