package server

import (
	"net/http"
	"sync"

	"github.com/olahol/melody"
)

// newMelody is melody's chat example with one Melody for each room: Broadcast then costs what the
// room has members, where BroadcastFilter over one Melody would look at every session there is. Its
// upgrader is gorilla's; a pool of write buffers saves memory there and costs an object a message.
func newMelody(o Options) http.Handler {
	writeBuffers := &sync.Pool{}
	rooms := newDirectory(func() *melody.Melody {
		m := melody.New()
		m.Config.MaxMessageSize = maxMessage
		m.Config.MessageBufferSize = o.sendBuffer()
		if o.Idle {
			m.Upgrader.WriteBufferPool = writeBuffers
		}
		m.Upgrader.EnableCompression = o.Deflate
		m.HandleMessage(func(_ *melody.Session, msg []byte) { _ = m.Broadcast(msg) })
		return m
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = rooms.room(r.URL.Path).HandleRequest(w, r)
	})
}
