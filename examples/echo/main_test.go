package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestEchoSendsBackWhatItReads(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hub := newHub()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	ws, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()

	for _, m := range []struct {
		kind websocket.MessageType
		data string
	}{
		{websocket.MessageText, "hello"},
		{websocket.MessageText, ""},
		{websocket.MessageBinary, "\x00\xff"},
		{websocket.MessageText, strings.Repeat("é", 10_000)},
	} {
		if err := ws.Write(ctx, m.kind, []byte(m.data)); err != nil {
			t.Fatal(err)
		}
		kind, p, err := ws.Read(ctx)
		if err != nil || kind != m.kind || string(p) != m.data {
			t.Fatalf("got %v %.20q, %v; want %v %.20q", kind, p, err, m.kind, m.data)
		}
	}

	stopped := make(chan error, 1)
	go func() { stopped <- hub.Shutdown(ctx) }()
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("got %v, want 1001", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestEchoEndsAsItsClientDoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hub := newHub()
	srv := httptest.NewServer(hub)
	defer srv.Close()
	ws, _, err := websocket.Dial(ctx, srv.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if err := hub.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}
