package load

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"syscall"
)

// pinned returns a configuration that trusts these certificates and no others, nil if there are none.
func pinned(trusted []*x509.Certificate) *tls.Config {
	if len(trusted) == 0 {
		return nil
	}
	roots := x509.NewCertPool()
	for _, c := range trusted {
		roots.AddCert(c)
	}
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
}

// A secure is a member's side of TLS. During the handshakes it is an ordinary connection; then it is read without
// waiting, like the descriptors of other members.
type secure struct {
	*tls.Conn
	beneath *beneath
}

func newSecure(tcp net.Conn, config *tls.Config) *secure {
	b := &beneath{Conn: tcp}
	return &secure{tls.Client(b, config), b}
}

// take reads what has arrived, without waiting. more says that there may be more, for which p has no space.
func (s *secure) take(p []byte) (n int, more bool, err error) {
	for n < len(p) {
		k, err := s.Read(p[n:])
		n += k
		if errors.Is(err, errNotYet) {
			return n, false, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, true, nil
}

// A beneath is what TLS reads from and writes to: first the connection of package net, then the descriptor.
type beneath struct {
	net.Conn
	fd int // 0 during the handshakes
}

func (b *beneath) Read(p []byte) (int, error) {
	if b.fd == 0 {
		return b.Conn.Read(p)
	}
	n, err := syscall.Read(b.fd, p)
	switch {
	case err == syscall.EAGAIN || err == syscall.EINTR:
		return 0, errNotYet
	case n == 0 && err == nil:
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (b *beneath) Write(p []byte) (int, error) {
	if b.fd == 0 {
		return b.Conn.Write(p)
	}
	if err := writeAll(b.fd, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// errNotYet is a timeout, after which TLS can be read again.
var errNotYet = notYet{}

type notYet struct{}

func (notYet) Error() string   { return "load: nothing has arrived" }
func (notYet) Timeout() bool   { return true }
func (notYet) Temporary() bool { return true }
