//go:build unix

// Package postgrestest starts real PostgreSQL servers for tests.
package postgrestest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/loopback"
)

// patience bounds the wait for a server to start.
const patience = time.Minute

// Server is Debian's postgresql, or whatever else of that name there is.
type Server struct {
	Addr string // of the loopback network; stays the same when it is stopped and started

	programs string // the folder of initdb and postgres
	data     string
	settings []string
	account  *syscall.SysProcAttr // whom the server runs as
	cmd      *exec.Cmd            // nil while it is stopped
	said     *bytes.Buffer
}

// Start starts a server on a free port, in a temporary folder, for the test's duration, with settings such as
// "fsync=on". Without that one it doesn't wait for the disk: what it holds outlives the process, and not the
// machine. Where there is none to be started the test is skipped; with WSROOM_INTEROP=all it fails.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := &Server{Addr: loopback.FreeAddr(t), programs: folder(), settings: settings}
	if s.programs == "" {
		unable(t, "postgresql isn't installed: apt-get install postgresql")
	}
	s.makeFolder(t)
	s.run(t, "initdb", "-D", s.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	s.Start(t)
	t.Cleanup(s.Stop)
	return s
}

func unable(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("WSROOM_INTEROP") == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// folder returns where the programs are, or "".
func folder() string {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is sound
	if len(all) == 0 {
		return ""
	}
	newest := slices.MaxFunc(all, func(a, b string) int { return major(a) - major(b) })
	return filepath.Dir(newest)
}

// major returns the version in Debian's path of a program.
func major(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// makeFolder makes the server's folder. PostgreSQL refuses to run as root: then it runs as the user postgres.
func (s *Server) makeFolder(t testing.TB) {
	t.Helper()
	dir, err := os.MkdirTemp("", "postgres") // not t.TempDir, which only its owner may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.data = filepath.Join(dir, "data")
	if os.Getuid() != 0 {
		return
	}

	account, err := user.Lookup("postgres")
	if err != nil {
		unable(t, "PostgreSQL refuses to run as root, and there is no user postgres: "+err.Error())
	}
	uid, err1 := strconv.ParseUint(account.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(account.Gid, 10, 32)
	if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
		t.Fatal(err)
	}
	s.account = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// command returns a program that isn't running yet.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.programs, name), args...)
	cmd.Dir, cmd.SysProcAttr = filepath.Dir(s.data), s.account
	return cmd
}

func (s *Server) run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := s.command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

// URL returns what a client connects to, as the user postgres.
func (s *Server) URL() string { return URL(s.Addr) }

// URL returns the same for an address that leads to a server.
func URL(addr string) string { return "postgres://postgres@" + addr + "/postgres?sslmode=disable" }

// Start starts a server that was stopped, and returns when it answers.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.start(t)
}

// TakeOver starts a server that was stopped as a replica that takes over: with another history ("timeline").
func (s *Server) TakeOver(t testing.TB) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.data, "recovery.signal"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s.start(t, "restore_command=false")
}

func (s *Server) start(t testing.TB, more ...string) {
	t.Helper()
	_, port, _ := net.SplitHostPort(s.Addr)
	args := []string{"-D", s.data, "-p", port}
	for _, setting := range slices.Concat([]string{
		"listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "shared_buffers=32MB",
	}, s.settings, more) {
		args = append(args, "-c", setting)
	}
	s.said = &bytes.Buffer{}
	s.cmd = s.command("postgres", args...)
	s.cmd.Stderr = s.said
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(patience)
	for s.ready() != nil {
		if time.Now().After(deadline) {
			s.Stop()
			t.Fatalf("postgres doesn't answer:\n%s", s.said)
		}
		time.Sleep(10 * time.Millisecond) // between attempts; nothing tells when it listens
	}
}

// ready returns an error until the server takes sessions.
func (s *Server) ready() error {
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	hello := []byte("\x00\x00\x00\x00\x00\x03\x00\x00user\x00postgres\x00\x00")
	hello[3] = byte(len(hello))
	if _, err := c.Write(hello); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if answer[0] != 'R' { // authentication
		return errors.New("it is starting")
	}
	return nil
}

// Stop ends the server at once, as when its process fails, and its sessions with it.
func (s *Server) Stop() { s.end(syscall.SIGQUIT) }

// Quit ends the server as an operator does who doesn't wait for sessions.
func (s *Server) Quit() { s.end(syscall.SIGINT) }

func (s *Server) end(sig syscall.Signal) {
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig) // it runs, or has failed by itself and the test with it
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}
