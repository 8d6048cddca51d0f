package wsroomtest

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// line is a client's end of a connection of either kind. It can stall and go dead.
type line struct {
	net.Conn
	reading sync.Mutex // held by a running Read

	mu                   sync.Mutex // guards what follows
	change               *sync.Cond
	stalled, cut, closed bool
}

func newLine(conn net.Conn) *line {
	l := &line{Conn: conn}
	l.change = sync.NewCond(&l.mu)
	return l
}

func (l *line) Read(p []byte) (int, error) {
	for {
		if l.awaitFlow() {
			return 0, net.ErrClosed
		}
		n, err := l.readOnce(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
}

func (l *line) readOnce(p []byte) (int, error) {
	l.reading.Lock()
	defer l.reading.Unlock()
	return l.Conn.Read(p)
}

// awaitFlow waits while the line is stalled or cut, and reports whether it is closed.
func (l *line) awaitFlow() (closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for (l.stalled || l.cut) && !l.closed {
		l.change.Wait()
	}
	return l.closed
}

// Write drops what is written after the cut.
func (l *line) Write(p []byte) (int, error) {
	l.mu.Lock()
	cut := l.cut
	l.mu.Unlock()
	if cut {
		return len(p), nil
	}
	return l.Conn.Write(p)
}

// Close closes this end. After a cut the other end doesn't notice until hangUp.
func (l *line) Close() error {
	l.mu.Lock()
	l.closed = true
	cut := l.cut
	l.change.Broadcast()
	l.mu.Unlock()
	if cut {
		return nil
	}
	return l.Conn.Close()
}

func (l *line) hangUp() {
	_ = l.Close()
	_ = l.Conn.Close()
}

// stop stops reading, for good if it is a cut. When it returns, no Read is running.
func (l *line) stop(cut bool) {
	l.mu.Lock()
	l.stalled, l.cut = true, l.cut || cut
	_ = l.SetReadDeadline(time.Unix(1, 0))
	l.mu.Unlock()
	l.reading.Lock()
	defer l.reading.Unlock()
}

func (l *line) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = false
	_ = l.SetReadDeadline(time.Time{})
	l.change.Broadcast()
}

// state says what keeps the client from receiving from the server, or returns "" if nothing does.
func (l *line) state() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.cut:
		return "its line is cut"
	case l.stalled:
		return "it is stalled, until Resume"
	}
	return ""
}
