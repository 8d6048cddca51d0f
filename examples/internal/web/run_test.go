package web

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
)

const asProgram = "WSROOM_TEST_RUN"

// TestMain is an example's main where the test asks for one.
func TestMain(m *testing.M) {
	if os.Getenv(asProgram) == "" {
		os.Exit(m.Run())
	}
	hub := wsroom.New()
	Run(hub, hub)
}

// A program that is told to stop tells its clients so, and ends well.
func TestRunEndsOnASignal(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	program := exec.CommandContext(ctx, os.Args[0], "-addr", "127.0.0.1:0")
	program.Env = append(os.Environ(), asProgram+"=1")
	stderr, err := program.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	_, url, ok := strings.Cut(strings.TrimSpace(line), "listening at ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	ws, _, err := websocket.Dial(ctx, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := program.Process.Signal(syscall.SIGTERM); err != nil {
		t.Skip(err) // on Windows
	}
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("got %v, want 1012", err)
	}
	if err := program.Wait(); err != nil {
		t.Error(err)
	}
}
