// Cluster is a chat on three nodes behind a load balancer, all started by one command. The page shows on
// which node each tab is; end that node, and the tab comes back on another.
//
//	go run ./examples/cluster                           # NATS runs within; nothing is to be installed
//	go run ./examples/cluster -nats nats://localhost    # over a server of your own, with JetStream
//	go run ./examples/cluster -redis localhost:6379
//
// Then open http://localhost:8080 in several tabs.
package main

import (
	"context"
	"embed"
	"flag"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/redis/rueidis"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/natsbroker"
	"github.com/wsroom/wsroom/adapters/redisbroker"
	"github.com/wsroom/wsroom/examples/internal/web"
)

//go:embed index.html cluster.css cluster.js
var files embed.FS

const room = "everyone"

type event struct {
	Type   string   `json:"type"` // hello and people; text, of a person; gap
	Node   string   `json:"node,omitempty"`
	PID    int      `json:"pid,omitempty"`
	Name   string   `json:"name,omitempty"`
	Text   string   `json:"text,omitempty"`
	People []string `json:"people,omitempty"`
}

// newNode is one of the nodes. All it shares with the others is the broker and the store.
func newNode(name string, broker wsroom.Broker, store wsroom.PresenceStore) (*wsroom.Hub, http.Handler) {
	var hub *wsroom.Hub
	// One node hears of each who comes or goes, and tells the members on all.
	tell := func(string, wsroom.Member) { hub.SendJSONToRoom(room, people(hub)) }
	hub = wsroom.New(
		wsroom.WithBroker(broker),
		wsroom.WithPresenceStore(store),
		wsroom.WithRoom(func(*http.Request) (string, error) { return room, nil }),
		wsroom.WithIdentity(identity),
		wsroom.OnMemberJoin(tell),
		wsroom.OnMemberLeave(tell),
		wsroom.OnGap(func(missed string, _ error) {
			if missed != room { // a lost connection is a gap of the messages to all, too; there are none
				return
			}
			for _, c := range hub.Members(room) { // only those on this node
				c.SendJSON(event{Type: "gap"})
			}
		}),
		wsroom.OnConnect(func(c *wsroom.Conn, _ *http.Request) error {
			if c.Identity() == "" {
				return websocket.CloseError{Code: 4400, Reason: "A name has 1 to 24 characters."}
			}
			return c.SendJSON(event{Type: "hello", Node: name, PID: os.Getpid(), People: people(hub).People})
		}),
		wsroom.OnJSON(func(c *wsroom.Conn, said event, err error) {
			switch text := strings.TrimSpace(said.Text); {
			case err != nil: // the connection is ending
			case text == "":
			default:
				e := event{Type: "text", Node: name, Name: c.Identity(), Text: text}
				if c.SendJSONToThisRoom(e) != nil { // the broker has been away for too long
					c.SendJSON(event{Type: "gap"})
				}
			}
		}),
		wsroom.WithRateLimit(5, 20), wsroom.WithMaxMessageSize(4<<10), wsroom.WithDrain(time.Second),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /ws", hub)
	mux.Handle("GET /", web.Files(files))
	return hub, mux
}

// people tells who is there, on all nodes.
func people(hub *wsroom.Hub) event {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	members, err := hub.Presence(ctx, room)
	if err != nil {
		log.Print(err) // those of this node are better than none
	}
	e := event{Type: "people"}
	for _, m := range members {
		e.People = append(e.People, m.Identity)
	}
	return e
}

// identity is the name that a tab gives itself. A real application asks its users to log in.
func identity(r *http.Request) string {
	name := strings.TrimSpace(r.FormValue("name"))
	if len([]rune(name)) > 24 || strings.ContainsFunc(name, unicode.IsControl) {
		return ""
	}
	return name
}

var (
	node      = flag.String("node", "", "be the node of this name; without it: start all of them")
	natsURL   = flag.String("nats", "", "the URL of a NATS server with JetStream")
	redisAddr = flag.String("redis", "", "the address of a Redis server")
)

func main() {
	flag.Parse()
	if *node == "" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := runAll(ctx); err != nil {
			log.Print(err)
		}
		return
	}
	log.SetPrefix(*node + ": ")
	if *redisAddr != "" {
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{*redisAddr}})
		if err != nil {
			log.Fatal(err)
		}
		defer client.Close()
		web.Run(newNode(*node, redisbroker.New(client), redisbroker.NewPresence(client)))
		return
	}
	nc, err := nats.Connect(*natsURL, nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	web.Run(newNode(*node, natsbroker.New(nc), natsbroker.NewPresence(nc)))
}
