package server

import (
	"net/http"
	"sync"

	"github.com/lxzan/gws"
)

// newGWS is gws's push example, a set of connections for each room, and its Broadcaster. As its
// notes advise, ReadLoop runs in a goroutine of its own, so that the request is freed.
// ParallelEnabled stays off: it would give up the order of one sender's messages.
func newGWS(o Options) http.Handler {
	h := &gwsHandler{rooms: newDirectory(func() *gwsRoom { return &gwsRoom{members: map[*gws.Conn]struct{}{}} })}
	option := &gws.ServerOption{ReadMaxPayloadSize: maxMessage}
	if o.Deflate {
		option.PermessageDeflate = gws.PermessageDeflate{Enabled: true}
	}
	if o.Idle {
		option.ReadBufferSize = 512 // its default of 4 KB stays with the connection
	}
	upgrader := gws.NewUpgrader(h, option)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		socket, err := upgrader.Upgrade(w, r)
		if err != nil {
			return
		}
		socket.Session().Store("room", h.rooms.room(r.URL.Path))
		go socket.ReadLoop()
	})
}

type gwsRoom struct {
	mu      sync.RWMutex
	members map[*gws.Conn]struct{}
}

type gwsHandler struct {
	gws.BuiltinEventHandler
	rooms *directory[*gwsRoom]
}

func roomOf(socket *gws.Conn) *gwsRoom {
	room, _ := socket.Session().Load("room")
	return room.(*gwsRoom)
}

func (h *gwsHandler) OnOpen(socket *gws.Conn) {
	room := roomOf(socket)
	room.mu.Lock()
	defer room.mu.Unlock()
	room.members[socket] = struct{}{}
}

func (h *gwsHandler) OnClose(socket *gws.Conn, _ error) {
	room := roomOf(socket)
	room.mu.Lock()
	defer room.mu.Unlock()
	delete(room.members, socket)
}

func (h *gwsHandler) OnMessage(socket *gws.Conn, message *gws.Message) {
	defer message.Close()
	broadcaster := gws.NewBroadcaster(gws.OpcodeText, message.Bytes())
	defer broadcaster.Close()
	room := roomOf(socket)
	room.mu.RLock()
	defer room.mu.RUnlock()
	for member := range room.members {
		_ = broadcaster.Broadcast(member)
	}
}
