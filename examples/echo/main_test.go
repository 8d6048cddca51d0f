package main

import (
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestEchoSendsBackWhatItReads(t *testing.T) {
	hub := wsroomtest.CheckHub(t, newHub())
	c := wsroomtest.Dial(t, hub, "/")
	for _, text := range []string{"hello", "", strings.Repeat("é", 10_000)} {
		c.SendText(text)
		c.ExpectText(text)
	}
	c.SendBinary([]byte("\x00\xff"))
	c.ExpectBinary([]byte("\x00\xff"))

	if err := hub.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	c.ExpectClose(websocket.StatusServiceRestart)
}

func TestEchoEndsAsItsClientDoes(t *testing.T) {
	hub := wsroomtest.CheckHub(t, newHub())
	c := wsroomtest.Dial(t, hub, "/")
	c.Close(websocket.StatusNormalClosure, "")
	c.ExpectClose(websocket.StatusNormalClosure)
}
