package docs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/route"
	"github.com/wsroom/wsroom/wsroomtest"
)

type join struct{ Table string }

type joined struct {
	Members int `json:"members"`
}

// newTables is the hub of docs/route.md.
func newTables() (*wsroom.Hub, *route.Router) {
	messages := route.New(route.OnError(func(c *wsroom.Conn, typ string, err error) {
		log.Printf("%s of %s: %v", typ, c.ID(), err) // what the client isn't told
	}))
	route.Handle(messages, "join", func(c *wsroom.Conn, req join) (joined, error) {
		if len(c.Hub().Members(req.Table)) == 4 {
			return joined{}, &route.Error{Code: "full", Message: "the table is full"}
		}
		if err := c.Join(req.Table); err != nil {
			return joined{}, err // the client is told "internal"
		}
		return joined{Members: len(c.Hub().Members(req.Table))}, nil
	})
	route.On(messages, "say", func(c *wsroom.Conn, text string) error {
		return c.SendJSONToThisRoom(messages.Message("said", text))
	})
	hub := wsroom.New(messages.OnJSON())
	return hub, messages
}

// mayDelete asks as the page does.
func mayDelete(ctx context.Context, messages *route.Router, c *wsroom.Conn) error {
	sure, err := route.Call[bool](ctx, messages, c, "confirm", "Delete the table?")
	if answer := (*route.PeerError)(nil); errors.As(err, &answer) {
		return fmt.Errorf("the client can't say: %s", answer.Code)
	}
	if err == nil && !sure {
		err = errors.New("no")
	}
	return err
}

// The page's messages are those on the wire.
func TestRouteIsAsThePageSays(t *testing.T) {
	hub, messages := newTables()
	wsroomtest.CheckHub(t, hub)
	players := wsroomtest.DialN(t, 5, hub, "/play")
	for i, player := range players {
		player.SendText(`{"type":"join","id":1,"data":{"table":"a"}}`)
		if i < 4 {
			player.ExpectJSON(json.RawMessage(fmt.Sprintf(`{"id":1,"data":{"members":%d}}`, i+1)))
		} else {
			player.ExpectJSON(json.RawMessage(`{"id":1,"error":{"code":"full","message":"the table is full"}}`))
		}
	}
	players[0].SendText(`{"type":"say","data":"hello"}`)
	for _, player := range players {
		player.ExpectJSON(json.RawMessage(`{"type":"said","data":"hello"}`))
	}

	only := wsroomtest.Dial(t, hub, "/only")
	for answer, want := range map[string]string{
		`"data":true`: "<nil>", `"data":false`: "no", `"error":{"code":"busy"}`: "the client can't say: busy",
	} {
		got := make(chan error, 1)
		go func() { got <- mayDelete(t.Context(), messages, hub.Members("/only")[0]) }()
		var asked struct{ ID int }
		only.NextJSON(&asked)
		only.SendText(fmt.Sprintf(`{"id":%d,%s}`, asked.ID, answer))
		if err := await(t, got, "the answer"); fmt.Sprint(err) != want {
			t.Errorf("%s: %v, want %s", answer, err, want)
		}
	}
}
