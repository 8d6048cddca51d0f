package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/bucket"
	"github.com/wsroom/wsroom/internal/frame"
	"github.com/wsroom/wsroom/internal/outbound"
	"github.com/wsroom/wsroom/internal/resume"
)

// inbound is the reading state that only some lines need. It belongs to the goroutine that reads; pending may
// be read by others.
type inbound struct {
	messages, bytes bucket.Bucket           // of the rate limits
	pending         atomic.Pointer[pending] // what a Read left for the next one; nil if there is nothing
}

// pending is a message that is read on a goroutine of its own, because coder/websocket can't be interrupted
// within a message. When the context of a Read is done, the next Read takes the message.
type pending struct {
	done chan struct{} // closed when the other fields are set
	buf  *[]byte       // from Scratch
	typ  websocket.MessageType
	err  error
}

// Wait returns once there is something to read, or frame.ErrQuiet if [Line.Park] is to wait instead. Any other error
// goes to [Line.WaitFailed]. A line that is idle without being parked is here, where the stack is small, so Wait
// must be inlined.
func (l *Line) Wait() error { return l.Wire().WaitOrQuiet() }

// WaitFailed handles an error of [Line.Wait]. It reports whether the line is ending. If not, the wait was only
// interrupted, and WaitFailed undoes that.
func (l *Line) WaitFailed(err error) (ending bool) {
	if l.IsEnding() {
		return true
	}
	if l.Wire().Interrupted(err) {
		l.resume()
		return false
	}
	l.end(waitFailed(err))
	return true
}

// waitFailed is the ending by an error of [Line.Wait].
func waitFailed(err error) Ending {
	if by, ok := err.(websocket.CloseError); ok {
		return closedByPeer(by)
	}
	return readFailed(err) // the wire's ReadFailed has ended the line before; this is to be sure
}

// Read waits for a message and reads it into buf, replacing what buf holds. If ctx is done first, Read returns
// the context's cause; the next Read then continues with a message that has begun. Once the line is ending,
// Read returns the reason.
func (l *Line) Read(ctx context.Context, buf *[]byte) (websocket.MessageType, error) {
	for {
		if typ, err := l.readOnce(ctx, buf); err != frame.ErrIdle {
			return typ, err
		}
	}
}

// readOnce is Read, except that it returns frame.ErrIdle when only a control frame came.
func (l *Line) readOnce(ctx context.Context, buf *[]byte) (websocket.MessageType, error) {
	p := l.pending()
	if p == nil {
		if err := l.wait(ctx); err != nil {
			return 0, err
		}
		if ctx.Done() == nil || l.Wire().Whole() && !l.owner().Limits().LimitsMessages() {
			return l.Receive(buf)
		}
		p = l.receiveAside()
	}

	select {
	case <-p.done:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}

	l.in.Load().pending.Store(nil)
	*buf, *p.buf = *p.buf, *buf
	FreeScratch(p.buf)
	return p.typ, p.err
}

// pending returns the message that a Read left for the next one. It returns nil if there is none.
func (l *Line) pending() *pending {
	if in := l.in.Load(); in != nil {
		return in.pending.Load()
	}
	return nil
}

// receiveAside starts a goroutine that reads the message that has begun.
func (l *Line) receiveAside() *pending {
	if l.in.Load() == nil {
		l.in.Store(new(inbound))
	}
	p := &pending{done: make(chan struct{}), buf: Scratch()}
	l.in.Load().pending.Store(p)
	go func() {
		defer close(p.done)
		p.typ, p.err = l.Receive(p.buf)
	}()
	return p
}

// AwaitPending waits for the goroutine that reads a message which no [Line.Read] took, if there is one. The
// line is ending.
func (l *Line) AwaitPending() {
	if p := l.pending(); p != nil {
		<-p.done
	}
}

