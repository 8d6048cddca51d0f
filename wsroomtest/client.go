package wsroomtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// Client is one WebSocket client of a test. It reads all the time and answers pings, as a browser does,
// unless it is stalled. The messages that it has read wait until the test takes them. Its methods fail the
// test by Fatalf, with an account of what came instead, so call them on the test's goroutine.
// [Client.Stall], [Client.Resume], [Client.Cut] and [Client.CloseNow] may be called from any goroutine.
type Client struct {
	t        testing.TB
	name     string
	patience time.Duration
	ws       *websocket.Conn
	line     *line
	gone     <-chan struct{} // see dialer
	pings    time.Time       // when the full number of pings may be sent again
	life     context.Context // done once nothing more comes

	mu     sync.Mutex    // guards what follows
	news   chan struct{} // closed when something comes
	unread []message
	taken  []message // the last few
	ended  error     // why nothing more comes; nil while messages may come
	known  bool      // the test knows of the end, or has caused it

	resumption *resumption // nil without WithCursor
}

func newClient(d *dialer, ws *websocket.Conn) *Client {
	c := &Client{t: d.t, name: d.name, patience: d.patience, ws: ws, line: d.line.Load(), gone: d.gone, news: make(chan struct{}), resumption: d.resumption}
	if c.resumption != nil {
		c.resumption.choose(ws)
	}
	life, over := context.WithCancel(context.Background())
	c.life = life
	go func() {
		defer over()
		c.read()
	}()
	c.t.Cleanup(func() {
		c.t.Helper()
		_ = ws.CloseNow()
		c.line.hangUp()
		<-life.Done()
		c.awaitServer()
	})
	return c
}

func (c *Client) read() {
	for {
		typ, p, err := c.ws.Read(context.Background())
		c.mu.Lock()
		if err == nil {
			c.noteLocked(message{typ: typ, data: p})
		} else {
			c.ended = err
		}
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// noteLocked keeps a message for the test, unless it is one of the protocol. mu is held.
func (c *Client) noteLocked(m message) {
	isApplications := true
	if c.resumption != nil {
		m.moves, isApplications = c.resumption.read(m)
	}
	if isApplications {
		c.unread = append(c.unread, m)
	}
}

// takeLocked has the test take the first n messages. mu is held.
func (c *Client) takeLocked(n int) {
	for _, m := range c.unread[:n] {
		if c.resumption != nil {
			c.resumption.move(m.moves)
		}
	}
	c.taken = append(c.taken, c.unread[:n]...)
	c.taken = slices.Clone(c.taken[max(0, len(c.taken)-remembered):])
	c.unread = c.unread[n:]
}

// awaitServer waits until the server has closed the connection.
func (c *Client) awaitServer() {
	c.t.Helper()
	if c.gone == nil {
		return
	}
	select {
	case <-c.gone:
	case <-time.After(c.patience):
		c.t.Errorf("%s: hung up %v ago, and the server hasn't let go; is a callback stuck?\n%s", c.name, c.patience, stacks(c.t.Name()))
	}
}

// Subprotocol returns the subprotocol that the server chose, or "" if it chose none. Of a client [WithCursor] it is
// the application's.
func (c *Client) Subprotocol() string { return c.resumption.applications(c.ws.Subprotocol()) }

// SendText sends a text message.
func (c *Client) SendText(text string) {
	c.t.Helper()
	c.send(message{typ: websocket.MessageText, data: []byte(text)})
}

// SendBinary sends a binary message.
func (c *Client) SendBinary(p []byte) {
	c.t.Helper()
	c.send(message{typ: websocket.MessageBinary, data: p})
}

// SendJSON encodes v and sends it as a text message.
func (c *Client) SendJSON(v any) {
	c.t.Helper()
	p, err := json.Marshal(v)
	if err != nil {
		c.t.Fatalf("%s: SendJSON: %v", c.name, err)
	}
	c.send(message{typ: websocket.MessageText, data: p})
}

func (c *Client) send(m message) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), c.patience)
	defer cancel()
	data := m.data
	if r := c.resumption; r != nil && r.speaks && m.typ == websocket.MessageText && bytes.HasPrefix(data, []byte{0}) {
		data = append([]byte{0}, data...) // the protocol's own messages begin with one
	}
	if err := c.ws.Write(ctx, m.typ, data); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("the server hasn't read for %v", c.patience)
		}
		c.fail("sending %v: %v", m, err)
	}
}

// ExpectText takes the next messages and fails the test unless they are these texts.
func (c *Client) ExpectText(want ...string) {
	c.t.Helper()
	for _, text := range want {
		wanted := message{typ: websocket.MessageText, data: []byte(text)}
		c.expect(wanted, wanted.String())
	}
}

// ExpectBinary takes the next message and fails the test unless it is binary and has these bytes.
func (c *Client) ExpectBinary(want []byte) {
	c.t.Helper()
	wanted := message{typ: websocket.MessageBinary, data: want}
	c.expect(wanted, wanted.String())
}

func (c *Client) expect(want message, what string) {
	c.t.Helper()
	if got := c.next(what); !got.equal(want) {
		c.fail("want %s, got %v", what, got)
	}
}

