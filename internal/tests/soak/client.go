package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// client is a WebSocket client that can misbehave.
type client struct {
	net.Conn
	r    *bufio.Reader
	mu   sync.Mutex // one frame at a time is written
	code int        // of the close frame that came
}

var errRefused = errors.New("refused")

// dial connects and upgrades. from is the address that it comes from, of 127.0.0.0/8.
func dial(ctx context.Context, from net.IP, addr, path string) (*client, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 30 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.(*net.TCPConn).SetReadBuffer(8 << 10) // so that who doesn't read is soon seen; a larger one costs nothing but time
	c := &client{Conn: conn, r: bufio.NewReaderSize(conn, 1<<10)}
	if err := c.upgrade(path); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) upgrade(path string) error {
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	defer c.SetDeadline(time.Time{})
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: soak\r\nOrigin: http://soak\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path)
	if err != nil {
		return err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("%w: status %d", errRefused, res.StatusCode)
	}
	return nil
}

// send writes a masked frame; the mask is zero.
func (c *client) send(first byte, payload string) error {
	b := []byte{first, 0x80 | byte(len(payload))}
	if len(payload) > 125 {
		b = binary.BigEndian.AppendUint16([]byte{first, 0x80 | 126}, uint16(len(payload)))
	}
	return c.raw(append(append(b, 0, 0, 0, 0), payload...))
}

func (c *client) raw(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second)) // a failed one shows in the write
	_, err := c.Write(b)
	return err
}

// next reads a text message. It answers pings and the close frame, after which it returns io.EOF.
func (c *client) next() (string, error) {
	for {
		first, payload, err := c.frame()
		if err != nil {
			return "", err
		}
		switch first {
		case 0x81:
			return payload, nil
		case 0x89:
			err = c.send(0x8a, payload)
		case 0x8a: // to a ping in the middle of a message
		case 0x88:
			if c.code = 1005; len(payload) >= 2 {
				c.code = int(binary.BigEndian.Uint16([]byte(payload)))
			}
			_ = c.send(0x88, payload)
			return "", io.EOF
		default:
			return "", fmt.Errorf("frame %#x", first)
		}
		if err != nil {
			return "", err
		}
	}
}

func (c *client) frame() (first byte, payload string, err error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:2]); err != nil {
		return 0, "", err
	}
	n := int(head[1])
	if n == 126 {
		if _, err := io.ReadFull(c.r, head[2:]); err != nil {
			return 0, "", err
		}
		n = int(binary.BigEndian.Uint16(head[2:]))
	}
	if n > 1<<16 {
		return 0, "", fmt.Errorf("length %d", n)
	}
	var b strings.Builder
	_, err = io.CopyN(&b, c.r, int64(n))
	return head[0], b.String(), err
}

// drop closes the socket without a word, with a reset.
func (c *client) drop() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}