// wait returns nil once there is something to read. It returns a cause if ctx is done or the line is ending.
func (l *Line) wait(ctx context.Context) error {
	for {
		err := l.waitOnce(ctx)
		if err == nil {
			return nil
		}
		if l.WaitFailed(err) {
			return l.cause()
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// waitOnce waits until there is something to read, ctx is done or the line is ending.
func (l *Line) waitOnce(ctx context.Context) error {
	if ctx.Done() == nil {
		return l.Wire().Wait()
	}

	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		l.Wire().Interrupt()
		close(interrupted)
	})

	err := l.Wire().Wait()
	if !stop() {
		<-interrupted
		if err == nil {
			l.resume()
		}
	}
	return err
}

// resume undoes an Interrupt, unless it belongs to the line's end. That Interrupt comes after SetEnding. So if
// the line isn't ending after the Resume, that Interrupt is still to come.
func (l *Line) resume() {
	if l.IsEnding() {
		return
	}
	l.Wire().Resume()
	if l.IsEnding() {
		l.Wire().Interrupt()
	}
}

// Receive reads the message that has begun into buf, replacing what buf holds, and checks it. It returns
// frame.ErrIdle if only a control frame came. Once the line is ending, it returns the reason. Text that isn't
// UTF-8 ends the line (RFC 6455, section 8.1).
func (l *Line) Receive(buf *[]byte) (websocket.MessageType, error) {
	typ, p, err := l.readMessage((*buf)[:0])
	*buf = p
	if errors.Is(err, frame.ErrIdle) {
		return 0, frame.ErrIdle
	}
	if err != nil {
		l.end(l.endingOf(err))
		return 0, l.cause()
	}

	valid := typ != websocket.MessageText || utf8.Valid(*buf)
	if typ == websocket.MessageText && valid && l.Session() != nil && l.isControl(buf) {
		return 0, frame.ErrIdle
	}

	size := len(*buf)
	l.owner().Received(size)
	if !valid {
		l.end(notUTF8)
		return 0, l.cause()
	}
	return typ, l.limitRate(size)
}

// isControl answers a message of the protocol of package resume. Such a message takes from the budget of empty
// frames. If it is the application's, isControl leaves in text what the application is to get.
func (l *Line) isControl(text *[]byte) bool {
	answer, rest, ok := resume.Answer(*text)
	if !ok {
		if len(rest) < len(*text) {
			*text = append((*text)[:0], rest...)
		}
		return false
	}

	(*transport)(l).EmptyFrame(l.Wire().CaughtUp())
	if answer != nil && l.PushAnswer(answer).Refused == outbound.Slow {
		l.end(TooSlow)
	}
	return true
}

// endingOf returns the ending for an error of reading through coder/websocket. Errors of the socket have ended
// the line before.
func (l *Line) endingOf(err error) Ending {
	if by := (websocket.CloseError{}); errors.As(err, &by) {
		return closedByPeer(by)
	}
	return refused(fmt.Errorf("wsroom: read: %w", err), websocket.StatusCode(l.refusal.Load()))
}

// limitRate applies the rate limits to a message of size bytes that was read. Unless Limits.Disconnect is set,
// it waits until the limits allow the message. Meanwhile the peer isn't read.
func (l *Line) limitRate(size int) error {
	in := l.in.Load()
	if in == nil {
		return nil
	}
	limits, now := l.owner().Limits(), frame.Now()
	wait := max(in.messages.Take(1, limits.Messages, now), in.bytes.Take(int64(size), limits.Bytes, now))
	if wait <= 0 {
		return nil
	}

	if limits.Disconnect {
		l.end(tooFast)
		return l.cause()
	}

	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.owner().Context().Done():
		return l.cause()
	}
}

// readingNow is the value of Line.refusal while this package is inside a reading method of coder/websocket.
const readingNow = -1

// readMessage reads without a context, because coder/websocket closes the connection when a context is done.
// The wire ends the reading instead: by Interrupt, by the message timeout or by Kill.
func (l *Line) readMessage(buf []byte) (websocket.MessageType, []byte, error) {
	l.refusal.CompareAndSwap(0, readingNow)
	defer l.refusal.CompareAndSwap(readingNow, 0)

	typ, r, err := l.websocket().Reader(context.Background())
	for err == nil {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		var n int
		n, err = r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
	}
	if err == io.EOF {
		err = nil
	}
	return typ, buf, err
}

// scratches are buffers. Messages are read into one before their callback decodes or copies them.
var scratches = sync.Pool{New: func() any {
	b := make([]byte, 0, 512) // small: a message that never ends keeps its buffer
	return &b
}}

// maxScratch is the size of the largest buffer that is kept for another message.
const maxScratch = 64 << 10

// Scratch returns a buffer to read a message into.
func Scratch() *[]byte { return scratches.Get().(*[]byte) }

// FreeScratch gives a buffer back, unless it is larger than maxScratch.
func FreeScratch(b *[]byte) {
	if cap(*b) <= maxScratch {
		scratches.Put(b)
	}
}
