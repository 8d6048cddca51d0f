// Package outbound holds what waits to be written to one connection, and writes it to the connection's wire.
//
// It knows messages as frames, the wire as a *frame.Conn, and an Owner that is told what became of them. It knows
// no rooms, no callbacks and nothing of why a connection ends: the owner of a Queue says when it is held, released
// and closed, and with which close frame.
package outbound

import (
	"time"
)

// Limits bound what waits in a Queue, without the control frames. One Limits serves many queues.
type Limits struct {
	Messages int   // at most so many
	Bytes    int64 // of their frames; a single message may be larger
	Policy   Policy
}

// Policy says what becomes of a message that finds a full Queue.
type Policy uint8

// The policies.
const (
	Close      Policy = iota // it is refused as Slow: the owner ends the connection
	DropOldest               // the oldest messages make room for it
	DropNewest               // it is refused as Full
)

// Owner is told what became of a queue's messages. Its methods are called with no lock held, by whatever goroutine
// writes; for one queue, one at a time.
type Owner interface {
	// Wrote tells of a batch that has been written, after the wire was given back.
	Wrote(Written)
	// WriteFailed tells that the wire didn't take a batch, and how many messages are lost with it: those of
	// the batch and all that waited. The queue takes no more.
	WriteFailed(err error, lost int)
}

// Written is one batch.
type Written struct {
	Messages int
	Bytes    int       // of all frames
	Lost     int       // messages that the end of the connection left behind
	Oldest   time.Time // when the first of the messages was made; zero where there is none
	Pinged   bool      // a ping of PushControl was in the batch
	At       int64     // when the wire had it, by frame.Now
}

// Refusal says why a message wasn't queued.
type Refusal uint8

// The refusals.
const (
	Taken  Refusal = iota // it was queued
	Closed                // the queue takes nothing any more
	Full                  // it was dropped
	Slow                  // the queue was full under Close
	Held                  // the queue is held: the message may be of the snapshot; see Queue.PushSnapshot
)

// Pushed says what became of a message.
type Pushed struct {
	Refused Refusal
	Wake    bool  // the caller must call the queue's Wake, or WakeAll, as soon as it holds no lock
	Dropped int32 // messages dropped, this one included
}
