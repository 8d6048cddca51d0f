package kit

import (
	"bufio"
	"errors"
	"net"
	"net/http"
)

// Promising has a Hijack that fails.
type Promising struct{ http.ResponseWriter }

func (*Promising) Hijack() (net.Conn, *bufio.ReadWriter, error) { return nil, nil, errors.New("no") }
