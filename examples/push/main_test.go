package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

func TestPublishReachesTheRoom(t *testing.T) {
	hub := wsroomtest.CheckHub(t, newHub())
	h := handler(hub)
	news := wsroomtest.DialN(t, 2, h, "/feed/news")
	sport := wsroomtest.Dial(t, h, "/feed/sport")
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
		w, r := httptest.NewRecorder(), httptest.NewRequest("POST", "/publish/"+c.room, strings.NewReader(c.text))
		if c.origin != "" {
			r.Header.Set("Origin", c.origin)
		}
		if h.ServeHTTP(w, r); w.Code != c.status {
			t.Errorf("publishing %.10q to %s: %d, want %d", c.text, c.room, w.Code, c.status)
		}
	}
	for _, c := range news {
		c.ExpectText("late")
		c.ExpectNothing()
	}
	sport.ExpectText("won")
	sport.ExpectNothing()

	news[0].SendText("hello")
	news[0].ExpectClose(websocket.StatusUnsupportedData) // the hub is push-only
}

func TestPageListens(t *testing.T) {
	w := httptest.NewRecorder()
	handler(newHub()).ServeHTTP(w, httptest.NewRequest("GET", "/push.js", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "/feed/news") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
