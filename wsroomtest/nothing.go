package wsroomtest

import (
	"context"
	"testing/synctest"
	"time"
)

// ExpectNothing fails the test if there is a message that the test hasn't taken, or if one is on its way.
// On its way is a message that the server sent to this client before this call, from any goroutine, or in
// the callbacks for what the client sent before. ExpectNothing also fails the test if the connection has
// ended and the test doesn't know, by [Client.ExpectClose], [Client.Close] or [Client.CloseNow]. It doesn't
// sleep. Messages that others cause meanwhile may come later.
//
// In a bubble of testing/synctest it waits as synctest.Wait does, and so proves more: nothing comes unless
// time passes or the test goes on. Elsewhere it exchanges two pings with the server. The server answers
// each ping after the callbacks for what was sent before it. If messages wait, the first answer is written
// together with some of them, and so before the second answer. The server must be reading: if a callback of
// this client doesn't return, the test fails. A message isn't seen if it is still with a broker, or behind
// a message that the application writes in parts. A hub takes 10 pings a second from a client, so after 8
// calls in a row each call waits 200 ms for its turn.
func (c *Client) ExpectNothing() {
	c.t.Helper()
	if got := c.settled("ExpectNothing"); len(got) > 0 {
		c.fail("want nothing, got:%s", list(got))
	}
	c.mu.Lock()
	ended, known := c.ended, c.known
	c.mu.Unlock()
	if ended != nil && !known {
		c.fail("want nothing, but the connection has ended: %s", describeEnd(ended))
	}
}

// Drain takes all messages that are there or on their way, in the sense of [Client.ExpectNothing]. It
// returns them, text and binary, in order.
func (c *Client) Drain() []string {
	c.t.Helper()
	got := c.settled("Drain")
	for n := 0; len(got) > n; { // until no more come
		n = len(got)
		got = c.settled("Drain")
	}
	texts := make([]string, len(got))
	for i, m := range got {
		texts[i] = string(m.data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.takeLocked(len(got))
	return texts
}

// settled returns the unread messages. If any were on their way, there are some.
func (c *Client) settled(caller string) []message {
	c.t.Helper()
	if state := c.line.state(); state != "" {
		c.fail("%s proves nothing now", caller)
	}
	if !waitInBubble() && c.life.Err() == nil {
		c.exchangePings(caller)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unread
}

// waitInBubble calls synctest.Wait if this is a bubble.
func waitInBubble() (ok bool) {
	defer func() { ok = recover() == nil }()
	synctest.Wait()
	return true
}

const (
	pingTime  = 220 * time.Millisecond // the time in which the server's budget regains two pings
	pingsOnce = 8                      // twice as many pings may be sent at once
)

func (c *Client) exchangePings(caller string) {
	c.t.Helper()
	now := time.Now()
	if c.pings.Before(now) {
		c.pings = now
	}
	c.pings = c.pings.Add(pingTime)
	<-time.After(c.pings.Sub(now) - pingsOnce*pingTime)
	ctx, cancel := context.WithTimeout(c.life, c.patience)
	defer cancel()
	for range 2 {
		if err := c.ws.Ping(ctx); err == nil {
			continue
		}
		<-ctx.Done() // the ping couldn't be sent, and the connection ends
		if c.life.Err() == nil {
			c.fail("%s: no answer to a ping within %v: the server isn't reading; is a callback stuck?", caller, c.patience)
		}
		return
	}
}
