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
func handshake(conn net.Conn, path, subprotocol string, deflate bool, buf []byte) (rest []byte, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + conn.RemoteAddr().String() +
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13" +
		"\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	if subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + subprotocol + "\r\n"
	}
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

// greet sends the dialect's greeting, if there is one, and reads up to the frame that answers it. What came
// with the handshake is rest; what came behind the answer is returned, read into buf.
func (f *Fleet) greet(conn net.Conn, room string, rest, buf []byte) ([]byte, error) {
	greeting := f.dialect.Greeting(room)
	if greeting == nil {
		return rest, nil
	}
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(appendFrame(nil, opText, clientMask, greeting)); err != nil {
		return nil, err
	}
	for n := copy(buf, rest); n < len(buf); n = copy(buf, rest) {
		k, err := conn.Read(buf[n:])
		if err != nil {
			return nil, err
		}
		welcomed := false
		if rest, welcomed, err = f.welcome(buf[:n+k]); err != nil {
			return nil, err
		}
		if welcomed {
			return rest, conn.SetDeadline(time.Time{})
		}
	}
	return nil, errors.New("load: the greeting's answer is too long")
}

// welcome looks for the answer to the greeting among the whole frames in p and returns what is behind them.
func (f *Fleet) welcome(p []byte) (rest []byte, ok bool, err error) {
	for {
		answer, size, whole, err := parseFrame(p)
		if err != nil || !whole {
			return p, false, err
		}
		p = p[size:]
		if answer.compressed {
			if answer.payload, err = f.inflater.text(answer.payload); err != nil {
				return nil, false, err
			}
		}
		if bytes.Contains(answer.payload, []byte(f.dialect.Welcome)) {
			return p, true, nil
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
