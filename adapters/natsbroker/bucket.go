package natsbroker

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	bucketName = "wsroom-presence"
	markKey    = "mark"
	markerTTL  = time.Minute // how long a key that was deleted leaves a trace
)

// bucket is a key-value bucket that is made when there is none.
type bucket struct {
	js     jetstream.JetStream
	config jetstream.StreamConfig
}

// newBucket describes the stream by itself, for a bucket made by jetstream answers reads from any replica,
// which may be behind.
func newBucket(js jetstream.JetStream, replicas int) bucket {
	return bucket{js, jetstream.StreamConfig{
		Name: "KV_" + bucketName, Description: "who is in wsroom's rooms", Subjects: []string{"$KV." + bucketName + ".>"},
		Storage: jetstream.MemoryStorage, Replicas: replicas,
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true, DenyDelete: true,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: markerTTL,
	}}
}

// do calls f with the bucket, again where it turns out that there is none.
func (b bucket) do(ctx context.Context, what string, f func(jetstream.KeyValue) error) error {
	err := b.try(ctx, f)
	if isMissing(err) {
		if err = makeStream(ctx, b.js, b.config); err == nil {
			err = b.try(ctx, f)
		}
	}
	if err != nil {
		return fmt.Errorf("natsbroker: %s: %w", what, err)
	}
	return nil
}

func (b bucket) try(ctx context.Context, f func(jetstream.KeyValue) error) error {
	var kv jetstream.KeyValue
	err := insist(ctx, func(ctx context.Context) (err error) {
		kv, err = b.js.KeyValue(ctx, bucketName)
		return err
	})
	if err != nil {
		return err
	}
	return f(kv)
}

func isMissing(err error) bool {
	return errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

func isConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// hash makes a part of a key of any name.
func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// stored is a value and what is known of it. The revision of a key that isn't there is 0.
type stored[T any] struct {
	value    T
	key      string
	revision uint64
	written  time.Time // by the server's clock
}

func decode[T any](e jetstream.KeyValueEntry) (s stored[T], err error) {
	s = stored[T]{key: e.Key(), revision: e.Revision(), written: e.Created()}
	return s, json.Unmarshal(e.Value(), &s.value)
}

func get[T any](ctx context.Context, kv jetstream.KeyValue, key string) (stored[T], error) {
	var e jetstream.KeyValueEntry
	err := insist(ctx, func(ctx context.Context) (err error) {
		e, err = kv.Get(ctx, key)
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return stored[T]{key: key}, nil
	}
	if err != nil {
		return stored[T]{}, err
	}
	return decode[T](e)
}

// put writes a value if its key is still at its revision; see isConflict.
func put[T any](ctx context.Context, kv jetstream.KeyValue, s stored[T]) error {
	data, err := json.Marshal(s.value)
	if err != nil {
		return err
	}
	if s.revision == 0 {
		_, err = kv.Create(ctx, s.key, data)
	} else {
		_, err = kv.Update(ctx, s.key, data, s.revision)
	}
	return err
}

// drop deletes a key if it is still at that revision.
func drop(ctx context.Context, kv jetstream.KeyValue, key string, revision uint64) error {
	return kv.Purge(ctx, key, jetstream.LastRevision(revision), jetstream.PurgeTTL(markerTTL))
}

// verdict is what is to be done about a key.
type verdict int

const (
	keep verdict = iota
	write
	remove
)

// change has f change a value, the zero value where there is none, again as long as others are faster.
func change[T any](ctx context.Context, kv jetstream.KeyValue, key string, f func(*stored[T]) verdict) error {
	for {
		s, err := get[T](ctx, kv, key)
		if err != nil {
			return err
		}
		switch f(&s) {
		case keep:
			return nil
		case write:
			err = put(ctx, kv, s)
		case remove:
			err = drop(ctx, kv, key, s.revision)
		}
		if !isConflict(err) {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// scan calls f with all values whose keys match, as they are when it is called. What is read comes from
// any replica, which may be behind; so it reads on up to what it has written itself.
func scan[T any](ctx context.Context, kv jetstream.KeyValue, keys string, f func(stored[T])) error {
	mark, err := kv.Put(ctx, markKey, nil)
	if err != nil {
		return err
	}
	w, err := kv.WatchFiltered(ctx, []string{keys, markKey})
	if err != nil {
		return err
	}
	defer w.Stop()
	found := map[string]stored[T]{}
	for {
		select {
		case e := <-w.Updates():
			switch {
			case e == nil: // all that this replica had
			case e.Operation() != jetstream.KeyValuePut:
				delete(found, e.Key())
			case e.Key() != markKey:
				if found[e.Key()], err = decode[T](e); err != nil {
					return fmt.Errorf("key %s: %w", e.Key(), err)
				}
			case e.Revision() >= mark:
				for _, s := range found {
					f(s)
				}
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pause lets others go first, for a few milliseconds.
func pause(ctx context.Context) error {
	select {
	case <-time.After(rand.N(5 * time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
