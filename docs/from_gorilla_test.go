package docs_test

import (
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

var upgrader websocket.Upgrader

type client struct {
	conn *websocket.Conn
	send chan []byte
}

type gorillaHub struct {
	clients      map[*client]bool
	enter, leave chan *client
	broadcast    chan []byte
}

func (h *gorillaHub) run() {
	for {
		select {
		case c := <-h.enter:
			h.clients[c] = true
		case c := <-h.leave:
			h.remove(c)
		case msg := <-h.broadcast:
			for c := range h.clients {
				select {
				case c.send <- msg:
				default:
					h.remove(c) // slow
				}
			}
		}
	}
}

func (h *gorillaHub) remove(c *client) {
	if h.clients[c] {
		delete(h.clients, c)
		close(c.send)
	}
}

func (h *gorillaHub) read(c *client) {
	defer func() { h.leave <- c; c.conn.Close() }()
	c.conn.SetReadLimit(512)
	c.conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	c.conn.SetPongHandler(func(string) error {
		return c.conn.SetReadDeadline(time.Now().Add(60 * time.Second))
	})
	for {
		_, msg, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		h.broadcast <- msg
	}
}

func (h *gorillaHub) write(c *client) {
	pings := time.NewTicker(54 * time.Second)
	defer func() { pings.Stop(); c.conn.Close() }()
	for {
		typ, msg, ok := websocket.PingMessage, []byte(nil), true
		select {
		case msg, ok = <-c.send:
			typ = websocket.TextMessage
		case <-pings.C:
		}
		c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if !ok || c.conn.WriteMessage(typ, msg) != nil {
			return
		}
	}
}

func gorillaChat() http.Handler {
	h := &gorillaHub{clients: map[*client]bool{}, enter: make(chan *client), leave: make(chan *client), broadcast: make(chan []byte)}
	go h.run()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{conn, make(chan []byte, 256)}
		h.enter <- c
		go h.write(c)
		go h.read(c)
	})
}
