package admission_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// trap is a function of the application that fails once in one way or another.
type trap struct {
	mu   sync.Mutex
	at   string
	fail func()
	hit  bool
	open atomic.Int32 // rooms
}

func (p *trap) step(at string) {
	p.mu.Lock()
	fail := p.fail
	if p.at != at {
		fail = nil
	} else {
		p.fail, p.hit = nil, true
	}
	p.mu.Unlock()
	if fail != nil {
		fail()
	}
}

func (p *trap) set(at string, fail func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.fail, p.hit = at, fail, false
}

func (p *trap) wasHit() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hit
}

func (p *trap) Add(metric, _, _ string, _ int) { p.step("Observer " + metric) }

func (p *trap) Record(string, string, string, float64) {}

func (p *trap) Start(ctx context.Context, name, _ string) (context.Context, func(error)) {
	p.step("Tracer " + name)
	return ctx, func(error) { p.step("Tracer's end of " + name) }
}

// trapped is a hub with everything on, whose functions step into the trap.
func trapped(p *trap, w wsroom.Broker, opts ...wsroom.Option) *wsroom.Hub {
	return wsroom.New(append(opts, wsroom.WithBroker(w), wsroom.WithHeartbeat(0, 0), wsroom.WithMaxConns(1), wsroom.WithMaxRooms(1),
		wsroom.WithMaxMembers(1), wsroom.WithObserver(p), wsroom.WithCompression(0),
		wsroom.WithMaxConnsPer(func(*http.Request) string { p.step("WithMaxConnsPer"); return "key" }, 1),
		wsroom.WithRoom(func(r *http.Request) (string, error) { p.step("WithRoom"); return wsroom.ByPath(r) }),
		wsroom.WithAuthorize(func(*http.Request, string) error {
			p.step("WithAuthorize")
			return wsroom.Until(time.Now().Add(time.Hour))
		}),
		wsroom.WithIdentity(func(*http.Request) string { p.step("WithIdentity"); return "ann" }),
		wsroom.OnConnect(func(*wsroom.Conn, *http.Request) error { p.step("OnConnect"); return nil }),
		wsroom.OnRoomOpen(func(string) { p.open.Add(1); p.step("OnRoomOpen") }),
		wsroom.OnRoomClose(func(string) { p.open.Add(-1); p.step("OnRoomClose") }),
		wsroom.OnJoin(func(*wsroom.Conn, string) { p.step("OnJoin") }),
		wsroom.OnClose(func(*wsroom.Conn, error) { p.step("OnClose") }),
		wsroom.OnMemberJoin(func(string, wsroom.Member) { p.step("OnMemberJoin") }))...)
}

// Wherever a function of the application panics, or ends its goroutine, on the way in, nothing of its request
// is left, and the next one has the only place there is.
func TestNothingIsLeftOfAnAdmissionThatPanics(t *testing.T) {
	steps := []string{
		"WithMaxConnsPer", "WithRoom", "WithAuthorize", "WithIdentity", "OnConnect", "OnJoin", "OnClose", "OnMemberJoin", "Hijack", "Write",
		"OnRoomOpen", "OnRoomClose",
		"Tracer upgrade", "Tracer's end of upgrade", "Tracer OnConnect",
		"Observer rooms", "Observer joins", "Observer conns", "Observer refused",
	}
	fails := map[string]func(*wsroom.Hub){
		"panic":  func(*wsroom.Hub) { panic(http.ErrAbortHandler) },
		"Goexit": func(*wsroom.Hub) { runtime.Goexit() },
		"panic after a Close": func(hub *wsroom.Hub) {
			_ = hub.ToAll().Close(4000, "")
			time.Sleep(time.Millisecond) // until the broker has delivered it
			panic(http.ErrAbortHandler)
		},
	}
	for _, step := range steps {
		for _, how := range slices.Sorted(maps.Keys(fails)) {
			if how == "panic after a Close" && strings.HasPrefix(step, "Observer") {
				continue // it mustn't call the hub
			}
			t.Run(step+" "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { wantNothingLeft(t, step, fails[how]) })
			})
		}
	}
}

func wantNothingLeft(t *testing.T, step string, fail func(*wsroom.Hub)) {
	p, w := &trap{}, kit.NewWire()
	hub := trapped(p, w)
	h := wrap(hub, func(w http.ResponseWriter) http.ResponseWriter { return &trapping{w, p} })
	ln := kit.NewPipeListener()
	srv := &http.Server{Handler: h}
	go srv.Serve(ln)
	defer srv.Close()
	s := &kit.PipeServer{T: t, Ln: ln}
	for range 3 {
		p.set(step, func() { fail(hub) })
		conn, err := s.Ln.Dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		request := kit.UpgradeRequest("/a")
		if step == "Observer refused" {
			request = kit.UpgradeRequest("/a", "Origin: null")
		}
		go io.WriteString(conn, request)
		go io.Copy(io.Discard, conn)
		synctest.Wait()
		conn.Close()
		time.Sleep(20 * time.Second) // the linger, the grace and the close handshake
		synctest.Wait()
		if !p.wasHit() {
			t.Error("the trap wasn't stepped into")
		}
		if hub.Len() != 0 || len(hub.Rooms()) != 0 || hub.Stats().Rooms != 0 || len(hub.Members("/a")) != 0 {
			t.Errorf("%d connections, rooms %q", hub.Len(), hub.Rooms())
		}
		if n := p.open.Load(); n != 0 {
			t.Errorf("%d rooms weren't closed", n)
		}
		w.Mu.Lock()
		for topic, n := range w.Subs {
			if n != 0 {
				t.Errorf("%d subscriptions of %q", n, topic)
			}
		}
		w.Mu.Unlock()
		if m, err := hub.Presence(t.Context(), "/a"); len(m) != 0 || err != nil {
			t.Errorf("present: %v, %v", m, err)
		}
	}
	c := s.DialRaw("/a") // under all limits
	if m, err := hub.Presence(t.Context(), "/a"); len(m) != 1 || err != nil {
		t.Errorf("present: %v, %v", m, err)
	}
	c.Close()
	kit.Shutdown(t, hub)
}

// trapping is a ResponseWriter whose Hijack, or whose socket's Write, steps into the trap.
type trapping struct {
	http.ResponseWriter
	trap *trap
}

func (w *trapping) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.trap.step("Hijack")
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	return &trappingConn{conn, w.trap}, rw, err
}

type trappingConn struct {
	net.Conn
	trap *trap
}

func (c *trappingConn) Write(p []byte) (int, error) {
	c.trap.step("Write")
	return c.Conn.Write(p)
}
