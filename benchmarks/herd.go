package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/rueidis"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// The return of a herd: clients of one node lose it, and come back to another node at once. What was said
// meanwhile they get from the room's history.
const (
	herdName       = "return"
	herdClients    = 1000
	herdMissed     = 100 // messages while the clients are away
	herdBystanders = 100 // of another room, on the node to which the clients come
	herdDialers    = 64
	herdPatience   = 30 * time.Second
)

// herdFigures are what one return has cost.
type herdFigures struct {
	reads, readTime float64       // commands at the broker that read, and its processor time for them in µs
	live            time.Duration // until the last client had all
	cpu             time.Duration // of the node, for a client
	before, during  time.Duration // p99 of what bystanders get
	lost, doubled   int
	note            string
}

// runHerds has the clients of each library return, and prints a table.
func runHerds(ctx context.Context, rounds int, libraries []server.Library) {
	rows := [][]string{{"library", "reads at the broker", "µs of it", "all live after ms", "CPU µs a client",
		"bystanders' p99 ms", "before", "lost", "doubled", ""}}
	for _, lib := range libraries {
		var all []herdFigures
		for round := range rounds {
			f, err := runHerd(ctx, lib)
			if err != nil {
				f.note = err.Error()
			}
			fmt.Fprintf(os.Stderr, "%d/%d %-15s %-16s %+v\n", round+1, rounds, herdName, lib.Name, f)
			all = append(all, f)
		}
		slices.SortFunc(all, func(a, b herdFigures) int { return int(a.live - b.live) })
		f := all[len(all)/2]
		rows = append(rows, []string{lib.Name, number(f.reads), number(f.readTime), number(f.live.Seconds() * 1e3),
			number(float64(f.cpu) / 1e3), number(f.during.Seconds() * 1e3), number(f.before.Seconds() * 1e3),
			strconv.Itoa(f.lost), strconv.Itoa(f.doubled), f.note})
	}
	fmt.Println(markdown(rows, 1))
}

// runHerd measures one return.
func runHerd(ctx context.Context, lib server.Library) (f herdFigures, err error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	r := run{scenario: scenario{name: herdName, nodes: 2}}
	defer r.stop()
	if err := r.start(ctx, lib, ""); err != nil {
		return f, err
	}
	redis, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.broker.addr}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		return f, err
	}
	defer redis.Close()
	h := &herd{lib: lib, from: r.servers[0].addr, to: r.servers[1].addr}
	defer h.close()
	if err := h.gather(ctx); err != nil {
		return f, err
	}
	if err := h.miss(ctx); err != nil {
		return f, err
	}

	f.before = h.bystanders.p99()
	if err := redis.Do(ctx, redis.B().ConfigResetstat().Build()).Error(); err != nil {
		return f, err
	}
	before, err := r.servers[1].ask("begin")
	if err != nil {
		return f, err
	}
	if f.live, err = h.comeBack(ctx); err != nil {
		return f, err
	}
	after, err := r.servers[1].ask("end")
	if err != nil {
		return f, err
	}
	f.cpu = (after.User + after.System - before.User - before.System) / herdClients
	f.during = h.bystanders.p99()
	f.lost, f.doubled = h.audit()
	f.reads, f.readTime, err = readsAt(ctx, redis)
	return f, err
}

// readsAt returns how often Redis has read a history since its statistics were reset, and for how long.
func readsAt(ctx context.Context, redis rueidis.Client) (calls, micros float64, err error) {
	text, err := redis.Do(ctx, redis.B().Info().Section("commandstats").Build()).ToString()
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
		var n, usec float64
		switch name {
		case "xrange", "xrevrange", "lrange":
			if _, err := fmt.Sscanf(rest, "calls=%f,usec=%f", &n, &usec); err != nil {
				return 0, 0, err
			}
			calls, micros = calls+n, micros+usec
		}
	}
	return calls, micros, err
}

