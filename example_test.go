package wsroom_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/go-chi/chi/v5"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
)

// passes say who may enter which room, and until when.
var passes = map[string]struct {
	room  string
	until time.Time
}{
	"red":     {"/staff", time.Now().Add(time.Hour)},
	"blue":    {"/lounge", time.Now().Add(time.Hour)},
	"expired": {"/staff", time.Now().Add(-time.Hour)},
}

// Who has no pass gets 401, who has one for another room 403, and who has one is let in for as long as it
// is good for; then the connection ends with close code 4401.
func ExampleWithAuthorize() {
	hub := wsroom.New(
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			token, _ := wsroom.BearerToken(r)
			pass, ok := passes[token]
			if !ok {
				return &wsroom.StatusError{Status: http.StatusUnauthorized, Message: "no pass"}
			}
			if pass.room != room {
				return &wsroom.StatusError{Status: http.StatusForbidden, Message: "not for this room"}
			}
			return wsroom.Until(pass.until)
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	for _, token := range []string{"red", "blue", "expired", "forged"} {
		header := http.Header{"Authorization": {"Bearer " + token}}
		ws, res, err := websocket.Dial(context.Background(), srv.URL+"/staff", &websocket.DialOptions{HTTPHeader: header})
		if res == nil { // there was no answer
			log.Fatal(err)
		}
		if err == nil {
			defer ws.CloseNow()
		}
		fmt.Println(token, res.StatusCode)
	}
	// Output:
	// red 101
	// blue 403
	// expired 401
	// forged 401
}

// sum adds up numbers of 16 bits.
func sum(p []byte) (total uint64) {
	for len(p) >= 2 {
		total += uint64(binary.BigEndian.Uint16(p))
		p = p[2:]
	}
	return total
}

// Binary messages beside texts, which set what the sum is to be multiplied by.
func ExampleOnBinary() {
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil && text == "double" {
				c.Set("factor", uint64(2))
			}
		}),
		wsroom.OnBinary(func(c *wsroom.Conn, p []byte, err error) {
			if err != nil {
				return
			}
			factor, ok := c.Get("factor")
			if !ok {
				factor = uint64(1)
			}
			c.SendBinary(binary.BigEndian.AppendUint64(nil, sum(p)*factor.(uint64)))
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	ws.Write(ctx, websocket.MessageText, []byte("double"))
	ws.Write(ctx, websocket.MessageBinary, []byte{0, 1, 0, 2, 1, 0})
	typ, p, _ := ws.Read(ctx)
	fmt.Println(typ, binary.BigEndian.Uint64(p))
	// Output: MessageBinary 518
}

// newNode is a hub among others. In production broker is redisbroker.New(client), or natsbroker.New(nc).
func newNode(broker wsroom.Broker) *wsroom.Hub {
	return wsroom.New(
		wsroom.WithName("chat"),
		wsroom.WithBroker(broker),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
		wsroom.OnGap(func(room string, err error) {
			log.Printf("members of %s may have missed something: %v", room, err)
		}),
	)
}

// Two nodes, here in one process: what a client of one sends reaches those of the other.
func ExampleWithBroker() {
	cloud := brokertest.NewMemory()
	one, two := newNode(cloud.Open()), newNode(cloud.Open())
	defer one.Shutdown(context.Background())
	defer two.Shutdown(context.Background())
	srv1, srv2 := httptest.NewServer(one), httptest.NewServer(two)
	defer srv1.Close()
	defer srv2.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv1.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	bob, _, err := websocket.Dial(ctx, srv2.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer bob.CloseNow()

	ann.Write(ctx, websocket.MessageText, []byte("hello from the other side"))
	_, p, err := bob.Read(ctx)
	fmt.Println(string(p), err)
	// Output: hello from the other side <nil>
}

// wish is what a client of the desk wants: to follow a topic, or not to any more.
type wish struct{ Follow, Unfollow string }

// nameOf is the name that a connection keeps.
var nameOf wsroom.Value[string]

// A connection follows topics, rooms beside the one of its route, and keeps a name of its own.
func ExampleConn() {
	hub := wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			nameOf.Set(c, r.FormValue("name"))
			return nil
		}),
		wsroom.OnJSON(func(c *wsroom.Conn, w wish, err error) {
			if err != nil {
				return
			}
			if w.Follow != "" {
				if err := c.Join("topic:" + w.Follow); err != nil {
					return
				}
			}
			if w.Unfollow != "" {
				c.Leave("topic:" + w.Unfollow)
			}
			name, _ := nameOf.Get(c)
			c.SendText(fmt.Sprint(name, " is in ", c.Rooms()))
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/desk?name=ann", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	for _, w := range []wish{{Follow: "go"}, {Follow: "chess"}, {Unfollow: "go"}} {
		wsjson.Write(ctx, ann, w)
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}
	// Output:
	// ann is in [/desk topic:go]
	// ann is in [/desk topic:chess topic:go]
	// ann is in [/desk topic:chess]
}

// archive is an application's own store of what was said. In a database it is a table. With several nodes
// each node with members adds a message, so a message needs a unique key of its own there.
type archive struct {
	mu    sync.Mutex
	texts map[string][]string // by room
}

func (a *archive) add(room, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.texts == nil {
		a.texts = map[string][]string{}
	}
	a.texts[room] = append(a.texts[room], text)
}

func (a *archive) last(room string, n int) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	texts := a.texts[room]
	return slices.Clone(texts[max(0, len(texts)-n):])
}

