package watch_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/tests/kit"
	"github.com/wsroom/wsroom/wsroomtest"
)

// trigger does something that is counted with a cause.
type trigger struct {
	counts string // metric and cause, as in docs/metrics.md
	opts   []wsroom.Option
	do     func(s *kit.PipeServer, hub *wsroom.Hub)
}

// Each cause that docs/metrics.md lists is counted, as often as it should be, and no other. Gauges are at zero when
// the hub is shut down, whatever has happened.
func TestEveryCauseIsCountedAndDocumented(t *testing.T) {
	seen := map[string]bool{}
	for _, h := range slices.Concat(endings(), drops(), refusalsOfRequests(), limitsOfHub(), brokerFaults(), returns()) {
		t.Run(h.counts, func(t *testing.T) {
			for name := range h.count(t) {
				seen[name] = true
			}
		})
	}
	documented := documentedCauses(t)
	for name := range documented {
		if !seen[name] {
			t.Errorf("documented, but it wasn't counted: %s", name)
		}
	}
	for name := range seen {
		if !documented[name] {
			t.Errorf("not in docs/metrics.md: %s", name)
		}
	}
}

// count runs the trigger on a hub of its own, and returns what was counted with a cause.
func (h trigger) count(t *testing.T) map[string]float64 {
	o := &kit.Observer{Sums: map[string]float64{}}
	var hub *wsroom.Hub
	newHub := func() *wsroom.Hub {
		hub = wsroom.New(append(h.opts, wsroom.WithObserver(o))...)
		return hub
	}
	kit.InBubble(t, newHub, func(_ *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
		h.do(s, hub)
		synctest.Wait()
	})
	for _, gauge := range []string{wsroom.MetricConns, wsroom.MetricRooms, wsroom.MetricBrokerQueue, wsroom.MetricHistory} {
		if n := o.Sum(gauge); n != 0 {
			t.Errorf("%s is %v at the end", gauge, n)
		}
	}
	maps.DeleteFunc(o.Sums, func(name string, _ float64) bool { return !strings.Contains(name, " ") })
	if o.Sums[h.counts] != 1 {
		t.Errorf("counted: %v", o.Sums)
	}
	ends, sums := maps.Clone(o.Sums), map[string]float64{}
	maps.DeleteFunc(ends, func(name string, _ float64) bool {
		return !strings.HasPrefix(name, "ended ") && !strings.HasPrefix(name, "refused ")
	})
	for cause, n := range hub.Causes().Ended {
		sums["ended "+cause] = float64(n)
	}
	for cause, n := range hub.Causes().Refused {
		sums["refused "+cause] = float64(n)
	}
	if !maps.Equal(ends, sums) {
		t.Errorf("counted: %v; in Causes: %v", ends, sums)
	}
	return o.Sums
}

// documentedCauses are the metrics with their causes of docs/metrics.md.
func documentedCauses(t *testing.T) map[string]bool {
	t.Helper()
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	causes := map[string]bool{}
	row := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| ((?:`\\w+`(?:, )?)+) \\|[^|]+\\|$")
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		for cause := range strings.SplitSeq(m[2], ", ") {
			causes[m[1]+" "+strings.Trim(cause, "`")] = true
		}
	}
	return causes
}

// onConn is a trigger that needs a connected client, which disconnects at the end.
func onConn(counts string, do func(c *kit.RawConn, hub *wsroom.Hub), opts ...wsroom.Option) trigger {
	return trigger{counts, opts, func(s *kit.PipeServer, hub *wsroom.Hub) {
		c := s.DialRaw("/a")
		do(c, hub)
		synctest.Wait()
		c.Close()
	}}
}

