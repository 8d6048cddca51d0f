// Graphql is a chat over GraphQL: queries, mutations and subscriptions by graphql-transport-ws, the protocol of
// the npm package graphql-ws. Each URL is a room.
//
//	go run ./examples/graphql   # then open http://localhost:8080 in two windows
package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"unicode"

	"github.com/coder/websocket"
	"github.com/graph-gophers/graphql-go"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/examples/internal/graphqlws"
	"github.com/wsroom/wsroom/examples/internal/web"
)

//go:embed index.html graphql.css graphql.js graphql-ws.js graphql-ws.LICENSE
var files embed.FS

const everyone = "everyone" // the identity of all members

var (
	name          wsroom.Value[string]
	subscriptions wsroom.Value[*sync.Map] // channels of messages
)

var schema = graphql.MustParseSchema(`
	type Query { people: [String!]! }
	type Mutation { say(text: String!): Message! }
	type Subscription { said: Message! }
	type Message { name: String!, text: String! }
`, &resolver{}, graphql.UseFieldResolvers(), graphql.MaxDepth(10), graphql.MaxQueryLength(4<<10))

// newChat returns a node of the chat.
func newChat(opts ...wsroom.Option) (hub *wsroom.Hub, _ http.Handler) {
	hub = wsroom.New(append(opts,
		wsroom.WithRoom(wsroom.ByPathValue("room")), wsroom.WithSubprotocols(graphqlws.Protocol),
		wsroom.WithIdentity(func(*http.Request) string { return everyone }),
		wsroom.Serve(serve),
		wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) { hear(hub.Members(room), typ, p) }),
		wsroom.WithMaxRooms(256), wsroom.WithMaxMembers(1000), wsroom.WithRateLimit(20, 50),
	)...)
	mux := http.NewServeMux()
	mux.Handle("GET /graphql/{room}", hub)
	mux.Handle("GET /", web.Files(files))
	return hub, mux
}

func serve(c *wsroom.Conn) error {
	subscriptions.Set(c, new(sync.Map))
	return graphqlws.Serve(c, schema, func(payload json.RawMessage) error {
		var me struct{ Name string }
		err := json.Unmarshal(payload, &me)
		if err != nil || me.Name == "" || len([]rune(me.Name)) > 24 || strings.ContainsFunc(me.Name, unicode.IsControl) {
			return errors.New("a name has 1 to 24 characters")
		}
		name.Set(c, me.Name)
		return nil
	})
}

// hear gives a room's message to the members on this node. Where messages are missing, they have to come anew.
func hear(members []*wsroom.Conn, typ websocket.MessageType, p []byte) {
	m := new(message)
	if typ != 0 && json.Unmarshal(p, m) != nil {
		return // it isn't of this chat
	}
	for _, c := range members {
		if typ == 0 {
			c.Close(websocket.StatusTryAgainLater, "messages are missing")
		} else {
			tell(c, m)
		}
	}
}

// tell gives a message to a connection's subscriptions. Each sends of it what the client has selected.
func tell(c *wsroom.Conn, m *message) {
	all, ok := subscriptions.Get(c)
	if !ok {
		return // it is new
	}
	for said := range all.Range {
		select {
		case said.(chan *message) <- m:
		default:
			c.Close(websocket.StatusTryAgainLater, "too slow")
		}
	}
}

// resolver has the fields of the schema.
type resolver struct{}

type message struct{ Name, Text string }

func (*resolver) People(ctx context.Context) (names []string) {
	c := graphqlws.Conn(ctx)
	for _, other := range c.Hub().Members(c.Room()) {
		if name, ok := name.Get(other); ok {
			names = append(names, name)
		}
	}
	return names
}

// Say sends a message to the room. All members are left out, so that only OnRoomMessage hears of it, on each node.
func (*resolver) Say(ctx context.Context, in struct{ Text string }) (*message, error) {
	c := graphqlws.Conn(ctx)
	by, _ := name.Get(c)
	m := &message{by, strings.TrimSpace(in.Text)}
	if m.Text == "" || len([]rune(m.Text)) > 500 {
		return nil, errors.New("a text has 1 to 500 characters")
	}
	return m, c.Hub().To(c.Room()).ExceptIdentity(everyone).SendJSON(m)
}

func (*resolver) Said(ctx context.Context) <-chan *message {
	all, _ := subscriptions.Get(graphqlws.Conn(ctx))
	said := make(chan *message, 64)
	all.Store(said, nil)
	context.AfterFunc(ctx, func() { all.Delete(said) })
	return said
}

func main() {
	web.Run(newChat())
}
