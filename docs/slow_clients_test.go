package docs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// account is what callbacks report, each on a goroutine of its own.
type account struct {
	dropped atomic.Int64
	causes  chan error
}

func newAccount() *account { return &account{causes: make(chan error, 10)} }

// newTicker is the page's hub for prices: the newest count.
func newTicker(a *account) *wsroom.Hub {
	hub := wsroom.New(
		wsroom.WithSendQueue(16, 64<<10),
		wsroom.WithOverflow(wsroom.DropOldest),
		wsroom.OnDrop(func(c *wsroom.Conn, messages int) {
			a.dropped.Add(int64(messages))
		}),
		wsroom.OnClose(func(c *wsroom.Conn, err error) {
			a.causes <- err // ErrSlow with CloseSlow, os.ErrDeadlineExceeded after the write timeout
		}),
	)
	return hub
}

// A client that stops reading for a while gets what is newest, and the rest is reported.
func TestDropOldestKeepsTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount()
		hub := wsroomtest.CheckHub(t, newTicker(a))
		c := wsroomtest.Dial(t, hub, "/prices")
		c.Stall()
		const sent = 100
		for i := range sent {
			if err := hub.SendTextToRoom("/prices", fmt.Sprint(i, strings.Repeat(" ", 100))); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		c.Resume()
		got := c.Drain()
		dropped := int(a.dropped.Load())
		if len(got)+dropped != sent || dropped == 0 || !strings.HasPrefix(got[len(got)-1], fmt.Sprint(sent-1)) {
			t.Errorf("%d came, %d were dropped, the last was %q", len(got), dropped, got[len(got)-1])
		}
	})
}

// One that never reads again goes by the write timeout, though DropOldest would have room for ever.
func TestDropOldestDoesNotKeepTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount()
		hub := wsroomtest.CheckHub(t, newTicker(a))
		c := wsroomtest.Dial(t, hub, "/prices")
		c.Stall()
		begin := time.Now()
		for hub.Len() > 0 && time.Since(begin) < time.Minute {
			hub.SendTextToRoom("/prices", strings.Repeat("x", 1000))
			time.Sleep(time.Second)
		}
		if took := time.Since(begin); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("gone after %v", took)
		}
		if cause := <-a.causes; !errors.Is(cause, os.ErrDeadlineExceeded) {
			t.Errorf("ended by %v", cause)
		}
	})
}

// receipts counts what was confirmed.
type receipts struct{ confirmed atomic.Int64 }

// order is the page's: its sender learns when the client has it.
func (a *receipts) order(c *wsroom.Conn, order any) {
	c.SendJSON(order)
	c.Delivered(func(err error) {
		if err == nil {
			a.confirmed.Add(1)
		}
	})
}

// sendParts is the page's: it sends as fast as the client reads.
func sendParts(ctx context.Context, c *wsroom.Conn, parts [][]byte) error {
	for _, part := range parts {
		if err := c.WaitQueue(ctx, 256<<10); err != nil {
			return err
		}
		c.SendBinary(part)
	}
	return nil
}

// Much more than the queue holds reaches a client that reads slowly, and then it is confirmed.
func TestPartsAreSentAsFastAsTheClientReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount()
		var got receipts
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.OnClose(func(_ *wsroom.Conn, err error) { a.causes <- err })))
		client := wsroomtest.Dial(t, hub, "/")
		c := hub.Members("/")[0]
		client.Stall()
		sent := make(chan error, 1)
		go func() {
			sent <- sendParts(t.Context(), c, slices.Repeat([][]byte{make([]byte, 64<<10)}, 100))
			got.order(c, "order")
		}()
		synctest.Wait()
		if _, bytes := c.Queued(); bytes > 320<<10 || len(sent) > 0 {
			t.Errorf("%d bytes wait, it returned: %d", bytes, len(sent))
		}
		client.Resume()
		if err := <-sent; err != nil {
			t.Error(err)
		}
		if texts := client.Drain(); len(texts) != 101 {
			t.Errorf("%d messages came", len(texts))
		}
		synctest.Wait()
		if n := got.confirmed.Load(); n != 1 {
			t.Errorf("%d confirmed", n)
		}
	})
}

// Of each key at most one value waits, and what has no key is complete.
func TestOnlyTheNewestValueWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithHeartbeat(0, 0)))
		client := wsroomtest.Dial(t, hub, "/")
		c := hub.Members("/")[0]
		client.Stall()
		hub.SendTextToRoom("/", strings.Repeat("x", 1000)) // is being written
		synctest.Wait()
		for move := range 100 {
			hub.To(c.Room()).Latest("position " + c.ID()).SendJSON(move)
			if move%50 == 0 {
				hub.SendTextToRoom("/", "chat")
			}
		}
		client.Resume()
		if got := strings.Join(client.Drain()[1:], " "); got != "99 chat chat" {
			t.Errorf("got %s", got)
		}
	})
}

// The table of what default queues hold is right.
func TestQueuesLastAsLongAsThePageSays(t *testing.T) {
	for _, row := range table(t, "slow-clients.md", 1) {
		var rate, size, seconds float64
		var bound string
		if _, err := fmt.Sscan(strings.Join(row, " "), &rate, &size, &seconds, &bound); err != nil {
			t.Fatalf("%q: %v", row, err)
		}
		const header = 4 // bytes of a frame of 126 and more
		byMessages, byBytes := 4096/rate, float64(1<<20)/(size+header)/rate
		want, by := byMessages, "messages"
		if byBytes < byMessages {
			want, by = byBytes, "bytes"
		}
		if want/seconds > 1.05 || seconds/want > 1.05 || bound != by {
			t.Errorf("%v: it is %.1f s, by %s", row, want, by)
		}
	}
}

// CloseSlow tells the client, and the application.
func TestCloseSlowSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount()
		hub := wsroomtest.CheckHub(t, wsroom.New(wsroom.WithSendQueue(4, 1<<20), wsroom.OnClose(func(_ *wsroom.Conn, err error) { a.causes <- err })))
		c := wsroomtest.Dial(t, hub, "/")
		c.Stall()
		for range 10 {
			hub.SendTextToAll(strings.Repeat("x", 200))
			synctest.Wait()
		}
		c.Resume()
		c.ExpectClose(websocket.StatusTryAgainLater)
		if cause := <-a.causes; !errors.Is(cause, wsroom.ErrSlow) {
			t.Errorf("ended by %v", cause)
		}
	})
}
