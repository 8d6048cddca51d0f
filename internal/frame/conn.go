package frame

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wsroom/wsroom/internal/netpoll"
)

// Owner receives what coder/websocket does with its net.Conn. The calls come from the goroutines that use
// the websocket.Conn. They are made with no lock of the [Conn] held, except that the calls about data read
// hold the reader's lock.
type Owner interface {
	// EmptyFrame reports that a ping or a pong was read, or that fragments carried maxLack bytes too few. At
	// the time caughtUp, by [Now], everything that the peer had sent before was read. What was read since
	// may have arrived at any time since.
	EmptyFrame(caughtUp int64)
	// Pong takes the payload of a pong, which is valid until it returns. It reports whether the pong is
	// known; then coder/websocket doesn't get it, and there is no call of EmptyFrame.
	Pong(payload []byte) (known bool)
	// Oversized reports a data frame whose announced length exceeds [Limits].Frame, or a compressed message
	// that is longer than [Limits].Size.
	Oversized()
	// Unmasked reports a frame without a mask (RFC 6455, section 5.1). coder/websocket refuses it without
	// sending a close frame.
	Unmasked()
	// Control takes a control frame that is to be sent. The payload is valid until Control returns. It reports
	// false if the owner sends nothing more.
	Control(opcode byte, payload []byte) (taken bool)
	// MessageSent reports that a message written in several frames is complete.
	MessageSent()
	// Failed reports that the socket took none or only a part of a frame.
	Failed(err error)
	// ReadFailed reports that nothing more will be read from the socket. The error is io.EOF if the peer
	// sends nothing more, and os.ErrDeadlineExceeded if a message took too long.
	ReadFailed(err error)
	// Closed reports that the application is done with the websocket.Conn.
	Closed()
	// Wake reports that the wait of a [Conn.Park] is over. It must not wait.
	Wake()
}

// Limits are the time limits of a [Conn], which must be positive, and the lengths that a peer may announce.
type Limits struct {
	Quiet   time.Duration // from the last message until a Conn may be parked; 0: it isn't
	Message time.Duration // from the first wait for the rest of a message until its last byte
	Write   time.Duration // for a piece of at most maxWrite bytes
	Frame   uint64        // the longest payload of a data frame; 0: no limit
	Size    int64         // the longest compressed message once inflated; 0: no limit
}

// Conn is the net.Conn that coder/websocket gets in place of the socket.
//
// Reading, it passes on at most one frame at a time, so that no part of the next frame is buffered above
// it. It waits for data without a buffer and with a small stack. Writing, it lets only whole frames pass.
// Data frames go straight to the socket, control frames go to its [Owner].
//
// One goroutine may read while another writes. Any goroutine may call [Conn.Interrupt] and [Conn.Kill], and
// read the times.
type Conn struct {
	net.Conn // the socket; Read, Write and Close are replaced
	owner    Owner
	limits   *Limits
	raw      syscall.RawConn // nil if the socket has none: TLS, pipes

	readMu    sync.Mutex // guards the fields to the next blank line
	in        scanner
	buf       *[readSize]byte // nil while nothing is unread
	r, w      int             // the unread bytes are buf[r:w]
	into      []byte          // where rawRead reads to; nil: to a buffer from the pool
	got       int
	readErr   error // the socket's error, once it has failed
	waited    bool  // Wait returned, and no message has been read since
	timed     bool  // the socket's read deadline is that of the current message
	armed     bool  // the socket has a read deadline, of this message or an earlier one
	extended  bool  // the current message's deadline has passed once
	watches   bool  // a WaitOrQuiet is running
	watched   bool  // the socket's read deadline is that of WaitOrQuiet
	settled   bool  // no Park any more
	rushed    uint8 // reads that didn't have to wait
	lack      int16 // bytes that fragments have carried too few
	deflate   bool  // permessage-deflate was negotiated; doesn't change once something is read
	gotFirst  int16 // bytes that came last where a message was waited for, or firstSize if they were more
	readFunc  func(fd uintptr) bool
	unpacking *unpacking // nil unless a compressed message is being read
	active    int64      // when bytes last came that WaitOrQuiet didn't drop, by Now; 0: none have

	deadlineMu  sync.Mutex // guards the fields to the next blank line; orders interrupted before deadlines
	interrupted bool
	parked      bool       // a Set waits in place of a goroutine
	handed      bool       // the application has the websocket.Conn
	place       netpoll.ID // in the Set, from the first Park on until Unpark

	peerClosed atomic.Bool  // a close frame has been read
	lastRead   atomic.Int64 // when bytes last came, by Now
	caughtUp   atomic.Int64 // when bytes last came that a read had waited for, by Now
	waiting    atomic.Int64 // since when a read has been waiting for the peer; 0: none is waiting
	listened   atomic.Int64 // how long reads have waited for the peer before that, in nanoseconds

	out *outgoing // used by coder/websocket's writer, one at a time; nil until it has written

	writeMu   sync.Mutex // the wire; guards the fields to the end
	open      bool       // a message in several frames is being written
	shut      bool       // the close frame has been sent
	pending   []byte
	sent      int
	sendErr   error // a write failed
	writeFunc func(fd uintptr) bool

	announce func() []byte // nil: nothing is sent before a message of the application's own
}

// NewConn returns a Conn over a socket. early holds the first bytes, which have been read already.
func NewConn(socket net.Conn, early []byte, owner Owner, limits *Limits) *Conn {
	if len(early) > readSize { // from a proxy or a middleware; net/http's buffer isn't larger
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

// preread is a socket from which more has been read than fits into a read buffer.
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
		p.early = nil // frees the buffer that it is a part of
	}
	return n, nil
}

// rawConn returns access to the file descriptor of a socket of package net. Other types may have a Read and
// a Write of their own, which must not be bypassed.
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

// unread keeps a copy of early, to be read first. net/http buffers at most 4 KiB.
func (c *Conn) unread(early []byte) {
	if len(early) > 0 {
		c.buf = readBuffers.Get().(*[readSize]byte)
		c.r, c.w = 0, copy(c.buf[:], early)
	}
}

// start is a century ago, so that Now is positive under every clock: a synctest bubble begins in the year
// 2000.
var start = time.Now().Add(-100 * 365 * 24 * time.Hour)

// Now returns the time that [Conn.LastRead], [Conn.Heard] and [Conn.WaitingSince] use: nanoseconds of a
// monotonic clock, always positive.
func Now() int64 { return int64(time.Since(start)) }

// Kill closes the socket beneath TLS at once. Reads and writes in progress fail.
func (c *Conn) Kill() { Kill(c.Conn) }

// Kill closes a socket as [Conn.Kill] does. The socket needn't have a [Conn].
func Kill(socket net.Conn) {
	if t, ok := socket.(interface{ NetConn() net.Conn }); ok {
		socket = t.NetConn()
	}
	_ = socket.Close()
}

// Hangup closes the socket. Over TLS it sends the closing alert first.
func (c *Conn) Hangup() { _ = c.Conn.Close() }

// Close is for coder/websocket. The owner closes the socket after the close frame has been sent.
func (c *Conn) Close() error {
	c.owner.Closed()
	return nil
}

var _ io.ReadWriteCloser = (*Conn)(nil)
