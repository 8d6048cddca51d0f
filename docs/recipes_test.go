package docs_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// The code of docs/recipes.md stands here, and each recipe has its test.

// said is what the recipes' clients send.
type said struct {
	Type string `json:"type"`
	Room string `json:"room,omitempty"`
	To   string `json:"to,omitempty"`
	From string `json:"from,omitempty"`
	Text string `json:"text,omitempty"`
	N    int    `json:"n,omitempty"`
}

// visitor is the recipes' login.
func visitor(r *http.Request) string { return r.FormValue("user") }

// as dials as a user.
func as(t *testing.T, hub *wsroom.Hub, user string) *wsroomtest.Client {
	t.Helper()
	return wsroomtest.Dial(t, hub, "/?user="+user, wsroomtest.WithName(user))
}

// recipeOnNodes runs f with a hub, and with two that share a broker.
func recipeOnNodes(t *testing.T, build func(broker wsroom.Option) *wsroom.Hub, f func(t *testing.T, here, there *wsroom.Hub)) {
	t.Run("one node", func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, build(nil))
		f(t, hub, hub)
	})
	t.Run("two nodes", func(t *testing.T) {
		server := brokertest.NewMemory()
		node := func() *wsroom.Hub { return wsroomtest.CheckHub(t, build(wsroom.WithBroker(server.Open()))) }
		f(t, node(), node())
	})
}

func TestRecipePrivateMessages(t *testing.T) {
	recipeOnNodes(t, func(broker wsroom.Option) *wsroom.Hub {
		return wsroom.New(broker,
			wsroom.WithIdentity(visitor),
			wsroom.OnJSON(func(c *wsroom.Conn, m said, err error) {
				if err == nil {
					m.From = c.Identity()
					c.Hub().ToIdentity(m.To, c.Identity()).SendJSON(m)
				}
			}),
		)
	}, func(t *testing.T, here, there *wsroom.Hub) {
		ann, phone, bob, carl := as(t, here, "ann"), as(t, there, "ann"), as(t, there, "bob"), as(t, there, "carl")
		ann.SendJSON(said{To: "bob", Text: "psst"})
		for _, c := range []*wsroomtest.Client{ann, phone, bob} {
			c.ExpectJSON(said{To: "bob", From: "ann", Text: "psst"})
		}
		carl.ExpectNothing()
	})
}

func TestRecipeTyping(t *testing.T) {
	recipeOnNodes(t, func(broker wsroom.Option) *wsroom.Hub {
		return wsroom.New(broker,
			wsroom.WithIdentity(visitor),
			wsroom.OnJSON(func(c *wsroom.Conn, m said, err error) {
				if err == nil && m.Type == "typing" {
					others := c.Hub().To(c.Room()).ExceptIdentity(c.Identity())
					others.Latest("typing:" + c.Identity()).SendJSON(said{Type: "typing", From: c.Identity()})
				}
			}),
		)
	}, func(t *testing.T, here, there *wsroom.Hub) {
		ann, phone, bob := as(t, here, "ann"), as(t, there, "ann"), as(t, there, "bob")
		ann.SendJSON(said{Type: "typing"})
		bob.ExpectJSON(said{Type: "typing", From: "ann"})
		phone.ExpectNothing()
	})
}

func TestRecipeAcknowledge(t *testing.T) {
	stored := make(chan said, 10)
	store := func(m said) error { stored <- m; return nil }
	recipeOnNodes(t, func(broker wsroom.Option) *wsroom.Hub {
		return wsroom.New(broker,
			wsroom.OnJSON(func(c *wsroom.Conn, m said, err error) {
				if err != nil {
					return
				}
				if err := store(m); err != nil {
					c.SendJSON(said{Type: "failed", N: m.N}) // the client sends it again
					return
				}
				c.SendJSON(said{Type: "ack", N: m.N})
				c.Hub().To(c.Room()).Except(c).SendJSON(m)
			}),
		)
	}, func(t *testing.T, here, there *wsroom.Hub) {
		ann, bob := as(t, here, "ann"), as(t, there, "bob")
		ann.SendJSON(said{N: 7, Text: "hello"})
		ann.ExpectJSON(said{Type: "ack", N: 7})
		bob.ExpectJSON(said{N: 7, Text: "hello"})
		if m := await(t, stored, "the message is stored"); m.N != 7 {
			t.Errorf("stored %+v", m)
		}
	})
}