// herd is the clients and what they have got.
type herd struct {
	lib        server.Library
	from, to   string
	clients    []*herdClient
	sender     *herdClient
	conns      []*websocket.Conn
	bystanders latencies
	stop       func()
	running    sync.WaitGroup
}

func (h *herd) close() {
	if h.stop != nil {
		h.stop()
	}
	for _, c := range h.conns {
		c.CloseNow()
	}
	for _, c := range h.clients {
		c.conn.CloseNow()
	}
	h.running.Wait()
}

// gather connects the clients to one node and the bystanders to the other, where somebody talks to them.
func (h *herd) gather(ctx context.Context) error {
	for range herdClients {
		h.clients = append(h.clients, &herdClient{lib: h.lib, last: -1})
	}
	h.sender = h.clients[0]
	if err := h.each(func(c *herdClient) error { return c.connect(ctx, h.from, "herd") }); err != nil {
		return err
	}

	ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	var talker *herdClient
	for range herdBystanders {
		c := &herdClient{lib: h.lib, last: -1, latencies: &h.bystanders}
		if err := c.connect(ctx, h.to, "bystanders"); err != nil {
			return err
		}
		h.conns, talker = append(h.conns, c.conn), c
		h.running.Go(func() { _ = c.read(ctx, 1<<60) }) // ends with the connection
	}
	h.running.Go(func() { // ends with stop
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
				_ = talker.say(ctx, "bystanders", n)
			}
		}
	})
	return nil
}

