package server

import (
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// The values of gorilla's chat example.
const (
	gorillaWriteWait  = 10 * time.Second
	gorillaPongWait   = 60 * time.Second
	gorillaPingPeriod = gorillaPongWait * 9 / 10
)

// newGorilla is the chat example of gorilla/websocket with one hub for each room. Messages are
// prepared once for all members, where the example writes them anew for each; in a room of one that
// would be a waste. A buffer pool, which its documentation advises for many connections, keeps write
// buffers out of idle ones.
func newGorilla(o Options) http.Handler {
	upgrader := websocket.Upgrader{
		ReadBufferSize:    1024,
		WriteBufferSize:   1024,
		WriteBufferPool:   &sync.Pool{},
		EnableCompression: o.Deflate,
	}
	hubs := newDirectory(func() *gorillaHub {
		h := &gorillaHub{
			clients:    map[*gorillaClient]bool{},
			broadcast:  make(chan []byte),
			register:   make(chan *gorillaClient),
			unregister: make(chan *gorillaClient),
		}
		go h.run() // the example's hub runs as long as the process
		return h
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &gorillaClient{hubs.room(r.URL.Path), conn, make(chan *gorillaMessage, o.sendBuffer())}
		c.hub.register <- c
		go c.writePump()
		go c.readPump()
	})
}

// A gorillaMessage is prepared, or else text.
type gorillaMessage struct {
	prepared *websocket.PreparedMessage
	text     []byte
}

type gorillaHub struct {
	clients    map[*gorillaClient]bool
	broadcast  chan []byte
	register   chan *gorillaClient
	unregister chan *gorillaClient
}

func (h *gorillaHub) run() {
	for {
		select {
		case c := <-h.register:
			h.clients[c] = true
		case c := <-h.unregister:
			h.drop(c)
		case text := <-h.broadcast:
			h.send(text)
		}
	}
}

func (h *gorillaHub) send(text []byte) {
	m := &gorillaMessage{text: text}
	if len(h.clients) > 1 {
		m.prepared, _ = websocket.NewPreparedMessage(websocket.TextMessage, text) // nil if it fails
	}
	for c := range h.clients {
		select {
		case c.send <- m:
		default:
			h.drop(c)
		}
	}
}

func (h *gorillaHub) drop(c *gorillaClient) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.send)
	}
}

type gorillaClient struct {
	hub  *gorillaHub
	conn *websocket.Conn
	send chan *gorillaMessage
}

func (c *gorillaClient) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(maxMessage)
	c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait))
	c.conn.SetPongHandler(func(string) error {
		return c.conn.SetReadDeadline(time.Now().Add(gorillaPongWait))
	})
	for {
		_, message, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		c.hub.broadcast <- message
	}
}

func (c *gorillaClient) writePump() {
	ticker := time.NewTicker(gorillaPingPeriod)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case message, ok := <-c.send:
			if !c.write(message, ok) {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func (c *gorillaClient) write(m *gorillaMessage, ok bool) bool {
	c.conn.SetWriteDeadline(time.Now().Add(gorillaWriteWait))
	switch {
	case !ok:
		c.conn.WriteMessage(websocket.CloseMessage, nil)
		return false
	case m.prepared == nil:
		return c.conn.WriteMessage(websocket.TextMessage, m.text) == nil
	}
	return c.conn.WritePreparedMessage(m.prepared) == nil
}