func endings() []trigger {
	sends := func(frames ...[]byte) func(*kit.RawConn, *wsroom.Hub) {
		return func(c *kit.RawConn, _ *wsroom.Hub) {
			go c.CloseFrame()
			for _, f := range frames {
				_, _ = c.Write(f) // the connection may have ended meanwhile
			}
		}
	}
	waits := func(d time.Duration) func(*kit.RawConn, *wsroom.Hub) {
		return func(c *kit.RawConn, _ *wsroom.Hub) {
			go c.CloseFrame() // what comes is taken, and not answered
			time.Sleep(d)
		}
	}
	text := wsroom.OnText(kit.DiscardText)
	return []trigger{
		onConn("ended peer", sends(kit.RawFrame(0x88, "\x03\xe8"))),
		onConn("ended closed", func(c *kit.RawConn, hub *wsroom.Hub) { hub.ToAll().Close(4000, "") }),
		onConn("ended shutdown", func(c *kit.RawConn, hub *wsroom.Hub) {
			go c.CloseFrame()
			go hub.Shutdown(c.T.Context())
		}),
		onConn("ended expired", waits(time.Hour), kit.AdmitFor(time.Minute), wsroom.WithHeartbeat(0, 0)),
		onConn("ended max_age", waits(time.Hour), wsroom.WithMaxAge(time.Minute), wsroom.WithHeartbeat(0, 0)),
		onConn("ended error", waits(0), wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { return errors.New("no") })),
		onConn("ended panic", sends(kit.RawFrame(0x81, "x")), wsroom.OnText(func(*wsroom.Conn, string, error) { panic("boom") })),
		onConn("ended lost", func(*kit.RawConn, *wsroom.Hub) {}),
		onConn("ended heartbeat", waits(time.Minute)),
		onConn("ended write_timeout", func(c *kit.RawConn, hub *wsroom.Hub) {
			hub.SendTextToAll("x")
			time.Sleep(time.Minute)
		}),
		onConn("ended slow", func(c *kit.RawConn, hub *wsroom.Hub) { fill(hub, 3) }, wsroom.WithSendQueue(1, 1)),
		onConn("ended rate", sends(kit.RawFrame(0x81, "x"), kit.RawFrame(0x81, "y")), text,
			wsroom.WithRateLimit(1, 1), wsroom.WithRateLimitAction(wsroom.Disconnect)),
		onConn("ended overhead", sends(slices.Repeat(kit.RawFrame(0x89, ""), 1000)), text),
		onConn("ended too_big", sends(kit.RawFrame(0x81, strings.Repeat("x", 11))), text, wsroom.WithMaxMessageSize(10)),
		onConn("ended too_big", sends(kit.RawFrame(0x81, strings.Repeat("x", 1000))), text, wsroom.WithMaxMessageSize(10)),
		onConn("ended message_timeout", func(c *kit.RawConn, _ *wsroom.Hub) {
			go c.CloseFrame()
			c.Frame(0x01, "and so on")
			time.Sleep(time.Minute)
		}, text),
		onConn("ended bad_json", sends(kit.RawFrame(0x81, "x")), wsroom.OnJSON(func(*wsroom.Conn, int, error) {})),
		onConn("ended bad_kind", sends(kit.RawFrame(0x82, "x")), text),
		onConn("ended not_utf8", sends(kit.RawFrame(0x81, "\xff")), text),
		onConn("ended protocol", sends(kit.RawFrame(0x83, "x")), text),
	}
}

// fill sends to clients that don't read: the first message is on its way, the second waits, and of the
// rest each is one too many for a queue of one.
func fill(hub *wsroom.Hub, messages int) {
	for i := range messages {
		hub.SendTextToAll(fmt.Sprint(i))
		synctest.Wait()
	}
}

// fillLatest is fill with the newest values of a key.
func fillLatest(hub *wsroom.Hub, messages int) {
	for i := range messages {
		hub.ToAll().Latest("k").SendText(fmt.Sprint(i))
		synctest.Wait()
	}
}

