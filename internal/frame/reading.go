package frame

import (
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"time"
)

// errCut is the end of the stream within a message. coder/websocket would take io.EOF for the end of the
// message, and would pass on the part that has come as the whole message.
var errCut = errors.New("wsroom: connection lost within a message")

// ErrIdle ends a read of coder/websocket in which only control frames came. The caller then waits in
// [Conn.Wait], where the stack is small and an Interrupt costs no message.
var ErrIdle = errors.New("wsroom: no message has begun")

// ErrQuiet ends a [Conn.WaitOrQuiet] when no message has come for [Limits].Quiet.
var ErrQuiet = errors.New("wsroom: no message has come for a while")

// readSize is the size of the shared read buffers. A connection has one only while it holds unread bytes.
const readSize = 4 << 10

// fairFragment is how many bytes the fragments between the first and the last of a message must carry on
// average. Then less than half of such a frame is header. When they lack maxLack bytes, as 256 empty
// fragments do, the owner is called as for a ping.
const (
	fairFragment = 16
	maxLack      = 256 * fairFragment
)

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// LastRead returns when the peer's bytes last came, by [Now].
func (c *Conn) LastRead() int64 { return c.lastRead.Load() }

// WaitingSince returns since when a read has been waiting for the peer, by [Now]. It returns 0 if none is
// waiting.
func (c *Conn) WaitingSince() int64 { return c.waiting.Load() }

// CaughtUp returns when everything that the peer had sent before was last read, by [Now].
func (c *Conn) CaughtUp() int64 { return c.caughtUp.Load() }

// Heard returns when the peer was last known to be there, by [Now]. While a read waits, that is when bytes
// last came. Otherwise the bytes read may have lain in the socket for long; then it is when bytes last came
// that a read had waited for.
func (c *Conn) Heard() int64 {
	if c.waiting.Load() != 0 {
		return c.lastRead.Load()
	}
	return c.caughtUp.Load()
}

// Listened returns how long reads have waited for the peer in total, until now, in nanoseconds.
func (c *Conn) Listened(now int64) int64 {
	listened := c.listened.Load() // first: a wait that ends meanwhile must not count twice
	if since := c.waiting.Load(); since != 0 {
		listened += max(0, now-since)
	}
	return listened
}

// Unread reports whether bytes have been read from the socket that aren't consumed yet.
func (c *Conn) Unread() bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.r < c.w
}

// Whole reports whether the unread bytes are complete: only whole control frames and, if a message has
// begun, all of that message.
func (c *Conn) Whole() bool {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	s := c.in
	for r := c.r; r < c.w; {
		n, end := s.scan(c.buf[r:c.w])
		if end && s.opcode < Close {
			return !s.fragmented
		}
		if r += n; !end {
			return false
		}
	}
	return s.between()
}

// Wait returns once there is something to read. It drops empty pongs, which answer our pings, and those that
// the owner knows, so that an idle connection stays here, where the stack is small. If the peer closes, its error
// is the [websocket.CloseError] of the peer's close frame.
func (c *Conn) Wait() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	return c.wait()
}

// WaitOrQuiet is Wait, except that it returns [ErrQuiet] when nothing but such pongs has come for [Limits].Quiet, or
// ever, and [Conn.Park] can wait in its place.
func (c *Conn) WaitOrQuiet() error {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.watches = c.canPark()
	err := c.wait()
	c.watches = false
	if err == nil {
		c.active = c.lastRead.Load()
	}
	return err
}

func (c *Conn) wait() error {
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
		if c.skipEmptyPong() || c.skipKnownPong() {
			continue
		}
		if err := c.takeClose(); err != nil {
			return err
		}
		c.waited = true
		return nil
	}
}

// controlHeader is the length of the header of a masked control frame, and of a masked pong without a payload.
const controlHeader = 6

func (c *Conn) skipEmptyPong() bool {
	if c.in.have > 0 || c.w-c.r < controlHeader ||
		c.buf[c.r] != finBit|Pong || c.buf[c.r+1] != maskBit {
		return false
	}
	c.consume(controlHeader)
	c.owner.EmptyFrame(c.caughtUp.Load())
	return true
}

// skipKnownPong drops a pong that the owner knows, if a whole one comes next.
func (c *Conn) skipKnownPong() bool {
	payload, mask := c.nextControl(Pong)
	if len(payload) == 0 {
		return false
	}
	xor(payload, mask)
	if !c.owner.Pong(payload) {
		xor(payload, mask)
		return false
	}
	c.consume(controlHeader + len(payload))
	return true
}

