package model_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// The actions of a script. Each reads its arguments from the bytes that follow it; the constant says
// which.
const (
	doConnect   = iota // room, behavior, a third of the greeting: a client connects
	doSay              // peer, word: it sends a text message, which the hub's callback obeys
	doBinary           // peer: it sends a binary message, which is echoed
	doFragment         // peer, part, last: it sends a part of a message
	doPing             // peer: a ping and a pong nobody asked for
	doBreak            // peer, kind: it sends what breaks the protocol or a limit, or closes
	doHalf             // peer: it leaves a frame unfinished
	doRest             // peer: it finishes it
	doStall            // peer: it stops reading
	doDrain            // peer: it reads again
	doCut              // peer: its line is gone
	doJoin             // peer, room
	doLeave            // peer, room
	doSendOwn          // peer, kind, size
	doSendRooms        // rooms, 1 and a peer to leave out or 0, kind, size
	doBurst            // rooms, messages
	doNonsense         // peer: sends that must fail
	doClose            // peer, code, messages: sends, and closes at once
	doKick             // rooms, 1 and a peer to leave out or 0
	doSleep            // seconds
	doShutdown         // the hub goes down while the script goes on
)

var actions = [...]func(*game, *script){
	doConnect: (*game).connect, doSay: (*game).say, doBinary: (*game).binary, doFragment: (*game).fragment,
	doPing: (*game).ping, doBreak: (*game).breakRules, doHalf: (*game).half, doRest: (*game).rest,
	doStall: (*game).stall, doDrain: (*game).drain, doCut: (*game).cut, doJoin: (*game).joinFromOutside,
	doLeave: (*game).leaveFromOutside, doSendOwn: (*game).sendOwn, doSendRooms: (*game).sendRooms, doBurst: (*game).burst,
	doNonsense: (*game).nonsense, doClose: (*game).close, doKick: (*game).kick, doSleep: (*game).sleep,
	doShutdown: (*game).shutdown,
}

// script reads choices out of the fuzzer's bytes.
type script struct{ b []byte }

// choose returns a number below n; 0 when the bytes are used up.
func (s *script) choose(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	choice := int(s.b[0]) % n
	s.b = s.b[1:]
	return choice
}

// maxScript bounds a run's time: an action is a few bytes.
const maxScript = 400

// FuzzHub plays any script of clients and of the server's own calls against a hub, in fake time, and
// compares after each action, and after the Shutdown at the end, what everyone got with what they should
// have got: see game.check.
func FuzzHub(f *testing.F) {
	for _, seed := range scripts {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &script{b[:min(len(b), maxScript)]}
		g := &game{rules: readRules(s)}
		kit.InBubble(t, g.newHub, func(t *testing.T, server *kit.PipeServer, _ *wsroom.Hub) {
			g.t, g.server = t, server
			defer g.end()
			for len(s.b) > 0 {
				actions[s.choose(len(actions))](g, s)
				g.check()
			}
			g.finish()
		})
	})
}

