package wsroom_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

const frames = 300

// frame is a picture of 64 KiB, as it were.
func frame(n int) string { return fmt.Sprint(n, strings.Repeat(" ", 64<<10)) }

// For live pictures the newest counts: who can't keep up misses some, and nobody else notices.
func ExampleWithOverflow() {
	hub := wsroom.New(
		wsroom.WithSendQueue(4, 1<<20),
		wsroom.WithOverflow(wsroom.DropOldest),
	)
	srv := httptest.NewServer(hub)
	defer srv.Close()
	defer hub.Shutdown(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	slow, _, err := websocket.Dial(ctx, srv.URL+"/camera", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer slow.CloseNow()
	slow.SetReadLimit(1 << 20)

	for n := range frames { // nobody reads meanwhile
		hub.SendTextToRoom("/camera", frame(n))
	}
	seen, last := 0, ""
	for last != fmt.Sprint(frames-1) {
		_, p, err := slow.Read(ctx)
		if err != nil {
			log.Fatal(err)
		}
		last = strings.TrimSpace(string(p))
		seen++
	}
	fmt.Println("the last one has come:", last)
	fmt.Println("some have been dropped:", seen < frames, seen+hub.Stats().Dropped == frames)
	// Output:
	// the last one has come: 299
	// some have been dropped: true true
}
