// Collab is a text that people write together, offline too. It serves the y-websocket client of Yjs on two
// nodes. All that they know of Yjs is that its changes may come in any order, and twice.
//
//	go run ./examples/collab                        # http://localhost:8080 and http://localhost:8081
//	go run ./examples/collab -redis localhost:6379  # the documents outlive the program
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"slices"
	"sync"

	"github.com/coder/websocket"
	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/examples/internal/web"
	"github.com/wsroom/wsroom/examples/internal/yproto"
)

//go:embed index.html collab.css collab.js yjs.js yjs.LICENSES
var files embed.FS

const maxDocuments, maxDocument, askAfter = 256, 1 << 20, 256 << 10 // the last two in bytes

// newNode is one of the nodes. All that they share is the broker and the store.
func newNode(broker wsroom.Broker, docs store) (hub *wsroom.Hub, _ http.Handler) {
	hub = wsroom.New(
		wsroom.WithBroker(broker), wsroom.WithName("collab"), wsroom.WithRoom(wsroom.ByPathValue("doc")),
		wsroom.Serve(func(c *wsroom.Conn) error { return (&client{Conn: c, docs: docs}).serve() }),
		wsroom.OnGap(func(doc string, _ error) { // changes of other nodes were lost, but the store has them
			for _, c := range hub.Members(doc) { // only those on this node
				c.Close(websocket.StatusServiceRestart, "changes were lost")
			}
		}),
		wsroom.WithMaxMembers(50), wsroom.WithMaxRooms(maxDocuments), wsroom.WithMaxMessageSize(2*maxDocument),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /ws/{doc}", hub)
	mux.Handle("GET /d/{doc}", web.File(files, "index.html"))
	mux.Handle("GET /", web.Files(files))
	return hub, mux
}

type client struct {
	*wsroom.Conn
	docs store
	sent []string // the document when the client was asked for its own; nil once it has answered
	size int      // of its changes since it was asked, with 256 bytes more for each
	me   yproto.Person
}

// serve ends with an error. After 44xx the client stays away; otherwise it comes back, with all that it has.
func (c *client) serve() error {
	defer c.appear("null") // without that, others would notice after 30 s
	err := c.Hub().To(c.Room()).Except(c.Conn).SendBinary(yproto.Message(yproto.AskAwareness, ""))
	for err == nil {
		var p []byte
		if _, p, err = c.Read(c.Context()); err == nil {
			err = c.take(yproto.Parse(p))
		}
	}
	return err
}

func (c *client) take(kind yproto.Kind, data string, err error) error {
	switch {
	case err != nil:
		return err
	case kind == yproto.AskDocument:
		return c.sync()
	case kind == yproto.Document && c.sent != nil:
		sent := c.sent
		c.sent = nil
		if data == yproto.Nothing || slices.Equal(sent, []string{data}) {
			return nil // it has nothing of its own
		}
		c.size -= len(data) + 256
		return c.change(data, sent)
	case kind == yproto.Document, kind == yproto.Change:
		return c.change(data, nil)
	}
	people, err := yproto.People(data)
	for _, p := range people { // a client speaks of itself first; later it also repeats what others say
		if c.me.ID == 0 || c.me.ID == p.ID {
			c.me = p
			c.appear(p.State)
		}
	}
	return err
}

// sync sends the document, and asks for the client's, which includes it, and what was written offline. Changes
// are stored before they are sent to the room, and the client is in the room. So it misses none.
func (c *client) sync() error {
	doc, err := c.docs.Changes(c.Context(), c.Room())
	size := 0
	for _, change := range doc {
		size += len(change)
		err = errors.Join(err, c.WaitQueue(c.Context(), 64<<10), c.SendBinary(yproto.Message(yproto.Change, change)))
	}
	switch err = errors.Join(err, c.SendBinary(yproto.Message(yproto.Document, yproto.Nothing))); {
	case size > maxDocument:
		return websocket.CloseError{Code: 4413, Reason: "The document is too large."}
	case err != nil || c.sent != nil:
		return err
	}
	c.sent, c.size = append([]string{}, doc...), 0
	return c.SendBinary(yproto.Message(yproto.AskDocument, "\x00"))
}

// change stores a change in place of old ones, which it includes, and sends it to the others. A client that
// has changed much is asked for its document, so that what is stored doesn't grow for ever.
func (c *client) change(data string, old []string) error {
	err := c.docs.Replace(c.Context(), c.Room(), old, data)
	if err == nil {
		err = c.Hub().To(c.Room()).Except(c.Conn).SendBinary(yproto.Message(yproto.Change, data))
	}
	switch c.size += len(data) + 256; {
	case err != nil || c.size < askAfter:
		return err
	case c.sent != nil:
		return errors.New("it doesn't answer") // it will come back
	}
	return c.sync()
}

// appear tells all, the client too, what it says of itself. For a slow client only the newest of that waits.
func (c *client) appear(state string) {
	c.me.State = state
	c.Hub().To(c.Room()).Latest(fmt.Sprint(c.me.ID)).SendBinary(c.me.Message())
}

// store keeps documents, each as a set of changes.
type store interface {
	Changes(ctx context.Context, doc string) ([]string, error)
	Replace(ctx context.Context, doc string, old []string, change string) error
}

// memory is the store of one program.
type memory struct {
	mu   sync.Mutex
	docs map[string][]string
}

func (m *memory) Changes(_ context.Context, doc string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.docs[doc]), nil
}

func (m *memory) Replace(_ context.Context, doc string, old []string, change string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.docs[doc] == nil && len(m.docs) == maxDocuments {
		return errors.New("there are too many documents")
	}
	left := slices.DeleteFunc(m.docs[doc], func(c string) bool { return slices.Contains(old, c) })
	m.docs[doc] = append(left, change)
	return nil
}

// inRedis is a store of sorted sets, by time. A document ends 30 days after its last change.
type inRedis struct{ rueidis.Client }

var replace = rueidis.NewLuaScript(`redis.call("ZADD", KEYS[1], redis.call("TIME")[1], ARGV[1])
for i = 2, #ARGV do if ARGV[i] ~= ARGV[1] then redis.call("ZREM", KEYS[1], ARGV[i]) end end
return redis.call("EXPIRE", KEYS[1], 30 * 24 * 3600)`)

func (r inRedis) Changes(ctx context.Context, doc string) ([]string, error) {
	return r.Do(ctx, r.B().Zrange().Key("collab:"+doc).Min("0").Max("-1").Build()).AsStrSlice()
}

func (r inRedis) Replace(ctx context.Context, doc string, old []string, change string) error {
	return replace.Exec(ctx, r.Client, []string{"collab:" + doc}, append([]string{change}, old...)).Error()
}

func main() {
	also := flag.String("also", ":8081", "address of the second node")
	redis := flag.String("redis", "", "address of a Redis server")
	flag.Parse()
	server := brokertest.NewMemory()
	open, docs := func() wsroom.Broker { return server.Open() }, store(&memory{docs: map[string][]string{}})
	if *redis != "" {
		db, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{*redis}})
		if err != nil {
			log.Fatal(err)
		}
		open, docs = func() wsroom.Broker { return redisbroker.New(db) }, inRedis{db}
	}
	web.RunNodes(func() (*wsroom.Hub, http.Handler) { return newNode(open(), docs) }, *also)
}
