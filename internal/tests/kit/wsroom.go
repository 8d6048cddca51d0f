package kit

import (
	"runtime"

	"github.com/wsroom/wsroom"
)

// EchoRoom is an OnText callback that sends each message to its connection's room.
func EchoRoom(c *wsroom.Conn, text string, err error) {
	if err == nil {
		c.SendTextToThisRoom(text)
	}
}

// Closes returns an OnClose that sends each cause to a channel.
func Closes() (wsroom.Option, <-chan error) {
	ch := make(chan error, 1000)
	return wsroom.OnClose(func(_ *wsroom.Conn, err error) { ch <- err }), ch
}

// HeapInUse returns the bytes of the live heap, after a garbage collection.
func HeapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
