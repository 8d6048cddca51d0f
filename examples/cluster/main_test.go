package main

import (
	"net/url"
	"slices"
	"testing"

	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/wsroomtest"
)

// awaitPeople reads on until these people are there.
func awaitPeople(c *wsroomtest.Client, want ...string) {
	for e := (event{}); !slices.Equal(e.People, want); {
		e = event{}
		c.NextJSON(&e)
	}
}

func TestOneChatOnTwoNodes(t *testing.T) {
	memory := brokertest.NewMemory()
	var clients []*wsroomtest.Client
	for _, name := range []string{"node 1", "node 2"} {
		hub, handler := newNode(name, memory.Open(), memory)
		wsroomtest.CheckHub(t, hub)
		c := wsroomtest.Dial(t, handler, "/ws?name="+url.QueryEscape("of "+name))
		hello := event{}
		c.NextJSON(&hello)
		if hello.Type != "hello" || hello.Node != name {
			t.Errorf("%+v", hello)
		}
		clients = append(clients, c)
	}
	awaitPeople(clients[0], "of node 1", "of node 2")
	for i, c := range clients {
		c.SendJSON(event{Text: "<b>hello</b>"})
		for _, d := range clients {
			e := event{}
			for d.NextJSON(&e); e.Type != "text"; d.NextJSON(&e) {
				e = event{}
			}
			if e.Text != "<b>hello</b>" || e.Node != []string{"node 1", "node 2"}[i] || e.Name != "of "+e.Node {
				t.Errorf("%+v", e)
			}
		}
	}
}

func TestNamelessAreTurnedAway(t *testing.T) {
	memory := brokertest.NewMemory()
	hub, handler := newNode("node 1", memory.Open(), memory)
	wsroomtest.CheckHub(t, hub)
	wsroomtest.Dial(t, handler, "/ws").ExpectClose(4400)
	wsroomtest.Dial(t, handler, "/ws?name=a%00b").ExpectClose(4400)
}