func drops() []trigger {
	fills := func(c *kit.RawConn, hub *wsroom.Hub) { fill(hub, 3) }
	return []trigger{
		onConn("dropped oldest", fills, wsroom.WithSendQueue(1, 1), wsroom.WithOverflow(wsroom.DropOldest)),
		onConn("dropped newest", fills, wsroom.WithSendQueue(1, 1), wsroom.WithOverflow(wsroom.DropNewest)),
		onConn("dropped replaced", func(c *kit.RawConn, hub *wsroom.Hub) { fillLatest(hub, 3) }),
		onConn("dropped room", func(c *kit.RawConn, hub *wsroom.Hub) {
			go c.CloseFrame()
			for i := range 3 {
				hub.SendTextToRoom("/a", fmt.Sprint(i))
				synctest.Wait()
			}
			time.Sleep(time.Minute)
		}, wsroom.WithSendQueue(1, 1), wsroom.OnRoomMessage(func(string, websocket.MessageType, []byte) { time.Sleep(time.Second) })),
		onConn("dropped ended", func(c *kit.RawConn, hub *wsroom.Hub) { fill(hub, 1) }), // while it is being written
		onConn("dropped ended", func(c *kit.RawConn, hub *wsroom.Hub) { // while OnConnect holds it back
			hub.SendTextToAll("x")
			hub.ToAll().Close(4000, "")
		}, wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { time.Sleep(time.Second); return nil })),
	}
}

// onRequest is a trigger that sends a request after setup.
func onRequest(counts, request string, setup func(*kit.PipeServer, *wsroom.Hub), opts ...wsroom.Option) trigger {
	return trigger{counts, opts, func(s *kit.PipeServer, hub *wsroom.Hub) {
		setup(s, hub)
		conn, err := s.Ln.Dial(s.T.Context(), "", "")
		if err != nil {
			s.T.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, request)
		synctest.Wait()
		time.Sleep(time.Minute)
	}}
}

// serveRecorded has the hub answer a request that no server has read.
func serveRecorded(counts string, major int) trigger {
	return trigger{counts, nil, func(s *kit.PipeServer, hub *wsroom.Hub) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(kit.UpgradeRequest("/a"))))
		if err != nil {
			s.T.Fatal(err)
		}
		r.ProtoMajor = major
		hub.ServeHTTP(httptest.NewRecorder(), r)
	}}
}

func noSetup(*kit.PipeServer, *wsroom.Hub) {}

func refusalsOfRequests() []trigger {
	asked := func(f func() error) wsroom.Option {
		return wsroom.WithAuthorize(func(*http.Request, string) error { return f() })
	}
	request := kit.UpgradeRequest("/a")
	return []trigger{
		serveRecorded("refused protocol", 2),
		serveRecorded("refused hijack", 1),
		onRequest("refused handshake", kit.UpgradeRequest("/a", "Sec-WebSocket-Version: 12"), noSetup),
		onRequest("refused host", request, noSetup, wsroom.WithHosts("app.example")),
		onRequest("refused origin", kit.UpgradeRequest("/a", "Origin: http://evil.example"), noSetup),
		onRequest("refused room", kit.UpgradeRequest("/%01"), noSetup),
		onRequest("refused authorize", request, noSetup, kit.Deny(403)),
		onRequest("refused authorize", request, noSetup, kit.Deny(403), wsroom.WithRejectMode(wsroom.CloseFrame)),
		onRequest("refused identity", request, noSetup, wsroom.WithIdentity(func(*http.Request) string { return "ann" }),
			wsroom.WithMemberInfo(func(*http.Request) any { return func() {} })),
		onRequest("refused panic", request, noSetup, asked(func() error { panic(http.ErrAbortHandler) })),
		onRequest("refused timeout", request, noSetup, asked(func() error { time.Sleep(11 * time.Second); return nil })),
		onRequest("refused timeout", request, noSetup), // the client doesn't take the answer
		{"refused lost", nil, func(s *kit.PipeServer, _ *wsroom.Hub) {
			conn, err := s.Ln.Dial(s.T.Context(), "", "")
			if err != nil {
				s.T.Fatal(err)
			}
			io.WriteString(conn, request)
			synctest.Wait() // the answer waits to be taken
			conn.Close()
		}},
	}
}

