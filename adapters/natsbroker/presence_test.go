package natsbroker_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/natsbroker"
	"github.com/wsroom/wsroom/internal/underrace"
)

// startRestricted starts a server with a user who may use no subjects but those that the README names.
func startRestricted(t testing.TB) *natsServer {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	sentence := regexp.MustCompile(`user\s+needs\s+the\s+subjects\s([^:]*):`).FindStringSubmatch(string(readme))
	if sentence == nil {
		t.Fatal("the README doesn't say which subjects a user needs")
	}
	var subjects []string
	for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(sentence[1], -1) {
		subjects = append(subjects, m[1])
	}
	allow := &server.SubjectPermission{Allow: subjects}
	s := newServer(t)
	s.options.Users = []*server.User{{Username: "wsroom", Password: "secret", Permissions: &server.Permissions{Publish: allow, Subscribe: allow}}}
	s.start(t)
	return s
}

// connectAs connects as that user. What it is refused fails the test.
func connectAs(t testing.TB, s *natsServer) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(s.addr(), nats.UserInfo("wsroom", "secret"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
			t.Error(err)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// TestReadmesUserMayDoAll: the suite passes with the subjects of the README and no others.
func TestReadmesUserMayDoAll(t *testing.T) {
	t.Parallel()
	t.Run("Broker", func(t *testing.T) {
		s := startRestricted(t)
		brokertest.Run(t, func(t testing.TB) brokertest.Setup {
			skipRepeated(t)
			return brokertest.Setup{
				Open:   func(t testing.TB) wsroom.Broker { return natsbroker.New(connectAs(t, s)) },
				Retain: func(t testing.TB, _ int, _ time.Duration) { forget(t, connectAs(t, s)) }, // of the check before
				Wipe:   func(t testing.TB) { purge(t, connectAs(t, s)) },
			}
		})
	})
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
			skipRepeated(t)
			s := startRestricted(t)
			return brokertest.PresenceSetup{Open: func(t testing.TB) wsroom.PresenceStore { return natsbroker.NewPresence(connectAs(t, s)) }}
		})
	})
	t.Run("Many", func(t *testing.T) { // the server asks to be told how far it may go on
		store := natsbroker.NewPresence(connectAs(t, startRestricted(t)))
		var entries [][2]string
		for i := range underrace.Or(5000, 20_000) {
			entries = append(entries, [2]string{"room", fmt.Sprint("member ", i)})
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if _, err := store.EnterAll(ctx, entries, "n1"); err != nil {
			t.Fatal(err)
		}
		if there, err := store.Identities(ctx, "room"); err != nil || len(there) != len(entries) {
			t.Errorf("%d are there, %v", len(there), err)
		}
	})
}

// membersOf returns the entries of n members in three rooms, in as many calls as a hub makes.
func membersOf(n int) [][][2]string {
	var entries [][2]string
	for i := range n {
		entries = append(entries, [2]string{fmt.Sprint("room ", i%3), fmt.Sprint("member ", i)})
	}
	return slices.Collect(slices.Chunk(entries, 1000))
}

// enterAll has all enter by way of a node, of whom nobody may be there.
func enterAll(t testing.TB, store *natsbroker.Presence, calls [][][2]string, node string) {
	t.Helper()
	for _, some := range calls {
		first, err := store.EnterAll(t.Context(), some, node)
		if err != nil || slices.Contains(first, false) {
			t.Fatalf("not all are first: %v", err)
		}
	}
}

