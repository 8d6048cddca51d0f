package docs_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

// smallBuffers is for http.Server's ConnContext.
func smallBuffers(ctx context.Context, c net.Conn) context.Context {
	if tcp, ok := c.(*net.TCPConn); ok { // with TLS: c.(*tls.Conn).NetConn()
		tcp.SetWriteBuffer(64 << 10)
	}
	return ctx
}

// The page's server has small buffers in the kernel, and works.
func TestSmallKernelBuffers(t *testing.T) {
	hub := wsroomtest.CheckHub(t, wsroom.New(
		wsroom.OnConnect(func(c *wsroom.Conn, r *http.Request) error { return c.SendText("welcome") }),
		wsroom.WithMaxConns(100_000),
		wsroom.WithMaxConnsPer(wsroom.ByAddr, 100),
		wsroom.WithSendQueue(256, 256<<10),
	))
	size := make(chan int, 1)
	srv := httptest.NewUnstartedServer(hub)
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		ctx = smallBuffers(ctx, c)
		raw, err := c.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Error(err)
		}
		_ = raw.Control(func(fd uintptr) {
			n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF)
			if err != nil {
				t.Error(err)
			}
			size <- n
		})
		return ctx
	}
	srv.Start()
	t.Cleanup(srv.Close)
	wsroomtest.Dial(t, nil, srv.URL+"/").ExpectText("welcome")
	if n := <-size; n > 128<<10 { // Linux takes twice what it is told, for its own needs
		t.Errorf("a buffer of %d bytes", n)
	}
}
