package docs_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// message is one of a room, with its number there: 1, 2, 3 …
type message struct {
	N    int64  `json:"n"`
	Text string `json:"text"`
}

// store is what the database does.
type store interface {
	// Add gives the text the room's next number and keeps it, in one transaction.
	Add(ctx context.Context, room, text string) (n int64, err error)
	// After returns what follows number n, at most 200 messages, the oldest first.
	After(ctx context.Context, room string, n int64) ([]message, error)
}

// newRecorded returns a hub whose rooms are kept in the database, on any number of nodes.
func newRecorded(db store, opts ...wsroom.Option) *wsroom.Hub {
	return wsroom.New(append(opts,
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			have, _ := strconv.ParseInt(r.FormValue("have"), 10, 64) // anything else is 0
			for {
				messages, err := db.After(r.Context(), c.Room(), have)
				if err != nil || len(messages) == 0 {
					return err
				}
				if err := c.SendJSON(messages); err != nil {
					return err
				}
				have = messages[len(messages)-1].N
			}
		}),
		wsroom.OnJSON(func(c *wsroom.Conn, in struct {
			Text string
			Have *int64
		}, err error) {
			switch {
			case err != nil:
			case in.Have != nil: // it has a hole
				if messages, err := db.After(c.Context(), c.Room(), *in.Have); err == nil {
					c.SendJSON(messages)
				}
			default:
				if say(c.Context(), db, c, in.Text) != nil {
					c.Close(websocket.StatusInternalError, "")
				}
			}
		}))...)
}

// say keeps a text, and then sends it.
func say(ctx context.Context, db store, c *wsroom.Conn, text string) error {
	n, err := db.Add(ctx, c.Room(), text)
	if err != nil {
		return err
	}
	return c.SendJSONToThisRoom([]message{{n, text}})
}

// memory is a store.
type memory struct {
	mu    sync.Mutex
	rooms map[string][]message
}

func newMemory() *memory { return &memory{rooms: map[string][]message{}} }

func (m *memory) Add(_ context.Context, room, text string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(len(m.rooms[room])) + 1
	m.rooms[room] = append(m.rooms[room], message{n, text})
	return n, nil
}

func (m *memory) After(_ context.Context, room string, n int64) ([]message, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.rooms[room]
	all = all[min(max(n, 0), int64(len(all))):]
	return append([]message{}, all[:min(len(all), 200)]...), nil
}

// newSnapshot is the obvious cure: a snapshot in place of what was held back, under the lock under which the
// application changes its state and sends. That lock is this process's alone.
func newSnapshot(db store, mu *sync.Mutex, opts ...wsroom.Option) *wsroom.Hub {
	return wsroom.New(append(opts, wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
		mu.Lock()
		defer mu.Unlock()
		c.DropHeld()
		all, err := db.After(r.Context(), c.Room(), 0)
		if err != nil {
			return err
		}
		return c.SendJSON(all)
	}))...)
}

// The obvious cure isn't right on two nodes: a message that another node has kept and not yet sent comes twice,
// and clients that therefore skip what isn't newer than the newest lose one that was overtaken.
func TestSnapshotIsNotEnoughOnTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, db, ctx := brokertest.NewMemory(), newMemory(), t.Context()
		var mu1, mu2 sync.Mutex
		one := wsroomtest.CheckHub(t, newSnapshot(db, &mu1, wsroom.WithBroker(cloud.Open())))
		two := wsroomtest.CheckHub(t, newSnapshot(db, &mu2, wsroom.WithBroker(cloud.Open())))
		send := func(hub *wsroom.Hub, n int64, text string) {
			if err := hub.SendJSONToRoom("/a", []message{{n, text}}); err != nil {
				t.Error(err)
			}
			synctest.Wait()
		}

		mu2.Lock() // node two keeps a message, and hasn't sent it yet
		n, _ := db.Add(ctx, "/a", "first")
		c := wsroomtest.Dial(t, one, "/a")
		c.ExpectJSON([]message{{1, "first"}})
		send(two, n, "first")
		mu2.Unlock()
		c.ExpectJSON([]message{{1, "first"}}) // again

		second, _ := db.Add(ctx, "/a", "second") // by node one
		third, _ := db.Add(ctx, "/a", "third")   // by node two, which is the first to send
		send(two, third, "third")
		send(one, second, "second")
		c.ExpectJSON([]message{{3, "third"}}, []message{{2, "second"}}) // what is newer than the newest lacks this one
		c.ExpectNothing()
	})
}

// Nor is it right on one node with a broker: a message that was kept and sent under the lock may be on its way to the
// broker while the snapshot is taken.
func TestSnapshotIsNotEnoughWithABroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud, db := brokertest.NewMemory(), newMemory()
		var mu sync.Mutex
		hub := wsroomtest.CheckHub(t, newSnapshot(db, &mu, wsroom.WithBroker(cloud.Open())))
		mu.Lock()
		c := wsroomtest.Dial(t, hub, "/a") // it is in its room, and waits for its snapshot
		cloud.Hang()
		n, _ := db.Add(t.Context(), "/a", "first")
		if err := hub.SendJSONToRoom("/a", []message{{n, "first"}}); err != nil {
			t.Error(err)
		}
		mu.Unlock()
		c.ExpectJSON([]message{{1, "first"}})
		cloud.Resume()
		c.ExpectJSON([]message{{1, "first"}}) // again
		c.ExpectNothing()
	})
}

