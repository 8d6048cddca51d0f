package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var shutdownMembers = flag.Int("members", 200, "connections of the shutdown tests; CI has 2000")

// A server process with members and messages flowing gets SIGTERM. With WithDrain the closes are
// spread over the window; each client that reads gets all that was sent to it and then 1012;
// newcomers are refused at once; clients that stay silent hold nothing up; each OnClose has run; and
// the process ends in time. So, too, behind nginx, with the configuration that the docs show.
func TestShutdownUnderLoad(t *testing.T) {
	for _, tc := range []struct {
		name  string
		drain time.Duration
		nginx bool
	}{
		{"at once", 0, false},
		{"drained", 2 * time.Second, false},
		{"drained, behind nginx", 2 * time.Second, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, tc.drain)
			addr := s.addr
			if tc.nginx {
				addr = startNginx(t, s.addr)
			}
			f := gather(t, addr, *shutdownMembers)
			f.awaitMessages()
			f.checkShutdown(s, tc.drain)
		})
	}
}

// process is a server process.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *bufio.Reader
	addr string
}

func startServer(t *testing.T, drain time.Duration) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+drain.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // an error says that it has ended
	p := &process{t: t, cmd: cmd, out: bufio.NewReader(out)}
	line, err := p.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	p.addr = strings.TrimSpace(line)
	return p
}

// end waits for the process and returns its verdict.
func (p *process) end() (v verdict) {
	p.t.Helper()
	rest, err := io.ReadAll(p.out)
	if err := errors.Join(err, p.cmd.Wait(), json.Unmarshal(rest, &v)); err != nil {
		p.t.Fatalf("the server ended with %v, and said %q", err, rest)
	}
	return v
}

// fleet is all clients of a server: readers, and a twentieth who upgrade and are silent from then on.
type fleet struct {
	t       *testing.T
	addr    string
	readers []*reader
	silent  []*client
	first   sync.WaitGroup // until each reader has had a message
	done    sync.WaitGroup // until each reader's connection has ended
}

// reader is what came to one client.
type reader struct {
	*client
	name        string
	first, last int
	wrong       error // what came out of order
	err         error // with which reading ended
	at          time.Time
}

func gather(t *testing.T, addr string, members int) *fleet {
	t.Helper()
	f := &fleet{t: t, addr: addr}
	for i := range members {
		name := strconv.Itoa(i)
		c, err := dial(t.Context(), source(i), addr, fmt.Sprintf("/chat/%d?client=%s", i%serverRooms, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if i%20 == 19 {
			f.silent = append(f.silent, c)
			continue
		}
		r := &reader{client: c, name: name}
		f.readers = append(f.readers, r)
		f.first.Add(1)
		f.done.Go(func() { r.read(f.first.Done) })
	}
	return f
}

func (r *reader) read(first func()) {
	defer func() { r.at = time.Now() }()
	defer func() { first() }()
	for {
		text, err := r.next()
		if err != nil {
			r.err = err
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if r.first == 0 {
			r.first = n
			first()
			first = func() {}
		} else if n != r.last+1 || err != nil {
			r.wrong = fmt.Errorf("%q came after %d", text, r.last)
		}
		r.last = n
	}
}

func (f *fleet) awaitMessages() { f.first.Wait() }

// checkShutdown sends SIGTERM and checks what follows.
func (f *fleet) checkShutdown(s *process, drain time.Duration) {
	t := f.t
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	late := f.checkRefused(begin)
	f.done.Wait()
	v := s.end()
	took := time.Since(begin)
	if took > shutdownBudget+time.Second {
		t.Errorf("the process ended after %v", took)
	}
	if all := len(f.readers) + len(f.silent) + late; v.Opened != all || v.Closed != all {
		t.Errorf("%d OnConnect, %d OnClose of %d", v.Opened, v.Closed, all)
	}
	for _, r := range f.readers {
		if r.code != 1012 || r.wrong != nil || r.last < v.AtLeast[r.name] || v.AtLeast[r.name] == 0 {
			t.Errorf("client %s: close code %d, %v, %v; the last message was %d, of at least %d", r.name, r.code, r.err, r.wrong, r.last, v.AtLeast[r.name])
		}
	}
	f.checkSpread(begin, drain)
	t.Logf("%d clients, %d of them silent: the process ended %v after SIGTERM", len(f.readers)+len(f.silent), len(f.silent), took)
}

// checkRefused dials until it is refused, at once but for those who come before the process has noticed
// the signal. It returns how many they were.
func (f *fleet) checkRefused(begin time.Time) (late int) {
	for ; ; late++ {
		c, err := dial(f.t.Context(), source(0), f.addr, "/chat/0?client=late")
		if err != nil {
			if took := time.Since(begin); !strings.Contains(err.Error(), "503") || took > 2*time.Second {
				f.t.Errorf("a newcomer, %v after SIGTERM: %v", took, err)
			}
			return late
		}
		c.Close()
	}
}

// checkSpread checks that the closes are spread: over most of the window, which begins with the first of
// them, and with no more than three fifths of them in one fifth of it, for a busy machine may hold some up.
func (f *fleet) checkSpread(begin time.Time, drain time.Duration) {
	first := slices.MinFunc(f.readers, func(a, b *reader) int { return a.at.Compare(b.at) }).at
	var fifths [6]int // and those that came late
	for _, r := range f.readers {
		if at := r.at.Sub(first); drain > 0 {
			fifths[min(5, int(5*at/drain))]++
		} else if at := r.at.Sub(begin); at > 4*time.Second {
			f.t.Errorf("client %s was closed after %v", r.name, at)
		}
	}
	f.t.Logf("closes in each fifth of the window, and after it: %v", fifths)
	if drain == 0 {
		return
	}
	if last := slices.MaxFunc(f.readers, func(a, b *reader) int { return a.at.Compare(b.at) }).at; last.Sub(first) < drain/2 {
		f.t.Errorf("all were closed within %v, of %v", last.Sub(first), drain)
	}
	if n := slices.Max(fifths[:]); n > 3*len(f.readers)/5 {
		f.t.Errorf("%d of %d were closed in one fifth of the window", n, len(f.readers))
	}
}

func source(i int) net.IP { return net.IPv4(127, byte(1+i%250), byte(1+i/250%250), byte(1+i%200)) }
