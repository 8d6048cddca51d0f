package wsroomtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// toServer is how many bytes from the client a line in memory holds while the server doesn't read.
	toServer = 64 << 10
	// toClient is how many bytes from the server it holds while the client doesn't read. That is enough for
	// pings and a close frame, as in any kernel, but hardly for a message, although kernels hold some MB of
	// messages.
	toClient = 256
)

// end is one end of a connection in memory, a net.Conn. A goroutine that waits in it is durably blocked, in
// synctest's sense.
type end struct {
	in, out       *flow
	local, remote address
	closed        func()
}

// serverAddr is the address of servers in memory, in a network for documentation (RFC 5737).
const serverAddr address = "192.0.2.80:80"

// newPipe returns the two ends of a connection in memory. gone is closed when the server has closed its
// end.
func newPipe(remoteAddr string) (client, server *end, gone <-chan struct{}) {
	up, down := newFlow(toServer), newFlow(toClient)
	closed := make(chan struct{})
	client = &end{in: down, out: up, local: address(remoteAddr), remote: serverAddr, closed: func() {}}
	server = &end{in: up, out: down, local: serverAddr, remote: address(remoteAddr), closed: sync.OnceFunc(func() { close(closed) })}
	return client, server, closed
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }

func (e *end) Close() error {
	e.in.change(func(f *flow) { f.abandoned = true })
	e.out.change(func(f *flow) { f.ended = true })
	e.closed()
	return nil
}

func (e *end) LocalAddr() net.Addr  { return e.local }
func (e *end) RemoteAddr() net.Addr { return e.remote }

func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *end) SetReadDeadline(t time.Time) error {
	e.in.change(func(f *flow) { f.readBy.set(t, f) })
	return nil
}

func (e *end) SetWriteDeadline(t time.Time) error {
	e.out.change(func(f *flow) { f.writeBy.set(t, f) })
	return nil
}

type address string

func (address) Network() string  { return "memory" }
func (a address) String() string { return string(a) }

// flow is one direction of a connection in memory.
type flow struct {
	room int // bytes that a write may leave unread without waiting

	mu              sync.Mutex // guards what follows
	changed         *sync.Cond
	unread          []byte
	ended           bool // the writer has closed: no more than what is unread will come
	abandoned       bool // the reader has closed
	readBy, writeBy deadline
}

func newFlow(room int) *flow {
	f := &flow{room: room}
	f.changed = sync.NewCond(&f.mu)
	return f
}

// change changes the flow and wakes everything that waits for it.
func (f *flow) change(how func(*flow)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	how(f)
	f.changed.Broadcast()
}

func (f *flow) read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.abandoned:
			return 0, net.ErrClosed
		case f.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(f.unread) > 0:
			n := copy(p, f.unread)
			f.unread = f.unread[n:]
			f.changed.Broadcast()
			return n, nil
		case f.ended:
			return 0, io.EOF
		}
		f.changed.Wait()
	}
}

// write returns once all but the bytes that fit into the room have been read.
func (f *flow) write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writable(); err != nil {
		return 0, err
	}
	f.unread = append(f.unread, p...)
	f.changed.Broadcast()
	for len(f.unread) > f.room {
		if err := f.writable(); err != nil {
			untaken := min(len(p), len(f.unread)-f.room)
			f.unread = f.unread[:len(f.unread)-untaken]
			return len(p) - untaken, err
		}
		f.changed.Wait()
	}
	return len(p), nil
}

func (f *flow) writable() error {
	switch {
	case f.ended:
		return net.ErrClosed
	case f.abandoned:
		return io.ErrClosedPipe
	case f.writeBy.passed():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// deadline is a time at which waiting reads and writes check again.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(t time.Time, f *flow) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.at = t; !t.IsZero() && !d.passed() {
		d.timer = time.AfterFunc(time.Until(t), func() { f.change(func(*flow) {}) })
	}
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }
