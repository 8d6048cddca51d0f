package model_test

import (
	"context"
	"net/http"
	"slices"
	"testing/synctest"
	"time"

	"github.com/wsroom/wsroom"
)

// check waits until nothing moves any more and compares the hub with the model:
//
//   - each client got messages of its rooms only, in the order of their sending, none twice; gaps are
//     no larger than OnDrop told; nothing is missing at who lives and reads, or was closed gracefully;
//   - callbacks heard of every message, join and leave, once, in order and one at a time;
//   - who did nothing wrong lives, with the same rooms in the hub as in the model, and who broke a rule
//     is gone, with an allowed close code and a cause;
//   - Stats, Len, Rooms and Members agree.
func (g *game) check() {
	g.t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.players {
		g.checkMessages(p)
		g.checkEvents(p)
		g.checkLife(p)
		p.waiting, p.waitingSize = 0, 0
	}
	g.checkHub()
	if g.t.Failed() {
		g.t.FailNow()
	}
}

func (g *game) checkMessages(p *player) {
	expected := slices.Concat(p.early, p.late)
	i, gaps := 0, 0
	for _, number := range p.received {
		for i < len(expected) && expected[i] != number {
			i++
			gaps++
		}
		if i++; i > len(expected) {
			g.t.Errorf("player %d got %v, want no more than %v", p.index, p.received, expected)
			return
		}
	}
	if gaps > p.dropped && !p.midCallback() {
		g.t.Errorf("player %d got %v of %v, told of %d drops", p.index, p.received, expected, p.dropped)
	}
	complete := !p.midCallback() && (p.lives() && !p.stalled || !p.lives() && p.graceful)
	if n := len(p.received) + p.dropped; n > len(expected) || complete && n != len(expected) {
		g.t.Errorf("player %d got %v of %v, and %d were dropped", p.index, p.received, expected, p.dropped)
	}
	if !isPrefix(p.heard, p.said) || p.lives() && !p.midCallback() && p.rest == nil && len(p.heard) != len(p.said) {
		g.t.Errorf("player %d said %q, heard was %q", p.index, p.said, p.heard)
	}
}

// midCallback tells that a callback is under way, after which more will happen.
func (p *player) midCallback() bool { return p.busy || p.connecting }

func isPrefix(a, b []string) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }

func (g *game) checkEvents(p *player) {
	want := p.due
	if !p.connected {
		want = nil
	}
	told := p.told
	switch {
	case p.midCallback():
		told, want = told[:min(len(told), len(want))], want[:min(len(told), len(want))]
	case !p.lives() && p.connected:
		told = told[:min(len(told), len(want))]
		g.checkLast(p, p.told[len(told):])
	}
	if !slices.Equal(told, want) {
		g.t.Errorf("player %d: callbacks told of %q, want %q", p.index, p.told, p.due)
	}
	if !p.lives() && !p.midCallback() && !p.closed {
		g.t.Errorf("player %d: no OnClose", p.index)
	}
}

// checkLast checks what is told at the end: a leave for each room, and the message callback's err.
func (g *game) checkLast(p *player, last []string) {
	var want []string
	for room := range p.rooms {
		want = append(want, "leave "+room)
	}
	slices.Sort(want)
	n := min(len(want), len(last))
	leaves := slices.Sorted(slices.Values(last[:n]))
	err := last[n:]
	if !slices.Equal(leaves, want) || !p.panicked && !slices.Equal(err, []string{"err"}) || p.panicked && len(err) > 0 {
		g.t.Errorf("player %d: at its end callbacks told of %q, want %q and err", p.index, last, want)
	}
}

