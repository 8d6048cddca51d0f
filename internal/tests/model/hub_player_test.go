package model_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// player is a client of FuzzHub's. Its socket is a pipe, which holds nothing: what it doesn't read
// stays with the hub.
type player struct {
	*kit.RawConn
	game  *game
	index int
	room  string // of its route
	manners
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

// manners are how a client, and OnConnect with it, behave.
type manners struct {
	silent    bool // never answers a ping or a close frame
	stalled   bool // doesn't read
	joinsMore bool // OnConnect joins the room d
	fails     bool // OnConnect returns an error
	oneThread bool // doesn't read while it sends
}

// connect lets a client come, or find that it can't.
func (g *game) connect(s *script) {
	room, bits, greeting := roomNames[s.choose(joinOnly)], s.choose(32), 3*s.choose(16)
	if len(g.players) == maxPlayers {
		return
	}
	m := manners{silent: bits&1 != 0, joinsMore: bits&2 != 0, fails: bits&4 != 0, stalled: bits&8 != 0, oneThread: bits&16 != 0}
	p := &player{
		game: g, index: len(g.players), room: room, manners: m, greeting: greeting,
		out: make(chan []byte, 1<<12), gone: make(chan struct{}), flow: make(chan struct{}), thread: make(chan struct{}, 1),
	}
	p.faulty = p.silent || p.stalled || p.oneThread
	g.note("connect %d to %s %+v, greeted %d times", p.index, room, m, greeting)
	welcome := g.mayConnect(room)
	g.players = append(g.players, p) // OnConnect finds it by its index
	status := p.dial()
	if welcome != (status == http.StatusSwitchingProtocols) || !welcome && status != http.StatusServiceUnavailable {
		g.t.Fatalf("status %d where it is welcome: %v", status, welcome)
	}
	if !welcome {
		g.players = g.players[:p.index]
		p.Close()
		return
	}
	if !p.stalled {
		close(p.flow)
	}
	go p.read(p.flow)
	go p.write()
}

func (p *player) dial() (status int) {
	socket, err := p.game.server.Ln.Dial(p.game.t.Context(), "", "")
	if err != nil {
		p.game.t.Fatal(err)
	}
	fmt.Fprintf(socket, kit.Handshake, fmt.Sprintf("%s?player=%d", p.room, p.index), "")
	p.RawConn = &kit.RawConn{Conn: socket, T: p.game.t, R: bufio.NewReader(socket)}
	res, err := http.ReadResponse(p.R, nil)
	if err != nil {
		p.game.t.Fatal(err)
	}
	return res.StatusCode
}

func (p *player) write() {
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

func (p *player) read(flow chan struct{}) {
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

// take notes a frame and answers it as the player's manners are. It returns the flow to wait for.
func (p *player) take(first byte, payload string) chan struct{} {
	g := p.game
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.farewell != 0 {
		g.t.Errorf("player %d got the frame %#x after the close frame", p.index, first)
	}
	switch first {
	case 0x81, 0x82:
		p.got(g, first, payload)
	case 0x88:
		p.farewell = 1005
		if len(payload) >= 2 {
			p.farewell = int(payload[0])<<8 | int(payload[1])
		}
	}
	if answer := map[byte]byte{0x88: 0x88, 0x89: 0x8a}[first]; answer != 0 && !p.silent && p.rest == nil {
		p.out <- kit.RawFrame(answer, payload)
	}
	return p.flow
}

// put writes b behind what was left unfinished.
func (p *player) put(b []byte) {
	p.out <- append(p.rest, b...)
	p.rest = nil
}

// withPlayer picks a player and runs f with the model locked.
func (g *game) withPlayer(s *script, what string, f func(p *player)) {
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
	g.withPlayer(s, "say", func(p *player) {
		word := words[s.choose(len(words))]
		g.note("  %q", word)
		p.speak(0x81, word)
	})
}

func (g *game) binary(s *script) {
	g.withPlayer(s, "binary", func(p *player) { p.speak(0x82, "\xff\x00") })
}

// speak sends a whole message, which breaks the rules while one in fragments is under way.
func (p *player) speak(first byte, payload string) {
	if p.open {
		p.endsBy(false, 1002)
	} else {
		p.says(payload)
	}
	p.put(kit.RawFrame(first, payload))
}

// fragment sends a part of a text message, which may be cut within a character.
func (g *game) fragment(s *script) {
	g.withPlayer(s, "fragment", func(p *player) {
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

// fewPings is how many a hub must suffer from one client at once; more may be a flood.
const fewPings = 5

func (g *game) ping(s *script) {
	g.withPlayer(s, "ping", func(p *player) {
		if p.pings++; p.pings > fewPings {
			p.faulty = true
			p.allow(1008)
		}
		p.put(append(kit.RawFrame(0x89, strings.Repeat("p", 125)), kit.RawFrame(0x8a, "nobody asked")...))
	})
}

// breach is what breaks the protocol or a limit, and the close code that answers it.
type breach struct {
	what  string
	bytes []byte
	code  int
}

var breaches = []breach{
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
	g.withPlayer(s, "break", func(p *player) {
		b := breaches[s.choose(len(breaches))]
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
	g.withPlayer(s, "half", func(p *player) {
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
func (p *player) mayTakeTooLong() {
	p.faulty = true
	p.allow(1008)
}

func (g *game) rest(s *script) { g.withPlayer(s, "rest", func(p *player) { p.put(nil) }) }

func (g *game) stall(s *script) {
	g.withPlayer(s, "stall", func(p *player) {
		if !p.stalled {
			p.stalled, p.faulty, p.graceful, p.flow = true, true, false, make(chan struct{})
		}
	})
}

func (g *game) drain(s *script) { g.withPlayer(s, "drain", (*player).drain) }

func (p *player) drain() {
	if p.stalled {
		p.stalled = false
		close(p.flow)
	}
}

func (g *game) cut(s *script) {
	g.withPlayer(s, "cut", func(p *player) {
		p.endsBy(false)
		p.faulty, p.graceful = true, false
		p.Close()
	})
}
