package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
)

const keptName = "wsroom-kept"

// keptStream returns the stream of kept messages, which there must be.
func keptStream(t testing.TB, nc *nats.Conn) jetstream.Stream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), keptName)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// purge removes all that is kept, or what is kept of a topic.
func purge(t testing.TB, nc *nats.Conn, opts ...jetstream.StreamPurgeOpt) {
	t.Helper()
	if err := keptStream(t, nc).Purge(t.Context(), opts...); err != nil {
		t.Fatal(err)
	}
}

// forget deletes the stream of kept messages, if there is one.
func forget(t testing.TB, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), keptName); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Fatal(err)
	}
}

// state returns what the stream of kept messages has.
func state(t testing.TB, nc *nats.Conn) jetstream.StreamState {
	t.Helper()
	return keptStream(t, nc).CachedInfo().State
}

// diary is a follower that notes what it hears: messages, "lost" and "live".
type diary struct {
	mu        sync.Mutex // guards what follows
	heard     []string
	positions []uint64
}

func (d *diary) note(text string, position uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = append(d.heard, text)
	d.positions = append(d.positions, position)
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.heard)
}

// has waits until exactly this has been heard.
func (d *diary) has(t testing.TB, want ...string) {
	t.Helper()
	until(t, fmt.Sprintf("%.60q is heard", want), func() bool { return len(d.all()) >= len(want) })
	if got := d.all(); !slices.Equal(got, want) {
		t.Fatalf("heard %.300q, want %.300q", got, want)
	}
}

func follow(t testing.TB, b wsroom.Keeper, topic string, n int) *diary {
	t.Helper()
	d := new(diary)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stop, err := b.Follow(ctx, topic, n, func(position uint64, data []byte) { d.note(string(data), position) },
		func() { d.note("live", 0) }, func(error) { d.note("lost", 0) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return d
}

// retain keeps messages. It waits for the stream.
func retain(t testing.TB, b wsroom.Keeper, topic string, n int, d time.Duration, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := b.Keep(t.Context(), topic, []byte(m), n, d); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers returns the texts of the numbers from one to another.
func numbers(from, to int) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, strconv.Itoa(n))
	}
	return all
}

// TestKeptLimitsGrow: the stream keeps as much as the node that asks for most, also where another has made it.
func TestKeptLimitsGrow(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	var nodes []*natsbroker.Broker
	for _, limit := range []int64{1 << 20, 1 << 19, 1 << 21} {
		nodes = append(nodes, natsbroker.New(connect(t, s.addr()), natsbroker.WithKeepLimit(limit)))
	}
	retain(t, nodes[0], "topic", 5, time.Minute, numbers(1, 3)...)
	retain(t, nodes[1], "topic", 2, time.Hour, numbers(4, 5)...)
	follow(t, nodes[2], "topic", 4).has(t, "2", "3", "4", "5", "live")
	retain(t, nodes[2], "topic", 10, time.Second, numbers(6, 20)...)
	retain(t, nodes[0], "topic", 5, time.Minute, "21")
	follow(t, nodes[2], "topic", 10).has(t, append(numbers(12, 21), "live")...)
	c := keptStream(t, connect(t, s.addr())).CachedInfo().Config
	if c.MaxMsgsPerSubject != 10 || c.MaxAge != time.Hour || c.MaxBytes != 1<<21 {
		t.Errorf("the stream keeps %d messages of a topic for %v, %d bytes in all; want 10, an hour, 2 MiB", c.MaxMsgsPerSubject, c.MaxAge, c.MaxBytes)
	}
}

// TestKeptLimitsOfOthersStand: a stream that somebody has made with no limits gets none.
func TestKeptLimitsOfOthersStand(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: keptName, Subjects: []string{"wsroom.keep.*.*"}, Storage: jetstream.MemoryStorage,
		RePublish: &jetstream.RePublish{Source: "wsroom.keep.*.*", Destination: "wsroom.kept.{{wildcard(1)}}"},
	})
	if err != nil {
		t.Fatal(err)
	}
	b := natsbroker.New(nc)
	retain(t, b, "topic", 2, time.Second, numbers(1, 10)...)
	follow(t, b, "topic", 7).has(t, append(numbers(4, 10), "live")...)
	if c := keptStream(t, nc).CachedInfo().Config; c.MaxMsgsPerSubject > 0 || c.MaxAge > 0 || c.MaxBytes > 0 {
		t.Errorf("the stream keeps %d messages of a topic for %v, %d bytes in all, and had no limits", c.MaxMsgsPerSubject, c.MaxAge, c.MaxBytes)
	}
}

