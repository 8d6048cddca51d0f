//go:build linux

package parked_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// silent connects a client, and returns it once its connection has been silent for long after a message.
func silent(t *testing.T, hub *wsroom.Hub, c *kit.RawConn) *wsroom.Conn {
	t.Helper()
	c.Frame(0x81, "x")
	wantText(t, c, "x")
	allParked(t)
	return hub.Members("/a")[0]
}

// A connection that has been silent for long gives back what coder/websocket holds: half of its heap.
func TestSilentConnectionsAreSmall(t *testing.T) {
	quietAfter(t, 0)
	_, srv := hubAndServer(t, kit.Echo())
	clients := make([]*kit.RawConn, 300)
	for i := range clients {
		clients[i] = kit.DialRaw(t, srv, "/a")
	}
	allParked(t)
	before := kit.HeapInUse()
	for round := range 3 { // what is dropped is freed each time, and ends no connection
		for _, c := range clients {
			c.Frame(0x81, "x")
			wantText(t, c, "x")
		}
		allParked(t)
		kit.HeapInUse() // pools empty in two rounds
		saved := (before - kit.HeapInUse()) / int64(len(clients))
		if t.Logf("%d bytes less for each", saved); saved < 1000 {
			t.Errorf("which isn't enough, after %d silences", round+1)
		}
	}
}

// After a silence WebSocket is a connection that writes and closes, and it stays the same one from then on.
func TestWebSocketAfterASilence(t *testing.T) {
	quietAfter(t, 0)
	hub, srv := hubAndServer(t, kit.Echo())
	c := kit.DialRaw(t, srv, "/a")
	member := silent(t, hub, c)
	ws := member.WebSocket()
	for i := range 3 {
		text := fmt.Sprint(i)
		if err := ws.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
			t.Fatal(err)
		}
		wantText(t, c, text)
		if silent(t, hub, c).WebSocket() != ws {
			t.Fatal("another WebSocket than before")
		}
	}
	go ws.Close(4001, "done")
	if code, reason := c.CloseCode(); code != 4001 || reason != "done" {
		t.Errorf("closed with %d %q", code, reason)
	}
	c.Frame(0x88, "")
	c.Close()
	kit.NothingLeft(t, hub)
	if err := ws.Write(t.Context(), websocket.MessageText, nil); err == nil {
		t.Error("written after the end")
	}
}

// A WebSocket that is asked for only when its connection has ended is closed, so that no call waits in it.
func TestWebSocketAfterTheEnd(t *testing.T) {
	quietAfter(t, 0)
	hub, srv := hubAndServer(t, kit.Echo())
	c := kit.DialRaw(t, srv, "/a")
	member := silent(t, hub, c)
	c.Close()
	kit.NothingLeft(t, hub)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := member.WebSocket().Ping(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("a ping after the end: %v", err)
	}
}

// However many ask for it while the connection falls silent and is woken, all get one WebSocket.
func TestOneWebSocketForAll(t *testing.T) {
	quietAfter(t, 0)
	hub, srv := hubAndServer(t, kit.Echo())
	for range kit.Scale(50, 300) {
		c := kit.DialRaw(t, srv, "/a")
		member := silent(t, hub, c)
		var all sync.WaitGroup
		got := make([]*websocket.Conn, 4)
		for i := range got {
			all.Go(func() { got[i] = member.WebSocket() })
		}
		for range 3 {
			c.Frame(0x81, "x")
			wantText(t, c, "x")
		}
		all.Wait()
		for _, ws := range got {
			if ws == nil || ws != got[0] || ws != member.WebSocket() {
				t.Fatal("two WebSockets of one connection")
			}
		}
		c.Close()
		kit.NothingLeft(t, hub)
	}
}

// What coder/websocket was told at the handshake holds after a silence, too: the limit on a message, the subprotocol,
// and the protocol.
func TestHandshakeHoldsAfterASilence(t *testing.T) {
	quietAfter(t, 0)
	for name, test := range map[string]struct {
		sent string
		code int
	}{
		"too big":     {string(kit.RawFrame(0x01, strings.Repeat("x", 60))) + string(kit.RawFrame(0x80, strings.Repeat("x", 60))), 1009},
		"reserved":    {string(kit.RawFrame(0xc1, "x")), 1002},
		"opcode":      {string(kit.RawFrame(0x83, "x")), 1002},
		"text":        {string(kit.RawFrame(0x81, "\xff")), 1007},
		"close frame": {string(kit.RawFrame(0x88, "\x0f\xa2bye")), 4002},
	} {
		t.Run(name, func(t *testing.T) {
			hub, srv := hubAndServer(t, kit.Echo(), wsroom.WithMaxMessageSize(100))
			c := kit.DialRaw(t, srv, "/a")
			silent(t, hub, c)
			c.Write([]byte(test.sent))
			if code, _ := c.CloseCode(); code != test.code {
				t.Errorf("closed with %d, want %d", code, test.code)
			}
		})
	}

	hub, srv := hubAndServer(t, kit.Echo(), wsroom.WithSubprotocols("chat"))
	for _, protocol := range []string{"chat", ""} {
		header := ""
		if protocol != "" {
			header = "Sec-WebSocket-Protocol: " + protocol + "\r\n"
		}
		c := kit.DialRaw(t, srv, "/a", header)
		member := silent(t, hub, c)
		if own, below := member.Subprotocol(), member.WebSocket().Subprotocol(); own != protocol || below != protocol {
			t.Errorf("subprotocol %q, of WebSocket() %q; want %q", own, below, protocol)
		}
		c.Close()
		kit.NothingLeft(t, hub)
	}
}

// Compressed messages arrive after a silence as before.
func TestCompressionAfterASilence(t *testing.T) {
	quietAfter(t, 0)
	hub, srv := hubAndServer(t, kit.Echo(), wsroom.WithCompression(1<<20))
	c := kit.DialRaw(t, srv, "/a", kit.OfferDeflate)
	silent(t, hub, c)
	for range 3 {
		c.Frame(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00") // of RFC 7692, section 7.2.3.1
		wantText(t, c, "Hello")
		allParked(t)
	}
	c.Frame(0x88, "\x03\xe8")
	if code, _ := c.CloseCode(); code != 1000 {
		t.Errorf("closed with %d", code)
	}
}