func limitsOfHub() []trigger {
	dials := func(s *kit.PipeServer, _ *wsroom.Hub) { go s.DialRaw("/a").CloseFrame() }
	noBeat := wsroom.WithHeartbeat(0, 0)
	a, b := kit.UpgradeRequest("/a"), kit.UpgradeRequest("/b")
	away := kit.NewWire()
	away.Set(kit.Down)
	return []trigger{
		onRequest("refused shutdown", a, func(s *kit.PipeServer, hub *wsroom.Hub) { kit.Shutdown(s.T, hub) }),
		onRequest("refused max_conns", a, dials, noBeat, wsroom.WithMaxConns(1)),
		onRequest("refused max_conns_per", a, dials, noBeat, wsroom.WithMaxConnsPer(wsroom.ByAddr, 1)),
		onRequest("refused max_rooms", b, dials, noBeat, wsroom.WithMaxRooms(1)),
		onRequest("refused max_members", a, dials, noBeat, wsroom.WithMaxMembers(1)),
		onRequest("refused broker", a, noSetup, wsroom.WithBroker(away)),
	}
}

// nth is a fault of the n-th call of Publish, or of Subscribe.
func nth(subscribe bool, n int, err error) func(string, []byte) (int, error) {
	return func(_ string, data []byte) (times int, _ error) {
		if (data == nil) == subscribe {
			if n--; n == 0 {
				return 0, err
			}
		}
		return 1, nil
	}
}

type neverTaken struct{ error }

func (neverTaken) Rejected() bool { return true }

func brokerFaults() []trigger {
	sends := func(c *kit.RawConn, hub *wsroom.Hub) {
		go c.CloseFrame()
		for range 3 {
			hub.SendTextToRoom("/a", "x")
			time.Sleep(time.Second)
		}
	}
	faulty := func(counts string, fault func(string, []byte) (int, error), opts ...wsroom.Option) trigger {
		w := kit.NewWire()
		w.Set(fault)
		return onConn(counts, sends, append(opts, wsroom.WithBroker(w))...)
	}
	server := brokertest.NewMemory()
	node := server.Open()
	return []trigger{
		faulty("broker_errors publish", nth(false, 1, kit.ErrDown)),
		faulty("broker_errors subscribe", nth(true, 1, kit.ErrDown)),
		faulty("broker_errors rejected", nth(false, 1, neverTaken{kit.ErrDown})),
		faulty("broker_gaps rejected", nth(false, 1, neverTaken{kit.ErrDown})),
		faulty("broker_gaps sequence", nth(false, 2, nil)),
		faulty("broker_gaps late", nth(true, 1, kit.ErrDown), wsroom.WithOutage(wsroom.DeliverLocally)),
		onConn("broker_gaps lost", func(c *kit.RawConn, hub *wsroom.Hub) {
			server.Lose(1)
			sends(c, hub)
		}, wsroom.WithBroker(node)),
		onConn("broker_gaps malformed", func(c *kit.RawConn, _ *wsroom.Hub) {
			node.Publish(c.T.Context(), ":room:/a", []byte("x"))
		}, wsroom.WithBroker(node)),
	}
}

// returns are clients that come back.
func returns() []trigger {
	comesBack := func(counts string, meanwhile func(hub *wsroom.Hub, cursor string) string) trigger {
		return trigger{counts, []wsroom.Option{wsroom.WithHistory(100, 1<<20, time.Minute)}, func(s *kit.PipeServer, hub *wsroom.Hub) {
			first := wsroomtest.Dial(s.T, hub, "/a", wsroomtest.WithCursor(""))
			hub.SendTextToRoom("/a", "first")
			first.ExpectText("first")
			first.CloseNow()
			cursor := meanwhile(hub, first.Cursor())
			wsroomtest.Dial(s.T, hub, "/a", wsroomtest.WithCursor(cursor)).CloseNow()
		}}
	}
	sends := func(n int) func(*wsroom.Hub, string) string {
		return func(hub *wsroom.Hub, cursor string) string {
			for range n {
				hub.SendTextToRoom("/a", "x")
			}
			return cursor
		}
	}
	return []trigger{
		comesBack("resumes resumed", sends(2)),
		comesBack("resumes expired", sends(101)),
		comesBack("resumes unknown", func(_ *wsroom.Hub, cursor string) string {
			time.Sleep(time.Hour)
			return cursor
		}),
		comesBack("resumes forged", func(_ *wsroom.Hub, cursor string) string {
			return regexp.MustCompile(`"at":"\d+"`).ReplaceAllString(cursor, `"at":"1"`)
		}),
	}
}

