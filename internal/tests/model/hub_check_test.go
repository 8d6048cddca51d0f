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
//   - each peer got messages of its rooms only, in the order of their sending, none twice; gaps are no
//     larger than OnDrop reported; a peer that lives and reads, or was closed gracefully, misses nothing;
//   - callbacks got every message, join and leave, once, in order and one at a time;
//   - a peer that did nothing wrong lives, with the same rooms in the hub as in the model; one that broke a
//     rule is gone, with an allowed close code and a cause;
//   - Stats, Len, Rooms and Members agree.
func (g *game) check() {
	g.t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
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

func (g *game) checkMessages(p *peer) {
	expected := slices.Concat(p.early, p.late)
	i, gaps := 0, 0
	for _, number := range p.received {
		for i < len(expected) && expected[i] != number {
			i++
			gaps++
		}
		if i++; i > len(expected) {
			g.t.Errorf("peer %d got %v, want no more than %v", p.index, p.received, expected)
			return
		}
	}
	if gaps > p.dropped && !p.inCallback() {
		g.t.Errorf("peer %d got %v of %v, %d drops were reported", p.index, p.received, expected, p.dropped)
	}
	complete := !p.inCallback() && (p.lives() && !p.stalled || !p.lives() && p.graceful)
	if n := len(p.received) + p.dropped; n > len(expected) || complete && n != len(expected) {
		g.t.Errorf("peer %d got %v of %v, and %d were dropped", p.index, p.received, expected, p.dropped)
	}
	if !isPrefix(p.handled, p.said) || p.lives() && !p.inCallback() && p.rest == nil && len(p.handled) != len(p.said) {
		g.t.Errorf("peer %d said %q, callbacks got %q", p.index, p.said, p.handled)
	}
}

// inCallback reports whether a callback is running, after which more will happen.
func (p *peer) inCallback() bool { return p.busy || p.connecting }

func isPrefix(a, b []string) bool { return len(a) <= len(b) && slices.Equal(a, b[:len(a)]) }

func (g *game) checkEvents(p *peer) {
	want := p.expectedEvents
	if !p.connected {
		want = nil
	}
	events := p.events
	switch {
	case p.inCallback():
		events, want = events[:min(len(events), len(want))], want[:min(len(events), len(want))]
	case !p.lives() && p.connected:
		events = events[:min(len(events), len(want))]
		g.checkLast(p, p.events[len(events):])
	}
	if !slices.Equal(events, want) {
		g.t.Errorf("peer %d: callbacks reported %q, want %q", p.index, p.events, p.expectedEvents)
	}
	if !p.lives() && !p.inCallback() && !p.closed {
		g.t.Errorf("peer %d: no OnClose", p.index)
	}
}

// checkLast checks what is reported at the end: a leave for each room, and the message callback's err.
func (g *game) checkLast(p *peer, last []string) {
	var want []string
	for room := range p.rooms {
		want = append(want, "leave "+room)
	}
	slices.Sort(want)
	n := min(len(want), len(last))
	leaves := slices.Sorted(slices.Values(last[:n]))
	err := last[n:]
	if !slices.Equal(leaves, want) || !p.panicked && !slices.Equal(err, []string{"err"}) || p.panicked && len(err) > 0 {
		g.t.Errorf("peer %d: at its end callbacks reported %q, want %q and err", p.index, last, want)
	}
}

func (g *game) checkLife(p *peer) {
	switch {
	case p.over && p.lives() && !p.inCallback() && p.rest == nil:
		g.t.Errorf("peer %d still lives", p.index)
	case !p.lives() && !p.over && !p.faulty && !g.shutting:
		g.t.Errorf("peer %d was ended by %v", p.index, context.Cause(p.conn.Context()))
	}
	allowed := slices.Contains(p.codes, p.closeCode) || p.closeCode == 1013 && p.faulty && g.rules.overflow == wsroom.CloseSlow ||
		p.closeCode == 1012 && g.shutting
	if p.closeCode != 0 && !allowed || p.closeCode == 0 && p.graceful && !p.lives() && !p.inCallback() {
		g.t.Errorf("peer %d got the close code %d, want one of %d", p.index, p.closeCode, p.codes)
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
				g.t.Errorf("peer %d isn't in %s", p.index, room)
			}
		}
		if n := len(g.members([]string{room})); n != len(members) {
			g.t.Errorf("%s has %d members, want %d", room, len(members), n)
		}
	}
	g.checkStats(len(all), len(rooms))
}

func (g *game) checkStats(conns, rooms int) {
	least, most, dropped, handled := 0, 0, 0, 0
	for _, p := range g.peers {
		if most += len(p.early) + len(p.late); p.lives() && !p.stalled {
			least += len(p.received)
		}
		dropped += p.dropped
		handled += len(p.handled)
	}
	s := g.hub.Stats()
	if s.Conns != conns || s.Rooms != rooms || s.Opened != len(g.peers) || s.Closed > s.Opened-conns ||
		s.Sent < least || s.Sent > most || s.Dropped < dropped || s.Received < handled {
		g.t.Errorf("%+v, want %d connections, %d rooms, %d opened, %d to %d sent, %d dropped, %d received",
			s, conns, rooms, len(g.peers), least, most, dropped, handled)
	}
}

// beginShutdown shuts the hub down beside the script. Every end that it brings is graceful for a peer that reads.
func (g *game) beginShutdown() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shutting {
		return
	}
	g.shutting = true
	for _, p := range g.peers {
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
	for _, p := range g.peers {
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
	late := &peer{game: g, room: "/a"}
	if status := late.dial(); status != http.StatusServiceUnavailable {
		g.t.Errorf("after Shutdown: status %d", status)
	}
	late.Close()
}

// end disconnects all peers, whatever happened, and logs the trace of a game that failed.
func (g *game) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
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
