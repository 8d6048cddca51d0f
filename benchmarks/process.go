package main

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
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
	trusted *x509.Certificate // the server's own; nil without TLS
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
	addr, certificate, secure := strings.Cut(p.answers.Text(), " ")
	p.addr = addr
	if secure {
		if p.trusted, err = parseCertificate(certificate); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

func parseCertificate(text string) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
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
