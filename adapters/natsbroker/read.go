package natsbroker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// readTime is how long the server may be silent while it is asked for what is kept.
	readTime = 2 * time.Second

	// A read asks for at most this many messages and, about, bytes.
	readMessages = 1024
	readBytes    = 4 << 20
)

var errBehind = errors.New("natsbroker: the server doesn't have the newest messages yet")

// reading is what is kept of a topic from a number on, or the first part of it.
type reading struct {
	messages []*nats.Msg
	more     int // how many are left

	// These are of the stream, if it was asked.
	first uint64 // the number of the first message that it has or would have
	full  bool   // there may be no room for one more, so that it has forgotten some for lack of room
}

// has reports whether the message with this number is kept. It is the one from which on was read.
func (r reading) has(seq uint64) bool {
	return len(r.messages) > 0 && sequence(r.messages[0], jetstream.SequenceHeader) == seq
}

// after returns how many messages are kept after message i.
func (r reading) after(i int) int { return len(r.messages) - 1 - i + r.more }

// read returns what is kept on a subject, from a number on. It has all that was kept before the call.
func (b *Broker) read(ctx context.Context, subject string, from uint64) (r reading, err error) {
	newest, err := b.newest(ctx, subject)
	if err != nil {
		return r, err
	}
	if newest == 0 {
		return r, nil
	}
	if newest < from { // a new leader
		return r, errBehind
	}
	if r, err = b.readSome(ctx, subject, from); err != nil {
		return r, err
	}
	if n := len(r.messages); r.more == 0 && (n == 0 || sequence(r.messages[n-1], jetstream.SequenceHeader) < newest) {
		return r, errBehind // any replica may answer
	}
	return r, nil
}

// look adds to a reading what the stream says of all topics.
func (b *Broker) look(ctx context.Context, r *reading) error {
	return insist(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, keptStream)
		if err != nil {
			return err
		}
		info := s.CachedInfo()
		r.first = info.State.FirstSeq
		most := info.Config.MaxBytes
		r.full = most > 0 && info.State.Bytes+uint64(b.nc.MaxPayload()) > uint64(most)
		return nil
	})
}

// newest returns the number of the last message that is kept on a subject; 0 if there is none. It asks the
// stream's leader.
func (b *Broker) newest(ctx context.Context, subject string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	ask, err := json.Marshal(map[string]string{"last_by_subj": subject})
	if err != nil {
		return 0, err
	}
	m, err := b.nc.RequestWithContext(ctx, jetstream.DefaultAPIPrefix+"STREAM.MSG.GET."+keptStream, ask)
	if err != nil {
		return 0, err
	}
	var answer struct {
		Message struct{ Seq uint64 }
		Error   *jetstream.APIError
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return 0, err
	}
	if answer.Error == nil || answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound {
		return answer.Message.Seq, nil
	}
	return 0, answer.Error
}

// readSome asks any of the stream's replicas for the messages on a subject, from a number on.
func (b *Broker) readSome(ctx context.Context, subject string, from uint64) (r reading, err error) {
	in := make(chan *nats.Msg, readMessages+1)
	inbox := b.nc.NewInbox()
	sub, err := b.nc.ChanSubscribe(inbox, in)
	if err != nil {
		return r, err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails if the connection is closed
	ask, err := json.Marshal(map[string]any{"seq": max(from, 1), "next_by_subj": subject, "batch": readMessages, "max_bytes": readBytes})
	if err != nil {
		return r, err
	}
	if err := b.nc.PublishRequest(jetstream.DefaultAPIPrefix+"DIRECT.GET."+keptStream, inbox, ask); err != nil {
		return r, err
	}

	silent := time.NewTimer(readTime)
	defer silent.Stop()
	for last := uint64(0); ; silent.Reset(readTime) {
		select {
		case m := <-in:
			if done, err := r.take(m, last); done || err != nil {
				return r, err
			}
			last = sequence(m, jetstream.SequenceHeader)
		case <-silent.C:
			return r, context.DeadlineExceeded
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
}

// take takes the next message of an answer. The last one has no data, but a status.
func (r *reading) take(m *nats.Msg, last uint64) (done bool, err error) {
	const end, none = "204", "404"
	switch status := m.Header.Get("Status"); status {
	case none:
		return true, nil
	case "", end:
		if sequence(m, jetstream.LastSequenceHeader) != last {
			return false, errGap
		}
		if status == end {
			r.more = int(sequence(m, "Nats-Num-Pending"))
			return true, nil
		}
		r.messages = append(r.messages, m)
		return false, nil
	default:
		return false, fmt.Errorf("natsbroker: read: %s %s", status, m.Header.Get("Description"))
	}
}
