//go:build !linux

package netpoll

import "syscall"

// Supported says whether a [Set] works on this system.
const Supported = false

const (
	add = iota
	again
	remove
)

func (s *Set) open() error { return errUnsupported }

func (s *Set) control(syscall.RawConn, int, ID) error { return errUnsupported }

func wait(int, []ID) int { return 0 }
