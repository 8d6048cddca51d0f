package model_test

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// sentMessage is one that the hub sends. Its payload begins with its number.
type sentMessage struct {
	first   byte // of its frame
	kind    int
	payload string
	value   string // what is encoded as JSON
}

const (
	kindText = iota
	kindJSON
	kindBinary
	kinds
)

// sizes are what messages are longer by than they need to be.
var sizes = []int{0, 100, 1500, 3000, 9000}

type sender interface {
	SendText(string) error
	SendJSON(any) error
	SendBinary([]byte) error
}

func (m sentMessage) to(s sender) error {
	switch m.kind {
	case kindJSON:
		return s.SendJSON(m.value)
	case kindBinary:
		return s.SendBinary([]byte(m.payload))
	default:
		return s.SendText(m.payload)
	}
}

// compose makes the next message.
func (g *game) compose(kind, size int, body string) sentMessage {
	m := sentMessage{first: 0x81, kind: kind, payload: fmt.Sprintf("%d %s%s", len(g.sent), body, strings.Repeat("x", size))}
	switch kind {
	case kindJSON:
		m.value = m.payload
		b, _ := json.Marshal(m.value) // a string has an encoding
		m.payload = string(b)
	case kindBinary:
		m.first = 0x82
	}
	g.sent = append(g.sent, m)
	return m
}

// deliver sends a message that these peers are to get.
func (g *game) deliver(send func(sentMessage) error, to []*peer, kind, size int, body string) {
	m := g.compose(kind, size, body)
	for _, p := range to {
		p.expect(len(g.sent)-1, len(m.payload))
	}
	if err := send(m); err != nil {
		g.t.Errorf("send: %v", err)
	}
}

// deliverOwn sends to one connection. The result says what became of the message.
func (g *game) deliverOwn(p *peer, kind, size int, body string) {
	m := g.compose(kind, size, body)
	lives := p.lives()
	if lives {
		p.expect(len(g.sent)-1, len(m.payload))
	}
	err := m.to(p.conn)
	switch {
	case err == nil && lives, err == wsroom.ErrClosed && (!lives || p.over):
	case err == wsroom.ErrSlow && g.rules.overflow == wsroom.CloseSlow && p.faulty:
	case err == wsroom.ErrQueueFull && g.rules.overflow == wsroom.DropNewest: // OnDrop reports it, too
	default:
		g.t.Errorf("send to peer %d: %v; it lives: %v", p.index, err, lives)
	}
}

// expect notes that the peer is to get the message. More at once than the queue holds may be too
// much for any client.
func (p *peer) expect(number, size int) {
	p.late = append(p.late, number)
	p.waiting++
	p.waitingSize += size + 10 // with its header
	if p.game.rules.overflow == wsroom.CloseSlow && (p.waiting > maxWaiting || p.waitingSize > waitingSize) {
		p.faulty = true
		p.allow(1013)
	}
}

// got notes a message that the client has read.
func (p *peer) got(g *game, first byte, payload string) {
	number := -1
	fmt.Sscanf(strings.TrimPrefix(payload, `"`), "%d ", &number)
	if number < 0 || number >= len(g.sent) || g.sent[number].payload != payload || g.sent[number].first != first {
		g.t.Errorf("peer %d got %#x %q, which nobody sent", p.index, first, kit.Short(payload))
		return
	}
	p.received = append(p.received, number)
}
