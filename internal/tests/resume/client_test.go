package resume_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// server serves a handler over connections in memory.
type server struct {
	listener interface {
		net.Listener
		Dial(context.Context, string, string) (net.Conn, error)
	}
}

func serve(t testing.TB, h http.Handler) *server {
	t.Helper()
	s := &server{kit.NewPipeListener()}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(s.listener) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return s
}

// line is the client's end of a connection. It breaks once it has carried so many bytes to the client.
type line struct {
	net.Conn
	mu   sync.Mutex
	left int // -1: no limit
}

func (l *line) Read(p []byte) (int, error) {
	l.mu.Lock()
	left := l.left
	l.mu.Unlock()
	if left == 0 {
		l.Conn.Close()
		return 0, net.ErrClosed
	}
	if left > 0 {
		p = p[:min(len(p), left)]
	}
	n, err := l.Conn.Read(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left > 0 {
		l.left -= min(n, l.left)
	}
	return n, err
}

// cursor is where a client stands in a room.
type cursor struct {
	token, at string
	n         int
}

func (c cursor) String() string { return fmt.Sprintf("resume.%s.%s.%d", c.token, c.at, c.n) }

// v1 is a client that speaks wsroom.v1, by the specification. It keeps what it has got over any number of
// connections.
type v1 struct {
	t       testing.TB
	path    string
	rooms   map[string]*cursor  // by name; those with a token and a position can be resumed
	got     map[string][]string // by room; "" for messages to this connection alone
	log     []string            // controls and messages in their order, abbreviated
	resumed int                 // rooms entered and resumed
	fresh   map[string]int      // rooms entered and not resumed
	gaps    map[string]int
	acks    []int
	beats   int
	hello   struct{ V, Beat, Keep int }

	// of the current connection
	ws      *websocket.Conn
	line    *line
	offered []string // rooms
	names   map[int]string
	runs    []*pendingRun
	last    *pendingRun
}

type pendingRun struct {
	count int
	room  int // -1: this connection alone
	at    string
}

func newV1(t testing.TB, path string) *v1 {
	return &v1{t: t, path: path, rooms: map[string]*cursor{}, got: map[string][]string{}, fresh: map[string]int{}, gaps: map[string]int{}}
}

// dial connects, with the positions that it has. The line breaks after so many bytes; -1: it doesn't.
func (c *v1) dial(s *server, bytes int, protocols ...string) error {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), kit.Patience)
	defer cancel()
	offers := []string{"wsroom.v1"}
	if len(protocols) > 0 {
		offers = protocols
	}
	c.offered = nil
	for _, name := range slices.Sorted(maps.Keys(c.rooms)) {
		if r := c.rooms[name]; r.token != "" && r.at != "" {
			offers, c.offered = append(offers, r.String()), append(c.offered, name)
		}
	}

	c.line = &line{left: -1}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		c.line.Conn, err = s.listener.Dial(ctx, network, addr)
		return c.line, err
	}}
	ws, _, err := websocket.Dial(ctx, "ws://wsroom.test"+c.path, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: offers,
	})
	if err != nil {
		return err
	}
	ws.SetReadLimit(1 << 20)
	c.line.mu.Lock()
	c.line.left = bytes
	c.line.mu.Unlock()
	c.ws, c.names, c.runs, c.last = ws, map[int]string{}, nil, nil
	return nil
}

// next reads and handles one message. It returns the error with which the connection ended.
func (c *v1) next() error {
	ctx, cancel := context.WithTimeout(context.Background(), kit.Patience)
	defer cancel()
	typ, p, err := c.ws.Read(ctx)
	if err != nil {
		if ctx.Err() != nil {
			c.t.Error("nothing comes")
		}
		return err
	}
	if len(c.runs) > 0 {
		c.data(string(p))
		return nil
	}
	if typ != websocket.MessageText {
		c.t.Errorf("a binary message that no run has announced")
		return nil
	}
	c.control(p)
	return nil
}

// data handles a message that a run has announced.
func (c *v1) data(text string) {
	r := c.runs[0]
	name := ""
	if r.room >= 0 {
		name = c.names[r.room]
		c.advance(name, r)
	}
	c.got[name] = append(c.got[name], text)
	c.log = append(c.log, name+":"+text)
	if r.count--; r.count == 0 {
		c.runs = c.runs[1:]
	}
	c.move()
}

// advance moves the room's position to the next message.
func (c *v1) advance(name string, r *pendingRun) {
	if c.hello.Keep == 0 {
		return
	}
	cur := c.rooms[name]
	if r.at != "" {
		cur.at, cur.n, r.at = r.at, 0, ""
		return
	}
	if cur.at == "" {
		c.t.Errorf("a run of %q without a position, but none is known", name)
	}
	cur.n++
}

