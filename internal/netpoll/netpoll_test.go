//go:build linux

package netpoll

import (
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds what a test waits for.
const patience = 20 * time.Second

// waiter is a Waiter that counts.
type waiter struct{ told chan struct{} }

func newWaiter() *waiter { return &waiter{make(chan struct{}, 100)} }

func (w *waiter) Ready() { w.told <- struct{}{} }

// await waits until the waiter is told.
func (w *waiter) await(t *testing.T) {
	t.Helper()
	select {
	case <-w.told:
	case <-time.After(patience):
		t.Fatal("waited in vain to be told")
	}
}

// silent fails the test if the waiter was told. Another socket of the set has been told of something later, so it
// would have been by now.
func (w *waiter) silent(t *testing.T) {
	t.Helper()
	select {
	case <-w.told:
		t.Error("told although nothing had come")
	default:
	}
}

// pair returns the two ends of a connection, and access to the first one's file descriptor.
func pair(t testing.TB) (here, peer *net.TCPConn, raw syscall.RawConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dialed, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
	here, peer = accepted.(*net.TCPConn), dialed.(*net.TCPConn)
	if raw, err = here.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	return here, peer, raw
}

// ended fails the test unless the set gives back its goroutine and its file descriptor.
func ended(t *testing.T, s *Set) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		s.mu.Lock()
		left := s.epoll != nil || s.used > 0 || s.places != nil
		s.mu.Unlock()
		if !left {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the set has no socket, and doesn't end")
		}
	}
}

func add1(t *testing.T, s *Set, raw syscall.RawConn, w Waiter) ID {
	t.Helper()
	id, err := s.Add(raw, w)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A waiter is told of bytes, of bytes that came before the Add, of the peer's end and of its reset.
func TestToldOfWhateverEndsTheWait(t *testing.T) {
	for name, act := range map[string]func(peer *net.TCPConn){
		"bytes":      func(peer *net.TCPConn) { peer.Write([]byte("x")) },
		"end":        func(peer *net.TCPConn) { peer.Close() },
		"half close": func(peer *net.TCPConn) { peer.CloseWrite() },
		"reset":      func(peer *net.TCPConn) { peer.SetLinger(0); peer.Close() },
	} {
		for _, before := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				var s Set
				_, peer, raw := pair(t)
				w := newWaiter()
				if before {
					act(peer)
				}
				id := add1(t, &s, raw, w)
				if !before {
					act(peer)
				}
				w.await(t)
				s.Remove(raw, id)
				ended(t, &s)
			})
		}
	}
}

// A waiter is told once, until the next Again, which tells it of what is still unread.
func TestToldOnceUntilAgain(t *testing.T) {
	var s Set
	_, peer, raw := pair(t)
	_, otherPeer, otherRaw := pair(t)
	w, other := newWaiter(), newWaiter()
	id, otherID := add1(t, &s, raw, w), add1(t, &s, otherRaw, other)
	peer.Write([]byte("x"))
	w.await(t)
	for range 3 {
		peer.Write([]byte("x"))
		otherPeer.Write([]byte("x"))
		if err := s.Again(otherRaw, otherID); err != nil {
			t.Fatal(err)
		}
		other.await(t)
		w.silent(t)
	}
	if err := s.Again(raw, id); err != nil {
		t.Fatal(err)
	}
	w.await(t)
	s.Remove(raw, id)
	s.Remove(otherRaw, otherID)
	ended(t, &s)
}

// After Remove nobody is told, also if the next socket in the set has the same number and the same place.
func TestRemovedIsNotTold(t *testing.T) {
	var s Set
	here, peer, raw := pair(t)
	_, otherPeer, otherRaw := pair(t)
	w, other := newWaiter(), newWaiter()
	id, otherID := add1(t, &s, raw, w), add1(t, &s, otherRaw, other)
	s.Remove(raw, id)
	next := newWaiter()
	nextID := add1(t, &s, raw, next)
	if nextID.place != id.place || nextID == id {
		t.Errorf("the second ID is %v after %v", nextID, id)
	}
	if got := s.waiterOf(id); got != nil {
		t.Error("a late event of the first ID tells somebody")
	}
	peer.Write([]byte("x"))
	next.await(t)
	s.Remove(raw, nextID)
	here.Close()
	otherPeer.Write([]byte("x"))
	other.await(t)
	w.silent(t)
	s.Remove(otherRaw, otherID)
	ended(t, &s)
}

// A socket that was closed leaves the set by Remove, and frees its place. It can't be added.
func TestClosedSocketLeaves(t *testing.T) {
	var s Set
	here, _, raw := pair(t)
	id := add1(t, &s, raw, newWaiter())
	here.Close()
	s.Remove(raw, id)
	ended(t, &s)
	if _, err := s.Add(raw, newWaiter()); err == nil {
		t.Error("a closed socket was added")
	}
	ended(t, &s)
}

// A set takes its epoll and its goroutine with the first socket, and gives them back with the last one, however
// often.
func TestEndsWithTheLastSocket(t *testing.T) {
	before := descriptors(t)
	func() {
		var s Set
		here, peer, raw := pair(t)
		defer here.Close()
		defer peer.Close()
		w := newWaiter()
		for range 200 {
			id := add1(t, &s, raw, w)
			peer.Write([]byte("x"))
			w.await(t)
			if _, err := here.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			s.Remove(raw, id)
		}
		ended(t, &s)
	}()
	if after := descriptors(t); after > before {
		t.Errorf("%d file descriptors, and %d afterwards", before, after)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// Many sockets are waited for together, and come and go while others are told.
func TestManySockets(t *testing.T) {
	const n, rounds = 300, 20
	var s Set
	var told atomic.Int64
	done := make(chan error, n)
	for range n {
		here, peer, raw := pair(t)
		go func() {
			w := newWaiter()
			for range rounds {
				id, err := s.Add(raw, w)
				if err == nil {
					_, err = peer.Write([]byte("x"))
				}
				if err == nil {
					<-w.told
					told.Add(1)
					_, err = here.Read(make([]byte, 1))
					s.Remove(raw, id)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range n {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatalf("told %d times of %d", told.Load(), n*rounds)
		}
	}
	ended(t, &s)
}

// A socket is waited for, is told, is read and waits again.
func BenchmarkAgain(b *testing.B) {
	here, peer, raw := pair(b)
	var s Set
	w := newWaiter()
	id, err := s.Add(raw, w)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Remove(raw, id)
	one := make([]byte, 1)
	b.ReportAllocs()
	for b.Loop() {
		peer.Write(one)
		<-w.told
		here.Read(one)
		s.Again(raw, id)
	}
}
