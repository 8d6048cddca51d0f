package redisbroker_test

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
)

// TestPresenceHealsWhatOneKeyLost: whichever key is evicted, once each node has entered again what it has,
// everyone is listed who is there, and nobody else.
func TestPresenceHealsWhatOneKeyLost(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	store := redisbroker.NewPresence(s.connect(t))
	has := map[string][]string{"n1": {"ann", "bob"}, "n2": {"ann", "eve"}}
	enter := func() {
		for node, identities := range has {
			if _, _, err := store.Renew(t.Context(), node, time.Hour); err != nil {
				t.Fatal(err)
			}
			for _, identity := range identities {
				if _, err := store.Enter(t.Context(), "room", identity, node); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	expect := func(key, when string, want ...string) {
		t.Helper()
		got, err := store.Identities(t.Context(), "room")
		if slices.Sort(got); err != nil || !slices.Equal(got, want) {
			t.Errorf("without %s, %s: %q are there, %v; want %q", key, when, got, err, want)
		}
	}
	for i := 0; ; i++ {
		command(t, s, "FLUSHALL")
		enter()
		keys := command(t, s, "KEYS", "*")
		if slices.Sort(keys); i >= len(keys) {
			break
		}
		command(t, s, "DEL", keys[i])
		enter()
		expect(keys[i], "entered again", "ann", "bob", "eve")
		for _, c := range []struct {
			node, identity string
			last           bool
		}{{"n1", "ann", false}, {"n2", "ann", true}, {"n1", "bob", true}} {
			last, err := store.Exit(t.Context(), "room", c.identity, c.node)
			if err != nil || last != c.last {
				t.Errorf("without %s, %s exits from %s: last is %v, %v", keys[i], c.identity, c.node, last, err)
			}
		}
		expect(keys[i], "when they have left", "eve")
		left, err := store.Leave(t.Context(), "n2")
		if err != nil || !slices.Equal(left["room"], []string{"eve"}) {
			t.Errorf("without %s, with n2 leave %v, %v", keys[i], left, err)
		}
	}
}

// TestPresenceAfterAFailover: a replica that has missed the last commands has a ghost, and lacks somebody.
// Entries shows a node both.
func TestPresenceAfterAFailover(t *testing.T) {
	t.Parallel()
	s := startRedis(t)
	store := redisbroker.NewPresence(s.connect(t))
	ctx := t.Context()
	store.Renew(ctx, "n1", time.Hour)
	store.EnterAll(ctx, [][2]string{{"room", "ann"}, {"room", "bob"}, {"hall", "eve"}}, "n1")
	in := func(room string) string { return "wsroom:{presence}:in:2:n1" + room }
	command(t, s, "SREM", in("room"), "ann")   // her Enter was lost
	command(t, s, "SADD", in("room"), "ghost") // its Exit was
	entries, err := store.Entries(ctx, "n1")
	for _, identities := range entries {
		slices.Sort(identities)
	}
	if want := "map[hall:[eve] room:[bob ghost]]"; fmt.Sprint(entries) != want || err != nil {
		t.Errorf("the entries are %v, %v; want %s", entries, err, want)
	}
	last, err := store.ExitAll(ctx, [][2]string{{"room", "ghost"}}, "n1")
	if !slices.Equal(last, []bool{true}) || err != nil {
		t.Errorf("Exit of the ghost: %v, %v", last, err)
	}
	first, err := store.EnterAll(ctx, [][2]string{{"room", "ann"}, {"room", "bob"}}, "n1")
	if !slices.Equal(first, []bool{true, false}) || err != nil {
		t.Errorf("Enter of all: %v, %v", first, err)
	}
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
func enterAll(t testing.TB, store *redisbroker.Presence, calls [][][2]string, node string) {
	t.Helper()
	for _, some := range calls {
		first, err := store.EnterAll(t.Context(), some, node)
		if err != nil || slices.Contains(first, false) {
			t.Fatalf("not all are first: %v", err)
		}
	}
}

// TestManyEnterAtOnce: members that enter together don't wait for one another. Far from Redis, 2,000 take less
// time than 100 answers do; and when their node dies, each of them is told of.
func TestManyEnterAtOnce(t *testing.T) {
	t.Parallel()
	const members, answers, roundTrip = 2000, 100, 200 * time.Millisecond
	s := startRedis(t)
	c := brokertest.NewCable(t, s.Addr)
	c.Delay(roundTrip / 2)
	store := redisbroker.NewPresence(connect(t, c.Addr()))

	begin := time.Now()
	enterAll(t, store, membersOf(members), "n1")
	took := time.Since(begin)
	if t.Logf("it took %v, as long as %d answers", took, took/roundTrip); took > answers*roundTrip {
		t.Errorf("that is more than %d answers", answers)
	}

	near := redisbroker.NewPresence(s.connect(t))
	if _, _, err := near.Renew(t.Context(), "n1", time.Millisecond); err != nil {
		t.Fatal(err)
	}
	<-time.After(2 * time.Millisecond)
	told := 0
	_, left, err := near.Renew(t.Context(), "n2", time.Hour)
	for _, identities := range left {
		told += len(identities)
	}
	if told != members || err != nil {
		t.Errorf("%d of %d were told of, %v", told, members, err)
	}
}

// BenchmarkManyEnter is the time in which 10,000 members enter 10 ms away from Redis. A hub allows them 5 s.
func BenchmarkManyEnter(b *testing.B) {
	s := startRedis(b)
	c := brokertest.NewCable(b, s.Addr)
	c.Delay(5 * time.Millisecond)
	store := redisbroker.NewPresence(connect(b, c.Addr()))
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

// readmeUser is the user of the README, by the words after SETUSER.
func readmeUser(t *testing.T) []string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ACL SETUSER (.+)$`).FindSubmatch(readme)
	if line == nil {
		t.Fatal("the README has no ACL SETUSER")
	}
	return strings.Fields(string(line[1]))
}

// connectAs connects as the README's user, whose password is "secret".
func connectAs(t testing.TB, addr, user string) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, DisableCache: true, ForceSingleClient: true, Username: user, Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// TestReadmesUserMayDoAll: the suite passes for the user of the README, who may do nothing else.
func TestReadmesUserMayDoAll(t *testing.T) {
	t.Parallel()
	user := readmeUser(t)
	t.Run("Broker", func(t *testing.T) {
		brokertest.Run(t, func(t testing.TB) brokertest.Setup {
			skipRepeated(t)
			s := startRedis(t)
			command(t, s, append([]string{"ACL", "SETUSER"}, user...)...)
			return brokertest.Setup{Open: func(t testing.TB) wsroom.Broker { return redisbroker.New(connectAs(t, s.Addr, user[0])) }}
		})
	})
	s := startRedis(t)
	command(t, s, append([]string{"ACL", "SETUSER"}, user...)...)
	t.Run("Presence", func(t *testing.T) {
		brokertest.RunPresence(t, func(t testing.TB) brokertest.PresenceSetup {
			skipRepeated(t)
			command(t, s, "FLUSHALL")
			return brokertest.PresenceSetup{
				Open: func(t testing.TB) wsroom.PresenceStore { return redisbroker.NewPresence(connectAs(t, s.Addr, user[0])) },
			}
		})
	})
	client := connectAs(t, s.Addr, user[0])
	for _, words := range [][]string{{"GET", "other"}, {"SET", "other", "1"}, {"INCR", "wsroom:x"}, {"FLUSHALL"}, {"KEYS", "*"}} {
		if err := client.Do(t.Context(), client.B().Arbitrary(words...).Build()).Error(); err == nil || !strings.Contains(err.Error(), "NOPERM") {
			t.Errorf("%q: %v, want NOPERM", words, err)
		}
	}
}

// TestReadmesUserOnACluster: with what the README adds for a cluster, it goes there, too.
func TestReadmesUserOnACluster(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	extra := regexp.MustCompile("on a cluster `([+][^`]+)`").FindSubmatch(readme)
	if extra == nil {
		t.Fatal("the README doesn't say what a user needs on a cluster")
	}
	user := append(readmeUser(t), strings.Fields(string(extra[1]))...)
	nodes := startCluster(t)
	for _, s := range nodes {
		command(t, s, append([]string{"ACL", "SETUSER"}, user...)...)
	}
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{nodes[0].Addr}, DisableCache: true, Username: user[0], Password: "secret",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	e := listen(t, redisbroker.New(client), "topic")
	publish(t, redisbroker.New(client), "topic", "hello")
	until(t, "the message arrives", func() bool { return e.messages.Load() == 1 })
	l := follow(t, redisbroker.New(client), "kept", 10)
	keep(t, redisbroker.New(client), "kept", "1")
	l.hears(t, "1")
	follow(t, redisbroker.New(client), "kept", 10).expect(t, "1")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	store := redisbroker.NewPresence(client)
	if first, err := store.Enter(ctx, "room", "ann", "n1"); !first || err != nil {
		t.Errorf("Enter: %v, %v", first, err)
	}
	if left, err := store.Leave(ctx, "n1"); len(left) != 1 || err != nil {
		t.Errorf("Leave: %v, %v", left, err)
	}
}