// each calls f for all clients, some at a time.
func (h *herd) each(f func(*herdClient) error) error {
	var next atomic.Int64
	var running sync.WaitGroup
	errs := make([]error, herdDialers)
	for d := range herdDialers {
		running.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(h.clients) && errs[d] == nil; i = next.Add(1) - 1 {
				errs[d] = f(h.clients[i])
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// miss has a few messages come, and then has all but the sender away while more are said.
func (h *herd) miss(ctx context.Context) error {
	const before = 10
	for n := range before {
		if err := h.sender.say(ctx, "herd", n); err != nil {
			return err
		}
	}
	if err := h.each(func(c *herdClient) error { return c.read(ctx, before-1) }); err != nil {
		return err
	}
	for _, c := range h.clients[1:] {
		c.conn.CloseNow()
	}
	for n := range herdMissed {
		if err := h.sender.say(ctx, "herd", before+n); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	if err := h.sender.read(ctx, before+herdMissed-1); err != nil {
		return err
	}
	h.sender.conn.CloseNow()
	return nil
}

// comeBack connects all clients to the other node, and returns how long it took until each had all.
func (h *herd) comeBack(ctx context.Context) (time.Duration, error) {
	h.bystanders.reset()
	start := time.Now()
	var reading sync.WaitGroup
	errs := make([]error, len(h.clients))
	err := h.each(func(c *herdClient) error {
		if err := c.connect(ctx, h.to, "herd"); err != nil {
			return err
		}
		i := slices.Index(h.clients, c)
		reading.Go(func() { errs[i] = c.read(ctx, 10+herdMissed-1) })
		return nil
	})
	reading.Wait()
	return time.Since(start), errors.Join(append(errs, err)...)
}

func (h *herd) audit() (lost, doubled int) {
	for _, c := range h.clients {
		lost, doubled = lost+c.lost, doubled+c.doubled
	}
	return lost, doubled
}

// latencies are how long messages took.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

func (l *latencies) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = nil
}

func (l *latencies) p99() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == 0 {
		return 0
	}
	slices.Sort(l.all)
	return l.all[len(l.all)*99/100]
}

// herdClient is a client that can come back. Its methods belong to one goroutine at a time.
type herdClient struct {
	lib       server.Library
	conn      *websocket.Conn
	latencies *latencies // nil: they aren't noted

	last, lost, doubled int
	token, at           string // of wsroom.v1
	n                   int
	runs                []herdRun
	lastRoom            bool
	epoch               string // of centrifuge
	offset              uint64
	pid, lastID         string // of Socket.IO
}

// herdRun is a run of wsroom.v1.
type herdRun struct {
	count int
	room  bool
	at    string
}

func (c *herdClient) isCentrifuge() bool { return strings.HasPrefix(c.lib.Name, "centrifuge") }
func (c *herdClient) isSocketIO() bool   { return strings.HasPrefix(c.lib.Name, "socket.io") }

func (c *herdClient) connect(ctx context.Context, addr, room string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, herdPatience)
	defer cancel()
	c.runs = nil
	if c.isCentrifuge() {
		if c.conn, _, err = websocket.Dial(ctx, "ws://"+addr+"/connection/websocket", nil); err != nil {
			return err
		}
		subscribe := map[string]any{"channel": room}
		if c.epoch != "" {
			subscribe["recover"], subscribe["epoch"], subscribe["offset"] = true, c.epoch, c.offset
		}
		p, err := json.Marshal(map[string]any{"id": 2, "subscribe": subscribe})
		if err != nil {
			return err
		}
		c.conn.SetReadLimit(1 << 20)
		return c.conn.Write(ctx, websocket.MessageText, append([]byte("{\"id\":1,\"connect\":{}}\n"), p...))
	}
	if c.isSocketIO() {
		return c.connectSocketIO(ctx, addr, room)
	}
	offers := []string{"wsroom.v1"}
	if c.token != "" {
		offers = append(offers, fmt.Sprintf("resume.%s.%s.%d", c.token, c.at, c.n))
	}
	c.conn, _, err = websocket.Dial(ctx, "ws://"+addr+"/rooms/"+room, &websocket.DialOptions{Subprotocols: offers})
	return err
}

// say sends a message with a number and the time.
func (c *herdClient) say(ctx context.Context, room string, n int) error {
	text := fmt.Sprintf(`{"n":%d,"t":%d,"p":"%0100d"}`, n, time.Now().UnixNano(), 0)
	if c.isCentrifuge() {
		text = `{"id":3,"publish":{"channel":"` + room + `","data":` + text + `}}`
	}
	if c.isSocketIO() {
		text = `42["m",` + text + `]`
	}
	return c.conn.Write(ctx, websocket.MessageText, []byte(text))
}

// read reads until the message with that number has come.
func (c *herdClient) read(ctx context.Context, last int) error {
	ctx, cancel := context.WithTimeout(ctx, herdPatience)
	defer cancel()
	for c.last < last {
		_, p, err := c.conn.Read(ctx)
		if err != nil {
			return err
		}
		switch {
		case c.isCentrifuge():
			err = c.replies(ctx, p)
		case c.isSocketIO():
			err = c.packet(ctx, p)
		default:
			err = c.v1(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// got takes a message of the application.
func (c *herdClient) got(p []byte) error {
	var m struct {
		N int
		T int64
	}
	if err := json.Unmarshal(p, &m); err != nil {
		return err
	}
	if c.latencies != nil {
		c.latencies.add(time.Duration(time.Now().UnixNano() - m.T))
	}
	switch {
	case m.N <= c.last:
		c.doubled++
	case c.last >= 0 && m.N > c.last+1:
		c.lost += m.N - c.last - 1
	}
	c.last = max(c.last, m.N)
	return nil
}

// replies takes the replies and pushes of centrifuge's protocol.
func (c *herdClient) replies(ctx context.Context, p []byte) error {
	type publication struct {
		Data   json.RawMessage
		Offset uint64
	}
	for line := range strings.Lines(string(p)) {
		if strings.TrimSpace(line) == "{}" {
			if err := c.conn.Write(ctx, websocket.MessageText, []byte("{}")); err != nil {
				return err
			}
			continue
		}
		var m struct {
			Error     json.RawMessage
			Subscribe *struct {
				Epoch        string
				Offset       uint64
				Recovered    bool
				Publications []publication
			}
			Push *struct{ Pub *publication }
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			return err
		}
		var pubs []publication
		switch {
		case m.Error != nil:
			return fmt.Errorf("the server answers %s", line)
		case m.Subscribe != nil:
			if c.epoch != "" && !m.Subscribe.Recovered {
				return errors.New("not recovered")
			}
			c.epoch, c.offset, pubs = m.Subscribe.Epoch, max(c.offset, m.Subscribe.Offset), m.Subscribe.Publications
		case m.Push != nil && m.Push.Pub != nil:
			pubs = []publication{*m.Push.Pub}
		}
		for _, pub := range pubs {
			c.offset = max(c.offset, pub.Offset)
			if err := c.got(pub.Data); err != nil {
				return err
			}
		}
	}
	return nil
}

// v1 takes a message of wsroom.v1, of a client that is in one room.
func (c *herdClient) v1(p []byte) error {
	if len(c.runs) > 0 {
		r := &c.runs[0]
		switch {
		case r.at != "":
			c.at, c.n, r.at = r.at, 0, ""
		case r.room:
			c.n++
		}
		if r.count--; r.count == 0 {
			c.runs = c.runs[1:]
		}
		defer c.move()
		return c.got(p)
	}

	switch p[0] {
	case '{':
		var m struct {
			In        *int
			At, Token string
			Was       *int
			Resumed   bool
		}
		if err := json.Unmarshal(p, &m); err != nil {
			return err
		}
		if m.In != nil && c.token != "" && !m.Resumed {
			return errors.New("not resumed")
		}
		if m.At != "" {
			c.at, c.n = m.At, 0
		}
		if m.Token != "" {
			c.token = m.Token
		}
	case '[':
		var runs [][]any
		if err := json.Unmarshal(p, &runs); err != nil {
			return err
		}
		for _, r := range runs {
			run := herdRun{count: int(r[0].(float64)), room: len(r) > 1}
			if len(r) > 2 {
				run.at = r[2].(string)
			}
			c.runs, c.lastRoom = append(c.runs, run), run.room
		}
	default:
		if n, err := strconv.Atoi(string(p)); err != nil {
			return err
		} else if n > 0 {
			c.runs = append(c.runs, herdRun{count: n, room: c.lastRoom})
		}
	}
	c.move()
	return nil
}

// move handles the runs of 0 whose turn it is.
func (c *herdClient) move() {
	for len(c.runs) > 0 && c.runs[0].count == 0 {
		c.at, c.n, c.runs = c.runs[0].at, 0, c.runs[1:]
	}
}

// connectSocketIO connects with Socket.IO's protocol: its client's private id and the last message's offset.
func (c *herdClient) connectSocketIO(ctx context.Context, addr, room string) (err error) {
	c.conn, _, err = websocket.Dial(ctx, "ws://"+addr+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		return err
	}
	c.conn.SetReadLimit(1 << 20)
	auth := map[string]string{"room": room}
	if c.pid != "" {
		auth["pid"], auth["offset"] = c.pid, c.lastID
	}
	p, err := json.Marshal(auth)
	if err != nil {
		return err
	}
	return c.conn.Write(ctx, websocket.MessageText, append([]byte("40"), p...))
}

// packet takes a packet of Socket.IO's protocol.
func (c *herdClient) packet(ctx context.Context, p []byte) error {
	switch text := string(p); {
	case text == "2":
		return c.conn.Write(ctx, websocket.MessageText, []byte("3"))
	case strings.HasPrefix(text, "44"):
		return fmt.Errorf("the server answers %s", text)
	case strings.HasPrefix(text, "40"):
		var m struct{ Pid string }
		if err := json.Unmarshal(p[2:], &m); err != nil {
			return err
		}
		if c.pid != "" && m.Pid != c.pid {
			return errors.New("not recovered")
		}
		c.pid = m.Pid
	case strings.HasPrefix(text, "42"):
		var args []json.RawMessage // the event's name, the message, its offset
		if err := json.Unmarshal(p[2:], &args); err != nil {
			return err
		}
		if len(args) > 2 {
			if err := json.Unmarshal(args[2], &c.lastID); err != nil {
				return err
			}
		}
		return c.got(args[1])
	}
	return nil
}