// scripts are FuzzHub's seeds: the rules' byte, then actions. Between them they use every action.
var scripts = [][]byte{
	{},
	{0, doConnect, 0, 0, 0, doConnect, 0, 0, 3, doSay, 0, 0, doSendRooms, 1, 0, 0, 0, doSay, 1, 3, doBinary, 1, doShutdown},
	{1, doConnect, 0, 0, 2, doConnect, 1, 0, 0, doJoin, 0, 1, doSendRooms, 3, 2, 1, 1, doJoin, 0, 3, doLeave, 0, 0, doSendRooms, 1, 0, 2, 1, doLeave, 0, 1, doPing, 0},
	{0, doConnect, 0, 0, 0, doFragment, 0, 0, 0, doPing, 0, doFragment, 0, 1, 0, doFragment, 0, 2, 1, doFragment, 0, 1, 1, doSleep, 1},
	slices.Concat([]byte{0, doConnect, 0, 0, 0}, bytes.Repeat([]byte{doPing, 0}, 12)), // a flood
	{0, doConnect, 0, 0, 0, doHalf, 0, doSendOwn, 0, 0, 0, doRest, 0, doHalf, 0, doSleep, 11, doConnect, 0, 0, 0, doHalf, 1, doClose, 1, 1, 0, doSleep, 1, doSleep, 5},
	// Slow members under each policy: closed, and drained in time.
	{0, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doStall, 0, doBurst, 1, 6, doBurst, 1, 6, doDrain, 0, doSleep, 2},
	{1, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doStall, 0, doBurst, 1, 6, doBurst, 1, 6, doBurst, 0, 9, doSendOwn, 0, 2, 2, doDrain, 0, doSleep, 2, doSleep, 30},
	{2, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doStall, 0, doBurst, 1, 6, doBurst, 1, 6, doBurst, 0, 9, doSendOwn, 0, 2, 2, doDrain, 0, doSleep, 2, doSleep, 30},
	{1, doConnect, 0, 0, 0, doStall, 0, doBurst, 1, 20, doSleep, 11, doConnect, 0, 1, 0, doSleep, 40},
	// A greeting larger than the queue, to a client that doesn't read at once, or never.
	{2, doConnect, 0, 8, 12, doBurst, 1, 20, doConnect, 0, 8, 12, doClose, 1, 0, 0, doDrain, 0, doSleep, 1, doSleep, 11},
	{1, doConnect, 0, 2, 1, doConnect, 1, 4, 1, doConnect, 2, 6, 0, doSleep, 2},
	// What a message makes a callback do: to join, leave, close, panic, exit, be busy.
	{0, doConnect, 0, 0, 0, doSay, 0, 1, doSay, 0, 3, doJoin, 0, 3, doSay, 0, 5, doBreak, 0, 0, doSleep, 3},
	{0, doConnect, 0, 0, 0, doSay, 0, 2, doConnect, 0, 0, 0, doSay, 1, 4, doConnect, 0, 0, 0, doSay, 2, 6, doConnect, 0, 0, 0, doSay, 3, 7},
	// Limits of rooms and members.
	{6, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doConnect, 0, 0, 0, doJoin, 0, 1, doJoin, 0, 2, doJoin, 0, 3, doJoin, 0, 4},
	// Kicks, cuts, nonsense, a drain with clients that are silent.
	{0, doConnect, 0, 0, 0, doConnect, 0, 1, 0, doConnect, 1, 0, 0, doNonsense, 0, doSendRooms, 0, 1, 2, 1, 0, doKick, 1, 1, 1, doCut, 1, doKick, 0, 0, doConnect, 0, 0, 0, doClose, 3, 2, 3},
	{3, doConnect, 0, 0, 0, doConnect, 0, 1, 0, doConnect, 1, 0, 0, doStall, 2, doBurst, 0, 3, doShutdown, doSay, 0, 0, doSleep, 2, doConnect, 0, 0, 0, doSay, 1, 0},
	// A client that sends before it reads is read while it is closed, or kicked.
	{1, doConnect, 0, 16, 0, doSay, 0, 1, doSay, 0, 0, doSendOwn, 0, 0, 4, doClose, 0, 0, 3, doSleep, 4, doSleep, 2},
	slices.Concat([]byte{0}, breakEverything()),
}

func breakEverything() (b []byte) {
	for kind := range violations {
		b = append(b, doConnect, 0, 0, 0, doBreak, byte(kind), byte(kind))
	}
	return b
}

// pick chooses one of the peers, or none if there are none.
func (g *game) pick(s *script) *peer {
	choice := s.choose(256)
	if len(g.peers) == 0 {
		return nil
	}
	return g.peers[choice%len(g.peers)]
}

// pickExcept chooses a peer to leave out, or none.
func (g *game) pickExcept(s *script) *peer {
	if s.choose(2) == 0 {
		return nil
	}
	p := g.pick(s)
	if p != nil {
		g.note("but not to %d:", p.index)
	}
	return p
}

func (g *game) pickRoom(s *script) string {
	room := roomNames[s.choose(len(roomNames))]
	g.note("  %s", room)
	return room
}

// pickRooms chooses some rooms; none stands for all.
func (g *game) pickRooms(s *script) (rooms []string) {
	set := s.choose(1 << len(roomNames))
	for i, name := range roomNames {
		if set&(1<<i) != 0 {
			rooms = append(rooms, name)
		}
	}
	return rooms
}

// roomNames are those that routes name and, from joinOnly on, those that can only be joined.
var roomNames = []string{"/a", "/b", "/c", "d", "e"}