// takeClose takes the peer's close frame and returns what it says, if a whole one comes next, between messages.
// coder/websocket would read it with three contexts and a deep stack, which is a third of what a short visit costs
// without its sockets. It still reads what breaks the rules for such a frame (RFC 6455, section 5.5.1), and refuses it.
func (c *Conn) takeClose() error {
	payload, mask := c.nextControl(Close)
	if mask == nil || !c.in.between() || len(payload) == 1 {
		return nil
	}
	xor(payload, mask)
	by := CloseErrorOf(payload)
	if len(payload) > 0 && CheckCloseCode(by.Code) != nil {
		xor(payload, mask)
		return nil
	}
	c.consume(controlHeader + len(payload))
	c.peerClosed.Store(true)
	return by
}

// nextControl returns the payload of the control frame with this opcode and its mask, if a whole one comes
// next, masked, and with a header that the protocol allows. Otherwise the mask is nil.
func (c *Conn) nextControl(opcode byte) (payload, mask []byte) {
	p := c.buf[c.r:c.w]
	if c.in.have > 0 || len(p) < controlHeader || p[0] != finBit|opcode || p[1] < maskBit || isCutControl(p) {
		return nil, nil
	}
	length := int(p[1] &^ maskBit)
	if length > MaxControl {
		return nil, nil
	}
	return p[controlHeader : controlHeader+length], p[2:controlHeader]
}

// xor masks or unmasks a payload (RFC 6455, section 5.3).
func xor(payload, mask []byte) {
	for i := range payload {
		payload[i] ^= mask[i&3]
	}
}

// Read is for coder/websocket. It returns bytes of one frame only. After [Conn.Wait] it returns [ErrIdle]
// where it would wait for a message.
func (c *Conn) Read(p []byte) (int, error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	empty := c.r == c.w

	switch {
	case c.unpacking != nil:
		return c.readPacked(p)
	case empty && c.in.left >= readSize && len(p) >= readSize:
		return c.readThrough(p)
	case empty && c.waited && c.in.between():
		c.waited = false
		return 0, ErrIdle
	}

	if err := c.next(); err != nil {
		return 0, c.readError(err)
	}
	if c.beginsPacked() {
		c.unpacking = unpackings.Get().(*unpacking)
		return c.readPacked(p)
	}
	return c.readBuffered(p)
}

// readThrough is Read inside a large payload, which it reads straight into p.
func (c *Conn) readThrough(p []byte) (int, error) {
	if err := c.fill(p[:min(uint64(len(p)), c.in.left)]); err != nil {
		return 0, c.readError(err)
	}
	return c.scanIn(p[:c.got]), nil
}

// readBuffered is Read where something is unread.
func (c *Conn) readBuffered(p []byte) (int, error) {
	n := c.scanIn(c.buf[c.r:min(c.w, c.r+len(p))])
	copy(p, c.buf[c.r:c.r+n])
	c.consume(n)

	if c.oversized() { // coder/websocket would allocate memory for it
		return 0, c.tooBig()
	}
	if c.in.unmasked() {
		c.owner.Unmasked()
	}
	return n, nil
}

// next waits until there is something to pass on, which isn't a pong that the owner knows. A control frame is
// passed on whole: coder/websocket waits 5 s for the rest of one, whatever Limits say, and then drops the
// connection without a close frame.
func (c *Conn) next() error {
	for {
		if err := c.nextFrame(); err != nil || !c.skipKnownPong() {
			return err
		}
		if c.r == c.w && c.waited && c.in.between() {
			c.waited = false
			return ErrIdle
		}
	}
}

func (c *Conn) nextFrame() error {
	if c.r == c.w {
		if err := c.fill(nil); err != nil {
			return err
		}
	}

	for c.needsMore() {
		c.r, c.w = 0, copy(c.buf[:], c.buf[c.r:c.w])
		if err := c.fill(c.buf[c.w:]); err != nil {
			return err
		}
		c.w += c.got
	}
	return nil
}

// needsMore reports whether nothing can be passed on before more has been read.
func (c *Conn) needsMore() bool {
	return c.r == c.w || c.in.have == 0 && isCutControl(c.buf[c.r:c.w])
}

