package kit

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// Promising is a ResponseWriter that has a Hijack method, which fails.
type Promising struct{ http.ResponseWriter }

func (*Promising) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }
