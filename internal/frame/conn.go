package frame

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Owner is told what coder/websocket wants of its net.Conn. Calls come from whatever goroutine
// uses the websocket.Conn, with no lock of Conn held but, in those for what was read, its reader's.
type Owner interface {
	// Overhead tells that a ping or a pong was read, or maxLack bytes too few in fragments. Whatever the
	// peer sent before caughtUp, by Now, had been read by then; what was read since may have come at any
	// time since.
	Overhead(caughtUp int64)
	// Oversized tells that a data frame longer than Limits.Frame was announced to be read, or that a
	// compressed message is longer than Limits.Size.
	Oversized()
	// Unmasked tells that a frame without a mask was read, which coder/websocket refuses without a word.
	Unmasked()
	// Control takes a control frame that is to be sent. The payload is valid until it returns.
	Control(opcode byte, payload []byte)
	// MessageSent tells that a message written in several frames is complete.
	MessageSent()
	// Failed tells that the socket didn't take a frame, or took only a part of it.
	Failed(err error)
	// ReadFailed tells that nothing more will be read from the socket: io.EOF where the peer sends nothing
	// more, os.ErrDeadlineExceeded for a message that took too long.
	ReadFailed(err error)
	// Closed tells that the websocket.Conn is of no more use to the application.
	Closed()
}

// Limits are the times a Conn keeps, which must be positive, and what it lets a peer announce.
type Limits struct {
	Message time.Duration // from the first wait for the rest of a message to its last byte
	Write   time.Duration // a piece of at most maxWrite bytes
	Frame   uint64        // the longest payload of a data frame; 0: any
	Size    int64         // the longest compressed message once inflated; 0: any
}

// Conn is the net.Conn that coder/websocket gets in place of the socket. Reading, it hands on at
// most one frame at a time, so that nothing of the next one rests in buffers above it; it waits for
// data without a buffer and with a small stack. Writing, it lets only whole frames pass: data
// frames straight to the socket, control frames by way of its Owner.
//
// One goroutine may read while another writes; Interrupt, Kill and the times may be called by any.
type Conn struct {
	net.Conn // the socket; Read, Write and Close are replaced
	owner    Owner
	limits   *Limits
	raw      syscall.RawConn // nil where the socket offers none: TLS, pipes

	readMu    sync.Mutex // guards the fields to the next blank line
	in        scanner
	buf       *[readSize]byte // nil while nothing is unread
	r, w      int             // what is unread: buf[r:w]
	into      []byte          // where rawRead reads to; nil for a buffer of its own
	got       int
	readErr   error // the socket's error, once it failed
	waited    bool  // Wait returned, and no message has been read since
	timed     bool  // the socket's read deadline is that of the message under way
	armed     bool  // the socket has a read deadline, of this message or of one before
	rushed    uint8 // reads that didn't have to wait
	lack      int16 // bytes that fragments have carried too few
	deflate   bool  // permessage-deflate was negotiated
	readFunc  func(fd uintptr) bool
	unpacking *unpacking // nil but within a compressed message

	deadlineMu  sync.Mutex // guards interrupted and orders deadlines after it
	interrupted bool

	peerClosed atomic.Bool  // a close frame has been read
	lastRead   atomic.Int64 // when bytes came last, by Now
	caughtUp   atomic.Int64 // when bytes came last that a read had waited for, by Now
	waiting    atomic.Int64 // since when a read waits for the peer; 0 if none does
	listened   atomic.Int64 // how long reads have waited for the peer before that, in nanoseconds

	out *outgoing // belongs to coder/websocket's writer, which is one at a time; nil before it wrote

	writeMu   sync.Mutex // the wire; guards the fields to the end
	open      bool       // a message in several frames is under way
	shut      bool       // the close frame is out
	pending   []byte
	sent      int
	sendErr   error // a write failed
	writeFunc func(fd uintptr) bool
}

// NewConn returns a Conn over socket, whose first bytes, already read, are early.
func NewConn(socket net.Conn, early []byte, owner Owner, limits *Limits) *Conn {
	if len(early) > readSize { // of a proxy or a middleware; net/http's buffer is no larger
		socket, early = &preread{Conn: socket, early: early}, nil
	}
	c := &Conn{Conn: socket, owner: owner, limits: limits}
	if raw := rawConn(socket); raw != nil {
		c.raw, c.readFunc, c.writeFunc = raw, c.rawRead, c.rawWrite
	}
	c.readMu.Lock()
	c.unread(early)
	c.readMu.Unlock()
	now := Now()
	c.caughtUp.Store(now)
	c.lastRead.Store(now)
	return c
}

// preread is a socket of which more has been read than a buffer of ours holds.
type preread struct {
	net.Conn
	early []byte
}

func (p *preread) Read(b []byte) (int, error) {
	if len(p.early) == 0 {
		return p.Conn.Read(b)
	}
	n := copy(b, p.early)
	if p.early = p.early[n:]; len(p.early) == 0 {
		p.early = nil // the buffer it lies in may be large
	}
	return n, nil
}

// rawConn returns the file descriptor's access to a socket of package net itself; other types may
// have a Read and Write of their own that must not be passed by.
func rawConn(socket net.Conn) syscall.RawConn {
	var sc syscall.Conn
	switch s := socket.(type) {
	case *net.TCPConn:
		sc = s
	case *net.UnixConn:
		sc = s
	}
	if sc == nil || !rawIO {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// unread keeps a copy of early to be read first; net/http buffers at most 4 KiB.
func (c *Conn) unread(early []byte) {
	if len(early) > 0 {
		c.buf = readBuffers.Get().(*[readSize]byte)
		c.r, c.w = 0, copy(c.buf[:], early)
	}
}

// start lies a century back, so that Now is positive whatever clock runs: a synctest bubble begins
// in the year 2000.
var start = time.Now().Add(-100 * 365 * 24 * time.Hour)

// Now is the time that LastRead, Heard and WaitingSince count in: nanoseconds of a monotonic clock, always
// positive.
func Now() int64 { return int64(time.Since(start)) }

// Kill closes the socket beneath TLS at once, whatever reads or writes are under way.
func (c *Conn) Kill() { Kill(c.Conn) }

// Kill closes a socket that no Conn is over, too.
func Kill(socket net.Conn) {
	if t, ok := socket.(interface{ NetConn() net.Conn }); ok {
		socket = t.NetConn()
	}
	_ = socket.Close()
}

// Hangup closes the socket; over TLS with its closing alert.
func (c *Conn) Hangup() { _ = c.Conn.Close() }

// Close is for coder/websocket. The socket is closed by the owner, after the close frame is out.
func (c *Conn) Close() error {
	c.owner.Closed()
	return nil
}

var _ io.ReadWriteCloser = (*Conn)(nil)