// newArchived is a chat whose messages outlive the process. The hub's history has the newest, and the archive
// all.
func newArchived(store *archive) *wsroom.Hub {
	return wsroom.New(
		wsroom.WithHistory(50, 1<<20, time.Minute),
		wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) {
			if typ == 0 {
				log.Print("the archive is too slow: messages are missing in ", room)
				return
			}
			store.add(room, string(p))
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			if c.Resumed() || c.Rewind(c.Room(), 50) > 0 {
				return nil // the hub still has what was said last
			}
			for _, text := range store.last(c.Room(), 50) {
				if err := c.SendText(text); err != nil {
					return err
				}
			}
			return nil
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
}

// A server keeps what is said in its rooms in a store of its own.
func ExampleOnRoomMessage() {
	var store archive
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	enter := func(hub *wsroom.Hub) *websocket.Conn {
		srv := httptest.NewServer(hub)
		defer srv.Close() // connections live on
		ws, _, err := websocket.Dial(ctx, srv.URL+"/lounge", nil)
		if err != nil {
			log.Fatal(err)
		}
		return ws
	}

	before := newArchived(&store)
	ann := enter(before)
	ann.Write(ctx, websocket.MessageText, []byte("remember me"))
	ann.Read(ctx)
	ann.Close(websocket.StatusNormalClosure, "")
	before.Shutdown(ctx) // it waits until the archive has all

	after := newArchived(&store)
	defer after.Shutdown(ctx)
	bob := enter(after)
	defer bob.CloseNow()
	_, p, err := bob.Read(ctx)
	fmt.Println(string(p), err)
	// Output: remember me <nil>
}

// documents are texts that people edit together, one for each room. In a program, texts and logs are files.
type documents struct {
	mu    sync.Mutex // held while a change is made and sent, so that both have one order
	open  map[string]*strings.Builder
	texts map[string]string   // as they were when their rooms closed
	logs  map[string][]string // what was changed since
}

func newDocuments() *documents {
	return &documents{open: map[string]*strings.Builder{}, texts: map[string]string{}, logs: map[string][]string{}}
}

// load is called before the first member is let in. After a crash the log has what the text lacks.
func (d *documents) load(room string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open[room] = new(strings.Builder)
	d.open[room].WriteString(d.texts[room] + strings.Join(d.logs[room], ""))
}

// write adds a change to the room's log. Whoever types doesn't wait for it.
func (d *documents) write(room string, typ websocket.MessageType, change []byte) {
	if typ == 0 {
		log.Print("the disk is too slow: until ", room, " closes, its log lacks changes")
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs[room] = append(d.logs[room], string(change))
}

// save is called once the last member has left and the log has everything.
func (d *documents) save(room string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	fmt.Printf("%s closes: %q\n", room, d.logs[room])
	d.texts[room] = d.open[room].String()
	delete(d.logs, room)
	delete(d.open, room)
}

// serve returns the hub of the documents.
func (d *documents) serve() *wsroom.Hub {
	return wsroom.New(
		wsroom.OnRoomOpen(d.load),
		wsroom.OnRoomMessage(d.write),
		wsroom.OnRoomClose(d.save),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			d.mu.Lock()
			defer d.mu.Unlock()
			c.DropHeld() // the text has these changes
			return c.SendText(d.open[c.Room()].String())
		}),
		wsroom.OnText(func(c *wsroom.Conn, change string, err error) {
			if err == nil {
				d.mu.Lock()
				defer d.mu.Unlock()
				d.open[c.Room()].WriteString(change)
				c.SendTextToThisRoom(change)
			}
		}),
	)
}