// TestFollowersDisplaceNothing: what followers publish to know that they are joined isn't counted.
func TestFollowersDisplaceNothing(t *testing.T) {
	t.Parallel()
	b := natsbroker.New(connect(t, startNATS(t).addr()))
	retain(t, b, "topic", 3, time.Hour, numbers(1, 3)...)
	for range 10 {
		follow(t, b, "topic", 3).has(t, "1", "2", "3", "live")
	}
}

// TestNothingMissedWhileIdle: a follower whose topic's messages have all gone by their age isn't told of a loss
// when its connection breaks, and hears what comes afterwards.
func TestNothingMissedWhileIdle(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	nc := connect(t, s.addr())
	b, other := natsbroker.New(connect(t, cable.Addr())), natsbroker.New(nc)
	retain(t, other, "topic", 10, time.Second, "one")
	d, never, busy := follow(t, b, "topic", 10), follow(t, b, "never", 10), follow(t, b, "busy", 10)
	d.has(t, "one", "live")
	until(t, "nothing is kept", func() bool { return state(t, nc).Msgs == 0 })
	retain(t, other, "busy", 10, time.Second, "one")
	busy.has(t, "live", "one")
	cable.Cut()
	cable.Heal()
	retain(t, other, "topic", 10, time.Second, "two")
	retain(t, other, "never", 10, time.Second, "first")
	d.has(t, "one", "live", "two")
	never.has(t, "live", "first")
	until(t, "nothing is kept", func() bool { return state(t, nc).Msgs == 0 })
	retain(t, other, "topic", 10, time.Second, "three") // it names no predecessor
	d.has(t, "one", "live", "two", "three")
}

// TestIdleNodeKnows: a node that hears nothing knows nevertheless, to within 10 s, until when it has missed nothing.
// So it isn't told of a loss when its connection breaks and what others have kept meanwhile is forgotten.
func TestIdleNodeKnows(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	nc := connect(t, s.addr())
	b, other := natsbroker.New(connect(t, cable.Addr())), natsbroker.New(nc)
	retain(t, other, "topic", 10, time.Second, "one")
	d := follow(t, b, "topic", 10)
	d.has(t, "one", "live")
	retain(t, other, "elsewhere", 10, time.Second, numbers(1, 5)...)
	before := state(t, nc).LastSeq
	until(t, "the node publishes something", func() bool { return state(t, nc).LastSeq > before })
	until(t, "nothing is kept", func() bool { return state(t, nc).Msgs == 0 })
	cable.Cut()
	cable.Heal()
	retain(t, other, "topic", 10, time.Second, "two")
	d.has(t, "one", "live", "two")
}

// TestLostWhileCutOff: what a follower misses and isn't kept is reported in its place, whatever became of it. What
// comes then has higher positions.
func TestLostWhileCutOff(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 1<<20-4<<10)
	for name, lose := range map[string]func(t *testing.T, other *natsbroker.Broker, nc *nats.Conn){
		"Purged": func(t *testing.T, _ *natsbroker.Broker, nc *nats.Conn) { purge(t, nc) },
		"TopicPurged": func(t *testing.T, _ *natsbroker.Broker, nc *nats.Conn) {
			purge(t, nc, jetstream.WithPurgeSubject("wsroom.keep.dG9waWM.data"))
		},
		"Deleted": func(t *testing.T, _ *natsbroker.Broker, nc *nats.Conn) { forget(t, nc) },
		"Trimmed": func(t *testing.T, other *natsbroker.Broker, _ *nats.Conn) {
			retain(t, other, "topic", 10, time.Hour, numbers(6, 20)...)
		},
		"Displaced": func(t *testing.T, other *natsbroker.Broker, _ *nats.Conn) {
			retain(t, other, "large", 10, time.Hour, big, big, big, big, big)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startNATS(t)
			cable := brokertest.NewCable(t, s.addr())
			nc := connect(t, s.addr())
			limit := natsbroker.WithKeepLimit(4 << 20)
			b, other := natsbroker.New(connect(t, cable.Addr()), limit), natsbroker.New(nc, limit)
			retain(t, other, "topic", 10, time.Hour, numbers(1, 3)...)
			d, idle := follow(t, b, "topic", 10), follow(t, b, "topic", 10)
			d.has(t, "1", "2", "3", "live")
			idle.has(t, "1", "2", "3", "live")
			cable.Cut()
			retain(t, other, "topic", 10, time.Hour, "4", "5")
			lose(t, other, nc)
			cable.Heal()
			until(t, "lost is called", func() bool { return slices.Contains(d.all(), "lost") && slices.Contains(idle.all(), "lost") })
			retain(t, other, "topic", 10, time.Hour, "last")
			until(t, "the last arrives", func() bool { return slices.Contains(d.all(), "last") })
			want := []string{"1", "2", "3", "live", "lost", "last"}
			if name == "Trimmed" {
				want = slices.Concat(want[:5], numbers(11, 20), want[5:])
			}
			d.has(t, want...)
			d.rises(t)
		})
	}
}

