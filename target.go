package wsroom

import (
	"slices"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// Target is whom a message goes to: the members of some rooms, or everyone. It is made by Hub.To, is
// a value, and may be kept and used concurrently.
type Target struct {
	hub    *Hub
	rooms  []string
	except []*Conn
}

// To returns the members of these rooms, or all connections of the hub if there are none. A
// connection that is in several of the rooms gets one copy.
func (h *Hub) To(rooms ...string) Target { return Target{hub: h, rooms: slices.Clone(rooms)} }

// Except leaves these connections out.
func (t Target) Except(conns ...*Conn) Target {
	t.except = slices.Concat(t.except, conns)
	return t
}

// SendText queues a text message for every connection of the target. All members of a room see its
// messages in the same order, and those of one sender in the order sent. It returns an error, and
// nobody gets the message, for text that isn't valid UTF-8 or a name that can't be a room's. That
// nobody is there is no error. A member whose queue is full is dealt with as WithOverflow says, and
// reported by OnClose or OnDrop; it is no error of the sender.
func (t Target) SendText(text string) error {
	m, err := t.hub.encodeText(text, t.hub.store.deflated.Load() > 0)
	return t.send(m, err)
}

// SendJSON queues v, encoded once for all, as SendText does; an error of the encoder is returned
// wrapped.
func (t Target) SendJSON(v any) error {
	m, err := t.hub.encodeJSON(v, t.hub.store.deflated.Load() > 0)
	return t.send(m, err)
}

// SendBinary queues a binary message, as SendText does. It copies p.
func (t Target) SendBinary(p []byte) error {
	m, err := t.hub.encodeBinary(p, t.hub.store.deflated.Load() > 0)
	return t.send(m, err)
}

func (t Target) send(m *frame.Message, err error) error {
	if err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	n := t.hub.store.send(t.rooms, t.except, m)
	t.hub.observer.Record(MetricFanOut, "", "", float64(n))
	return nil
}

// Close ends every connection of the target as Conn.Close would, and returns at once. Its error is
// for a code or reason that can't be sent, or a name that can't be a room's.
func (t Target) Close(code websocket.StatusCode, reason string) error {
	if err := checkClose(code, reason); err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	for _, c := range t.hub.store.snapshot(t.rooms) {
		if !slices.Contains(t.except, c) {
			_ = c.Close(code, reason) // ErrClosed: it was ending already
		}
	}
	return nil
}

func (t Target) check() error {
	for _, room := range t.rooms {
		if err := checkRoomName(room); err != nil {
			return err
		}
	}
	return nil
}
