// Package goroutine gives each goroutine an ID. It knows nothing of what goroutines do.
package goroutine

import (
	"bytes"
	"runtime"
	"strconv"
)

// ID identifies a goroutine among all that live at the same time. A goroutine that starts after another has
// ended may get its ID. Where goroutines can't be told apart, the ID of every goroutine is 0.
type ID uint64

// fromStack reads the number at the top of a stack trace: "goroutine 18 [running]:". It works wherever
// package runtime does. It takes some microseconds, because the whole stack is walked.
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
