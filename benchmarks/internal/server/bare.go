package server

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
)

// newBare is the floor: a handshake by hand, and for each message one ready frame and one
// net.Conn.Write to every member, in a loop under a lock. It has no queues, timeouts, pings or
// UTF-8 checks, and one member that doesn't read stops its whole room. Nobody should run it.
func newBare(Options) http.Handler {
	rooms := newDirectory(func() *bareRoom { return &bareRoom{members: map[net.Conn]struct{}{}} })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, room := r.Header.Get("Sec-WebSocket-Key"), rooms.room(r.URL.Path)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(sum[:])+"\r\n\r\n")
		if err != nil {
			conn.Close()
			return
		}
		go room.serve(conn)
	})
}

type bareRoom struct {
	mu      sync.Mutex
	members map[net.Conn]struct{}
}

func (r *bareRoom) serve(conn net.Conn) {
	defer conn.Close()
	r.mu.Lock()
	r.members[conn] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.members, conn)
		r.mu.Unlock()
	}()
	in := bufio.NewReaderSize(conn, 512)
	for {
		frame, err := readBare(in)
		if err != nil {
			return
		}
		r.broadcast(frame)
	}
}

func (r *bareRoom) broadcast(frame []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for member := range r.members {
		_, _ = member.Write(frame)
	}
}

// readBare reads one short or medium text frame from a client and returns it as the server's.
func readBare(in *bufio.Reader) ([]byte, error) {
	head, err := in.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0] != 0x81 || head[1]&0x7F == 127 {
		return nil, errors.New("server: a close frame, or one that the bare loop doesn't know")
	}
	header, length := 2, int(head[1]&0x7F)
	if length == 126 {
		if head, err = in.Peek(4); err != nil {
			return nil, err
		}
		header, length = 4, int(binary.BigEndian.Uint16(head[2:]))
	}
	frame := make([]byte, header+4+length)
	if _, err := io.ReadFull(in, frame); err != nil {
		return nil, err
	}
	mask := [4]byte(frame[header:])
	payload := frame[header:][:length]
	for i := range payload {
		payload[i] = frame[header+4+i] ^ mask[i&3]
	}
	frame[1] &= 0x7F
	return frame[:header+length], nil
}
