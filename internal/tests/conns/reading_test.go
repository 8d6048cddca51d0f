package conns_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// The reading methods of Serve.
func TestServeReads(t *testing.T) {
	results := make(chan string, 10)
	hub := wsroom.New(wsroom.WithBadJSON(wsroom.KeepOpen), wsroom.Serve(func(c *wsroom.Conn) error {
		ctx := context.Background()
		text, err := c.ReadText(ctx)
		results <- fmt.Sprint(text, err)
		var n int
		err = c.ReadJSON(ctx, &n)
		results <- fmt.Sprint(n, err)
		err = c.ReadJSON(ctx, &n)
		results <- fmt.Sprint(errors.As(err, new(*wsroom.DecodeError)))
		typ, p, err := c.Read(ctx)
		results <- fmt.Sprint(typ, p, err)
		_, err = c.ReadText(ctx) // a binary message
		results <- fmt.Sprint(err != nil, err == context.Cause(c.Context()))
		return err
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.SendText("text")
	c.SendText("7")
	c.SendText("{")
	c.SendBinary([]byte{1})
	c.SendBinary([]byte{2})
	for _, want := range []string{"text<nil>", "7 <nil>", "true", "MessageBinary [1] <nil>", "true true"} {
		if got := kit.Await(t, results, want); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.ExpectClose(websocket.StatusUnsupportedData)
}

// JSON that doesn't decode ends the connection before Serve's function has the error, whatever that does with it.
func TestReadJSONEndsTheConnection(t *testing.T) {
	ends := make(chan error, 1)
	hub := wsroom.New(
		wsroom.OnClose(func(_ *wsroom.Conn, err error) { ends <- err }),
		wsroom.Serve(func(c *wsroom.Conn) error {
			var n int
			if err := c.ReadJSON(c.Context(), &n); !errors.As(err, new(*wsroom.DecodeError)) {
				t.Errorf("ReadJSON: %v", err)
			}
			if err := c.SendText("go on"); err != wsroom.ErrClosed {
				t.Errorf("SendText: %v", err)
			}
			return nil
		}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	c.SendText("{")
	c.ExpectClose(websocket.StatusInvalidFramePayloadData)
	if err := kit.Await(t, ends, "OnClose"); !errors.As(err, new(*wsroom.DecodeError)) {
		t.Errorf("it ended by %v", err)
	}
}

func TestReadingBelongsToServe(t *testing.T) {
	hub := wsroom.New(wsroom.OnText(kit.DiscardText))
	kit.Dial(t, kit.Serve(t, hub), "/a")
	if _, err := kit.Member(t, hub, "/a").ReadText(t.Context()); err == nil {
		t.Error("ReadText beside OnText")
	}
}

// Ending the connection from outside ends a Read that waits.
func TestEndWakesServe(t *testing.T) {
	errs, reads := make(chan error, 1), make(chan struct{})
	hub := wsroom.New(wsroom.Serve(func(c *wsroom.Conn) error {
		close(reads)
		_, err := c.ReadText(context.Background())
		errs <- err
		return err
	}))
	c := kit.Dial(t, kit.Serve(t, hub), "/a")
	kit.Await(t, reads, "Serve")
	go kit.Member(t, hub, "/a").Close(4321, "out")
	if err := kit.Await(t, errs, "Read"); websocket.CloseStatus(err) != 4321 {
		t.Errorf("Read: %v", err)
	}
	c.ExpectClose(4321)
}

// Messages written straight through WebSocket(), whole or in fragments, and room messages never cut
// into each other.
func TestRawWritesAndRoomMessagesStayWhole(t *testing.T) {
	const rounds = 20
	big := strings.Repeat("raw", 100_000)
	hub := wsroom.New(wsroom.Serve(func(c *wsroom.Conn) error {
		for range rounds {
			w, err := c.WebSocket().Writer(context.Background(), websocket.MessageText)
			if err != nil {
				return err
			}
			for part := range slices.Chunk([]byte(big), 77_777) {
				if _, err := w.Write(part); err != nil {
					return err
				}
				c.SendTextToThisRoom("between fragments")
			}
			if err := w.Close(); err != nil {
				return err
			}
			if err := c.WebSocket().Write(context.Background(), websocket.MessageText, []byte(big)); err != nil {
				return err
			}
		}
		_, err := c.ReadText(context.Background())
		return err
	}))
	srv := kit.Serve(t, hub)
	c := kit.Dial(t, srv, "/a")
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				hub.SendTextToRoom("/a", "room")
				time.Sleep(10 * time.Microsecond)
			}
		}
	})
	counts := map[string]int{}
	for counts["raw"] < 2*rounds {
		switch text := c.NextText(); text {
		case big:
			counts["raw"]++
		case "room", "between fragments":
			counts[text]++
		default:
			t.Fatalf("a message that nobody sent: %q", kit.Short(text))
		}
	}
	close(done)
	wg.Wait()
	if counts["room"] == 0 || counts["between fragments"] < rounds {
		t.Errorf("counts %v", counts)
	}
	c.Close(websocket.StatusNormalClosure, "")
}
