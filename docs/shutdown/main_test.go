package main

import (
	"bufio"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

const (
	asServer = "WSROOM_DOCS_SERVER"
	patience = 20 * time.Second
)

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
		return
	}
	os.Exit(wsroomtest.Main(m))
}

// start runs the program and returns it and its URL.
func start(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append(args, "-addr", "127.0.0.1:0")...)
	cmd.Env = append(os.Environ(), asServer+"=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	line, err := bufio.NewReader(stderr).ReadString('\n')
	_, addr, ok := strings.Cut(strings.TrimSpace(line), "listening on ")
	if !ok {
		t.Fatalf("it says %q, %v", line, err)
	}
	return cmd, "http://" + addr
}

// The page's program says that it isn't ready, goes on for the load balancer's lag, sends everyone away with
// 1012 after what they were sent, and ends by itself.
func TestLeavesFromBehindALoadBalancer(t *testing.T) {
	const members = 20
	cmd, url := start(t, "-lag", "500ms", "-drain", "200ms")
	clients := wsroomtest.DialN(t, members, nil, url+"/chat/general", wsroomtest.WithTimeout(patience))
	if got := status(t, url+"/ready"); got != http.StatusOK {
		t.Errorf("/ready: %d", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); status(t, url+"/ready") != http.StatusServiceUnavailable; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("it stays ready")
		}
	}
	clients[0].SendText("still here")
	for _, c := range clients {
		c.ExpectText("still here")
		c.ExpectClose(websocket.StatusServiceRestart)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended by %v", err)
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.StatusCode
}