// Of what was queued for connections, nothing is missing in the count: it was written or dropped, however
// they end.
func TestEveryQueuedMessageIsCounted(t *testing.T) {
	for _, policy := range []wsroom.Overflow{wsroom.DropOldest, wsroom.DropNewest} {
		o := &kit.Observer{Sums: map[string]float64{}}
		newHub := func() *wsroom.Hub {
			return wsroom.New(wsroom.WithObserver(o), wsroom.WithSendQueue(5, 1<<20), wsroom.WithOverflow(policy))
		}
		kit.InBubble(t, newHub, func(t *testing.T, s *kit.PipeServer, hub *wsroom.Hub) {
			reads, reluctant, stalls := s.DialRaw("/a"), s.DialRaw("/a"), s.DialRaw("/a")
			cut, leaves := s.DialRaw("/a"), s.DialRaw("/a")
			go reads.CloseFrame()
			fill(hub, 3)
			cut.Close()
			leaves.Frame(0x88, "\x03\xe8")
			fillLatest(hub, 10)
			fill(hub, 10)
			go reluctant.CloseFrame()
			fill(hub, 10)
			hub.ToAll().Close(4000, "")
			synctest.Wait()
			stalls.Close()
			leaves.Close()
		})
		queued := o.Sum("fan_out")
		counted := o.Sum("messages_out") + o.Sum("dropped oldest") + o.Sum("dropped newest") + o.Sum("dropped ended") +
			o.Sum("dropped replaced")
		if queued < 3*5+3*10*3 || o.Sum("dropped replaced") == 0 || counted != queued {
			t.Errorf("%v queued, %v counted: %v", queued, counted, o.Sums)
		}
	}
}

// routes collects the routes that an Observer is given.
type routes struct {
	mu   sync.Mutex
	seen map[string]bool // metric and route
}

func (o *routes) Add(metric, route, _ string, _ int) { o.Record(metric, route, "", 0) }

func (o *routes) Record(metric, route, _ string, _ float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen[metric+" "+route] = true
}

// A route is a pattern, and where a metric has none, it has none ever: so there are few series.
func TestMetricsHaveTheRoutesPattern(t *testing.T) {
	o := &routes{seen: map[string]bool{}}
	hub := wsroom.New(wsroom.WithObserver(o), wsroom.OnText(kit.EchoRoom), wsroom.WithSendQueue(1, 1), wsroom.WithOverflow(wsroom.DropNewest))
	srv := kit.Serve(t, kit.MuxOf("GET /chat/{room}", hub), hub)
	for i := range 3 {
		c := kit.Dial(t, srv, fmt.Sprintf("/chat/%d?q=%d", i, i))
		c.SendText("x")
		c.ExpectText("x")
		c.CloseNow()
	}
	stalled := kit.DialRaw(t, srv, "/chat/stalled")
	kit.Until(t, "something is dropped", func() bool {
		hub.SendTextToRoom("/chat/stalled", strings.Repeat("x", 1<<20))
		return hub.Stats().Dropped > 0
	})
	stalled.Close()
	wsroomtest.Refused(t, nil, srv.URL+"/chat/%01", http.StatusBadRequest)
	kit.Shutdown(t, hub)
	want := []string{"rooms ", "fan_out "}
	for _, metric := range []string{"conns", "joins", "refused", "ended", "messages_in", "messages_out", "bytes_in",
		"bytes_out", "dropped", "queue_time"} {
		want = append(want, metric+" /chat/{room}")
	}
	for _, name := range want {
		if !o.seen[name] {
			t.Errorf("%q isn't there", name)
		}
	}
	if len(o.seen) != len(want) {
		t.Errorf("got %v, want %q", o.seen, want)
	}
}
