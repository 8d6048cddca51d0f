package kit

import (
	"net/http"

	"github.com/wsroom/wsroom"
)

// MuxOf returns a ServeMux with h at the pattern.
func MuxOf(pattern string, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(pattern, h)
	return mux
}

// TellRoom makes a hub send each client the name of its room.
func TellRoom() wsroom.Option {
	return wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return c.SendText(c.Room()) })
}