// rises checks that positions rise.
func (d *diary) rises(t testing.TB) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	var last uint64
	for i, p := range d.positions {
		if p != 0 && p <= last {
			t.Fatalf("%q is at position %d, after %d", d.heard[i], p, last)
		}
		last = max(last, p)
	}
}

// TestDataGoneWhileConnected: a follower that stays connected notices that the stream has lost what it had, if it
// may have missed something by that.
func TestDataGoneWhileConnected(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(t testing.TB, nc *nats.Conn){"Purged": func(t testing.TB, nc *nats.Conn) { purge(t, nc) }, "Deleted": forget} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nc := connect(t, startNATS(t).addr())
			b := natsbroker.New(nc)
			d := follow(t, b, "topic", 10)
			retain(t, b, "topic", 10, time.Hour, "1", "2")
			d.has(t, "live", "1", "2")
			lose(t, nc)
			retain(t, b, "topic", 10, time.Hour, "3", "4")
			until(t, "4 arrives", func() bool { return slices.Contains(d.all(), "4") })
			got := slices.DeleteFunc(d.all(), func(s string) bool { return s == "lost" })
			if !slices.Equal(got, []string{"live", "1", "2", "3", "4"}) {
				t.Errorf("heard %q", d.all())
			}
			d.rises(t)
		})
	}
}

// TestDisplacedByOthers: where other topics have displaced what a follower has heard, it misses nothing by that: not
// while it is connected, and not when its connection breaks.
func TestDisplacedByOthers(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	limit := natsbroker.WithKeepLimit(1 << 20)
	b, other := natsbroker.New(connect(t, cable.Addr()), limit), natsbroker.New(connect(t, s.addr()), limit)
	big := strings.Repeat("x", 1<<18)
	d, large := follow(t, b, "topic", 10), follow(t, b, "large", 10)
	displaced := 0
	displace := func(want ...string) {
		t.Helper()
		for range 5 {
			displaced++
			retain(t, other, "large", 10, time.Hour, big) // one at a time, because they displace each other
			until(t, "it arrives", func() bool { return len(large.all()) == 1+displaced })
		}
		d.has(t, append([]string{"live"}, want...)...)
	}
	retain(t, other, "topic", 10, time.Hour, "1")
	displace("1")
	retain(t, other, "topic", 10, time.Hour, "2") // it names no predecessor
	displace("1", "2")
	cable.Cut()
	cable.Heal()
	retain(t, other, "topic", 10, time.Hour, "3")
	displace("1", "2", "3")
	if slices.Contains(large.all(), "lost") {
		t.Error("lost is called")
	}
}

// deafen has the stream republish nothing until the function that it returns is called.
func deafen(t testing.TB, nc *nats.Conn) (undo func()) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	config := keptStream(t, nc).CachedInfo().Config
	deaf := config
	deaf.RePublish = &jetstream.RePublish{Source: "wsroom.keep.nobody.x", Destination: "wsroom.kept.nobody"}
	if _, err := js.UpdateStream(t.Context(), deaf); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := js.UpdateStream(t.Context(), config); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeptGapIsFilled: a message that the server passed on but that never came is read when the next one comes.
// If it isn't kept any more, lost is called in its place.
func TestKeptGapIsFilled(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	b := natsbroker.New(nc)
	d := follow(t, b, "topic", 3)
	retain(t, b, "topic", 3, time.Hour, "1")
	d.has(t, "live", "1")
	undo := deafen(t, nc)
	retain(t, b, "topic", 3, time.Hour, "2")
	undo()
	retain(t, b, "topic", 3, time.Hour, "3")
	d.has(t, "live", "1", "2", "3")
	undo = deafen(t, nc)
	retain(t, b, "topic", 3, time.Hour, "4", "5", "6")
	undo()
	retain(t, b, "topic", 3, time.Hour, "7")
	d.has(t, "live", "1", "2", "3", "lost", "5", "6", "7")
	d.rises(t)

	first := follow(t, b, "first", 3) // which has heard nothing before
	undo = deafen(t, nc)
	retain(t, b, "first", 3, time.Hour, "1", "2", "3", "4")
	undo()
	retain(t, b, "first", 3, time.Hour, "5")
	first.has(t, "live", "lost", "3", "4", "5")
}