// runFollow runs the recipe's client in Node, at the nodes in turn, and returns the lines that it shows.
func runFollow(t *testing.T, urls ...string) *bufio.Scanner {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		const how = "node is missing: apt-get install nodejs"
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	dir := t.TempDir()
	for name, from := range map[string]string{"follow.js": "recipe/follow.js", "wsroom.js": "../js/wsroom.js"} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, _ := json.Marshal(urls)
	program := fmt.Sprintf(`import { follow } from "./follow.js";
let n = 0;
follow(() => %s[n++ %% %d], (m) => console.log(m.n, m.text), 0, { policy: () => 0, minDelay: 1, maxDelay: 50 });
`, list, len(urls))
	if err := os.WriteFile(filepath.Join(dir, "main.js"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"type": "module"}`), 0o600); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := exec.CommandContext(ctx, node, "--experimental-websocket", "--no-warnings", "main.js")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
	})
	return bufio.NewScanner(out)
}

// expect reads what the page shows next.
func expect(t *testing.T, shown *bufio.Scanner, n int, text string) {
	t.Helper()
	want := fmt.Sprint(n, " ", text)
	if !shown.Scan() {
		t.Fatalf("it ends in place of %q: %v", want, errors.Join(shown.Err(), io.EOF))
	}
	if got := shown.Text(); got != want {
		t.Fatalf("it shows %q, want %q", got, want)
	}
}

// recorded starts two nodes of the recipe's hub.
func recorded(t *testing.T, db store) (hubs []*wsroom.Hub, urls []string) {
	cloud := brokertest.NewMemory()
	for range 2 {
		hub := newRecorded(db, wsroom.WithBroker(cloud.Open()))
		srv := httptest.NewServer(hub)
		wsroomtest.CheckHub(t, hub)
		t.Cleanup(srv.Close)
		hubs, urls = append(hubs, hub), append(urls, strings.Replace(srv.URL, "http", "ws", 1)+"/a")
	}
	return hubs, urls
}

// The recipe shows each message once and in order, where the obvious cure doesn't: kept and not yet sent; overtaken;
// never sent, because its node has died.
func TestRecipeMendsWhatASnapshotDoesNot(t *testing.T) {
	db := newMemory()
	hubs, urls := recorded(t, db)
	add := func(text string) func(*wsroom.Hub) {
		n, err := db.Add(t.Context(), "/a", text)
		if err != nil {
			t.Fatal(err)
		}
		return func(hub *wsroom.Hub) {
			if err := hub.SendJSONToRoom("/a", []message{{n, text}}); err != nil {
				t.Error(err)
			}
		}
	}

	first := add("first")
	shown := runFollow(t, urls...)
	expect(t, shown, 1, "first")
	first(hubs[1])
	second, third := add("second"), add("third")
	third(hubs[1])
	second(hubs[0])
	expect(t, shown, 2, "second")
	expect(t, shown, 3, "third")
	add("never sent")
	add("after it")(hubs[0])
	expect(t, shown, 4, "never sent")
	expect(t, shown, 5, "after it")
}

// Members of both nodes talk, while the page is thrown out again and again and comes back to the other node.
func TestRecipeShowsEachMessageOnceAndInOrder(t *testing.T) {
	db := newMemory()
	hubs, urls := recorded(t, db)
	shown := runFollow(t, urls...)
	const each = 400
	var talking sync.WaitGroup
	for _, url := range urls {
		for range 2 {
			c := wsroomtest.Dial(t, nil, strings.Replace(url, "ws", "http", 1)+"?have=1000000", wsroomtest.WithTimeout(patience))
			talking.Go(func() {
				for i := range each {
					c.SendJSON(map[string]string{"text": fmt.Sprint(i)})
				}
			})
		}
	}
	throw := func() {
		for _, hub := range hubs {
			for _, c := range hub.Members("/a") {
				if c.Subprotocol() == "" && c.WebSocket().Subprotocol() != "" { // the page
					c.Close(websocket.StatusServiceRestart, "")
				}
			}
		}
	}
	for n := range 4 * each {
		if n%100 == 50 {
			throw()
		}
		if !shown.Scan() || !strings.HasPrefix(shown.Text(), fmt.Sprint(n+1, " ")) {
			t.Fatalf("it shows %q in place of message %d", shown.Text(), n+1)
		}
	}
	talking.Wait()
}

// The page shows the client that the tests run.
func TestPageShowsTheRecipesClient(t *testing.T) {
	page, err := os.ReadFile("resume.md")
	if err != nil {
		t.Fatal(err)
	}
	client, err := os.ReadFile("recipe/follow.js")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "```js\n"+string(client)+"```\n") {
		t.Error("resume.md shows another client than recipe/follow.js")
	}
}
