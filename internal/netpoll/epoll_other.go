//go:build !linux

package netpoll

import (
	"errors"
	"os"
	"syscall"
)

// Supported says whether a [Set] works on this system.
const Supported = false

const (
	add = iota
	again
	remove
)

func open() (int, *os.File, error) { return 0, nil, errors.ErrUnsupported }

func (s *Set) control(syscall.RawConn, int, ID) error { return errors.ErrUnsupported }

func wait(int, []ID) int { return 0 }
