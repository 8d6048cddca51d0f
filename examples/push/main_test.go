package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

func TestPublishReachesTheRoom(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	hub := newHub()
	srv := httptest.NewServer(handler(hub))
	t.Cleanup(srv.Close)

	listen := func(room string) *websocket.Conn {
		ws, _, err := websocket.Dial(ctx, srv.URL+"/feed/"+room, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ws.CloseNow() })
		return ws
	}
	publish := func(room, text, origin string) int {
		req, err := http.NewRequestWithContext(ctx, "POST", srv.URL+"/publish/"+room, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	next := func(ws *websocket.Conn) string {
		_, p, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}

	one, two, sport := listen("news"), listen("news"), listen("sport")
	for _, c := range []struct {
		room, text, origin string
		status             int
	}{
		{"news", "late", "", 204},
		{"nobody", "late", "", 204},
		{"news", strings.Repeat("x", 5<<10), "", 413},
		{"news", "\xff", "", 400},
		{"news", "forged", "https://other.example", 403},
		{"sport", "won", "", 204},
	} {
		if got := publish(c.room, c.text, c.origin); got != c.status {
			t.Errorf("publishing %.10q to %s: %d, want %d", c.text, c.room, got, c.status)
		}
	}
	for _, ws := range []*websocket.Conn{one, two} {
		if got := next(ws); got != "late" {
			t.Errorf("got %q", got)
		}
	}
	if got := next(sport); got != "won" { // and nothing of the other rooms
		t.Errorf("got %q", got)
	}

	if err := one.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := one.Read(ctx); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Errorf("got %v, want 1003: the hub is push-only", err)
	}
}

func TestPageListens(t *testing.T) {
	w := httptest.NewRecorder()
	handler(newHub()).ServeHTTP(w, httptest.NewRequest("GET", "/push.js", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "/feed/news") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
