package model_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// peer is one of FuzzHub's clients. Its socket is a pipe, which holds nothing: what it doesn't read
// stays with the hub.
type peer struct {
	*kit.RawConn
	game  *game
	index int
	room  string // of its route
	behavior
	greeting int // messages that OnConnect sends it

	out    chan []byte   // what it writes
	gone   chan struct{} // closed when it is to write no more
	flow   chan struct{} // closed while it reads
	thread chan struct{} // full while its one thread is sending
	rest   []byte        // of a frame that it left unfinished
	pings  int           // that it sent, with a pong each
	open   bool          // a message in fragments is under way, ...
	text   string        // ... which has come so far

	// Guarded by game.mu.
	view
}

// behavior is what a client does, and OnConnect with it.
type behavior struct {
	silent    bool // never answers a ping or a close frame
	stalled   bool // doesn't read
	joinsMore bool // OnConnect joins the room d
	fails     bool // OnConnect returns an error
	oneThread bool // doesn't read while it sends
}

// connect connects a client, or finds that the hub refuses it.
func (g *game) connect(s *script) {
	room, bits, greeting := roomNames[s.choose(joinOnly)], s.choose(32), 3*s.choose(16)
	if len(g.peers) == maxPeers {
		return
	}
	how := behavior{silent: bits&1 != 0, joinsMore: bits&2 != 0, fails: bits&4 != 0, stalled: bits&8 != 0, oneThread: bits&16 != 0}
	p := &peer{
		game: g, index: len(g.peers), room: room, behavior: how, greeting: greeting,
		out: make(chan []byte, 1<<12), gone: make(chan struct{}), flow: make(chan struct{}), thread: make(chan struct{}, 1),
	}
	p.faulty = p.silent || p.stalled || p.oneThread
	g.note("connect %d to %s %+v, greeted %d times", p.index, room, how, greeting)
	admitted := g.mayConnect(room)
	g.peers = append(g.peers, p) // OnConnect finds it by its index
	status := p.dial()
	if admitted != (status == http.StatusSwitchingProtocols) || !admitted && status != http.StatusServiceUnavailable {
		g.t.Fatalf("status %d; it should be admitted: %v", status, admitted)
	}
	if !admitted {
		g.peers = g.peers[:p.index]
		p.Close()
		return
	}
	if !p.stalled {
		close(p.flow)
	}
	go p.read(p.flow)
	go p.write()
}

func (p *peer) dial() (status int) {
	socket, err := p.game.server.Ln.Dial(p.game.t.Context(), "", "")
	if err != nil {
		p.game.t.Fatal(err)
	}
	fmt.Fprintf(socket, kit.Handshake, fmt.Sprintf("%s?peer=%d", p.room, p.index), "")
	p.RawConn = &kit.RawConn{Conn: socket, T: p.game.t, R: bufio.NewReader(socket)}
	res, err := http.ReadResponse(p.R, nil)
	if err != nil {
		p.game.t.Fatal(err)
	}
	return res.StatusCode
}

func (p *peer) write() {
	for {
		select {
		case b := <-p.out:
			p.thread <- struct{}{}
			_, err := p.Write(b)
			<-p.thread
			if err != nil {
				return
			}
		case <-p.gone:
			return
		}
	}
}

func (p *peer) read(flow chan struct{}) {
	defer p.Close()
	for {
		<-flow
		if p.oneThread {
			p.thread <- struct{}{}
			<-p.thread
		}
		first, payload, err := p.Next()
		if err != nil {
			return
		}
		flow = p.take(first, payload)
	}
}

// take notes a frame and answers it as the peer's behavior says. It returns the flow to wait for.
func (p *peer) take(first byte, payload string) chan struct{} {
	g := p.game
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.closeCode != 0 {
		g.t.Errorf("peer %d got the frame %#x after the close frame", p.index, first)
	}
	switch first {
	case 0x81, 0x82:
		p.got(g, first, payload)
	case 0x88:
		p.closeCode = 1005
		if len(payload) >= 2 {
			p.closeCode = int(payload[0])<<8 | int(payload[1])
		}
	}
	if answer := map[byte]byte{0x88: 0x88, 0x89: 0x8a}[first]; answer != 0 && !p.silent && p.rest == nil {
		p.out <- kit.RawFrame(answer, payload)
	}
	return p.flow
}

// put writes b behind what was left unfinished.
func (p *peer) put(b []byte) {
	p.out <- append(p.rest, b...)
	p.rest = nil
}

// withPeer picks a peer and runs f with the model locked.
func (g *game) withPeer(s *script, what string, f func(p *peer)) {
	p := g.pick(s)
	if p == nil {
		return
	}
	g.note("%s %d", what, p.index)
	g.mu.Lock()
	defer g.mu.Unlock()
	f(p)
}

// words are the texts that clients send; see game.obey for what the callback makes of them.
var words = []string{"hello", "busy", "panic", "join d", "exit", "leave own", "close", "leave d", "héllo"}