const joinOnly = 3

func (g *game) joinFromOutside(s *script) {
	g.withPeer(s, "join", func(p *peer) { g.join(p, g.pickRoom(s), true) })
}

func (g *game) leaveFromOutside(s *script) {
	g.withPeer(s, "leave", func(p *peer) { g.leave(p, g.pickRoom(s), true) })
}

func (g *game) sendOwn(s *script) {
	g.withPeer(s, "send to", func(p *peer) {
		kind, size := s.choose(kinds), sizes[s.choose(len(sizes))]
		g.note("  kind %d, %d bytes", kind, size)
		if !p.connecting { // it would wait
			g.deliverOwn(p, kind, size, "")
		}
	})
}

func (g *game) sendRooms(s *script) {
	rooms, except, kind, size := g.pickRooms(s), g.pickExcept(s), s.choose(kinds), sizes[s.choose(len(sizes))]
	g.note("send %v, kind %d, %d bytes", rooms, kind, size)
	g.sendTo(rooms, except, kind, size)
}

// sendTo sends to the rooms, or to all, but for one peer if there is one.
func (g *game) sendTo(rooms []string, except *peer, kind, size int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	target, to := g.target(rooms), g.members(rooms)
	if except != nil {
		target = target.Except(except.conn)
		to = slices.DeleteFunc(to, func(p *peer) bool { return p == except })
	}
	g.deliver(func(m sentMessage) error { return m.to(target) }, to, kind, size, "")
}

// target is the rooms' members, or everyone where there are none.
func (g *game) target(rooms []string) wsroom.Target {
	if len(rooms) == 0 {
		return g.hub.ToAll()
	}
	return g.hub.To(rooms...)
}

func (g *game) burst(s *script) {
	rooms, n := g.pickRooms(s), s.choose(24)
	g.note("burst %v, %d", rooms, n)
	for i := range n {
		g.sendTo(rooms, nil, i%kinds, sizes[i%len(sizes)])
	}
}

// nonsense must be refused with no effect.
func (g *game) nonsense(s *script) {
	p := g.pick(s)
	if p == nil {
		return
	}
	g.note("nonsense %d", p.index)
	for i, err := range []error{
		p.conn.SendText("\xff"), p.conn.SendJSON(func() {}), p.conn.Join(""), p.conn.Join("\n"), p.conn.Close(1005, ""),
		p.conn.Close(4000, "\xff"), g.hub.SendTextToAll("\xff"), g.hub.SendTextToRoom("", "x"),
		g.hub.To("d", "\x00").SendBinary(nil), g.hub.ToAll().Close(999, ""), g.hub.To("\xff").Close(4000, ""),
	} {
		if err == nil {
			g.t.Errorf("nonsense %d is taken", i)
		}
	}
}

// close ends a connection, which still gets what was sent just before.
func (g *game) close(s *script) {
	g.withPeer(s, "close", func(p *peer) {
		code, n := websocket.StatusCode(4000+s.choose(3)), s.choose(4)
		g.note("  with %d, after %d messages", code, n)
		for range n {
			if !p.connecting {
				g.deliverOwn(p, kindText, 0, "")
			}
		}
		lives := p.lives()
		p.endsBy(true, int(code))
		if err := p.conn.Close(code, "out"); (err == nil) != lives || err != nil && err != wsroom.ErrClosed {
			g.t.Errorf("Close of peer %d: %v; it lives: %v", p.index, err, lives)
		}
	})
}

func (g *game) kick(s *script) {
	rooms, except := g.pickRooms(s), g.pickExcept(s)
	g.note("kick %v", rooms)
	target := g.target(rooms)
	if except != nil {
		target = target.Except(except.conn)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.members(rooms) {
		if p != except {
			p.endsBy(true, 4100)
		}
	}
	if err := target.Close(4100, "kicked"); err != nil {
		g.t.Errorf("kick: %v", err)
	}
}

func (g *game) sleep(s *script) {
	d := time.Duration(s.choose(41)) * time.Second
	g.note("sleep %v", d)
	time.Sleep(d)
}

func (g *game) shutdown(*script) {
	g.note("shutdown")
	g.beginShutdown()
}

func (g *game) note(format string, args ...any) {
	g.trace = append(g.trace, fmt.Sprintf(format, args...))
}
