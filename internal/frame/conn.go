package frame

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
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
	// Control takes a control frame that is to be sent. The payload is valid until it returns.
	Control(opcode byte, payload []byte)
	// MessageSent tells that a message written in several frames is complete.
	MessageSent()
	// Failed tells that the socket didn't take a frame, or took only a part of it.
	Failed(err error)
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

// errCut is the stream's end within a message. coder/websocket takes io.EOF for the message's end
// there and would hand on what has come as if it were all of it.
var errCut = errors.New("wsroom: connection lost within a message")

// ErrIdle ends a read of coder/websocket's in which nothing but control frames came. The caller goes
// on in Wait, where the stack is small and an Interrupt costs no message.
var ErrIdle = errors.New("wsroom: no message has begun")

// readSize is the size of the shared read buffers. A connection has one only while it holds
// something unread.
const readSize = 4 << 10

// maxWrite bounds what has to pass within one write timeout, so that a large message to a slow but
// living receiver passes.
const maxWrite = 256 << 10

// fairFragment is what fragments between the first and the last of a message are to carry on average:
// less than half of such a frame is header then. Of maxLack bytes that they lack, as 256 empty ones do,
// the owner hears as of a ping.
const (
	fairFragment = 16
	maxLack      = 256 * fairFragment
)

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

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
	caughtUp  int64 // when bytes came last that a read had waited for, by Now
	readFunc  func(fd uintptr) bool
	deflate   bool       // permessage-deflate was negotiated
	unpacking *unpacking // nil but within a compressed message

	deadlineMu  sync.Mutex // guards interrupted and orders deadlines after it
	interrupted bool

	peerClosed atomic.Bool  // a close frame has been read
	lastRead   atomic.Int64 // when bytes came last, by Now
	waiting    atomic.Int64 // since when a read waits for the peer; 0 if none does

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
	c.caughtUp = Now()
	c.lastRead.Store(c.caughtUp)
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
	p.early = p.early[n:]
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

// Now is the time that LastRead and WaitingSince count in: nanoseconds of a monotonic clock, always
// positive.
func Now() int64 { return int64(time.Since(start)) }

// LastRead tells when the peer's bytes came last, by Now.
func (c *Conn) LastRead() int64 { return c.lastRead.Load() }

// WaitingSince tells since when, by Now, a read has been waiting for the peer; 0 if none is.
func (c *Conn) WaitingSince() int64 { return c.waiting.Load() }

// Unread reports whether something has been read from the socket that isn't consumed yet.
func (c *Conn) Unread() bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.r < c.w
}

// Wait returns once there is something to read. It swallows the empty pongs that answer AppendPing,
// so that an idle connection stays parked here, where the stack is small.
func (c *Conn) Wait() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.isInterrupted() {
		return os.ErrDeadlineExceeded // even if something is unread
	}
	c.waited = false
	for {
		if c.r == c.w {
			if err := c.fill(nil); err != nil {
				return err
			}
		}
		if !c.skipEmptyPong() {
			c.waited = true
			return nil
		}
	}
}

// emptyPong is the length of a masked pong without payload.
const emptyPong = 6

func (c *Conn) skipEmptyPong() bool {
	if c.in.have > 0 || c.w-c.r < emptyPong ||
		c.buf[c.r] != finBit|Pong || c.buf[c.r+1] != maskBit {
		return false
	}
	c.consume(emptyPong)
	c.owner.Overhead(c.caughtUp)
	return true
}

// Read is for coder/websocket. It returns bytes of one frame only, and ErrIdle instead of waiting for
// a message after Wait.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	if c.unpacking != nil {
		return c.readPacked(p)
	}
	if c.r == c.w && c.in.left >= readSize && len(p) >= readSize {
		// Deep inside a large payload: read it to where it is to go.
		if err := c.fill(p[:min(uint64(len(p)), c.in.left)]); err != nil {
			return 0, c.readError(err)
		}
		return c.scanIn(p[:c.got]), nil
	}
	if c.r == c.w {
		if c.waited && c.in.between() {
			c.waited = false
			return 0, ErrIdle
		}
		if err := c.fill(nil); err != nil {
			return 0, c.readError(err)
		}
	}
	if c.beginsPacked() {
		c.unpacking = unpackings.Get().(*unpacking)
		return c.readPacked(p)
	}
	n := c.scanIn(c.buf[c.r:min(c.w, c.r+len(p))])
	copy(p, c.buf[c.r:c.r+n])
	c.consume(n)
	if c.oversized() { // coder/websocket would take memory for it
		return 0, c.tooBig()
	}
	return n, nil
}

// scanIn takes the bytes of p that belong to the current frame and returns how many they are.
func (c *Conn) scanIn(p []byte) int {
	n, end := c.in.scan(p)
	if end && c.in.between() {
		c.timed = false
	}
	if end && c.in.opcode < Close {
		c.waited = false
	}
	if end && c.in.opcode == Close {
		c.peerClosed.Store(true)
	}
	if end && (c.in.opcode > Close || c.in.opcode == Continuation && c.lacking()) {
		c.owner.Overhead(c.caughtUp)
	}
	return n
}