func (g *game) say(s *script) {
	g.withPeer(s, "say", func(p *peer) {
		word := words[s.choose(len(words))]
		g.note("  %q", word)
		p.sendMessage(0x81, word)
	})
}

func (g *game) binary(s *script) {
	g.withPeer(s, "binary", func(p *peer) { p.sendMessage(0x82, "\xff\x00") })
}

// sendMessage sends a whole message, which breaks the rules while one in fragments is under way.
func (p *peer) sendMessage(first byte, payload string) {
	if p.open {
		p.endsBy(false, 1002)
	} else {
		p.says(payload)
	}
	p.put(kit.RawFrame(first, payload))
}

// fragment sends a part of a text message, which may be cut within a character.
func (g *game) fragment(s *script) {
	g.withPeer(s, "fragment", func(p *peer) {
		part := []string{"frag", "m\xc3", "\xa9nt", ""}[s.choose(4)]
		first := byte(0x01)
		if p.open {
			first = 0
		}
		if p.open = s.choose(2) == 0; !p.open {
			first |= 0x80
		}
		g.note("  %#x %q", first, part)
		p.mayTakeTooLong()
		switch p.text += part; {
		case p.open:
		case utf8.ValidString(p.text):
			p.says(p.text)
			p.text = ""
		default:
			p.endsBy(false, 1007)
		}
		p.put(kit.RawFrame(first, part))
	})
}

// fewPings is how many a hub must accept from one client at once; more may be a flood.
const fewPings = 5

func (g *game) ping(s *script) {
	g.withPeer(s, "ping", func(p *peer) {
		if p.pings++; p.pings > fewPings {
			p.faulty = true
			p.allow(1008)
		}
		p.put(append(kit.RawFrame(0x89, strings.Repeat("p", 125)), kit.RawFrame(0x8a, "nobody asked")...))
	})
}

// violation breaks the protocol or a limit, and is answered with the close code.
type violation struct {
	what  string
	bytes []byte
	code  int
}

var violations = []violation{
	{"close frame", kit.RawFrame(0x88, "\x03\xe8bye"), 1000},
	{"close frame without a code", kit.RawFrame(0x88, ""), 1005},
	{"close frame of the application", kit.RawFrame(0x88, "\x0f\xa0"), 4000},
	{"close code 999", kit.RawFrame(0x88, "\x03\xe7"), 1002},
	{"close code 1005", kit.RawFrame(0x88, "\x03\xed"), 1002},
	{"half a close code", kit.RawFrame(0x88, "\x03"), 1002},
	{"no mask", []byte{0x81, 1, 'x'}, 1002},
	{"reserved opcode", kit.RawFrame(0x83, ""), 1002},
	{"reserved control opcode", kit.RawFrame(0x8b, ""), 1002},
	{"RSV1 without compression", kit.RawFrame(0xc1, "x"), 1002},
	{"RSV2", kit.RawFrame(0xa2, "x"), 1002},
	{"ping in fragments", kit.RawFrame(0x09, "x"), 1002},
	{"ping too long", kit.RawFrame(0x89, strings.Repeat("x", 126)), 1002},
	{"continuation of nothing", kit.RawFrame(0x80, "x"), 1002},
	{"text that isn't UTF-8", kit.RawFrame(0x81, "\xff"), 1007},
	{"message too big", kit.RawFrame(0x82, strings.Repeat("x", maxMessage+1)), 1009},
	{"length of 2^63", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 1002},
}

func (g *game) breakRules(s *script) {
	g.withPeer(s, "break", func(p *peer) {
		b := violations[s.choose(len(violations))]
		g.note("  %s", b.what)
		switch {
		case !p.open:
			p.endsBy(false, b.code)
		case b.bytes[0]&0x0f != 0:
			p.endsBy(false, b.code, 1002) // a data frame within a message is one, whatever it holds
		default:
			return // a continuation within a message isn't one
		}
		p.put(b.bytes)
	})
}

func (g *game) half(s *script) {
	g.withPeer(s, "half", func(p *peer) {
		if p.rest == nil && !p.open {
			b := kit.RawFrame(0x81, "whole")
			p.mayTakeTooLong()
			p.says("whole")
			p.out <- b[:len(b)/2]
			p.rest = b[len(b)/2:]
		}
	})
}

// mayTakeTooLong notes that a message has begun.
func (p *peer) mayTakeTooLong() {
	p.faulty = true
	p.allow(1008)
}

func (g *game) rest(s *script) { g.withPeer(s, "rest", func(p *peer) { p.put(nil) }) }

func (g *game) stall(s *script) {
	g.withPeer(s, "stall", func(p *peer) {
		if !p.stalled {
			p.stalled, p.faulty, p.graceful, p.flow = true, true, false, make(chan struct{})
		}
	})
}

func (g *game) drain(s *script) { g.withPeer(s, "drain", (*peer).drain) }

func (p *peer) drain() {
	if p.stalled {
		p.stalled = false
		close(p.flow)
	}
}

func (g *game) cut(s *script) {
	g.withPeer(s, "cut", func(p *peer) {
		p.endsBy(false)
		p.faulty, p.graceful = true, false
		p.Close()
	})
}
