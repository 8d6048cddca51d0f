package wsroom_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestCallbackPriority(t *testing.T) {
	used := make(chan string, 10)
	serveOpt := wsroom.Serve(func(c *wsroom.Conn) error {
		_, err := c.ReadText(context.Background())
		used <- "Serve"
		return err
	})
	jsonOpt := wsroom.OnJSON(func(c *wsroom.Conn, v any, err error) {
		if err == nil {
			used <- "OnJSON"
		}
	})
	textOpt := wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
		if err == nil {
			used <- "OnText"
		}
	})
	for _, tc := range []struct {
		name    string
		opts    []wsroom.Option
		want    string
		ignored []string
	}{
		{"all", []wsroom.Option{textOpt, jsonOpt, serveOpt}, "Serve", []string{"OnJSON", "OnText"}},
		{"Serve and Text", []wsroom.Option{textOpt, serveOpt}, "Serve", []string{"OnText"}},
		{"JSON and Text", []wsroom.Option{textOpt, jsonOpt}, "OnJSON", []string{"OnText"}},
		{"Text", []wsroom.Option{textOpt}, "OnText", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			logger := wsroom.WithLogger(slog.New(slog.NewJSONHandler(&log, nil)))
			srv := kit.Serve(t, wsroom.New(append(tc.opts, logger)...))
			var line struct {
				Used    string
				Ignored []string
			}
			if log.Len() > 0 {
				if err := json.Unmarshal(log.Bytes(), &line); err != nil {
					t.Fatalf("want one line, got %s", log.String())
				}
			}
			if !slices.Equal(line.Ignored, tc.ignored) || len(tc.ignored) > 0 && line.Used != tc.want {
				t.Errorf("log says %+v", line)
			}
			logged := log.Len()
			kit.Dial(t, srv, "/a").SendText("1")
			if got := kit.Await(t, used, "a callback"); got != tc.want {
				t.Errorf("%s was called, want %s", got, tc.want)
			}
			if log.Len() != logged {
				t.Errorf("logged again: %s", log.Bytes()[logged:])
			}
		})
	}
}

