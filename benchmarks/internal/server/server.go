// Package server holds one chat server for each library of the comparison. All do the same: the
// room is named by the URL's path (by the channel, with centrifuge), and every text message goes to
// all members of its sender's room, the sender included. Each is written as its library's own
// documentation shows, with the options that serve it best.
package server

import (
	"net/http"
	"sync"

	"github.com/wsroom/wsroom/benchmarks/internal/load"
)

// sendBuffer is how many messages may wait for one member in the libraries whose queue the
// application sizes. Scenarios keep fewer on their way, so a full one means a member that doesn't
// read. Those queues take their memory in advance; idle servers have short ones.
const (
	sendBuffer     = 256
	idleSendBuffer = 16
)

// maxMessage is the longest message from a client, where the application sets it.
const maxMessage = 64 << 10

// Options are what a scenario asks of a server.
type Options struct {
	Deflate bool   // negotiate permessage-deflate without context takeover
	Idle    bool   // many connections, little traffic: tune for memory where the library can
	Broker  string // address of the library's broker, if it has one
}

func (o Options) sendBuffer() int {
	if o.Idle {
		return idleSendBuffer
	}
	return sendBuffer
}

// A Library is one way to build the chat server.
type Library struct {
	Name     string
	Dialect  load.Dialect
	Deflates bool
	Broker   string // what carries its rooms between nodes; "" where there is one node
	New      func(Options) http.Handler

	// For what isn't Go, in place of New: Run becomes the server that Main describes, and Missing says what
	// isn't installed.
	Run     func(broker string) error
	Missing func() error
}

// A joiner can measure what joining and leaving a room costs while there are many.
type joiner interface {
	// joins makes the rooms, then lets one connection join and leave another room the given
	// number of times.
	joins(rooms, times int) error
}

// Libraries are all that are compared, the project's own first.
var Libraries = []Library{
	{Name: "wsroom", Dialect: load.Plain, Deflates: true, New: newWsroom},
	{Name: "centrifuge", Dialect: load.Centrifuge, Deflates: true, New: newCentrifuge},
	{Name: "gws", Dialect: load.Plain, Deflates: true, New: newGWS},
	{Name: "melody", Dialect: load.Plain, Deflates: true, New: newMelody},
	{Name: "gorilla", Dialect: load.Plain, Deflates: true, New: newGorilla},
	{Name: "coder", Dialect: load.Plain, Deflates: true, New: newCoder},
	{Name: "bare loop", Dialect: load.Plain, New: newBare},
}

// A directory finds the room of a name, for libraries that leave rooms to the application.
type directory[R any] struct {
	mu    sync.RWMutex
	rooms map[string]R
	make  func() R
}

func newDirectory[R any](make func() R) *directory[R] {
	return &directory[R]{rooms: map[string]R{}, make: make}
}

func (d *directory[R]) room(name string) R {
	d.mu.RLock()
	r, ok := d.rooms[name]
	d.mu.RUnlock()
	if ok {
		return r
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if r, ok = d.rooms[name]; !ok {
		r = d.make()
		d.rooms[name] = r
	}
	return r
}