// isCutControl reports whether p, which isn't empty, is an incomplete control frame. A frame whose header
// coder/websocket refuses (RFC 6455, sections 5.1, 5.2 and 5.5) isn't waited for.
func isCutControl(p []byte) bool {
	if opcode := p[0] &^ finBit; p[0]&finBit == 0 || opcode < Close || opcode > Pong {
		return false
	}
	if len(p) < 2 {
		return true
	}

	length := int(p[1] &^ maskBit)
	return p[1]&maskBit != 0 && length <= MaxControl && len(p) < 2+4+length
}

// scanIn takes the bytes of p that belong to the current frame and returns their number.
func (c *Conn) scanIn(p []byte) int {
	n, end := c.in.scan(p)
	if !end {
		return n
	}

	if c.in.between() {
		c.timed = false
	}
	if c.in.opcode < Close {
		c.waited = false
	}
	if c.in.opcode == Close {
		c.peerClosed.Store(true)
	}
	if c.in.opcode > Close || c.in.opcode == Continuation && c.lacking() {
		c.owner.EmptyFrame(c.caughtUp.Load())
	}
	return n
}

// lacking counts what a continuation frame carries, and reports whether the owner is to be called. A
// message's last frame needn't carry anything, because messages are limited elsewhere.
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

// oversized reports whether the current frame's announced length exceeds the limit. coder/websocket refuses
// frames that break the protocol.
func (c *Conn) oversized() bool {
	return c.limits.Frame > 0 && c.in.left > c.limits.Frame && c.in.left <= math.MaxInt64 && c.in.opcode <= Binary
}

// tooBig calls the owner, which ends the connection.
func (c *Conn) tooBig() error {
	c.owner.Oversized()
	return net.ErrClosed
}

// consume drops n unread bytes. It gives the buffer back when nothing is unread.
func (c *Conn) consume(n int) {
	c.r += n
	if c.r == c.w {
		readBuffers.Put(c.buf)
		c.buf, c.r, c.w = nil, 0, 0
	}
}

// fill waits for bytes and reads them into p, or into a buffer from the pool if p is nil.
func (c *Conn) fill(p []byte) error {
	c.armRead()
	c.into, c.got, c.readErr = p, 0, nil
	for c.got == 0 && (c.readErr == nil || c.mayReadOn()) {
		if c.raw == nil {
			c.plainRead()
		} else if err := c.raw.Read(c.readFunc); err != nil {
			c.readErr = err
		}
	}
	c.into = nil
	if c.readErr == ErrQuiet {
		return ErrQuiet // waiting stays set, because the wait goes on
	}

	since, now := c.waiting.Swap(0), Now()
	if since != 0 {
		c.listened.Add(now - since)
	}

	if c.readErr != nil {
		if !c.Interrupted(c.readErr) {
			c.owner.ReadFailed(c.readErr)
		}
		return c.readErr
	}

	now = max(now, c.lastRead.Load()+1) // each read has a time of its own, even if the clock is coarse
	c.lastRead.Store(now)
	switch {
	case since != 0 && now-since >= int64(time.Millisecond):
		c.caughtUp.Store(now)
	case since == 0 || c.raw == nil: // without a file descriptor each read seems to wait
		c.yield()
	}
	return nil
}

// yield lets other goroutines run now and then, so that a peer that sends without a pause doesn't keep
// other connections from being read. It doesn't yield each time, because what is read together is written
// together.
func (c *Conn) yield() {
	if c.rushed++; c.rushed%16 == 0 {
		runtime.Gosched()
	}
}

// firstSize is the size of the buffer with which a message is waited for where the file descriptor can't be waited
// on: an idle connection holds it.
const firstSize = 512

var firstBuffers = sync.Pool{New: func() any { return new([firstSize]byte) }}

// plainRead reads from a socket whose file descriptor can't be waited on.
func (c *Conn) plainRead() {
	if c.into == nil && c.in.between() && c.gotFirst < firstSize {
		first := firstBuffers.Get().(*[firstSize]byte)
		c.plainReadInto(first[:])
		if c.gotFirst = int16(c.got); c.got > 0 {
			c.buf = readBuffers.Get().(*[readSize]byte)
			c.r, c.w = 0, copy(c.buf[:], first[:c.got])
		}
		firstBuffers.Put(first)
		return
	}

	p := c.into
	var own *[readSize]byte
	if p == nil {
		own = readBuffers.Get().(*[readSize]byte)
		p = own[:]
	}
	c.plainReadInto(p)
	if c.keep(own); own != nil { // as long as much comes, it is read into large buffers
		c.gotFirst = int16(min(c.got, firstSize))
	}
}

