package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	sources          = 250 // source addresses, so that bulk connects don't run out of ports
	handshakeTimeout = 20 * time.Second
	// acceptKey answers the fixed Sec-WebSocket-Key below, RFC 6455 section 1.3.
	acceptKey = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

var dialed atomic.Uint64

// dial connects from the next of the source addresses 127.0.1.1 to 127.0.1.250. With tiny the
// receive buffer is as small as the kernel allows, so that not reading is noticed soon.
func dial(ctx context.Context, addr string, tiny bool) (net.Conn, error) {
	host := byte(dialed.Add(1)%sources) + 1
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, host)}}
	if tiny {
		d.Control = func(_, _ string, c syscall.RawConn) (err error) {
			cerr := c.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
			})
			return errors.Join(cerr, err)
		}
	}
	return d.DialContext(ctx, "tcp", addr)
}

// handshake upgrades conn. It returns what the server sent beyond its response, read into buf.
func handshake(conn net.Conn, path string, deflate bool, buf []byte) (rest []byte, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + conn.RemoteAddr().String() +
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13" +
		"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if deflate {
		request += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return nil, err
	}
	head, rest, err := readHead(conn, buf)
	if err != nil {
		return nil, err
	}
	if err := checkHead(head, deflate); err != nil {
		return nil, err
	}
	return rest, conn.SetDeadline(time.Time{})
}

func readHead(conn net.Conn, buf []byte) (head string, rest []byte, err error) {
	for n := 0; n < len(buf); {
		k, err := conn.Read(buf[n:])
		n += k
		if end := bytes.Index(buf[:n], []byte("\r\n\r\n")); end >= 0 {
			return string(buf[:end]), buf[end+4 : n], nil
		}
		if err != nil {
			return "", nil, fmt.Errorf("load: no response to the handshake: %w", err)
		}
	}
	return "", nil, errors.New("load: the response to the handshake is too long")
}

func checkHead(head string, deflate bool) error {
	switch {
	case !strings.HasPrefix(head, "HTTP/1.1 101 "):
		status, _, _ := strings.Cut(head, "\r\n")
		return fmt.Errorf("load: the handshake was refused: %s", status)
	case !strings.Contains(head, acceptKey):
		return errors.New("load: the handshake's accept key is wrong")
	case deflate != strings.Contains(head, "permessage-deflate"):
		return fmt.Errorf("load: permessage-deflate wanted: %t, got the opposite", deflate)
	}
	return nil
}

// readUntil reads until what comes contains text; an empty text is never contained.
func readUntil(conn net.Conn, buf []byte, text string) error {
	n := 0
	for {
		if n == len(buf) {
			n = copy(buf, buf[n/2:])
		}
		k, err := conn.Read(buf[n:])
		n += k
		if text != "" && bytes.Contains(buf[:n], []byte(text)) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// descriptor takes the connection over from the net package, whose own poller would be woken for
// all that arrives. The caller closes conn.
func descriptor(conn net.Conn) (fd int, err error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(old uintptr) {
		if fd, err = syscall.Dup(int(old)); err == nil {
			syscall.CloseOnExec(fd)
			err = syscall.SetNonblock(fd, true)
		}
	})
	return fd, errors.Join(cerr, err)
}
