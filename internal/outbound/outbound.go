// Package outbound holds what waits to be written to one connection, and writes it to the connection's
// socket.
//
// It knows messages as frames, the socket as a *frame.Conn, and an [Owner] that it calls with the outcome.
// It knows no rooms and no callbacks, and it doesn't know why a connection ends. The owner of a [Queue]
// decides when the queue is held, released and closed, and with which close frame.
package outbound

// Limits bound what waits in a [Queue]. Control frames don't count. One Limits serves many queues.
type Limits struct {
	Messages int   // how many messages at most
	Bytes    int64 // bytes of their frames at most; a single message may be larger
	Policy   Policy

	// Unread bounds the bytes that are written and that the peer hasn't read, as far as its pongs show. What
	// is in the way beyond it waits in the queue. A single message may be larger. 0: no limit.
	Unread int64
}

// Policy says what happens to a message when the [Queue] is full.
type Policy uint8

// The policies.
const (
	Close      Policy = iota // the message is refused as Slow; the owner ends the connection
	DropOldest               // the oldest messages are dropped to make room
	DropNewest               // the message is refused as Full
)

// Owner is called with the outcome for a queue's messages. The methods are called with no lock held, by the
// goroutine that writes. The calls for one queue come one at a time.
type Owner interface {
	// Wrote reports a batch that has been written. The wire has been given back.
	Wrote(Written)
	// WriteFailed reports that the wire didn't take a batch, and how many messages are lost: those of the
	// batch and all that waited. The queue takes no more.
	WriteFailed(err error, lost int)
}

// Written describes one batch.
type Written struct {
	Messages int
	Bytes    int   // of all frames
	Lost     int   // messages that the end of the connection left behind
	Oldest   int64 // when the first of the messages was made, by frame.Now; 0 if unknown
	Pinged   bool  // one of our pings (see PushControl) was in the batch
	At       int64 // when the batch was written, by frame.Now
}

// Refusal says why a message wasn't queued.
type Refusal uint8

// The refusals.
const (
	Taken  Refusal = iota // the message was queued
	Closed                // the queue takes nothing any more
	Full                  // the message was dropped
	Slow                  // the queue was full under the policy Close
	Held                  // the queue is held, and the message may be part of the snapshot; see Queue.PushSnapshot
)

// Pushed says what happened to a message.
type Pushed struct {
	Refused  Refusal
	Wake     bool  // the caller must call the queue's Wake, or WakeAll, once it holds no lock
	Replaced bool  // the message took the place of another; see Queue.PushLatest
	Dropped  int32 // messages dropped, this one included
}
