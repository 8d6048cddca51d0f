//go:build linux

package parked_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/line"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

// What a message and its answer cost over loopback: to a connection that has its goroutine, and to one that is parked
// before each message, and has given back its websocket.Conn. The times include the client's; the objects say more.
func BenchmarkWake(b *testing.B) {
	for _, bench := range []struct {
		name  string
		quiet time.Duration
	}{{"active", never}, {"parked", 1}} {
		b.Run(bench.name, func(b *testing.B) {
			c := benchClient(b, bench.quiet)
			b.ReportAllocs()
			for b.Loop() {
				c.Frame(0x81, "x")
				if _, _, err := c.Next(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchClient(b *testing.B, quiet time.Duration) *kit.RawConn {
	b.Helper()
	before := line.Quiet()
	line.SetQuiet(quiet)
	defer line.SetQuiet(before)
	hub := wsroom.New(kit.Echo(), wsroom.WithHeartbeat(0, 0))
	srv := httptest.NewServer(hub)
	b.Cleanup(func() {
		hub.Shutdown(b.Context())
		srv.Close()
	})
	c := kit.DialRaw(b, srv, "/a")
	c.SetDeadline(time.Time{})
	return c
}
