package netpoll

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// Supported says whether a [Set] works on this system.
const Supported = true

// What control does with a socket.
const (
	add    = syscall.EPOLL_CTL_ADD
	again  = syscall.EPOLL_CTL_MOD
	remove = syscall.EPOLL_CTL_DEL
)

// open makes an epoll whose own file descriptor can be waited for, as a socket's can.
func open() (int, *os.File, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return 0, nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil {
		_ = syscall.Close(fd)
		return 0, nil, os.NewSyscallError("fcntl", err)
	}

	epoll := os.NewFile(uintptr(fd), "epoll")
	if err := epoll.SetReadDeadline(time.Time{}); err != nil { // the runtime's poller hasn't taken it
		_ = epoll.Close()
		return 0, nil, err
	}
	return fd, epoll, nil
}

// change is one call of epoll_ctl. It is used again, because what a syscall.RawConn is handed is allocated.
type change struct {
	epoll, operation int
	event            syscall.EpollEvent
	err              error
	call             func(fd uintptr)
}

var changes = sync.Pool{New: func() any {
	c := new(change)
	c.call = func(fd uintptr) { c.err = syscall.EpollCtl(c.epoll, c.operation, int(fd), &c.event) }
	return c
}}

// control changes what epoll knows of a socket. An event is reported once, also if it came before. The socket
// can't be closed meanwhile, so its number isn't another's.
func (s *Set) control(socket syscall.RawConn, operation int, id ID) error {
	c := changes.Get().(*change)
	defer changes.Put(c)
	c.epoll, c.operation = s.fd, operation
	c.event = syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | syscall.EPOLLONESHOT,
		Fd:     id.place, Pad: id.turn,
	}
	if err := socket.Control(c.call); err != nil {
		return err
	}
	return os.NewSyscallError("epoll_ctl", c.err)
}

// wait returns the IDs of sockets that are ready now.
func wait(epoll int, ready []ID) int {
	var events [128]syscall.EpollEvent
	n, err := syscall.EpollWait(epoll, events[:min(len(events), len(ready))], 0)
	for err == syscall.EINTR {
		n, err = syscall.EpollWait(epoll, events[:min(len(events), len(ready))], 0)
	}
	if err != nil {
		return 0
	}
	for i, event := range events[:n] {
		ready[i] = ID{place: event.Fd, turn: event.Pad}
	}
	return n
}
