//go:build unix

package frame

import (
	"io"
	"syscall"
)

// rawIO says whether a socket's file descriptor can be read and written on this platform.
const rawIO = true

// rawRead is the callback of syscall.RawConn's Read. It takes a buffer only to try a read, and gives it
// back before it waits.
func (c *Conn) rawRead(fd uintptr) bool {
	p := c.into
	var own *[readSize]byte
	if p == nil {
		own = readBuffers.Get().(*[readSize]byte)
		p = own[:]
	}
	n, err := retry(func() (int, error) { return syscall.Read(int(fd), p) })
	c.got = max(n, 0)
	c.keep(own)
	switch {
	case err == syscall.EAGAIN:
		now := Now()
		c.waiting.CompareAndSwap(0, now) // it is set already if the wait goes on
		if !c.watches || c.quietIn(now) > 0 {
			return false
		}
		c.readErr = ErrQuiet
	case err != nil:
		c.readErr = err
	case n == 0:
		c.readErr = io.EOF
	}
	return true
}

// rawWrite is the callback of syscall.RawConn's Write. It writes as much as the socket takes now.
func (c *Conn) rawWrite(fd uintptr) bool {
	for c.sent < len(c.pending) {
		n, err := retry(func() (int, error) { return syscall.Write(int(fd), c.pending[c.sent:]) })
		if err == syscall.EAGAIN {
			return true
		}
		if err != nil {
			c.sendErr = err
			return true
		}
		c.sent += n
	}
	return true
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if err != syscall.EINTR {
			return n, err
		}
	}
}