// TestManyEnterAtOnce: members that enter together don't wait for one another. Far from the server, 2,000 take less
// time than 100 answers do; and when their node dies, each of them is told of.
func TestManyEnterAtOnce(t *testing.T) {
	t.Parallel()
	const members, answers, roundTrip = 2000, 100, 200 * time.Millisecond
	s := startNATS(t)
	c := brokertest.NewCable(t, s.addr())
	c.Delay(roundTrip / 2)
	store := natsbroker.NewPresence(connect(t, c.Addr()))

	begin := time.Now()
	enterAll(t, store, membersOf(members), "n1")
	took := time.Since(begin)
	if t.Logf("it took %v, as long as %d answers", took, took/roundTrip); took > answers*roundTrip {
		t.Errorf("that is more than %d answers", answers)
	}

	near := natsbroker.NewPresence(connect(t, s.addr()))
	if _, _, err := near.Renew(t.Context(), "n1", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	told := 0
	until(t, "all are told of", func() bool {
		_, left, err := near.Renew(t.Context(), "n2", time.Hour)
		if err != nil {
			t.Errorf("Renew: %v", err)
		}
		for _, identities := range left {
			told += len(identities)
		}
		return told >= members || err != nil
	})
	if told != members {
		t.Errorf("%d of %d were told of", told, members)
	}
}

// BenchmarkManyEnter is the time in which 10,000 members enter 10 ms away from the server. A hub allows them 5 s.
func BenchmarkManyEnter(b *testing.B) {
	s := startNATS(b)
	c := brokertest.NewCable(b, s.addr())
	c.Delay(5 * time.Millisecond)
	store := natsbroker.NewPresence(connect(b, c.Addr()))
	calls := membersOf(10_000)
	for i := range b.N {
		node := fmt.Sprint("n", i)
		enterAll(b, store, calls, node)
		b.StopTimer()
		if _, err := store.Leave(b.Context(), node); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// skipRepeated skips the checks that make no calls but those of other checks, only more of them: where the question
// is what a user may do, they say nothing more.
func skipRepeated(t testing.TB) {
	for _, name := range []string{
		"OneOrder", "StopUnderLoad", "ManyTopics", "AnyData", "SlowSubscriber", "OneOfManyIsFirst", "OneOfManyIsLast", "ManyEntries",
		"AnyPresenceName", "BrokenRenewal", "BrokenLeave",
	} {
		if strings.HasSuffix(t.Name(), "/"+name) {
			t.Skip("other checks make the same calls")
		}
	}
}

// TestReplicasOfAStreamThatIsThere: where a stream has fewer replicas than are asked for, and the server can't have
// more, that is an error and no silence. More than are asked for are left alone.
func TestReplicasOfAStreamThatIsThere(t *testing.T) {
	t.Parallel()
	nc := connect(t, startNATS(t).addr())
	publish(t, natsbroker.New(nc), "topic", "x")
	if _, err := natsbroker.NewPresence(nc).Identities(t.Context(), "room"); err != nil {
		t.Fatal(err)
	}
	want := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "WithReplicas(3)") {
			t.Errorf("%s with 3 replicas of a stream that has 1: %v", what, err)
		}
	}
	want("Publish", natsbroker.New(nc, natsbroker.WithReplicas(3)).Publish(t.Context(), "topic", []byte("x")))
	_, err := natsbroker.NewPresence(nc, natsbroker.WithReplicas(3)).Identities(t.Context(), "room")
	want("Identities", err)
}

// replicasAreRaised: on a cluster, the stream and the bucket get as many replicas as are asked for, and keep them.
func replicasAreRaised(t *testing.T, nodes []*natsServer) {
	nc := connect(t, nodes[0].addr())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"wsroom", "KV_wsroom-presence"} {
		_ = js.DeleteStream(t.Context(), name) // there may be none
	}
	for _, n := range []int{1, 3, 1} {
		b, store := natsbroker.New(nc, natsbroker.WithReplicas(n)), natsbroker.NewPresence(nc, natsbroker.WithReplicas(n))
		until(t, "both can be used", func() bool { // what is sent while a leader is chosen isn't answered
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := b.Publish(ctx, "topic", []byte("x")); err != nil {
				return false
			}
			_, err := store.Enter(ctx, "room", "ann", "n1")
			return err == nil
		})
		for _, name := range []string{"wsroom", "KV_wsroom-presence"} {
			until(t, name+" is there", func() bool {
				s, err := js.Stream(t.Context(), name)
				return err == nil && s.CachedInfo().Config.Replicas >= n
			})
		}
	}
	for _, name := range []string{"wsroom", "KV_wsroom-presence"} {
		s, err := js.Stream(t.Context(), name)
		if err != nil || s.CachedInfo().Config.Replicas != 3 {
			t.Errorf("%s has %d replicas, %v; want 3", name, s.CachedInfo().Config.Replicas, err)
		}
	}
}
