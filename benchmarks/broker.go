package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// brokerPatience bounds the wait for a broker to start.
const brokerPatience = 10 * time.Second

var errNoRedis = errors.New("redis-server" + server.NotInstalled)

// A broker is a process that carries messages between nodes.
type broker struct {
	addr string
	pid  int
	stop func()
}

func startBroker(ctx context.Context, kind string) (broker, error) {
	switch kind {
	case server.Redis:
		return startRedis(ctx)
	case server.NATS:
		p, err := startServer(ctx, "-"+server.NATS)
		if err != nil {
			return broker{}, err
		}
		return broker{p.addr, p.cmd.Process.Pid, p.stop}, nil
	}
	return broker{}, fmt.Errorf("no broker %q", kind)
}

// startRedis starts a server with nothing to save. It ends with this process, as the others do.
func startRedis(ctx context.Context) (broker, error) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		return broker{}, errNoRedis
	}
	addr, port, err := freeAddress()
	if err != nil {
		return broker{}, err
	}
	cmd := exec.CommandContext(ctx, "redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", os.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return broker{}, err
	}
	stop := func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // "signal: killed"
	}
	for deadline := time.Now().Add(brokerPatience); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			return broker{addr, cmd.Process.Pid, stop}, conn.Close()
		}
		if time.Now().After(deadline) {
			stop()
			return broker{}, err
		}
	}
}

// freeAddress is one of the loopback network where nobody listens.
func freeAddress() (addr, port string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	addr = listener.Addr().String()
	_, port, err = net.SplitHostPort(addr)
	return addr, port, errors.Join(err, listener.Close())
}

// time is the processor time that the broker has used so far: that of all its threads, of which the kernel
// keeps nanoseconds.
func (b broker) time() (sum time.Duration, err error) {
	if b.pid == 0 { // there is none
		return 0, nil
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", b.pid))
	if err != nil {
		return 0, err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(thread)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		on, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("schedstat: %w", err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}