// Every member sees a room's messages in one order, whoever sends them and from where: to the room, to
// several rooms, to all. Each sender's messages come in the order sent.
func TestOneOrderPerRoom(t *testing.T) {
	const members, senders, each = 10, 8, 500
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithSendQueue(1<<20, 1<<30))
	srv := kit.Serve(t, hub)
	clients := make([]*wsroomtest.Client, members)
	for i := range clients {
		clients[i] = kit.Dial(t, srv, "/a")
	}
	kit.Dial(t, srv, "/b")
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for s := range senders {
		wg.Go(func() {
			<-begin
			for i := range each {
				text := fmt.Sprintf("%d %d", s, i)
				var err error
				switch s {
				case 0:
					err = hub.To("/b", "/a").SendText(text)
				case 1:
					err = hub.SendTextToAll(text)
				case 2:
					clients[s].SendText(text)
				default:
					err = hub.SendTextToRoom("/a", text)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	close(begin)
	wg.Wait()
	seen := make([][]string, members)
	for i, c := range clients {
		for range senders * each {
			seen[i] = append(seen[i], c.NextText())
		}
	}
	for i := range seen {
		if !slices.Equal(seen[i], seen[0]) {
			t.Errorf("members 0 and %d saw different orders", i)
		}
	}
	var next [senders]int
	for _, text := range seen[0] {
		var s, i int
		fmt.Sscan(text, &s, &i)
		if i != next[s] {
			t.Fatalf("message %d of sender %d came when %d was due", i, s, next[s])
		}
		next[s]++
	}
}

// stall fills a member's socket and queue: it doesn't read.
func stall(t *testing.T, srv *httptest.Server, hub *wsroom.Hub, room string) *wsroom.Conn {
	t.Helper()
	before := hub.Members(room)
	kit.DialRaw(t, srv, room)
	for _, c := range hub.Members(room) {
		if !slices.Contains(before, c) {
			return c
		}
	}
	t.Fatal("the stalled member isn't in its room")
	return nil
}

// A member that never reads costs the others nothing, under each policy: they get every message, its
// own queue stays bounded, and what it loses is reported.
func TestSlowMemberDoesNotDelayTheRoom(t *testing.T) {
	const messages, size = 400, 64 << 10 // more than the kernel's buffers take
	for name, policy := range map[string]wsroom.Overflow{
		"CloseSlow": wsroom.CloseSlow, "DropOldest": wsroom.DropOldest, "DropNewest": wsroom.DropNewest,
	} {
		t.Run(name, func(t *testing.T) {
			onClose, closed := kit.Closes()
			var dropped atomic.Int64
			hub := wsroom.New(onClose, wsroom.WithOverflow(policy), wsroom.WithSendQueue(64, 1<<20),
				wsroom.OnDrop(func(_ *wsroom.Conn, n int) { dropped.Add(int64(n)) }))
			srv := kit.Serve(t, hub)
			reader := kit.Dial(t, srv, "/a")
			slow := stall(t, srv, hub, "/a")
			pad := strings.Repeat("x", size)
			heap := kit.HeapInUse()
			for i := range messages {
				if err := hub.SendTextToRoom("/a", fmt.Sprint(i, pad)); err != nil {
					t.Fatal(err)
				}
				reader.ExpectText(fmt.Sprint(i, pad))
			}
			// The queue, a batch that is being written, and noise.
			if grown := kit.HeapInUse() - heap; grown > 8<<20 {
				t.Errorf("heap grew by %d KiB", grown>>10)
			}
			stats := hub.Stats()
			if policy == wsroom.CloseSlow {
				if err := kit.Await(t, closed, "the slow one's end"); !errors.Is(err, wsroom.ErrSlow) {
					t.Errorf("cause %v, want ErrSlow", err)
				}
				if err := slow.SendText("x"); !errors.Is(err, wsroom.ErrClosed) {
					t.Errorf("send to it: %v, want ErrClosed", err)
				}
				return
			}
			if hub.Len() != 2 {
				t.Error("the slow one is gone")
			}
			kit.Until(t, "all drops are reported", func() bool { return dropped.Load() == int64(hub.Stats().Dropped) })
			if stats.Dropped < messages/2 {
				t.Errorf("%d dropped of %d", stats.Dropped, messages)
			}
			err := slow.SendText(pad)
			if policy == wsroom.DropNewest && !errors.Is(err, wsroom.ErrQueueFull) || policy == wsroom.DropOldest && err != nil {
				t.Errorf("send to it: %v", err)
			}
			if err := slow.Close(4000, "full"); err != nil {
				t.Errorf("Close with a full queue: %v", err)
			}
			if err := kit.Await(t, closed, "its end"); websocket.CloseStatus(err) != 4000 {
				t.Errorf("cause %v", err)
			}
		})
	}
}

// Nothing vanishes silently: what wasn't delivered was counted, and which ones are dropped is as the
// policy says.
func TestDropsAreCountedAndChosen(t *testing.T) {
	const messages, size = 300, 64 << 10
	for name, policy := range map[string]wsroom.Overflow{"DropOldest": wsroom.DropOldest, "DropNewest": wsroom.DropNewest} {
		t.Run(name, func(t *testing.T) {
			hub := wsroom.New(wsroom.WithOverflow(policy), wsroom.WithSendQueue(16, 1<<30))
			srv := kit.Serve(t, hub)
			peer := kit.DialRaw(t, srv, "/a")
			pad := strings.Repeat("x", size)
			for i := range messages {
				hub.SendTextToRoom("/a", fmt.Sprint(i, " ", pad))
			}
			dropped := hub.Stats().Dropped
			if dropped == 0 {
				t.Fatal("nothing was dropped: the test shows nothing")
			}
			last, first := -1, -1
			for range messages - dropped {
				_, p, err := peer.Next()
				if err != nil {
					t.Fatal(err)
				}
				var i int
				fmt.Sscan(p[:8], &i)
				if i <= last {
					t.Fatalf("%d came after %d", i, last)
				}
				if first < 0 {
					first = i
				}
				last = i
			}
			if first != 0 && policy == wsroom.DropNewest { // the oldest may be dropped before anything is written
				t.Errorf("the first delivered is %d", first)
			}
			if newest := last == messages-1; newest != (policy == wsroom.DropOldest) {
				t.Errorf("the last delivered is %d of %d", last, messages)
			}
		})
	}
}

// A message is always taken when nothing waits, and a burst from OnConnect waits for room.
func TestSnapshotOfAnySizeIsNoSlowClient(t *testing.T) {
	const burst = 5000
	big := strings.Repeat("x", 4<<20)
	hub := wsroom.New(wsroom.WithSendQueue(4, 1<<10), wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		if err := c.SendText(big); err != nil {
			return err
		}
		for i := range burst {
			if err := c.SendText(fmt.Sprint(i)); err != nil {
				return err
			}
		}
		return nil
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.ExpectText(big)
	for i := range burst {
		c.ExpectText(fmt.Sprint(i))
	}
}

// What OnConnect sends comes first, and every room message sent since the client is in its room comes
// after it, none lost.
func TestSnapshotThenLive(t *testing.T) {
	const messages = 500
	inConnect, goOn := make(chan struct{}), make(chan struct{})
	hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		c.SendTextToThisRoom("room, from OnConnect")
		c.SendText("snapshot 1")
		close(inConnect)
		<-goOn
		return c.SendText("snapshot 2")
	}))
	srv := kit.Serve(t, hub)
	c := kit.Dial(t, srv, "/a") // the client is connected while OnConnect still runs
	kit.Await(t, inConnect, "OnConnect")
	for i := range messages {
		if i == messages/2 {
			close(goOn)
		}
		if err := hub.SendTextToRoom("/a", fmt.Sprint("live ", i)); err != nil {
			t.Fatal(err)
		}
	}
	c.ExpectText("snapshot 1", "snapshot 2", "room, from OnConnect")
	for i := range messages {
		c.ExpectText(fmt.Sprint("live ", i))
	}
}

// The close frame gives away nothing of an error, but for a CloseError of the application.
func TestErrorTextNeverGoesToThePeer(t *testing.T) {
	secret := errors.New("dial db: secret")
	own := fmt.Errorf("wrapped: %w", websocket.CloseError{Code: 4444, Reason: "go away"})
	for _, tc := range []struct {
		name   string
		err    error
		code   int
		reason string
	}{
		{"any error", secret, 1011, ""},
		{"CloseError", own, 4444, "go away"},
		{"CloseError that can't be sent", websocket.CloseError{Code: 1006}, 1011, ""},
		{"CloseError that is too long", websocket.CloseError{Code: 4000, Reason: strings.Repeat("x", 122) + "é"}, 4000, strings.Repeat("x", 122)},
		{"nil", nil, 1000, ""},
	} {
		for where, opt := range map[string]wsroom.Option{
			"OnConnect": wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return tc.err }),
			"Serve":     wsroom.Serve(func(*wsroom.Conn) error { return tc.err }),
		} {
			if where == "OnConnect" && tc.err == nil {
				continue
			}
			t.Run(tc.name+" of "+where, func(t *testing.T) {
				onClose, closed := kit.Closes()
				peer := kit.DialRaw(t, kit.Serve(t, wsroom.New(opt, onClose)), "/a")
				if code, reason := peer.CloseCode(); code != tc.code || reason != tc.reason {
					t.Errorf("close frame %d %q, want %d %q", code, reason, tc.code, tc.reason)
				}
				err := kit.Await(t, closed, "OnClose")
				if tc.err != nil && !errors.Is(err, tc.err) || tc.err == nil && websocket.CloseStatus(err) != 1000 {
					t.Errorf("cause %v", err)
				}
				peer.Close()
			})
		}
	}
}