// move handles the runs of 0 whose turn it is.
func (c *v1) move() {
	for len(c.runs) > 0 && c.runs[0].count == 0 {
		r := c.runs[0]
		c.runs = c.runs[1:]
		if r.at == "" {
			c.t.Error("a run of 0 without a position")
		}
		cur := c.rooms[c.names[r.room]]
		cur.at, cur.n = r.at, 0
	}
}

func (c *v1) control(p []byte) {
	switch {
	case p[0] == '{':
		c.object(p)
	case p[0] == '[':
		var runs [][]any
		if err := json.Unmarshal(p, &runs); err != nil {
			c.t.Errorf("%s: %v", p, err)
		}
		for _, r := range runs {
			run := &pendingRun{count: int(r[0].(float64)), room: -1}
			if len(r) > 1 {
				run.room = int(r[1].(float64))
				if _, ok := c.names[run.room]; !ok {
					c.t.Errorf("%s: not in room %d", p, run.room)
				}
			}
			if len(r) > 2 {
				run.at = r[2].(string)
			}
			c.runs = append(c.runs, run)
		}
		last := *c.runs[len(c.runs)-1]
		c.last = &last
		c.move()
	default:
		n, err := strconv.Atoi(string(p))
		if err != nil {
			c.t.Errorf("control that isn't understood: %.100q", p)
		} else if n == 0 {
			c.beats++
		} else if c.last == nil {
			c.t.Errorf("%d goes on where no run was", n)
		} else {
			c.runs = append(c.runs, &pendingRun{count: n, room: c.last.room})
		}
	}
}

func (c *v1) object(p []byte) {
	var m struct {
		V, Beat, Keep   int
		In, Out, Start  *int
		Gap, Ack, Was   *int
		Room, At, Token string
		Resumed         bool
	}
	if err := json.Unmarshal(p, &m); err != nil {
		c.t.Errorf("%s: %v", p, err)
		return
	}
	switch {
	case m.V > 0:
		c.hello.V, c.hello.Beat, c.hello.Keep = m.V, m.Beat, m.Keep
		c.log = append(c.log, "hello")
	case m.In != nil:
		c.entered(*m.In, m.Room, m.Was, m.Resumed)
		c.begin(m.Room, m.At, m.Token)
		c.log = append(c.log, fmt.Sprintf("in %s %t", m.Room, m.Resumed))
	case m.Start != nil:
		c.begin(c.names[*m.Start], m.At, m.Token)
		c.log = append(c.log, "start "+c.names[*m.Start])
	case m.Out != nil:
		delete(c.rooms, c.names[*m.Out])
		c.log = append(c.log, "out "+c.names[*m.Out])
		delete(c.names, *m.Out)
	case m.Gap != nil:
		name := c.names[*m.Gap]
		c.gaps[name]++
		c.rooms[name].at, c.rooms[name].n = m.At, 0
		c.log = append(c.log, "gap "+name)
	case m.Ack != nil:
		c.acks = append(c.acks, *m.Ack)
	default:
		c.t.Errorf("control that isn't understood: %s", p)
	}
}

func (c *v1) entered(index int, name string, was *int, resumed bool) {
	c.names[index] = name
	if was != nil && c.offered[*was] != name {
		c.t.Errorf("entry %d was for %q, not %q", *was, c.offered[*was], name)
	}
	if resumed {
		c.resumed++
		return
	}
	c.fresh[name]++
	c.rooms[name] = &cursor{}
}

func (c *v1) begin(name, at, token string) {
	r := c.rooms[name]
	if at != "" {
		r.at, r.n = at, 0
	}
	if token != "" {
		r.token = token
	}
}

// run reads until the connection ends.
func (c *v1) run() error {
	for {
		if err := c.next(); err != nil {
			c.ws.CloseNow()
			return err
		}
	}
}

// until reads until ok.
func (c *v1) until(what string, ok func() bool) {
	c.t.Helper()
	for !ok() {
		if err := c.next(); err != nil {
			c.t.Fatalf("waited in vain until %s: %v; log: %s", what, err, strings.Join(c.log, " | "))
		}
	}
}

// ask has the server answer once it has handled everything before.
func (c *v1) ask(int) {
	c.t.Helper()
	if err := c.ws.Write(context.Background(), websocket.MessageText, []byte("\x00")); err != nil {
		c.t.Fatal(err)
	}
	beats := c.beats
	c.until("it is answered", func() bool { return c.beats > beats })
}

// say sends a text message, if the line still works.
func (c *v1) say(text string) {
	_ = c.ws.Write(context.Background(), websocket.MessageText, []byte(text))
}

func (c *v1) cut() { c.ws.CloseNow() }
