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
			return brokertest.Setup{Open: func(t testing.TB) wsroom.Broker { return natsbroker.New(connectAs(t, s)) }}
		})
	})
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
			s := startRestricted(t)
			return brokertest.PresenceSetup{Open: func(t testing.TB) wsroom.PresenceStore { return natsbroker.NewPresence(connectAs(t, s)) }}
		})
	})
	t.Run("TwentyThousand", func(t *testing.T) { // the server asks to be told how far it may go on
		store := natsbroker.NewPresence(connectAs(t, startRestricted(t)))
		var entries [][2]string
		for i := range 20_000 {
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

// TestManyEnterInTime: 10,000 members of a node that comes after another one enter within the grace of 5 s,
// 10 ms away from the server; and when that node dies, each of them is told of.
func TestManyEnterInTime(t *testing.T) {
	s := startNATS(t)
	c := brokertest.NewCable(t, s.addr())
	c.Delay(5 * time.Millisecond)
	store := natsbroker.NewPresence(connect(t, c.Addr()))
	var entries [][2]string
	for i := range 10_000 {
		entries = append(entries, [2]string{fmt.Sprint("room ", i%3), fmt.Sprint("member ", i)})
	}
	begin := time.Now()
	for some := range slices.Chunk(entries, 1000) { // as a hub does
		first, err := store.EnterAll(t.Context(), some, "n1")
		if err != nil || slices.Contains(first, false) {
			t.Fatalf("not all are first: %v", err)
		}
	}
	took := time.Since(begin)
	if t.Logf("it took %v", took); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, _, err := store.Renew(t.Context(), "n1", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	told := 0
	begin = time.Now()
	for deadline := time.Now().Add(patience); told < len(entries) && time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // as a hub gives it
		_, left, err := store.Renew(ctx, "n2", time.Hour)
		cancel()
		if err != nil {
			t.Logf("Renew: %v", err)
		}
		for _, identities := range left {
			told += len(identities)
		}
	}
	if t.Logf("the end took %v", time.Since(begin)); told != len(entries) {
		t.Errorf("%d of %d were told of", told, len(entries))
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