// A document is loaded when its room opens. While it is edited, each change goes to a log, and when everybody has
// left, the log becomes a part of the text.
func ExampleOnRoomOpen() {
	docs := newDocuments()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, change := range []string{"Hello", ", world"} { // two sessions
		hub := docs.serve()
		srv := httptest.NewServer(hub)
		ann, _, err := websocket.Dial(ctx, srv.URL+"/letter", nil)
		if err != nil {
			log.Fatal(err)
		}
		_, text, _ := ann.Read(ctx)
		fmt.Printf("ann reads %q\n", text)
		ann.Write(ctx, websocket.MessageText, []byte(change))
		ann.Read(ctx)
		ann.Close(websocket.StatusNormalClosure, "")
		srv.Close()
		hub.Shutdown(ctx)
	}
	// Output:
	// ann reads ""
	// /letter closes: ["Hello"]
	// ann reads "Hello"
	// /letter closes: [", world"]
}

// A bot hears a room and takes part in it. What it says itself is heard, too, and isn't a command.
func ExampleOnRoomMessage_bot() {
	var hub *wsroom.Hub
	greeted := map[string]int{} // by room; the calls of one room come one at a time
	var mu sync.Mutex           // those of two rooms don't
	hub = wsroom.New(
		wsroom.OnRoomMessage(func(room string, _ websocket.MessageType, p []byte) {
			name, ok := strings.CutPrefix(string(p), "/greet ")
			if !ok {
				return
			}
			mu.Lock()
			greeted[room]++
			n := greeted[room]
			mu.Unlock()
			hub.SendTextToRoom(room, fmt.Sprintf("bot: hello %s, you are the %d. here", name, n))
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/lounge", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	ann.Write(ctx, websocket.MessageText, []byte("/greet ann"))
	for range 2 {
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}
	// Output:
	// /greet ann
	// bot: hello ann, you are the 1. here
}

// newSite has rooms below /chat/, and a page from which a notice goes to one of them.
func newSite() (*wsroom.Hub, http.Handler) {
	hub := wsroom.New(
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)
	mux.HandleFunc("POST /notice/{room}", func(w http.ResponseWriter, r *http.Request) {
		if err := hub.SendTextToRoom("/chat/"+r.PathValue("room"), r.FormValue("text")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	})
	return hub, mux
}

// A hub is an http.Handler, and sends from anywhere.
func ExampleHub() {
	hub, site := newSite()
	srv := httptest.NewServer(site)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ann.CloseNow()
	fmt.Println(hub.Rooms(), hub.Len())

	http.PostForm(srv.URL+"/notice/general", url.Values{"text": {"Lunch is ready."}})
	_, p, err := ann.Read(ctx)
	fmt.Println(string(p), err)
	// Output:
	// [/chat/general] 1
	// Lunch is ready. <nil>
}

// page is what a browser gets that just opens the URL.
func page(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "<title>%s</title>", chi.URLParam(r, "board"))
}

// One URL for the page and for its WebSocket.
func ExampleHub_Middleware() {
	hub := wsroom.New(wsroom.WithRoom(wsroom.ByPathValue("board")))
	r := chi.NewRouter()
	r.With(hub.Middleware).Get("/boards/{board}", page)

	srv := httptest.NewServer(r)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	res, err := http.Get(srv.URL + "/boards/plan")
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	fmt.Println(string(body))

	ws, _, err := websocket.Dial(context.Background(), srv.URL+"/boards/plan", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	fmt.Println(hub.Rooms())
	// Output:
	// <title>plan</title>
	// [plan]
}

// published keeps all counters and gauges in expvar, by metric and cause.
type published struct{ *expvar.Map }

func (p published) Add(metric, route, cause string, n int) {
	if cause != "" {
		metric += ":" + cause
	}
	p.Map.Add(metric, int64(n))
}

func (p published) Record(metric, route, cause string, value float64) {} // distributions aren't kept

// Counters for expvar. For Prometheus and OpenTelemetry there are adapters.
func ExampleObserver() {
	counters := published{new(expvar.Map)} // expvar.NewMap("wsroom")
	hub := wsroom.New(wsroom.WithObserver(counters))
	srv := httptest.NewServer(hub)
	defer srv.Close()

	ws, _, err := websocket.Dial(context.Background(), srv.URL+"/a", nil)
	if err != nil {
		log.Fatal(err)
	}
	ws.Close(websocket.StatusNormalClosure, "")
	hub.Shutdown(context.Background()) // and every callback has returned
	_, _, _ = websocket.Dial(context.Background(), srv.URL+"/a", nil)

	for _, name := range []string{"joins", "conns", "ended:peer", "refused:shutdown"} {
		fmt.Println(name, counters.Get(name))
	}
	stats := hub.Stats()
	fmt.Println(stats.Opened, stats.Closed)
	// Output:
	// joins 1
	// conns 0
	// ended:peer 1
	// refused:shutdown 1
	// 1 1
}

const frames = 300

// frame is a picture of 64 KiB, as it were.
func frame(n int) string { return fmt.Sprint(n, strings.Repeat(" ", 64<<10)) }

// For live pictures the newest counts: who can't keep up misses some, and nobody else notices.
func ExampleWithOverflow() {
	hub := wsroom.New(
		wsroom.WithSendQueue(4, 1<<20),
		wsroom.WithOverflow(wsroom.DropOldest),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	slow, _, err := websocket.Dial(ctx, srv.URL+"/camera", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer slow.CloseNow()
	slow.SetReadLimit(1 << 20)

	for n := range frames { // nobody reads meanwhile
		hub.SendTextToRoom("/camera", frame(n))
	}
	seen, last := 0, ""
	for last != fmt.Sprint(frames-1) {
		_, p, err := slow.Read(ctx)
		if err != nil {
			log.Fatal(err)
		}
		last = strings.TrimSpace(string(p))
		seen++
	}
	fmt.Println("the last one has come:", last)
	fmt.Println("some have been dropped:", seen < frames, seen+hub.Stats().Dropped == frames)
	// Output:
	// the last one has come: 299
	// some have been dropped: true true
}

// visitor says who makes the request; a site with logins takes it from the session.
func visitor(r *http.Request) string { return r.FormValue("name") }

// Ann has two tabs open and is one member; that she came is told once. Members show a name and what they do.
func ExampleHub_Presence() {
	joined := make(chan string, 10)
	hub := wsroom.New(
		wsroom.WithIdentity(visitor),
		wsroom.WithMemberInfo(func(r *http.Request) any { return map[string]string{"from": r.FormValue("from")} }),
		wsroom.OnMemberJoin(func(room string, m wsroom.Member) { joined <- m.Identity + " is in " + room }),
		wsroom.OnMemberUpdate(func(room string, m wsroom.Member) { joined <- fmt.Sprintf("%s: %s", m.Identity, m.Info) }),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx := context.Background()
	for _, query := range []string{"name=ann&from=Rome", "name=ann&from=Rome", "name=bob&from=Oslo"} {
		ws, _, err := websocket.Dial(ctx, srv.URL+"/lounge?"+query, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
	}
	members, err := hub.Presence(ctx, "/lounge")
	list, _ := json.Marshal(members)
	fmt.Println(string(list), err, hub.Len())
	fmt.Println(<-joined)
	fmt.Println(<-joined)

	for _, c := range hub.Members("/lounge") {
		if c.Identity() == "bob" {
			c.SetInfo(map[string]string{"from": "Bergen"})
		}
	}
	fmt.Println(<-joined)
	// Output:
	// [{"identity":"ann","info":{"from":"Rome"}},{"identity":"bob","info":{"from":"Oslo"}}] <nil> 3
	// ann is in /lounge
	// bob is in /lounge
	// bob: {"from":"Bergen"}
}

// A user is reached on all of its connections, and "ann is typing" reaches all but ann's own tabs.
func ExampleHub_ToIdentity() {
	hub := wsroom.New(wsroom.WithIdentity(visitor))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx := context.Background()
	var tabs []*websocket.Conn
	for _, path := range []string{"/news?name=ann", "/chat?name=ann", "/chat?name=bob"} {
		ws, _, err := websocket.Dial(ctx, srv.URL+path, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		tabs = append(tabs, ws)
	}

	hub.To("/chat").ExceptIdentity("ann").SendText("ann is typing")
	hub.ToIdentity("ann").SendText("you have mail")
	hub.ToIdentity("bob").Join("/news")
	hub.To("/news").SendText("it rains")
	for _, ws := range tabs {
		_, p, _ := ws.Read(ctx)
		fmt.Println(string(p))
	}
	_, p, _ := tabs[2].Read(ctx)
	fmt.Println(string(p))
	// Output:
	// you have mail
	// you have mail
	// ann is typing
	// it rains
}

// hello is what a client says first.
type hello struct{ Name string }

// greet is a conversation with turns of its own: a name, then lines. An error ends the connection; nil closes
// it with 1000.
func greet(c *wsroom.Conn) error {
	var h hello
	if err := c.ReadJSON(c.Context(), &h); err != nil {
		return err
	}
	for {
		line, err := c.ReadText(c.Context())
		if err != nil {
			return err
		}
		if line == "bye" {
			return c.SendText("Bye, " + h.Name + ".")
		}
		if err := c.SendTextToThisRoom(h.Name + ": " + line); err != nil {
			return err
		}
	}
}

// Serve hands over the connection, for what isn't one message after the other.
func ExampleServe() {
	hub := wsroom.New(wsroom.Serve(greet))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	wsjson.Write(ctx, ann, hello{"Ann"})
	for _, line := range []string{"hello", "bye"} {
		ann.Write(ctx, websocket.MessageText, []byte(line))
		_, p, _ := ann.Read(ctx)
		fmt.Println(string(p))
	}
	_, _, err = ann.Read(ctx)
	fmt.Println(websocket.CloseStatus(err))
	// Output:
	// Ann: hello
	// Bye, Ann.
	// StatusNormalClosure
}

// serveUntil serves the hub until ctx is done, such as one of signal.NotifyContext.
func serveUntil(ctx context.Context, ln net.Listener, hub *wsroom.Hub) error {
	srv := &http.Server{Handler: hub, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	go srv.Serve(ln)
	<-ctx.Done()

	end, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(hub.Shutdown(end), srv.Shutdown(end))
}

// Hub.Shutdown belongs beside http.Server.Shutdown, which knows nothing of upgraded connections. What was
// sent before it comes first.
func ExampleHub_Shutdown() {
	hub := wsroom.New(
		wsroom.WithDrain(100*time.Millisecond), // some seconds, in production
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- serveUntil(ctx, ln, hub) }()

	ws, _, err := websocket.Dial(context.Background(), "http://"+ln.Addr().String(), nil)
	if err != nil {
		log.Fatal(err)
	}
	ws.Write(context.Background(), websocket.MessageText, []byte("hello"))
	_, p, _ := ws.Read(context.Background())
	fmt.Println(string(p))

	hub.SendTextToAll("back in a minute")
	stop()
	_, p, _ = ws.Read(context.Background())
	fmt.Println(string(p))
	_, _, err = ws.Read(context.Background())
	fmt.Println(websocket.CloseStatus(err))
	fmt.Println(<-stopped)
	// Output:
	// hello
	// back in a minute
	// StatusServiceRestart
	// <nil>
}

// relay passes on what comes in, to the others of the room, and not back.
type relay struct{ *wsroom.Hub }

func (g *relay) text(c *wsroom.Conn, text string, err error) {
	if err == nil {
		g.To(c.Room()).Except(c).SendText(text)
	}
}

// Where a player stands is sent under a key of the player, so that a slow client has one position of each
// player waiting, the newest. What is said in the room stays complete.
func ExampleTarget_Latest() {
	type move struct{ Player, X, Y int }
	hub := wsroom.New()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ws, _, err := websocket.Dial(context.Background(), srv.URL+"/game", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()

	position := func(m move) error { return hub.To("/game").Latest(fmt.Sprint("player ", m.Player)).SendJSON(m) }
	if err := errors.Join(position(move{1, 10, 20}), hub.SendTextToRoom("/game", "go!")); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		_, p, err := ws.Read(context.Background())
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", p)
	}
	// Output:
	// {"Player":1,"X":10,"Y":20}
	// go!
}

// The server learns when a client has what was sent to it, without any code of the client: by the answer to a
// ping behind it.
func ExampleConn_Delivered() {
	delivered := make(chan error, 1)
	hub := wsroom.New(wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
		err := c.SendText("your order is taken")
		c.Delivered(func(err error) { delivered <- err })
		return err
	}))
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ws, _, err := websocket.Dial(context.Background(), srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	_, text, err := ws.Read(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("the client has read: %s\n", text)
	ws.CloseRead(context.Background()) // it goes on reading, and so answers

	fmt.Println("delivered:", <-delivered == nil)
	// Output:
	// the client has read: your order is taken
	// delivered: true
}

// Messages for everyone but the sender, then for several rooms, and a kick.
func ExampleTarget() {
	var g relay
	g.Hub = wsroom.New(wsroom.OnText(g.text))
	srv := httptest.NewServer(g)
	defer srv.Close()
	defer g.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var clients []*websocket.Conn
	for _, room := range []string{"/red", "/red", "/blue"} {
		ws, _, err := websocket.Dial(ctx, srv.URL+room, nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		clients = append(clients, ws)
	}
	ann, bob, cas := clients[0], clients[1], clients[2]

	ann.Write(ctx, websocket.MessageText, []byte("hello, red"))
	_, p, _ := bob.Read(ctx)
	fmt.Println("bob:", string(p))

	var absent []string
	g.To(absent...).SendText("for nobody") // everyone is g.ToAll(), and never an empty list
	g.To("/red", "/blue").SendText("hello, all")
	_, p, _ = ann.Read(ctx) // her own message hasn't come
	fmt.Println("ann:", string(p))
	_, p, _ = cas.Read(ctx)
	fmt.Println("cas:", string(p))

	g.To("/blue").Close(4000, "closing time")
	_, _, err := cas.Read(ctx)
	fmt.Println("cas:", websocket.CloseStatus(err))
	// Output:
	// bob: hello, red
	// ann: hello, all
	// cas: hello, all
	// cas: StatusCode(4000)
}

type message struct{ From, Text string }

// board is a state that clients get as a snapshot, and then each change of it.
type board struct {
	hub   *wsroom.Hub
	mu    sync.Mutex // held while the state changes and the change is sent
	lines []string
}

func newBoard() *board {
	b := new(board)
	b.hub = wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if c.Resumed() {
				return nil // it is sent the changes that it has missed
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			c.DropHeld() // the snapshot has these changes
			return c.SendJSON(b.lines)
		}),
		wsroom.OnText(func(c *wsroom.Conn, line string, err error) {
			if err != nil {
				return
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			b.lines = append(b.lines, line)
			c.SendJSONToThisRoom(b.lines[len(b.lines)-1:])
		}),
	)
	return b
}

// A newcomer gets a snapshot and then each change, without a gap and without doubles. A client that comes back gets
// what it has missed instead.
func ExampleConn_DropHeld() {
	b := newBoard()
	srv := httptest.NewServer(b.hub)
	defer srv.Close()
	defer b.hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i := range 3 {
		ws, _, err := websocket.Dial(ctx, srv.URL+"/board", nil)
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		_, snapshot, _ := ws.Read(ctx)
		ws.Write(ctx, websocket.MessageText, fmt.Append(nil, "line ", i))
		_, change, _ := ws.Read(ctx)
		fmt.Printf("%s then %s\n", snapshot, change)
	}
	// Output:
	// null then ["line 0"]
	// ["line 0"] then ["line 1"]
	// ["line 0","line 1"] then ["line 2"]
}

// A client enters a room that it names, after it has connected: first it is sent the room's topic, and then what is
// said there.
func ExampleConn_Enter() {
	var mu sync.Mutex
	topics := map[string]string{"go": "gophers", "js": "callbacks"}
	hub := wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.OnText(func(c *wsroom.Conn, room string, err error) {
			if err != nil {
				return
			}
			err = c.Enter(room, func(resumed bool) error {
				mu.Lock()
				defer mu.Unlock()
				topic, ok := topics[room]
				switch {
				case !ok:
					return errors.New("there is no such room") // the client isn't in it
				case resumed:
					return nil
				}
				c.DropHeld()
				return c.SendText(room + " is about " + topic)
			})
			if err != nil {
				c.SendText("no room " + room)
				return
			}
			c.SendTextToRoom(room, "somebody has come to "+room)
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	for _, room := range []string{"go", "perl", "js"} {
		ws.Write(ctx, websocket.MessageText, []byte(room))
	}
	for range 5 {
		_, p, _ := ws.Read(ctx)
		fmt.Println(string(p))
	}
	// Output:
	// go is about gophers
	// somebody has come to go
	// no room perl
	// js is about callbacks
	// somebody has come to js
}

// A newcomer gets the last two messages, whatever client it is.
func ExampleConn_Rewind() {
	hub := wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if !c.Resumed() {
				n := c.Rewind(c.Room(), 2)
				return c.SendText(fmt.Sprint("that were the last ", n))
			}
			return nil
		}),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, _, err := websocket.Dial(ctx, srv.URL+"/news", nil) // a room has a history once somebody has come
	if err != nil {
		log.Fatal(err)
	}
	defer first.CloseNow()
	for _, text := range []string{"one", "two", "three"} {
		hub.SendTextToRoom("/news", text)
	}
	ws, _, err := websocket.Dial(ctx, srv.URL+"/news", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer ws.CloseNow()
	for range 3 {
		_, p, _ := ws.Read(ctx)
		fmt.Println(string(p))
	}
	// Output:
	// two
	// three
	// that were the last 2
}

// A client of the subprotocol wsroom.v1 is sent what it has missed; any other client gets plain messages. What a page
// needs is in package wsroomjs.
func ExampleWithHistory() {
	hub := wsroom.New(
		wsroom.WithHistory(500, 256<<10, 2*time.Minute), // messages, bytes and age, for each room
		wsroom.WithHistoryTotal(64<<20),                 // bytes, for all rooms of this node
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, offers := range [][]string{nil, {"wsroom.v1"}} {
		ws, _, err := websocket.Dial(ctx, srv.URL+"/news", &websocket.DialOptions{Subprotocols: offers})
		if err != nil {
			log.Fatal(err)
		}
		defer ws.CloseNow()
		hub.SendTextToRoom("/news", "hello")
		_, p, _ := ws.Read(ctx)
		fmt.Printf("%q %s\n", ws.Subprotocol(), p)
	}
	// Output:
	// "" hello
	// "wsroom.v1" {"v":1,"beat":25000,"keep":120000}
}

// A chat room for each URL: what one member sends, all get.
func Example() {
	hub := wsroom.New(
		wsroom.OnJSON(func(c *wsroom.Conn, m message, err error) {
			if err != nil {
				return // the connection is ending; err says why
			}
			c.SendJSONToThisRoom(m)
		}),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /chat/{room}", hub)

	srv := httptest.NewServer(mux) // http.ListenAndServe(":8080", mux)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ann, _, _ := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	bob, _, _ := websocket.Dial(ctx, srv.URL+"/chat/general", nil)
	ann.Write(ctx, websocket.MessageText, []byte(`{"From":"ann","Text":"hello"}`))
	_, p, err := bob.Read(ctx)
	fmt.Println(string(p), err)
	ann.CloseNow()
	bob.CloseNow()
	// Output: {"From":"ann","Text":"hello"} <nil>
}

// The hub behind chi, with rooms by path value, a check before the upgrade, and a snapshot for each
// newcomer.
func Example_chi() {
	hub := wsroom.New(
		wsroom.WithRoom(wsroom.ByPathValue("doc")),
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			if _, err := r.Cookie("session"); err != nil {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			return nil
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			return c.SendText("the document so far") // before any message of the room
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil {
				c.SendTextToThisRoom(text)
			}
		}),
	)
	r := chi.NewRouter()
	r.Route("/docs", func(r chi.Router) {
		r.Handle("/{doc}/live", hub)
	})
	r.Post("/notice", func(w http.ResponseWriter, r *http.Request) {
		hub.SendTextToAll(r.FormValue("text")) // from anywhere
	})

	srv := httptest.NewServer(r)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	_, res, err := websocket.Dial(context.Background(), srv.URL+"/docs/plan/live", nil)
	if res == nil { // there was no answer
		log.Fatal(err)
	}
	fmt.Println(res.StatusCode, err != nil)
	// Output: 401 true
}

type userKey struct{}

func verify(token string) (user string, expires time.Time, err error) {
	if token != "secret" {
		return "", expires, errors.New("wrong token")
	}
	return "ann", time.Now().Add(time.Hour), nil
}

func renew(user any) (time.Time, error) { return time.Now().Add(time.Hour), nil }

// A browser's bearer token, checked before the upgrade and for as long as the connection lives.
func Example_authentication() {
	hub := wsroom.New(
		wsroom.WithSubprotocols("chat"),
		wsroom.WithRejectMode(wsroom.CloseFrame), // so that a browser sees 4401
		wsroom.WithAuthorize(func(r *http.Request, room string) error {
			token, _ := wsroom.BearerToken(r)
			user, expires, err := verify(token)
			if err != nil {
				return &wsroom.StatusError{Status: http.StatusUnauthorized}
			}
			*r = *r.WithContext(context.WithValue(r.Context(), userKey{}, user)) // for OnConnect and c.Context()
			return wsroom.Until(expires)
		}),
		wsroom.OnExpire(func(c *wsroom.Conn) (time.Time, error) {
			return renew(c.Context().Value(userKey{})) // without OnExpire, or by an error: 4401
		}),
	)

	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())
	for _, token := range []string{"secret", "guess"} {
		entry := "bearer." + base64.RawURLEncoding.EncodeToString([]byte(token))
		ws, _, err := websocket.Dial(context.Background(), srv.URL, &websocket.DialOptions{Subprotocols: []string{"chat", entry}})
		if err != nil {
			log.Fatal(err)
		}
		for _, c := range hub.Members("/") {
			fmt.Println(c.Context().Value(userKey{}))
			c.Close(websocket.StatusNormalClosure, "")
		}
		_, _, err = ws.Read(context.Background())
		fmt.Println(ws.Subprotocol(), websocket.CloseStatus(err))
	}
	// Output:
	// ann
	// chat StatusNormalClosure
	// chat StatusCode(4401)
}
