// Package redistest starts real Redis servers for tests.
package redistest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/loopback"
)

// patience bounds the wait for a server to start.
const patience = 20 * time.Second

// Server is Debian's redis-server, or whatever else of that name there is.
type Server struct {
	Addr string // of the loopback network; stays the same when it is stopped and started

	args []string
	cmd  *exec.Cmd // nil while it is stopped
}

// Start starts a server on a free port, without persistence, for the test's duration. Where there is none
// to be started the test is skipped; with WSROOM_INTEROP=all it fails.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		const missing = "redis-server isn't installed: apt-get install redis-server"
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	s := &Server{Addr: loopback.FreeAddr(t)}
	_, port, _ := net.SplitHostPort(s.Addr)
	s.args = append([]string{"--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir()}, args...)
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

// Start starts a server that was stopped, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.cmd = exec.Command("redis-server", s.args...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for err := s.ping(); err != nil; err = s.ping() {
		if time.Now().After(deadline) {
			t.Fatalf("redis-server doesn't answer: %v", err)
		}
		time.Sleep(10 * time.Millisecond) // between attempts; nothing tells when it listens
	}
}

func (s *Server) ping() error {
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := fmt.Fprint(c, "PING\r\n"); err != nil {
		return err
	}
	if n, err := c.Read(make([]byte, 16)); n == 0 {
		return errors.Join(errors.New("no answer"), err)
	}
	return nil
}

// Stop ends the server at once, as when its machine fails. All it held is gone.
func (s *Server) Stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill() // it runs, or has failed by itself and the test with it
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// Signal sends the running server's process a signal.
func (s *Server) Signal(t testing.TB, sig os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