func TestRecipeModeration(t *testing.T) {
	var mu sync.Mutex
	banned := map[string]bool{}
	isBanned := func(user string) bool {
		mu.Lock()
		defer mu.Unlock()
		return banned[user]
	}
	ban := func(hub *wsroom.Hub, user string) {
		mu.Lock()
		banned[user] = true
		mu.Unlock()
		hub.ToIdentity(user).Close(4403, "you have been banned")
	}
	recipeOnNodes(t, func(broker wsroom.Option) *wsroom.Hub {
		return wsroom.New(broker,
			wsroom.WithIdentity(visitor),
			wsroom.WithAuthorize(func(r *http.Request, room string) error {
				if isBanned(visitor(r)) {
					return &wsroom.StatusError{Status: http.StatusForbidden}
				}
				return nil
			}),
			wsroom.OnJSON(func(c *wsroom.Conn, m said, err error) {
				if err == nil && !isBanned(c.Identity()) {
					c.SendJSONToThisRoom(m)
				}
			}),
		)
	}, func(t *testing.T, here, there *wsroom.Hub) {
		mu.Lock()
		clear(banned)
		mu.Unlock()
		ann, bob := as(t, here, "ann"), as(t, there, "bob")
		ban(here, "bob")
		bob.ExpectClose(4403)
		wsroomtest.Refused(t, there, "/?user=bob", http.StatusForbidden)
		ann.SendJSON(said{Text: "peace"})
		ann.ExpectJSON(said{Text: "peace"})
	})
}

func TestRecipeNotifications(t *testing.T) {
	var hub *wsroom.Hub
	orders := func(w http.ResponseWriter, r *http.Request) {
		user := r.FormValue("user")
		hub.ToIdentity(user).SendJSON(said{Type: "shipped", Text: r.FormValue("order")})
		w.WriteHeader(http.StatusNoContent)
	}
	hub = wsroomtest.CheckHub(t, wsroom.New(
		wsroom.WithIdentity(visitor),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {}), // clients only listen
		wsroom.WithMaxMessageSize(1),
	))
	mux := http.NewServeMux()
	mux.Handle("GET /live", hub)
	mux.HandleFunc("POST /orders", orders)
	ann, bob := wsroomtest.Dial(t, mux, "/live?user=ann"), wsroomtest.Dial(t, mux, "/live?user=bob")
	srv := serve(t, mux, hub)
	res, err := http.PostForm(srv.URL+"/orders", map[string][]string{"user": {"ann"}, "order": {"42"}})
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	ann.ExpectJSON(said{Type: "shipped", Text: "42"})
	bob.ExpectNothing()
}

func TestRecipeOneSocketForManyRooms(t *testing.T) {
	mayRead := func(user, room string) bool { return room != "staff" }
	recipeOnNodes(t, func(broker wsroom.Option) *wsroom.Hub {
		return wsroom.New(broker,
			wsroom.WithIdentity(visitor),
			wsroom.WithMaxRooms(10_000),
			wsroom.OnJSON(func(c *wsroom.Conn, m said, err error) {
				switch room := "topic:" + m.Room; {
				case err != nil:
				case m.Type == "join" && mayRead(c.Identity(), m.Room) && len(c.Rooms()) < 50:
					c.Join(room)
				case m.Type == "leave":
					c.Leave(room)
				case m.Type == "say" && slices.Contains(c.Rooms(), room):
					c.SendJSONToRoom(room, said{Room: m.Room, From: c.Identity(), Text: m.Text})
				default:
					c.SendJSON(said{Type: "refused", Room: m.Room})
				}
			}),
		)
	}, func(t *testing.T, here, there *wsroom.Hub) {
		ann, bob := as(t, here, "ann"), as(t, there, "bob")
		for _, c := range []*wsroomtest.Client{ann, bob} {
			c.SendJSON(said{Type: "join", Room: "tea"})
			c.SendJSON(said{Type: "join", Room: "staff"})
			c.ExpectJSON(said{Type: "refused", Room: "staff"})
		}
		ann.SendJSON(said{Type: "say", Room: "tea", Text: "two sugars"})
		ann.ExpectJSON(said{Room: "tea", From: "ann", Text: "two sugars"})
		bob.ExpectJSON(said{Room: "tea", From: "ann", Text: "two sugars"})
		bob.SendJSON(said{Type: "leave", Room: "tea"})
		bob.SendJSON(said{Type: "say", Room: "tea", Text: "nobody hears it"})
		bob.ExpectJSON(said{Type: "refused", Room: "tea"})
		ann.ExpectNothing()
	})
}

