package load

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"
)

const (
	readBuffer = 512 << 10
	nap        = 100 * time.Microsecond
	maxEvents  = 512
)

// A poller reads for all members of a fleet, in one goroutine and into one buffer.
//
// It never blocks while it waits for data but looks every now and then. A server on loopback pays
// for waking whoever blocks on the other end, often more than for the write itself; clients on
// other machines don't cost that, and so these must not either.
type poller struct {
	fd     int
	buf    []byte
	byID   []*Member
	events [maxEvents]syscall.EpollEvent
}

func newPoller(members []*Member) (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	p := &poller{fd: fd, buf: make([]byte, readBuffer), byID: members}
	for id, m := range members {
		event := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(id)}
		if err := syscall.EpollCtl(fd, syscall.EPOLL_CTL_ADD, m.fd, &event); err != nil {
			_ = syscall.Close(fd)
			return nil, fmt.Errorf("load: epoll: %w", err)
		}
	}
	return p, nil
}

// run reads until stopped says so.
func (p *poller) run(stopped func() bool) {
	defer syscall.Close(p.fd)
	pause := syscall.NsecToTimespec(int64(nap))
	for !stopped() {
		n, _ := syscall.EpollWait(p.fd, p.events[:], 0) // fails only with EINTR
		for _, event := range p.events[:max(n, 0)] {
			m := p.byID[event.Fd]
			if !m.read(p.buf) {
				_ = syscall.EpollCtl(p.fd, syscall.EPOLL_CTL_DEL, m.fd, nil)
			}
		}
		if n <= 0 {
			_ = syscall.Nanosleep(&pause, nil)
		}
	}
}

// read takes what has arrived, once. It returns false when there is nothing more to read.
func (m *Member) read(buf []byte) bool {
	for more := true; more; {
		start := copy(buf, m.rest)
		var n int
		var err error
		if n, more, err = m.take(buf[start:]); n == 0 && err == nil {
			return true
		}
		m.now = m.fleet.clock.Now()
		m.measured = m.fleet.measures(m.now)
		if perr := m.parse(buf[:start+n]); perr != nil {
			err = perr
		}
		m.publish()
		if err != nil {
			m.err = err
			m.gone.Store(true)
			m.room.notify()
			return false
		}
	}
	return !m.stalled || m.count == 0
}

// take reads what has arrived, without waiting. more says that there may be more that the poller isn't told of.
func (m *Member) take(p []byte) (n int, more bool, err error) {
	if m.secure != nil {
		return m.secure.take(p)
	}
	n, err = syscall.Read(m.fd, p)
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return 0, false, nil
	case n == 0 && err == nil:
		err = io.EOF
	}
	return max(n, 0), false, err
}

// write sends p whole. Servers take what senders send at once but for moments.
func (m *Member) write(p []byte) error {
	if m.secure != nil {
		_, err := m.secure.Write(p)
		return err
	}
	return writeAll(m.fd, p)
}

func writeAll(fd int, p []byte) error {
	for deadline := time.Now().Add(stuckAfter); len(p) > 0; {
		n, err := syscall.Write(fd, p)
		switch {
		case err == nil:
			p = p[n:]
		case errors.Is(err, syscall.EINTR):
		case !errors.Is(err, syscall.EAGAIN):
			return fmt.Errorf("load: write: %w", err)
		case time.Now().After(deadline):
			return ErrStuck
		default:
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}
