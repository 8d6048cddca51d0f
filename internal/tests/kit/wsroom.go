package kit

import (
	"runtime"

	"github.com/wsroom/wsroom"
)

// EchoRoom sends what comes to the room it came from.
func EchoRoom(c *wsroom.Conn, text string, err error) {
	if err == nil {
		c.SendTextToThisRoom(text)
	}
}

// Closes returns an OnClose that reports to a channel.
func Closes() (wsroom.Option, <-chan error) {
	ch := make(chan error, 1000)
	return wsroom.OnClose(func(_ *wsroom.Conn, err error) { ch <- err }), ch
}

func HeapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
