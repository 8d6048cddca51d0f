// Package goroutine tells goroutines apart.
package goroutine

import (
	"bytes"
	"runtime"
	"strconv"
)

// ID tells a goroutine from all others that live at the same time. A goroutine that starts after another
// has ended may have its ID. 0 is that of every goroutine where they can't be told apart.
type ID uint64

// fromStack reads the number that heads every stack trace: "goroutine 18 [running]:". It works wherever
// package runtime does, and takes some microseconds, for the whole stack is walked.
func fromStack() ID {
	var buf [64]byte
	trace := buf[:runtime.Stack(buf[:], false)]
	number, _, _ := bytes.Cut(bytes.TrimPrefix(trace, []byte("goroutine ")), []byte(" "))
	id, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil {
		return 0
	}
	return ID(id)
}