// lacking weighs a continuation frame and reports whether the owner is to hear of it. A message's last
// frame is none that has to carry anything: messages are counted elsewhere.
func (c *Conn) lacking() bool {
	if !c.in.fragmented {
		return false
	}
	c.lack = max(0, c.lack+fairFragment-int16(min(c.in.payloadLen(), maxLack)))
	if c.lack < maxLack {
		return false
	}
	c.lack -= maxLack
	return true
}

// oversized reports whether the current frame was announced as longer than it may be. What breaks the
// protocol besides is for coder/websocket to refuse.
func (c *Conn) oversized() bool {
	return c.limits.Frame > 0 && c.in.left > c.limits.Frame && c.in.left <= math.MaxInt64 && c.in.opcode <= Binary
}

// tooBig tells the owner, who ends the connection.
func (c *Conn) tooBig() error {
	c.owner.Oversized()
	return net.ErrClosed
}

// consume drops n unread bytes and gives the buffer back with the last of them.
func (c *Conn) consume(n int) {
	c.r += n
	if c.r == c.w {
		readBuffers.Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
}

// fill waits for bytes and reads them to p, or to a buffer of its own where p is nil.
func (c *Conn) fill(p []byte) error {
	c.armRead()
	c.into, c.got, c.readErr = p, 0, nil
	for c.got == 0 && c.readErr == nil {
		if c.raw == nil {
			c.plainRead()
		} else if err := c.raw.Read(c.readFunc); err != nil {
			c.readErr = err
		}
	}
	c.into = nil
	since := c.waiting.Swap(0)
	if c.readErr == nil {
		now := Now()
		c.lastRead.Store(now)
		switch {
		case since != 0 && now-since >= int64(time.Millisecond):
			c.caughtUp = now
		case since == 0 || c.raw == nil: // without a file descriptor each read seems to wait
			c.yield()
		}
	}
	return c.readErr
}

// yield lets others go on now and then: who sends without a pause mustn't keep them from being read.
// Not each time, for what is read in one go is written in one go.
func (c *Conn) yield() {
	if c.rushed++; c.rushed%16 == 0 {
		runtime.Gosched()
	}
}

// plainRead reads from a socket that has no file descriptor to wait on.
func (c *Conn) plainRead() {
	p := c.into
	var own *[readSize]byte
	if p == nil {
		own = readBuffers.Get().(*[readSize]byte)
		p = own[:]
	}
	c.waiting.Store(Now())
	n, err := c.Conn.Read(p)
	if c.got = n; n == 0 {
		c.readErr = err // one that comes with bytes comes again without
	}
	c.keep(own)
}

// keep takes the buffer that has just been read to, or gives it back if nothing came.
func (c *Conn) keep(own *[readSize]byte) {
	switch {
	case own == nil:
	case c.got > 0:
		c.buf, c.r, c.w = own, 0, c.got
	default:
		readBuffers.Put(own)
	}
}

// armRead sets the deadline of the message that is under way, from the first wait for its rest on,
// and lifts it between messages.
func (c *Conn) armRead() {
	var deadline time.Time
	switch under := !c.in.between(); {
	case under && !c.timed:
		deadline = time.Now().Add(c.limits.Message)
		c.timed, c.armed = true, true
	case !under && c.armed:
		c.armed = false
	default:
		return
	}
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if !c.interrupted {
		_ = c.Conn.SetReadDeadline(deadline) // fails only on a closed socket, as the read will
	}
}

// Interrupt ends the read that is waiting and those to come, until Resume.
func (c *Conn) Interrupt() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.interrupted = true
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
}

// Resume lets reads wait again, without a deadline.
func (c *Conn) Resume() {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	c.interrupted = false
	_ = c.Conn.SetReadDeadline(time.Time{})
}

func (c *Conn) isInterrupted() bool {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	return c.interrupted
}

// Interrupted reports whether err comes of Interrupt and not of the peer.
func (c *Conn) Interrupted(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded) && c.isInterrupted()
}

// readError turns an error of the socket into one that coder/websocket understands.
func (c *Conn) readError(err error) error {
	switch {
	case c.Interrupted(err):
		return net.ErrClosed
	case !c.in.between() && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return errCut
	}
	return err
}

// PeerClosing reports whether the peer's close frame has been read.
func (c *Conn) PeerClosing() bool { return c.peerClosed.Load() }

// SocketError returns the error with which the socket's reading side failed, if it did.
func (c *Conn) SocketError() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.readErr
}

// drainPause is what Drain takes for each piece, lest a flood cost more after its end than before.
const drainPause = time.Millisecond

// Drain reads and drops until the peer's close frame has come or the socket fails. A socket that is
// closed with bytes unread resets the connection, and the peer may lose the close frame.
func (c *Conn) Drain() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	for again := false; !c.peerClosed.Load(); again = true {
		if c.r == c.w {
			if again && c.caughtUp != c.lastRead.Load() { // there was no pause
				time.Sleep(drainPause)
			}
			c.timed, c.armed = true, false // no deadline but Kill's
			if c.fill(nil) != nil {
				return
			}
		}
		c.consume(c.scanIn(c.buf[c.r:c.w]))
	}
}

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
