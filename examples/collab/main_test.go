package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/examples/internal/yproto"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/internal/redistest"
	"github.com/wsroom/wsroom/wsroomtest"
)

const packages = "npm/node_modules"

// needPackages skips the test where the packages of npm are missing. With WSROOM_INTEROP=all it fails.
func needPackages(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(packages); err == nil {
		return
	}
	const how = packages + " is missing: npm ci --prefix examples/collab/npm --ignore-scripts"
	if os.Getenv("WSROOM_INTEROP") == "all" {
		t.Fatal(how)
	}
	t.Skip(how)
}

// writer is the y-websocket client in Node.
type writer struct {
	t    *testing.T
	in   *json.Encoder
	out  *bufio.Reader
	cmd  *exec.Cmd
	name string
}

func newWriter(t *testing.T, site, doc, name string) *writer {
	t.Helper()
	cmd := exec.Command("node", "client.mjs", strings.Replace(site, "http", "ws", 1)+"/ws", doc, name)
	cmd.Dir, cmd.Stderr = "npm", os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w := &writer{t, json.NewEncoder(stdin), bufio.NewReader(stdout), cmd, name}
	stuck := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		defer stuck.Stop()
		if w.cmd == nil {
			return
		}
		_ = stdin.Close() // it ends then
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	return w
}

// kill ends the program before it can say good-bye.
func (w *writer) kill() {
	w.t.Helper()
	if err := w.cmd.Process.Kill(); err != nil {
		w.t.Error(err)
	}
	_ = w.cmd.Wait() // it was killed
	w.cmd = nil
}

// order is what a writer is told to do.
type order map[string]any

// do has the writer do something, and returns what comes of it.
func (w *writer) do(o order) any {
	w.t.Helper()
	if err := w.in.Encode(o); err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		w.t.Fatalf("%s: %v", w.name, err)
	}
	var answer struct{ Value, Error any }
	if err := json.Unmarshal(line, &answer); err != nil || answer.Error != nil {
		w.t.Fatalf("%s, %.200v: %.200v %v", w.name, o, answer.Error, err)
	}
	return answer.Value
}

// insert writes text at the end.
func (w *writer) insert(text string) {
	w.t.Helper()
	w.do(order{"do": "insert", "text": text})
}

// twoNodes serves two nodes that share the broker and the store.
func twoNodes(t *testing.T, docs store) (one, other *browser.Server) {
	t.Helper()
	server := brokertest.NewMemory()
	node := func() (*wsroom.Hub, http.Handler) { return newNode(server.Open(), docs) }
	return browser.Serve(t, node), browser.Serve(t, node)
}

func newMemory() *memory { return &memory{docs: map[string][]string{}} }

// agree waits until all have the same text, of these parts in some order, and returns it.
func agree(t *testing.T, writers []*writer, parts ...string) string {
	t.Helper()
	text := writers[0].do(order{"do": "text", "of": parts}).(string)
	for _, w := range writers[1:] {
		w.do(order{"do": "is", "text": text})
	}
	return text
}

// Clients of two nodes have one text, also of what they wrote offline, at the same time and at the same place. So
// has one that comes later.
func TestOneTextOnTwoNodes(t *testing.T) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	both := []*writer{ada, bob}
	ada.do(order{"do": "synced"})
	ada.insert("Hello. ")
	agree(t, both, "Hello. ")
	bob.insert("Hello to you. ")
	agree(t, both, "Hello. Hello to you. ")

	ada.do(order{"do": "offline"})
	bob.do(order{"do": "offline"})
	ada.insert("Ada was away. ")
	ada.do(order{"do": "delete", "at": 0, "length": 7})
	bob.insert("So was Bob. ")
	ada.do(order{"do": "online"})
	bob.do(order{"do": "online"})
	text := agree(t, both, "Hello to you. ", "Ada was away. ", "So was Bob. ")

	eve := newWriter(t, other.URL, "doc", "Eve")
	eve.do(order{"do": "is", "text": text})
	elsewhere := newWriter(t, one.URL, "another", "Mallory")
	elsewhere.do(order{"do": "is", "text": ""})
}

// What was written stays when all have gone, and when the nodes were stopped.
func TestTheTextStays(t *testing.T) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	t.Run("ada", func(t *testing.T) {
		ada := newWriter(t, one.URL, "doc", "Ada")
		ada.do(order{"do": "synced"})
		ada.insert("Remember this. ")
		newWriter(t, other.URL, "doc", "Bob").do(order{"do": "is", "text": "Remember this. "})
	})
	one.Stop()
	other.Stop()
	one.Start()
	other.Start()
	newWriter(t, other.URL, "doc", "Eve").do(order{"do": "is", "text": "Remember this. "})
}

