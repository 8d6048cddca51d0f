// Package netpoll waits for many sockets with one goroutine. On Linux it does so by epoll; elsewhere it does
// nothing.
//
// It knows file descriptors and whom to tell. It knows nothing of what is read.
package netpoll

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// Waiter is told that there is something to read from its socket, or that the peer is gone. Ready is called
// with no lock held and must not wait. It may be called although nothing has come.
type Waiter interface{ Ready() }

// ID names a socket in a [Set]. The zero ID names none. So that an event that comes late tells nobody else, an
// ID is used again only after four billion others.
type ID struct {
	place int32 // its index in Set.places, plus 1
	turn  int32 // how many were added before
}

// Set is a set of sockets. The zero Set is ready to use. While there are sockets in it, it has one goroutine,
// which waits for all of them through the runtime's poller, so that no thread is blocked, and one file descriptor.
// All methods may be called concurrently; those with the same ID one after the other.
type Set struct {
	mu     sync.Mutex // guards the rest; never held while Ready runs
	epoll  *os.File   // nil while there is no goroutine
	fd     int        // of epoll
	places []place
	free   int32 // the first place that is free, plus 1; 0: none is
	turn   int32 // of the last ID
	used   int   // places
}

// place is where a socket stands in a Set.
type place struct {
	waiter Waiter // nil while the place is free
	turn   int32
	next   int32 // while the place is free: the next one that is, plus 1
}

// Add puts a socket into the set and waits for it once: w is told when there is something to read, or has been
// already. Then the socket stays in the set, and nobody waits for it, until [Set.Again] or [Set.Remove].
func (s *Set) Add(socket syscall.RawConn, w Waiter) (ID, error) {
	id, err := s.take(w)
	if err != nil {
		return ID{}, err
	}
	if err := s.control(socket, add, id); err != nil {
		s.give(id)
		return ID{}, err
	}
	return id, nil
}

// Again waits once more for a socket whose waiter was told.
func (s *Set) Again(socket syscall.RawConn, id ID) error { return s.control(socket, again, id) }

// Remove takes a socket out of the set. Its waiter may be told once more while Remove runs. A socket that is
// closed already is out of epoll; Remove frees its place.
func (s *Set) Remove(socket syscall.RawConn, id ID) {
	_ = s.control(socket, remove, id)
	s.give(id)
}

// take finds a place for a waiter. It starts the goroutine if there is none.
func (s *Set) take(w Waiter) (ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoll == nil {
		fd, epoll, err := open()
		if err != nil {
			return ID{}, err
		}
		s.fd, s.epoll = fd, epoll
		go s.run(epoll)
	}

	if s.free == 0 {
		s.places = append(s.places, place{})
		s.free = int32(len(s.places))
	}
	s.turn++
	id := ID{place: s.free, turn: s.turn}
	p := &s.places[id.place-1]
	s.free = p.next
	*p = place{waiter: w, turn: id.turn}
	s.used++
	return id, nil
}

// give frees a place. If it was the last one, the goroutine ends.
func (s *Set) give(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places[id.place-1] = place{next: s.free}
	s.free = id.place
	if s.used--; s.used == 0 {
		s.places, s.free = nil, 0
		_ = s.epoll.SetReadDeadline(time.Unix(1, 0))
	}
}

// waiterOf returns whom to tell of an event. It returns nil if the event is of a socket that is out of the set.
func (s *Set) waiterOf(id ID) Waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := int(id.place) - 1; i >= 0 && i < len(s.places) && s.places[i].turn == id.turn {
		return s.places[i].waiter
	}
	return nil
}

// run tells waiters, until no socket is left.
func (s *Set) run(epoll *os.File) {
	raw, _ := epoll.SyscallConn() // fails only without a file
	for {
		err := raw.Read(func(fd uintptr) bool {
			s.tell(int(fd))
			return false // what is ready from now on is noticed
		})
		if err != nil && s.ended() {
			return
		}
	}
}

// tell tells the waiters of all sockets that are ready.
func (s *Set) tell(epoll int) {
	var ready [128]ID
	for n := len(ready); n == len(ready); {
		n = wait(epoll, ready[:])
		for _, id := range ready[:n] {
			if w := s.waiterOf(id); w != nil {
				w.Ready()
			}
		}
	}
}

// ended reports whether the goroutine is to end, because no socket is left. Then it closes epoll. Otherwise it lets
// the goroutine wait again.
func (s *Set) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used > 0 {
		_ = s.epoll.SetReadDeadline(time.Time{})
		return false
	}
	_ = s.epoll.Close()
	s.epoll = nil
	return true
}