// board is a state that the server owns and changes.
type board struct {
	mu    sync.Mutex
	cards []string
}

func (b *board) add(hub *wsroom.Hub, card string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cards = append(b.cards, card)
	hub.SendJSONToRoom("board", said{Type: "added", Text: card}) // under the lock: in the order of the changes
}

func TestRecipeViews(t *testing.T) {
	var language wsroom.Value[string]
	translate := func(p []byte, lang string) string { return lang + ": " + string(p) }
	server := brokertest.NewMemory()
	newHub := func(opts ...wsroom.Option) (hub *wsroom.Hub) {
		hub = wsroom.New(append(opts,
			wsroom.WithIdentity(func(*http.Request) string { return "member" }), // of all
			wsroom.OnRoomMessage(func(room string, typ websocket.MessageType, p []byte) {
				for _, c := range hub.Members(room) {
					if typ == 0 { // messages are missing here
						c.Close(websocket.StatusTryAgainLater, "start anew")
						continue
					}
					if lang, ok := language.Get(c); ok { // otherwise it is new, and OnConnect sends it the state
						c.SendText(translate(p, lang))
					}
				}
			}),
			wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
				language.Set(c, visitor(r))
				return c.SendText("welcome")
			}),
			wsroom.OnJSON(func(c *wsroom.Conn, m int, err error) {
				if err == nil {
					c.Hub().To(c.Room()).ExceptIdentity("member").SendJSON(m) // heard by each node, sent to nobody
				}
			}))...)
		return wsroomtest.CheckHub(t, hub)
	}
	alone := newHub()
	for _, hubs := range [][2]*wsroom.Hub{{alone, alone}, {newHub(wsroom.WithBroker(server.Open())), newHub(wsroom.WithBroker(server.Open()))}} {
		en, de := as(t, hubs[0], "en"), as(t, hubs[1], "de")
		en.ExpectText("welcome")
		de.ExpectText("welcome")
		wsroomtest.Dial(t, hubs[1], "/elsewhere").SendJSON(0)
		for i := range 20 {
			en.SendJSON(i)
			en.ExpectText(fmt.Sprint("en: ", i))
			de.ExpectText(fmt.Sprint("de: ", i))
		}
		en.ExpectNothing()
		de.ExpectNothing()
	}
}

func TestRecipeServerSentState(t *testing.T) {
	b := new(board)
	hub := wsroomtest.CheckHub(t, wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error {
			return c.Enter("board", func(resumed bool) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				if resumed {
					return nil // it is sent the changes that it has missed
				}
				c.DropHeld() // the snapshot has them
				return c.SendJSON(b.cards)
			})
		}),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {}),
	))
	b.add(hub, "milk")
	ann := as(t, hub, "ann")
	ann.ExpectJSON([]string{"milk"})
	b.add(hub, "bread")
	ann.ExpectJSON(said{Type: "added", Text: "bread"})
	as(t, hub, "bob").ExpectJSON([]string{"milk", "bread"})
}

func TestRecipeSurelyDelivered(t *testing.T) {
	missed := make(chan []*wsroom.Conn, 1)
	tell := func(hub *wsroom.Hub, user, text string) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		target := hub.ToIdentity(user)
		target.SendJSON(said{Text: text})
		missed <- target.Delivered(ctx) // those that haven't got it
	}
	hub := wsroomtest.CheckHub(t, wsroom.New(
		wsroom.WithIdentity(visitor),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {}),
	))
	ann := as(t, hub, "ann")
	go tell(hub, "ann", "your taxi is here")
	ann.ExpectJSON(said{Text: "your taxi is here"})
	ann.ExpectNothing() // reads on, and so answers the hub's ping
	if conns := await(t, missed, "it is delivered"); len(conns) > 0 {
		t.Errorf("%d connections have missed it", len(conns))
	}
}
