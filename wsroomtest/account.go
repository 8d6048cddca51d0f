package wsroomtest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/coder/websocket"
)

const (
	remembered = 5   // messages that a failure shows
	shown      = 200 // bytes of each that it shows
)

// message is one message, sent or received.
type message struct {
	typ   websocket.MessageType
	data  []byte
	moves []move // of the client's positions, once the test has taken it
}

func (m message) equal(o message) bool { return m.typ == o.typ && bytes.Equal(m.data, o.data) }

func (m message) String() string {
	kind := "the text "
	if m.typ == websocket.MessageBinary {
		kind = "the binary message "
	}
	return kind + quote(string(m.data))
}

// quote shows the beginning of a message: JSON unchanged, anything else quoted.
func quote(s string) string {
	rest := ""
	if n := len(s) - shown; n > 0 {
		s, rest = s[:shown], fmt.Sprintf("… and %d bytes more", n)
	}
	if strings.HasPrefix(s, "{") || strings.HasPrefix(s, "[") {
		if strconv.CanBackquote(s) {
			return s + rest
		}
	}
	return strconv.Quote(s) + rest
}

func list(messages []message) string {
	var b strings.Builder
	for i, m := range messages {
		if i == remembered {
			fmt.Fprintf(&b, "\n\t\tand %d more", len(messages)-i)
			break
		}
		fmt.Fprintf(&b, "\n\t\t%v", m)
	}
	return b.String()
}

// fail fails the test with an account of what has come.
func (c *Client) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s: %s%s", c.name, fmt.Sprintf(format, args...), c.account())
}

func (c *Client) account() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	if len(c.taken) > 0 {
		b.WriteString("\n\ttaken last:" + list(c.taken))
	}
	if len(c.unread) > 0 {
		b.WriteString("\n\tnot taken:" + list(c.unread))
	}
	if state := c.line.state(); state != "" {
		b.WriteString("\n\t" + state)
	}
	return b.String()
}

// closeOf returns what a browser's close event would say about the end.
func closeOf(end error) websocket.CloseError {
	by := websocket.CloseError{Code: websocket.StatusAbnormalClosure}
	errors.As(end, &by)
	return by
}

func describeEnd(end error) string {
	by := closeOf(end)
	if by.Code == websocket.StatusAbnormalClosure {
		return fmt.Sprintf("no close frame (1006): %v", end)
	}
	return fmt.Sprintf("close code %d, reason %q", by.Code, by.Reason)
}