func (g *game) checkLife(p *player) {
	switch {
	case p.over && p.lives() && !p.midCallback() && p.rest == nil:
		g.t.Errorf("player %d still lives", p.index)
	case !p.lives() && !p.over && !p.faulty && !g.shutting:
		g.t.Errorf("player %d was ended by %v", p.index, context.Cause(p.conn.Context()))
	}
	allowed := slices.Contains(p.codes, p.farewell) || p.farewell == 1013 && p.faulty && g.rules.overflow == wsroom.CloseSlow ||
		p.farewell == 1012 && g.shutting
	if p.farewell != 0 && !allowed || p.farewell == 0 && p.graceful && !p.lives() && !p.midCallback() {
		g.t.Errorf("player %d got the close code %d, want one of %d", p.index, p.farewell, p.codes)
	}
}

func (g *game) checkHub() {
	all, rooms := g.members(nil), g.busyRooms()
	if n := g.hub.Len(); n != len(all) || !slices.Equal(g.hub.Rooms(), rooms) {
		g.t.Errorf("%d connections, rooms %q; want %d, %q", n, g.hub.Rooms(), len(all), rooms)
	}
	for _, room := range roomNames {
		members := g.hub.Members(room)
		for _, p := range g.members([]string{room}) {
			if !slices.Contains(members, p.conn) || !slices.Contains(p.conn.Rooms(), room) {
				g.t.Errorf("player %d isn't in %s", p.index, room)
			}
		}
		if n := len(g.members([]string{room})); n != len(members) {
			g.t.Errorf("%s has %d members, want %d", room, len(members), n)
		}
	}
	g.checkStats(len(all), len(rooms))
}

func (g *game) checkStats(conns, rooms int) {
	least, most, dropped, heard := 0, 0, 0, 0
	for _, p := range g.players {
		if most += len(p.early) + len(p.late); p.lives() && !p.stalled {
			least += len(p.received)
		}
		dropped += p.dropped
		heard += len(p.heard)
	}
	s := g.hub.Stats()
	if s.Conns != conns || s.Rooms != rooms || s.Opened != len(g.players) || s.Closed > s.Opened-conns ||
		s.Sent < least || s.Sent > most || s.Dropped < dropped || s.Received < heard {
		g.t.Errorf("%+v, want %d connections, %d rooms, %d opened, %d to %d sent, %d dropped, %d received",
			s, conns, rooms, len(g.players), least, most, dropped, heard)
	}
}

// beginShutdown shuts the hub down beside the script. Every end that it brings is graceful to who reads.
func (g *game) beginShutdown() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shutting {
		return
	}
	g.shutting = true
	for _, p := range g.players {
		if !g.rules.drain {
			p.endsBy(true, 1012)
		}
	}
	go func() {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		err := g.hub.Shutdown(ctx)
		bound := busyTime + 5*time.Second
		if g.rules.drain {
			bound += drainWindow
		}
		if took := time.Since(begin); took > bound {
			g.t.Errorf("Shutdown took %v, want %v at the most", took, bound)
		}
		g.down <- err
	}()
}

// finish ends the game with a Shutdown, after which nobody is left.
func (g *game) finish() {
	g.beginShutdown()
	if err := <-g.down; err != nil {
		g.t.Errorf("Shutdown: %v", err)
	}
	g.mu.Lock()
	for _, p := range g.players {
		if !p.over && !p.faulty {
			p.graceful = true
		}
		p.drain()
	}
	g.mu.Unlock()
	g.check()
	if s := g.hub.Stats(); s.Conns != 0 || s.Rooms != 0 || s.Closed != s.Opened {
		g.t.Errorf("after Shutdown: %+v", s)
	}
	late := &player{game: g, room: "/a"}
	if status := late.dial(); status != http.StatusServiceUnavailable {
		g.t.Errorf("after Shutdown: status %d", status)
	}
	late.Close()
}

// end lets go of all clients, whatever happened, and tells how a game went that failed.
func (g *game) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.players {
		p.drain()
		p.Close()
		close(p.gone)
	}
	if g.t.Failed() {
		for _, line := range g.trace {
			g.t.Log(line)
		}
	}
}