// direct sets whether the server's replicas answer those that ask for what is kept.
func direct(t testing.TB, js jetstream.JetStream, answer bool) {
	t.Helper()
	s, err := js.Stream(t.Context(), keptName)
	if err != nil {
		t.Error(err)
		return
	}
	config := s.CachedInfo().Config
	config.AllowDirect = answer
	if _, err := js.UpdateStream(t.Context(), config); err != nil {
		t.Error(err)
	}
}

// TestReadAgain: where a replica doesn't answer, or is behind, what is kept is read again. Other topics don't wait.
func TestReadAgain(t *testing.T) {
	t.Parallel()
	s := startNATS(t)
	nc := connect(t, s.addr())
	b := natsbroker.New(nc)
	retain(t, b, "topic", 10, time.Hour, "1", "2")
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	direct(t, js, false)
	var asked atomic.Int32
	replica, err := nc.Subscribe("$JS.API.DIRECT.GET."+keptName, func(m *nats.Msg) {
		switch asked.Add(1) {
		case 1: // it doesn't answer
		case 2:
			if err := m.RespondMsg(&nats.Msg{Header: nats.Header{"Status": {"404"}}}); err != nil {
				t.Error(err)
			}
		case 3:
			direct(t, js, true)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer replica.Unsubscribe()

	d := new(diary)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() {
		stop, err := b.Follow(ctx, "topic", 10, func(position uint64, data []byte) { d.note(string(data), position) },
			func() { d.note("live", 0) }, func(error) { d.note("lost", 0) })
		if err != nil {
			t.Error(err)
			return
		}
		stop()
	})
	until(t, "a replica is asked", func() bool { return asked.Load() > 0 })
	other := follow(t, b, "other", 10)
	retain(t, b, "other", 10, time.Hour, "1")
	other.has(t, "live", "1")
	if n := asked.Load(); n != 1 {
		t.Errorf("a replica is asked %d times before another topic can be followed", n)
	}
	d.has(t, "1", "2", "live")
}

// TestSlowFollower: what is too much for a follower's backlog is read when there is room, and not before. Others don't
// wait.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	b := natsbroker.New(nc)
	opened := make(chan struct{})
	d := new(diary)
	stop, err := b.Follow(t.Context(), "topic", 100, func(position uint64, data []byte) {
		<-opened
		d.note(string(data[:2]), position)
	}, func() { d.note("live", 0) }, func(err error) { d.note(err.Error(), 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	filler := strings.Repeat("x", 1<<20-1000)
	want := []string{"live"}
	for i := range 60 {
		want = append(want, fmt.Sprintf("%02d", i))
		retain(t, b, "topic", 100, time.Hour, want[i+1]+filler)
	}
	probes, err := keptStream(t, nc).Info(t.Context(), jetstream.WithSubjectFilter("wsroom.keep.*.probe"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range probes.State.Subjects {
		if n > 5 {
			t.Errorf("a follower that is too slow has published %d probes", n)
		}
	}
	other := follow(t, b, "topic", 1)
	other.has(t, want[60]+filler, "live")
	close(opened)
	d.has(t, want...)
	retain(t, b, "topic", 100, time.Hour, "zz")
	d.has(t, append(want, "zz")...)
}

// TestCutOffUnderLoad: a node's connection breaks again and again while much is kept on several topics. Its followers
// miss nothing, get nothing twice, and aren't told of a loss.
func TestCutOffUnderLoad(t *testing.T) {
	t.Parallel()
	const topics, messages, cuts = 20, 1000, 10
	s := startNATS(t)
	cable := brokertest.NewCable(t, s.addr())
	b, other := natsbroker.New(connect(t, cable.Addr())), natsbroker.New(connect(t, s.addr()))
	var diaries []*diary
	for i := range topics {
		diaries = append(diaries, follow(t, b, fmt.Sprint("topic ", i), 10))
	}
	var count atomic.Int64
	var keeping sync.WaitGroup
	for i, d := range diaries {
		retain(t, other, fmt.Sprint("topic ", i), messages, time.Hour, "0")
		d.has(t, "live", "0")
	}
	for i := range topics {
		keeping.Go(func() {
			for _, m := range numbers(1, messages) {
				if err := other.Keep(t.Context(), fmt.Sprint("topic ", i), []byte(m), messages, time.Hour); err != nil {
					t.Error(err)
					return
				}
				count.Add(1)
			}
		})
	}
	for i := range cuts {
		until(t, "some are kept", func() bool { return count.Load() > int64(i*topics*messages/(cuts+1)) || t.Failed() })
		cable.Cut()
		cable.Heal()
	}
	keeping.Wait()
	want := append([]string{"live"}, numbers(0, messages)...)
	for _, d := range diaries {
		d.has(t, want...)
		d.rises(t)
	}
}

// TestKeepRefusesNonsense: n and d must be positive, and the limit of all.
func TestKeepRefusesNonsense(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	b := natsbroker.New(nc)
	if b.Keep(t.Context(), "topic", nil, 0, time.Hour) == nil || b.Keep(t.Context(), "topic", nil, 1, 0) == nil {
		t.Error("Keep takes an n or d of 0")
	}
	if stop, err := b.Follow(t.Context(), "topic", 0, func(uint64, []byte) {}, func() {}, func(error) {}); err == nil {
		stop()
		t.Error("Follow takes an n of 0")
	}
	defer func() {
		if recover() == nil {
			t.Error("New takes a limit of 0")
		}
	}()
	natsbroker.New(nc, natsbroker.WithKeepLimit(0))
}

// kept is a Broker whose messages are kept.
type kept struct{ *natsbroker.Broker }

func (k kept) Publish(ctx context.Context, topic string, data []byte) error {
	return k.Keep(ctx, topic, data, 256, 2*time.Minute)
}

func (k kept) Subscribe(ctx context.Context, topic string, deliver func([]byte), lost func(error)) (func(), error) {
	return k.Follow(ctx, topic, 256, func(_ uint64, data []byte) { deliver(data) }, func() {}, lost)
}

// BenchmarkKeep is the time from Keep to its return, beside that of Publish, where 256 messages of a topic are kept.
func BenchmarkKeep(b *testing.B) {
	addr := startNATS(b).addr()
	b.Run("Publish", func(b *testing.B) { brokertest.BenchmarkPublish(b, natsbroker.New(connect(b, addr))) })
	b.Run("Keep", func(b *testing.B) { brokertest.BenchmarkPublish(b, kept{natsbroker.New(connect(b, addr))}) })
}

// BenchmarkKeepManyTopics is the time of a Keep to each of many topics in turn, 256 messages of each of which are kept.
func BenchmarkKeepManyTopics(b *testing.B) {
	for _, topics := range []int{1, 100, 1000, 4000} {
		for _, n := range []int{1, 256} {
			b.Run(fmt.Sprintf("%d topics/%d kept", topics, n), func(b *testing.B) {
				broker := natsbroker.New(connect(b, startNATS(b).addr()), natsbroker.WithKeepLimit(1<<30))
				data := make([]byte, 200)
				total := 0
				keep := func(messages int) {
					var next atomic.Int64
					var keeping sync.WaitGroup
					for range 64 {
						keeping.Go(func() {
							for i := next.Add(1) - 1; i < int64(messages); i = next.Add(1) - 1 {
								if err := broker.Keep(b.Context(), fmt.Sprint((total+int(i))%topics), data, n, time.Hour); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					keeping.Wait()
					total += messages
				}
				keep(topics * n)
				b.ResetTimer()
				keep(b.N)
				b.StopTimer()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
				began := time.Now()
				for i := range 10 {
					d := follow(b, broker, fmt.Sprint(i%topics), n)
					d.has(b, append(slices.Repeat([]string{string(data)}, n), "live")...)
				}
				b.ReportMetric(float64(time.Since(began).Microseconds())/10, "µs/follow")
			})
		}
	}
}

// BenchmarkKeptBytes is the memory of the server, which runs within the test, for a kept message of 200 bytes.
func BenchmarkKeptBytes(b *testing.B) {
	const topics = 100
	broker := natsbroker.New(connect(b, startNATS(b).addr()), natsbroker.WithKeepLimit(1<<30))
	data := make([]byte, 200)
	retain(b, broker, "first", 1<<30, time.Hour, "first")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range b.N {
		if err := broker.Keep(b.Context(), fmt.Sprint("topic ", i%topics), data, 1<<30, time.Hour); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(heap()-before)/float64(b.N), "bytes/message")
}

// keptServerDies: where the server dies that leads the stream of kept messages, which has three replicas, what is
// kept goes on to arrive, and nothing is missed.
func keptServerDies(t *testing.T, nodes []*natsServer) {
	forget(t, connect(t, nodes[0].addr()))
	here, there := keptOn(t, nodes, 3)
	retry := func(n int) {
		until(t, "a message is kept", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return here(0).Keep(ctx, "dies", []byte(strconv.Itoa(n)), 5000, time.Hour) == nil
		})
	}
	retry(0)
	leader := leaderOf(t, nodes, keptName)
	t.Cleanup(func() {
		if nodes[leader].running == nil {
			nodes[leader].start(t)
		}
	})
	d := follow(t, there(leader), "dies", 1)
	sender := here(leader)
	for n := 1; n < 2000; n++ {
		if n == 1000 {
			nodes[leader].stop()
		}
		until(t, "a message is kept", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return sender.Keep(ctx, "dies", []byte(strconv.Itoa(n)), 5000, time.Hour) == nil
		})
	}
	until(t, "the last message arrives", func() bool { return slices.Contains(d.all(), "1999") })
	got := slices.Compact(slices.DeleteFunc(d.all(), func(s string) bool { return s == "live" })) // kept again after an error
	if want := numbers(0, 1999); !slices.Equal(got, want) {
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("%d messages are heard; after %q comes %q", len(got), got[max(0, i-3):i], got[i:min(len(got), i+3)])
			}
		}
	}
	d.rises(t)
	if slices.Contains(d.all(), "lost") {
		t.Error("lost is called")
	}
}

// keptServerRestarts: where the only server dies that has the data, positions rise nevertheless, and followers that
// stay connected to other servers are told of what they may have missed.
func keptServerRestarts(t *testing.T, nodes []*natsServer) {
	forget(t, connect(t, nodes[0].addr()))
	here, there := keptOn(t, nodes, 1)
	retain(t, here(0), "restarts", 100, time.Hour, "first")
	for round := range 3 {
		leader := leaderOf(t, nodes, keptName)
		sender := here(leader)
		d, idle := follow(t, there(leader), "restarts", 100), follow(t, here(leader), "idle", 100)
		keep := func(message string) {
			until(t, "a message is kept", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return sender.Keep(ctx, "restarts", []byte(message), 100, time.Hour) == nil
			})
		}
		for n := range 50 {
			keep(fmt.Sprint(round, " before ", n))
		}
		last := fmt.Sprint(round, " before 49")
		until(t, "the last message arrives", func() bool { return slices.Contains(d.all(), last) })
		nodes[leader].stop()
		nodes[leader].start(t)
		for n := range 50 {
			keep(fmt.Sprint(round, " after ", n))
		}
		last = fmt.Sprint(round, " after 49")
		until(t, "the last message arrives", func() bool { return slices.Contains(d.all(), last) })
		d.rises(t)
		late := follow(t, sender, "restarts", 100)
		if got := late.all(); slices.Contains(got, fmt.Sprint(round, " before 49")) {
			t.Fatal("the data has outlived its server")
		}
		if late.positions[0] <= d.position(fmt.Sprint(round, " before 49")) {
			t.Errorf("%q is at position %d, and what was lost had positions up to %d", late.heard[0], late.positions[0], d.position(fmt.Sprint(round, " before 49")))
		}
		if !slices.Contains(d.all(), "lost") {
			t.Error("lost isn't called")
		}
		idle.rises(t)
	}
}

func (d *diary) position(message string) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.heard, message); i >= 0 {
		return d.positions[i]
	}
	return 0
}

// keptOn returns functions that open a broker on the next servers after that one, one and two further.
func keptOn(t *testing.T, nodes []*natsServer, replicas int) (here, there func(server int) *natsbroker.Broker) {
	open := func(server int) *natsbroker.Broker {
		return natsbroker.New(connect(t, nodes[server%3].addr()), natsbroker.WithReplicas(replicas))
	}
	return func(server int) *natsbroker.Broker { return open(server + 1) }, func(server int) *natsbroker.Broker { return open(server + 2) }
}

// leaderOf waits for the server that leads a stream.
func leaderOf(t *testing.T, nodes []*natsServer, stream string) (leader int) {
	t.Helper()
	until(t, "a server leads the stream", func() bool {
		leader = slices.IndexFunc(nodes, func(s *natsServer) bool {
			return s.running.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream)
		})
		return leader >= 0
	})
	return leader
}
