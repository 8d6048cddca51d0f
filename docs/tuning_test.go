package docs_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
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

// The page's figures are those of the benchmarks.
func TestFiguresAreTheBenchmarks(t *testing.T) {
	page, err := os.ReadFile("tuning.md")
	if err != nil {
		t.Fatal(err)
	}
	const cpu, memory = 3, 10 // columns: µs, KB
	for _, f := range []struct {
		scenario string
		column   int
		text     string
		figure   float64
	}{
		{"idle", memory, "until that is needed | 3.1 KB |", 3.1},
		{"paced", cpu, "5.7 µs where each is a system call of its own", 5.7},
		{"flood128", cpu, "A message costs 0.2 µs a member in a busy room", 0.2},
		{"churn", cpu, "upgrade costs 0.08 ms", 80},
	} {
		measured := 0.0
		for _, row := range table(t, "../benchmarks/README.md", 0) {
			if row[0] == f.scenario && row[1] == "wsroom" {
				measured, _ = strconv.ParseFloat(row[f.column], 64)
			}
		}
		text := strings.Join(strings.Fields(string(page)), " ")
		if !strings.Contains(text, f.text) || measured > f.figure*1.15 || measured < f.figure*0.85 {
			t.Errorf("%s: the benchmarks say %v; the page says, or ought to: %s", f.scenario, measured, f.text)
		}
	}
	for _, row := range table(t, "tuning.md", 1) {
		conns, err := strconv.ParseFloat(strings.ReplaceAll(row[0], ",", ""), 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytesOf(t, row[1]); got != 3100*conns {
			t.Errorf("%s: %v bytes", row[0], got)
		}
	}
}

func bytesOf(t *testing.T, size string) float64 {
	number, unit, _ := strings.Cut(size, " ")
	n, err := strconv.ParseFloat(number, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n * map[string]float64{"MB": 1e6, "GB": 1e9}[unit]
}
