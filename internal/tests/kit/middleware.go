package kit

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// NoHijack is a ResponseWriter that has a Hijack method, which fails.
type NoHijack struct{ http.ResponseWriter }

func (*NoHijack) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }
