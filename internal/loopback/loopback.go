// Package loopback finds addresses for the servers that tests start.
package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// FreeAddr returns an address of the loopback network that no connection can take while a server isn't
// running: its port is below those that the system gives out, and so is the one 10000 above, which a node of
// a Redis cluster takes, too.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := 10000 + rand.N(12000)
		if isFree(port) && isFree(port+10000) {
			return fmt.Sprint("127.0.0.1:", port)
		}
	}
	t.Fatal("no port is free")
	panic("unreachable")
}

func isFree(port int) bool {
	ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
	if err != nil {
		return false
	}
	ln.Close()
	return true
}