// While a node is away its clients go on, and so do those of the other node. Then they have one text.
func TestANodeIsAway(t *testing.T) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	both := []*writer{ada, bob}
	ada.do(order{"do": "synced"})
	ada.insert("1 ")
	agree(t, both, "1 ")
	one.Stop()
	ada.insert("2 ")
	bob.insert("3 ")
	bob.do(order{"do": "people", "are": []string{"Bob"}})
	one.Start()
	agree(t, both, "1 ", "2 ", "3 ")
}

// Each client sees who is there on both nodes, at once when it comes, and until they go, in whatever way.
func TestWhoIsThere(t *testing.T) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	for _, w := range []*writer{ada, bob} {
		w.do(order{"do": "people", "are": []string{"Ada", "Bob"}})
	}
	eve := newWriter(t, other.URL, "doc", "Eve")
	eve.do(order{"do": "synced"})
	began := time.Now()
	for _, w := range []*writer{ada, bob, eve} {
		w.do(order{"do": "people", "are": []string{"Ada", "Bob", "Eve"}})
	}
	if took := time.Since(began); took > 10*time.Second { // 15 s is when clients say it again by themselves
		t.Errorf("to come took %v", took)
	}
	eve.kill()
	began = time.Now()
	for _, w := range []*writer{ada, bob} {
		w.do(order{"do": "people", "are": []string{"Ada", "Bob"}})
	}
	if took := time.Since(began); took > 10*time.Second { // 30 s is when clients give somebody up
		t.Errorf("to go took %v", took)
	}
}

// A client is heard about itself only, although it repeats what it hears of others. When it goes, all are told.
func TestPeopleSpeakForThemselves(t *testing.T) {
	hub, handler := newNode(brokertest.NewMemory().Open(), newMemory())
	wsroomtest.CheckHub(t, hub)
	ada := wsroomtest.Dial(t, handler, "/ws/doc")
	say := func(people ...yproto.Person) {
		data := string([]byte{byte(len(people))})
		for _, p := range people {
			_, one, err := yproto.Parse(p.Message())
			if err != nil {
				t.Fatal(err)
			}
			data += one[1:]
		}
		ada.SendBinary(yproto.Message(yproto.Awareness, data))
	}
	hear := func(p yproto.Person, clients ...*wsroomtest.Client) {
		t.Helper()
		for _, c := range clients {
			c.ExpectBinary(p.Message())
		}
	}
	me := yproto.Person{ID: 7, Clock: 1, State: `{"user":{"name":"Ada"}}`}
	say(me)
	hear(me, ada)
	bob := wsroomtest.Dial(t, handler, "/ws/doc")
	ada.ExpectBinary(yproto.Message(yproto.AskAwareness, ""))
	say(yproto.Person{ID: 8, Clock: 5, State: "null"})
	me.Clock++
	say(yproto.Person{ID: 9, Clock: 5, State: "{}"}, me)
	hear(me, ada, bob)
	ada.CloseNow()
	me.State = "null"
	hear(me, bob)
}

// What is stored of a document doesn't grow for ever, and has all of it.
func TestTheStoreStaysSmall(t *testing.T) {
	needPackages(t)
	docs := newMemory()
	one, other := twoNodes(t, docs)
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	ada.do(order{"do": "synced"})
	bob.do(order{"do": "synced"})
	const times = askAfter / 256
	for n := range 3 {
		ada.do(order{"do": "type", "times": times, "text": "x"})
		bob.do(order{"do": "is", "text": strings.Repeat("x", (n+1)*times)})
	}
	ada.insert("y") // after the answer to the last question
	all := strings.Repeat("x", 3*times) + "y"
	bob.do(order{"do": "is", "text": all})
	changes, err := docs.Changes(t.Context(), "doc")
	if err != nil || len(changes) > times/2 {
		t.Errorf("%d changes are kept, %v", len(changes), err)
	}
	newWriter(t, other.URL, "doc", "Eve").do(order{"do": "is", "text": all})
}