// Text that isn't UTF-8 can't be sent, either.
func TestTextIsText(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.EchoRoom), wsroom.WithJSON(
		func(any) ([]byte, error) { return []byte("\"\xff\""), nil }, json.Unmarshal))
	srv := kit.Serve(t, hub)
	bystander, bad := kit.Dial(t, srv, "/a"), kit.DialRaw(t, srv, "/a")
	member := hub.Members("/a")[0]
	for name, err := range map[string]error{
		"Conn.SendText": member.SendText("\xff"), "Conn.SendJSON": member.SendJSON(1),
		"to this room": member.SendTextToThisRoom("\xc3("), "JSON to this room": member.SendJSONToThisRoom(1),
		"to a room": hub.SendTextToRoom("/a", "\xff"), "to all": hub.SendTextToAll("\xff"),
		"JSON to all": hub.SendJSONToAll(1), "Target": hub.To("/a").SendText("\xff"),
	} {
		if err == nil {
			t.Errorf("%s took text that isn't UTF-8", name)
		}
	}
	bad.Frame(0x81, "\xed\xa0\x80") // a lone surrogate
	if code, _ := bad.CloseCode(); code != 1007 {
		t.Errorf("close code %d, want 1007", code)
	}
	bystander.SendText("fine")
	bystander.ExpectText("fine") // and nothing before it
}

// A broadcast is marshalled once, and allocates as many objects for a thousand members as for ten.
func TestEncodeOnce(t *testing.T) {
	var marshalled atomic.Int64
	hub := wsroom.New(wsroom.WithJSON(func(v any) ([]byte, error) {
		marshalled.Add(1)
		return json.Marshal(v)
	}, json.Unmarshal), wsroom.WithHeartbeat(0, 0))
	ln := kit.NewSinkListener()
	srv := &http.Server{Handler: hub}
	go srv.Serve(ln)
	defer srv.Close()
	defer kit.Shutdown(t, hub)
	defer ln.Disconnect()
	allocs := func(room string, members int) float64 {
		for range members {
			ln.Connect("/" + room)
		}
		kit.Until(t, "all are members", func() bool { return len(hub.Members("/"+room)) == members })
		send := func() {
			before := ln.Frames.Load()
			if err := hub.SendJSONToRoom("/"+room, map[string]string{"text": "hello"}); err != nil {
				t.Fatal(err)
			}
			for ln.Frames.Load() < before+int64(members) {
				runtime.Gosched()
			}
		}
		for range 20 {
			send()
		}
		return testing.AllocsPerRun(100, send)
	}
	few, many := allocs("few", 10), allocs("many", 1000)
	t.Logf("%v objects for 10 members, %v for 1,000", few, many)
	if many > few+800 { // one for each member would be 990 more; the race detector empties pools at random
		t.Errorf("a broadcast allocates %v objects for 10 members and %v for 1,000", few, many)
	}
	before := marshalled.Load()
	hub.SendJSONToAll(1)
	if n := marshalled.Load() - before; n != 1 {
		t.Errorf("marshalled %d times", n)
	}
}

// A connection is of a size class of the allocator, 417 to 448 bytes, that is a multiple of a cache line:
// another would cost a large room a tenth.
func TestConnKeepsItsSize(t *testing.T) {
	if size := unsafe.Sizeof(wsroom.Conn{}); (size > 448 || size <= 416) && unsafe.Sizeof(uintptr(0)) == 8 {
		t.Errorf("a Conn has %d bytes, not 417 to 448", size)
	}
}