// ExpectJSON takes the next messages and fails the test unless they are text and mean the same as the
// encoded want. The order of an object's members, white space and the notation of numbers don't matter. A
// json.RawMessage is compared as it is. The failure names each member that differs.
func (c *Client) ExpectJSON(want ...any) {
	c.t.Helper()
	for _, v := range want {
		p, err := json.Marshal(v)
		if err != nil {
			c.t.Fatalf("%s: ExpectJSON: %v", c.name, err)
		}
		what := "the JSON " + quote(string(p))
		got := c.nextOf(websocket.MessageText, what)
		if diff := diffJSON(got.data, p); diff != "" {
			c.fail("not the JSON that is wanted:\n%s\tgot  %s\n\twant %s", diff, quote(string(got.data)), quote(string(p)))
		}
	}
}

// NextText takes the next message, which must be text, and returns it.
func (c *Client) NextText() string {
	c.t.Helper()
	return string(c.nextOf(websocket.MessageText, "a text").data)
}

// NextBinary takes the next message, which must be binary, and returns it.
func (c *Client) NextBinary() []byte {
	c.t.Helper()
	return c.nextOf(websocket.MessageBinary, "a binary message").data
}

// NextJSON takes the next message, which must be text, and decodes it into v.
func (c *Client) NextJSON(v any) {
	c.t.Helper()
	got := c.nextOf(websocket.MessageText, fmt.Sprintf("JSON for a %T", v))
	if err := json.Unmarshal(got.data, v); err != nil {
		c.fail("%v doesn't decode into a %T: %v", got, v, err)
	}
}

func (c *Client) nextOf(typ websocket.MessageType, what string) message {
	c.t.Helper()
	got := c.next(what)
	if got.typ != typ {
		c.fail("want %s, got %v", what, got)
	}
	return got
}

// next takes the next message.
func (c *Client) next(what string) (m message) {
	c.t.Helper()
	problem := c.wait(func() bool {
		if len(c.unread) == 0 {
			return false
		}
		m = c.unread[0]
		c.takeLocked(1)
		return true
	})
	if problem != "" {
		c.fail("want %s, %s", what, problem)
	}
	return m
}

// wait waits until ok returns true. ok is called with mu held. wait returns the reason if it waited in
// vain.
func (c *Client) wait(ok func() bool) (problem string) {
	timer := time.NewTimer(c.patience)
	defer timer.Stop()
	for {
		c.mu.Lock()
		done, ended, news := ok(), c.ended, c.news
		c.mu.Unlock()
		switch {
		case done:
			return ""
		case ended != nil:
			return "but the connection has ended: " + describeEnd(ended)
		}
		select {
		case <-news:
		case <-timer.C:
			return fmt.Sprintf("but nothing came for %v", c.patience)
		}
	}
}

// ExpectClose waits for the connection's end, fails the test unless the end has this close code, and
// returns the reason. Messages that came before can still be taken. As in browsers,
// websocket.StatusAbnormalClosure (1006) is an end without a close frame, and websocket.StatusNoStatusRcvd
// (1005) is a close frame without a code.
func (c *Client) ExpectClose(code websocket.StatusCode) (reason string) {
	c.t.Helper()
	var end error
	problem := c.wait(func() bool {
		end, c.known = c.ended, true
		return end != nil
	})
	if problem != "" {
		c.fail("want the end with close code %d, %s", code, strings.Replace(problem, "nothing came", "it lives on", 1))
	}
	by := closeOf(end)
	if by.Code != code {
		c.fail("want the end with close code %d, got: %s", code, describeEnd(end))
	}
	return by.Reason
}

// Stall stops the client's reading, even of pings, until [Client.Resume]. Messages that it has already read
// can be taken. A line in memory holds another 256 bytes; then the server's writes wait. Over a network the
// kernels hold some MB.
func (c *Client) Stall() { c.line.stop(false) }

// Resume ends [Client.Stall].
func (c *Client) Resume() { c.line.resume() }

// Cut makes the line go dead: from now on neither side receives anything from the other, not even that it
// closed. What the server writes is lost, as far as a stalled line holds it.
func (c *Client) Cut() { c.line.stop(true) }

// Close closes the connection with a close frame and fails the test unless the server's close frame comes.
// On a connection that has ended it does nothing.
func (c *Client) Close(code websocket.StatusCode, reason string) {
	c.t.Helper()
	c.mu.Lock()
	ended := c.ended
	c.known = true
	c.mu.Unlock()
	if ended != nil {
		return
	}
	err := c.ws.Close(code, reason)
	c.wait(func() bool {
		if err == nil && errors.Is(c.ended, net.ErrClosed) { // the answer was read by ws.Close
			c.ended = websocket.CloseError{Code: code, Reason: reason}
		}
		ended = c.ended
		return ended != nil
	})
	if closeOf(ended).Code == websocket.StatusAbnormalClosure {
		c.fail("want an answer to the close frame, got: %v", errors.Join(err, ended))
	}
}

// CloseNow closes the connection without a close frame, as when a process is killed.
func (c *Client) CloseNow() {
	c.mu.Lock()
	c.known = true
	c.mu.Unlock()
	_ = c.ws.CloseNow()
}
