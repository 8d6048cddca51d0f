package wsroom

import (
	"slices"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/frame"
)

// Target is whom a message goes to: the members of some rooms, or everyone. It is made by Hub.To and
// Hub.ToAll, is a value, and may be kept and used concurrently. The zero Target is of no use.
type Target struct {
	hub    *Hub
	to     audience
	except []*Conn
}

// To returns the members of these rooms. A connection that is in several of them gets one copy. No rooms
// are nobody: a message to them reaches no connection, and Close closes none; for all connections of the
// hub see ToAll.
func (h *Hub) To(rooms ...string) Target { return Target{hub: h, to: audience{rooms: distinct(rooms)}} }

// ToAll returns all connections of the hub, on all nodes.
func (h *Hub) ToAll() Target { return Target{hub: h, to: everyone} }

// Except leaves these connections out, on whichever node they are. A nil leaves nobody out, nor does a
// connection that has ended or belongs to a hub that has nothing to do with this one.
func (t Target) Except(conns ...*Conn) Target {
	t.except = slices.DeleteFunc(slices.Concat(t.except, conns), func(c *Conn) bool { return c == nil })
	return t
}

// SendText queues a text message for every connection of the target. All members of a room see its
// messages in the same order, and those of one sender in the order sent. It returns an error, and
// nobody gets the message, for text that isn't valid UTF-8 or a name that can't be a room's. That
// nobody is there is no error. A member whose queue is full is dealt with as WithOverflow says, and
// reported by OnClose or OnDrop; it is no error of the sender.
func (t Target) SendText(text string) error {
	return send(t, frame.Text, text, checkText(text))
}

// SendJSON queues v, encoded once for all, as SendText does; an error of the encoder is returned
// wrapped.
func (t Target) SendJSON(v any) error {
	p, err := t.hub.encodeJSON(v)
	return send(t, frame.Text, p, err)
}

// SendBinary queues a binary message, as SendText does. It copies p.
func (t Target) SendBinary(p []byte) error {
	return send(t, frame.Binary, p, nil)
}

// send sends a message unless there is an err of its encoding.
func send[P string | []byte](t Target, opcode byte, payload P, err error) error {
	if err != nil {
		return err
	}
	if err := t.check(); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, opcode, payload)
	}
	deliver(t.hub, t.to, t.skip(), opcode, payload)
	return nil
}

// deliver sends a message to the connections on this node but for those that skip names, if it isn't nil.
func deliver[P string | []byte](h *Hub, to audience, skip func(*Conn) bool, opcode byte, payload P) {
	m := encode(h, opcode, payload, h.store.deflated.Load() > 0)
	n := h.store.send(to, skip, m)
	h.observer.Record(MetricFanOut, "", "", float64(n))
}

// Close ends every connection of the target as Conn.Close would, and returns at once. Its error is
// for a code or reason that can't be sent, or a name that can't be a room's.
func (t Target) Close(code websocket.StatusCode, reason string) error {
	if err := frame.CheckClose(code, reason); err != nil {
		return err
	}
	if err := t.check(); err != nil || t.to.nobody() {
		return err
	}
	if t.hub.node != nil {
		return publish(t, frame.Close, frame.ClosePayload(code, cutReason(reason)))
	}
	t.hub.closeConns(t.to, t.skip(), code, reason)
	return nil
}

// closeConns ends the connections on this node but for those that skip names, if it isn't nil.
func (h *Hub) closeConns(to audience, skip func(*Conn) bool, code websocket.StatusCode, reason string) {
	for _, c := range h.store.snapshot(to) {
		if skip == nil || !skip(c) {
			_ = c.Close(code, reason) // ErrClosed: it was ending already
		}
	}
}

// skip says whom Except left out; nil: nobody.
func (t Target) skip() func(*Conn) bool {
	if len(t.except) == 0 {
		return nil
	}
	except := newLookup(t.except)
	return except.has
}

func (t Target) check() error {
	for _, room := range t.to.rooms {
		if err := checkRoomName(room); err != nil {
			return err
		}
	}
	return nil
}