// A document that is too large is refused, and clients stay away.
func TestLargeDocuments(t *testing.T) {
	needPackages(t)
	one, other := twoNodes(t, newMemory())
	ada := newWriter(t, one.URL, "doc", "Ada")
	ada.do(order{"do": "synced"})
	for range 2 {
		ada.insert(strings.Repeat("x", maxDocument*2/3))
	}
	late := newWriter(t, other.URL, "doc", "Late")
	if why := late.do(order{"do": "closed"}).(map[string]any); why["code"] != 4413.0 {
		t.Errorf("it is refused with %v", why)
	}
	newWriter(t, other.URL, "another", "Eve").do(order{"do": "is", "text": ""})
}

// What the broker loses comes from the store.
func TestTheBrokerLosesAChange(t *testing.T) {
	needPackages(t)
	server, docs := brokertest.NewMemory(), newMemory()
	node := func() (*wsroom.Hub, http.Handler) { return newNode(server.Open(), docs) }
	one, other := browser.Serve(t, node), browser.Serve(t, node)
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	for _, w := range []*writer{ada, bob} {
		w.do(order{"do": "people", "are": []string{"Ada", "Bob"}})
	}
	server.Lose(1)
	ada.insert("lost")
	bob.do(order{"do": "is", "text": "lost"})
}

// Both stores keep what they are given, in place of what is old, and documents apart.
func TestStores(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testStore(t, newMemory()) })
	t.Run("redis", func(t *testing.T) { testStore(t, inRedis{newRedis(t)}) })
}

func testStore(t *testing.T, docs store) {
	check := func(doc string, want ...string) {
		t.Helper()
		changes, err := docs.Changes(t.Context(), doc)
		slices.Sort(changes)
		if err != nil || !slices.Equal(changes, want) {
			t.Errorf("%s has %q, %v; want %q", doc, changes, err, want)
		}
	}
	replace := func(change string, old ...string) {
		t.Helper()
		if err := docs.Replace(t.Context(), "doc", old, change); err != nil {
			t.Error(err)
		}
	}
	check("doc")
	replace("\x00\xff")
	replace("b")
	replace("c")
	check("doc", "\x00\xff", "b", "c")
	replace("d", "\x00\xff", "b", "gone before")
	check("doc", "c", "d")
	replace("d", "d", "c")
	check("doc", "d")
	check("another")
}

func newRedis(t *testing.T) rueidis.Client {
	t.Helper()
	db, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redistest.Start(t).Addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

func TestOneTextOverRedis(t *testing.T) {
	needPackages(t)
	db := newRedis(t)
	node := func() (*wsroom.Hub, http.Handler) { return newNode(redisbroker.New(db), inRedis{db}) }
	one, other := browser.Serve(t, node), browser.Serve(t, node)
	ada, bob := newWriter(t, one.URL, "doc", "Ada"), newWriter(t, other.URL, "doc", "Bob")
	both := []*writer{ada, bob}
	ada.do(order{"do": "synced"})
	ada.insert("Ada. ")
	agree(t, both, "Ada. ")
	ada.do(order{"do": "offline"})
	ada.insert("Offline. ")
	bob.insert("Bob. ")
	ada.do(order{"do": "online"})
	newWriter(t, one.URL, "doc", "Eve").do(order{"do": "is", "text": agree(t, both, "Ada. ", "Offline. ", "Bob. ")})
}

// A client that doesn't speak the protocol is told so, and stays away.
func TestOtherProtocols(t *testing.T) {
	needPackages(t)
	one, _ := twoNodes(t, newMemory())
	for _, bytes := range []string{"CQ==", "AA==", "AAICAA==", "AQUBBwIBew=="} {
		w := newWriter(t, one.URL, "doc", "Mallory")
		w.do(order{"do": "synced"})
		w.do(order{"do": "send", "bytes": bytes})
		why := w.do(order{"do": "closed"}).(map[string]any)
		if why["code"] != 4400.0 {
			t.Errorf("%s is answered with %v", bytes, why)
		}
	}
}

// The page's copy of Yjs is what npm/build.mjs makes of the packages.
func TestTheBundleIsWhatNpmMakes(t *testing.T) {
	needPackages(t)
	made := t.TempDir()
	cmd := exec.Command("node", "build.mjs", made)
	cmd.Dir = "npm"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{"yjs.js", "yjs.LICENSES"} {
		want, err := os.ReadFile(filepath.Join(made, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != string(want) {
			t.Errorf("%s is another one: npm run build --prefix examples/collab/npm (%v)", name, err)
		}
	}
}
