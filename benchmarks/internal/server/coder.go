package server

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

const coderWriteTimeout = 5 * time.Second // the chat example's

// newCoder is the chat example of coder/websocket: a set of subscribers behind a mutex, a channel
// and a writing goroutine for each, a write timeout, and an end for those whose channel is full.
// The example publishes over HTTP; here its subscribers also read.
func newCoder(o Options) http.Handler {
	rooms := newDirectory(func() *coderRoom {
		return &coderRoom{buffer: o.sendBuffer(), subscribers: map[*coderSubscriber]struct{}{}}
	})
	accept := &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled}
	if o.Deflate {
		accept.CompressionMode = websocket.CompressionNoContextTakeover
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, accept)
		if err != nil {
			return
		}
		conn.SetReadLimit(maxMessage)
		rooms.room(r.URL.Path).serve(conn)
	})
}

type coderRoom struct {
	buffer      int
	mu          sync.Mutex
	subscribers map[*coderSubscriber]struct{}
}

type coderSubscriber struct {
	conn     *websocket.Conn
	messages chan []byte
}

// serve does what the example's subscribe does. The context isn't the request's, which its
// documentation calls surprising after a hijack.
func (r *coderRoom) serve(conn *websocket.Conn) {
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := &coderSubscriber{conn, make(chan []byte, r.buffer)}
	r.mu.Lock()
	r.subscribers[s] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.subscribers, s)
		r.mu.Unlock()
	}()
	go s.write(ctx)
	for {
		_, message, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		r.publish(message)
	}
}

func (r *coderRoom) publish(message []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.subscribers {
		select {
		case s.messages <- message:
		default:
			// The example keeps it in the set and closes it anew for every message.
			delete(r.subscribers, s)
			go s.conn.Close(websocket.StatusPolicyViolation, "connection too slow to keep up with messages")
		}
	}
}

func (s *coderSubscriber) write(ctx context.Context) {
	for {
		select {
		case message := <-s.messages:
			if s.writeTimeout(ctx, message) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *coderSubscriber) writeTimeout(ctx context.Context, message []byte) error {
	ctx, cancel := context.WithTimeout(ctx, coderWriteTimeout)
	defer cancel()
	return s.conn.Write(ctx, websocket.MessageText, message)
}
