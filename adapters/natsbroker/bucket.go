package natsbroker

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	bucketName = "wsroom-presence"
	markKey    = "mark"
	markerTTL  = time.Minute // how long a deleted key leaves a trace
)

// bucket is a key-value bucket that is created if it doesn't exist.
type bucket struct {
	js     jetstream.JetStream
	config jetstream.StreamConfig

	mu     sync.Mutex         // guards what follows
	kv     jetstream.KeyValue // nil before it has been found
	stream jetstream.Stream   // beneath kv; found with it
}

// newBucket describes the stream itself: in a bucket made by jetstream any replica answers reads, and it
// may be behind.
func newBucket(js jetstream.JetStream, replicas int) *bucket {
	return &bucket{js: js, config: jetstream.StreamConfig{
		Name: "KV_" + bucketName, Description: "who is in wsroom's rooms", Subjects: []string{"$KV." + bucketName + ".>"},
		Storage: jetstream.MemoryStorage, Replicas: replicas,
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, AllowRollup: true, DenyDelete: true,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: markerTTL,
	}}
}

// do calls f with the bucket. It calls f again if the bucket turns out not to exist.
func (b *bucket) do(ctx context.Context, what string, f func(jetstream.KeyValue) error) error {
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

func (b *bucket) try(ctx context.Context, f func(jetstream.KeyValue) error) error {
	kv, err := b.find(ctx)
	if err != nil {
		return err
	}
	return f(kv)
}

// find returns the bucket. It asks the server once.
func (b *bucket) find(ctx context.Context) (kv jetstream.KeyValue, err error) {
	b.mu.Lock()
	kv = b.kv
	b.mu.Unlock()
	if kv != nil {
		return kv, nil
	}
	if _, err := raise(ctx, b.js, b.config); err != nil {
		return nil, err
	}
	var stream jetstream.Stream
	err = insist(ctx, func(ctx context.Context) (err error) {
		if kv, err = b.js.KeyValue(ctx, bucketName); err == nil {
			stream, err = b.js.Stream(ctx, b.config.Name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kv, b.stream = kv, stream
	return kv, nil
}

func isMissing(err error) bool {
	return errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders)
}

func isConflict(err error) bool {
	return errors.Is(err, jetstream.ErrKeyRevisionMismatch) || errors.Is(err, jetstream.ErrKeyExists)
}

// hash turns any name into a part of a key.
func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// stored is a value and what is known of its key. The revision of a missing key is 0.
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

// getEntry returns a key's value; nil if there is none.
func getEntry(ctx context.Context, kv jetstream.KeyValue, key string) (e jetstream.KeyValueEntry, err error) {
	err = insist(ctx, func(ctx context.Context) (err error) {
		e, err = kv.Get(ctx, key)
		return err
	})
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil, nil
	}
	return e, err
}

func get[T any](ctx context.Context, kv jetstream.KeyValue, key string) (stored[T], error) {
	e, err := getEntry(ctx, kv, key)
	if err != nil {
		return stored[T]{}, err
	}
	if e == nil {
		return stored[T]{key: key}, nil
	}
	return decode[T](e)
}

// put writes a value if its key is still at its revision. See isConflict.
func put[T any](ctx context.Context, kv jetstream.KeyValue, s stored[T]) (revision uint64, err error) {
	data, err := json.Marshal(s.value)
	if err != nil {
		return 0, err
	}
	if s.revision == 0 {
		return kv.Create(ctx, s.key, data)
	}
	return kv.Update(ctx, s.key, data, s.revision)
}

// drop deletes a key if it is still at that revision.
func drop(ctx context.Context, kv jetstream.KeyValue, key string, revision uint64) error {
	return kv.Purge(ctx, key, jetstream.LastRevision(revision), jetstream.PurgeTTL(markerTTL))
}

// verdict says what to do with a key.
type verdict int

const (
	keep verdict = iota
	write
	remove
)

// change makes f change a value, which is the zero value if there is none. It tries again while other
// writers are faster. It returns the new value.
func change[T any](ctx context.Context, kv jetstream.KeyValue, key string, f func(*stored[T]) verdict) (stored[T], error) {
	for {
		s, err := get[T](ctx, kv, key)
		if err != nil {
			return s, err
		}
		switch f(&s) {
		case keep:
			return s, nil
		case write:
			s.revision, err = put(ctx, kv, s)
		case remove:
			err = drop(ctx, kv, key, s.revision)
		}
		if !isConflict(err) {
			return s, err
		}
		if err := pause(ctx); err != nil {
			return s, err
		}
	}
}

// scan returns all values whose keys match one of these, as they are at the time of the call or later, and the
// server's time.
//
// Any replica may answer, and it may be behind. So scan reads on until it sees what it has written itself. A value
// that is replaced before the server comes to deliver it is not delivered in its place, but behind that. So scan
// asks for the keys that there are, and gets those that it hasn't seen one by one.
func (b *bucket) scan(ctx context.Context, kv jetstream.KeyValue, keys ...string) (found map[string]jetstream.KeyValueEntry, now time.Time, err error) {
	mark, err := kv.Put(ctx, markKey, nil)
	if err != nil {
		return nil, now, err
	}
	seen, found, now, err := watch(ctx, kv, mark, keys)
	if err != nil {
		return nil, now, err
	}
	for _, key := range keys {
		there, err := b.keysLike(ctx, key)
		if err != nil {
			return nil, now, err
		}
		missing := slices.DeleteFunc(there, func(key string) bool { return seen[key] })
		if err := fetch(ctx, kv, missing, found); err != nil {
			return nil, now, err
		}
	}
	return found, now, nil
}

// watch returns the keys that it has seen, the values of those that aren't deleted, and the time of the mark, which it
// has seen when it returns.
func watch(ctx context.Context, kv jetstream.KeyValue, mark uint64, keys []string) (seen map[string]bool, found map[string]jetstream.KeyValueEntry, now time.Time, err error) {
	w, err := kv.WatchFiltered(ctx, append(slices.Clone(keys), markKey))
	if err != nil {
		return nil, nil, now, err
	}
	defer w.Stop()

	seen, found = map[string]bool{}, map[string]jetstream.KeyValueEntry{}
	for {
		select {
		case e := <-w.Updates():
			switch {
			case e == nil: // that is all that this replica had
			case e.Key() == markKey:
				if e.Revision() >= mark {
					return seen, found, e.Created(), nil
				}
			case e.Operation() != jetstream.KeyValuePut:
				seen[e.Key()] = true
				delete(found, e.Key())
			default:
				seen[e.Key()] = true
				found[e.Key()] = e
			}
		case <-ctx.Done():
			return nil, nil, now, ctx.Err()
		}
	}
}

// keysLike returns the keys that match, and those of deleted values that have left a trace. The server takes them from
// its index, in which a key stays while its value is replaced.
func (b *bucket) keysLike(ctx context.Context, like string) (keys []string, err error) {
	prefix := "$KV." + bucketName + "."
	b.mu.Lock()
	stream := b.stream
	b.mu.Unlock()
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+like)) // may take its time: insist is for short calls
	if err != nil {
		return nil, err
	}
	for subject := range info.State.Subjects {
		keys = append(keys, strings.TrimPrefix(subject, prefix))
	}
	return keys, nil
}

// fetch gets the values of these keys, as far as there are any.
func fetch(ctx context.Context, kv jetstream.KeyValue, keys []string, found map[string]jetstream.KeyValueEntry) error {
	var mu sync.Mutex // guards found
	return each(len(keys), func(i int) error {
		e, err := getEntry(ctx, kv, keys[i])
		if err != nil || e == nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		found[keys[i]] = e
		return nil
	})
}

// decodeAll decodes the values whose keys begin with the prefix.
func decodeAll[T any](found map[string]jetstream.KeyValueEntry, prefix string) (all []stored[T], err error) {
	for key, e := range found {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		s, err := decode[T](e)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", key, err)
		}
		all = append(all, s)
	}
	return all, nil
}

// calls is how many calls of the server run at a time.
const calls = 256

// each calls f with 0 to n-1, many at a time, until one fails. It returns the first error.
func each(n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var running sync.WaitGroup
	for range min(n, calls) {
		running.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	running.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// pause waits a few milliseconds, so that others go first.
func pause(ctx context.Context) error {
	select {
	case <-time.After(rand.N(5 * time.Millisecond)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