func (c *Conn) plainReadInto(p []byte) {
	c.waiting.Store(Now())
	n, err := c.Conn.Read(p)
	if c.got = n; n == 0 {
		c.readErr = err // an error that comes with bytes comes again without them
	}
}

// keep takes the buffer that was read into, or gives it back if nothing came.
func (c *Conn) keep(own *[readSize]byte) {
	switch {
	case own == nil:
	case c.got > 0:
		c.buf, c.r, c.w = own, 0, c.got
	default:
		readBuffers.Put(own)
	}
}

// armRead sets the deadline of the current message or control frame when its rest is first waited for.
// Between messages it removes the deadline, or sets that of WaitOrQuiet. That one stays while messages come, so
// it costs them nothing; when it passes, mayReadOn sets the next one.
func (c *Conn) armRead() {
	var deadline time.Time
	switch under := !c.in.between() || c.r < c.w; {
	case under && !c.timed:
		deadline = time.Now().Add(c.limits.Message)
		c.timed, c.armed, c.extended, c.watched = true, true, false, false
	case !under && c.watches && !c.watched && c.quietIn(Now()) > 0:
		deadline = time.Now().Add(c.quietIn(Now()))
		c.armed, c.watched = false, true
	case !under && c.armed:
		c.armed = false
	default:
		return
	}
	c.setReadDeadline(deadline)
}

func (c *Conn) setReadDeadline(deadline time.Time) {
	c.deadlineMu.Lock()
	defer c.deadlineMu.Unlock()
	if !c.interrupted {
		_ = c.Conn.SetReadDeadline(deadline) // fails only on a closed socket, as the read will
	}
}

// extension is the time by which a deadline that has passed is extended, once. If the process was suspended
// meanwhile, it sees only now what the peer did in time.
const extension = 100 * time.Millisecond

// quietIn returns how much time is left for a message to come before WaitOrQuiet gives up.
func (c *Conn) quietIn(now int64) time.Duration { return c.limits.Quiet - time.Duration(now-c.active) }

// unwatch removes the deadline of WaitOrQuiet.
func (c *Conn) unwatch() {
	if c.watched {
		c.watched = false
		c.setReadDeadline(time.Time{})
	}
}

// mayReadOn reports whether a read that failed is to be tried again. If the deadline of WaitOrQuiet ended the
// read, it is: bytes may have come meanwhile. If the current message's deadline did, that is extended, once.
func (c *Conn) mayReadOn() bool {
	if c.watched && errors.Is(c.readErr, os.ErrDeadlineExceeded) && !c.isInterrupted() {
		c.unwatch()
		c.readErr = nil
		c.armRead()
		return true
	}
	if c.extended || !c.timed || !errors.Is(c.readErr, os.ErrDeadlineExceeded) || c.isInterrupted() {
		return false
	}
	c.extended, c.readErr = true, nil
	c.setReadDeadline(time.Now().Add(extension))
	return true
}

// Interrupt ends the waiting read or Park, and all later reads, until [Conn.Resume].
func (c *Conn) Interrupt() {
	c.deadlineMu.Lock()
	c.interrupted = true
	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))
	c.deadlineMu.Unlock()
	c.Ready()
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

// Interrupted reports whether err comes from [Conn.Interrupt] and not from the peer.
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

// drainPause is how long Drain pauses between pieces, so that a flood doesn't cost more after the
// connection's end than before.
const drainPause = time.Millisecond

// Drain reads and drops bytes until the peer's close frame has come or the socket fails (RFC 6455, section
// 7.1.1). Closing a socket with unread bytes resets the TCP connection, and the peer may lose our close
// frame.
func (c *Conn) Drain() {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	c.waited = false
	for again := false; !c.peerClosed.Load(); again = true {
		if again && c.needsMore() && c.caughtUp.Load() != c.lastRead.Load() { // there was no pause
			time.Sleep(drainPause)
		}
		c.timed, c.armed, c.watched = true, false, false // no deadline; Kill ends the wait
		if c.next() != nil {
			return
		}
		c.consume(c.scanIn(c.buf[c.r:c.w]))
	}
}
