package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/wsroom/wsroom/benchmarks/internal/server"
)

// A serverProcess is one library's server, run by this very program in a process of its own. It
// ends when its standard input does, so it doesn't outlive this one whatever happens.
type serverProcess struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
	addr    string
}

func startServer(ctx context.Context, args ...string) (*serverProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &serverProcess{cmd: cmd, in: in, answers: bufio.NewScanner(out)}
	if !p.answers.Scan() {
		p.stop()
		return nil, errors.New("the server process ended before it listened")
	}
	p.addr = p.answers.Text()
	return p, nil
}

// ask sends one command and returns what the process has used by then.
func (p *serverProcess) ask(command string) (u server.Usage, err error) {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return u, err
	}
	if !p.answers.Scan() {
		return u, errors.New("the server process ended")
	}
	if err := json.Unmarshal(p.answers.Bytes(), &u); err != nil {
		return u, err
	}
	if u.Err != "" {
		return u, errors.New(u.Err)
	}
	return u, nil
}

// stop ends the process and waits for it.
func (p *serverProcess) stop() {
	_ = p.in.Close()
	kill := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	_ = p.cmd.Wait() // how it ended says nothing: it may have been killed
}
