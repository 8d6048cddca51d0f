package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a server process has used so far.
type Usage struct {
	User, System time.Duration // processor time
	Objects      uint64        // allocated on the heap
	Resident     int64         // bytes of anonymous memory: heap and stacks, not the program's text
	Err          string        // what went wrong with the command, if anything
}

// Plus is what two processes have used together.
func (u Usage) Plus(other Usage) Usage {
	u.User += other.User
	u.System += other.System
	u.Objects += other.Objects
	u.Resident += other.Resident
	return u
}

// A process is a server process seen from inside.
type process struct {
	handler    http.Handler
	sendBuffer int
	secure     bool
	profile    *os.File
}

// Main runs one server process: it prints its address (over TLS, and its certificate in base64), then answers
// each command line on in with one line of JSON. It returns when in ends, which also happens when the parent
// dies.
func Main(args []string, in io.Reader, out io.Writer) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	name := flags.String("lib", "", "library")
	deflate := flags.Bool("deflate", false, "negotiate permessage-deflate")
	idle := flags.Bool("idle", false, "tune for many idle connections")
	broker := flags.String("broker", "", "address of the library's broker")
	isNATS := flags.Bool(NATS, false, "be a NATS server instead")
	sendBuffer := flags.Int("sendbuffer", 0, "size of the sockets' send buffers; 0 leaves it to the kernel")
	secure := flags.Bool("tls", false, "serve over TLS, with a certificate of its own")
	profile := flags.String("cpuprofile", "", "write a CPU profile of the measured interval to this file")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *isNATS {
		return runNATS(in, out)
	}
	libraries := slices.Concat(Libraries, Clustered, Kept, Returning)
	at := slices.IndexFunc(libraries, func(l Library) bool { return l.Name == *name })
	if at < 0 {
		return fmt.Errorf("server: no library %q", *name)
	}
	if run := libraries[at].Run; run != nil {
		return run(*broker)
	}
	p := process{handler: libraries[at].New(Options{Deflate: *deflate, Idle: *idle, Broker: *broker}), sendBuffer: *sendBuffer, secure: *secure}
	if *profile != "" {
		var err error
		if p.profile, err = os.Create(*profile); err != nil {
			return err
		}
		defer p.profile.Close()
	}
	return p.serve(in, out)
}

func (p *process) serve(in io.Reader, out io.Writer) error {
	config := net.ListenConfig{Control: p.setSendBuffer}
	listener, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if err := p.listenOn(listener, out); err != nil {
		return err
	}
	answers := json.NewEncoder(out)
	commands := bufio.NewScanner(in)
	for commands.Scan() {
		err := p.command(strings.Fields(commands.Text()))
		usage, uerr := usage()
		if err := errors.Join(err, uerr); err != nil {
			usage.Err = err.Error()
		}
		if err := answers.Encode(usage); err != nil {
			return err
		}
	}
	return commands.Err()
}

// listenOn serves until the process ends, and prints where.
func (p *process) listenOn(listener net.Listener, out io.Writer) error {
	if !p.secure {
		go http.Serve(listener, p.handler)
		fmt.Fprintln(out, listener.Addr())
		return nil
	}
	own, err := selfSigned()
	if err != nil {
		return err
	}
	s := http.Server{Handler: p.handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{own}}}
	go s.ServeTLS(listener, "", "")
	fmt.Fprintln(out, listener.Addr(), base64.StdEncoding.EncodeToString(own.Certificate[0]))
	return nil
}

// setSendBuffer prepares the listening socket; those it accepts inherit the size.
func (p *process) setSendBuffer(_, _ string, c syscall.RawConn) (err error) {
	if p.sendBuffer == 0 {
		return nil
	}
	cerr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, p.sendBuffer)
	})
	return errors.Join(cerr, err)
}

// command does what the parent asks for: "begin" and "end" enclose the measured interval, "free"
// gives back all memory that isn't in use, "joins ROOMS TIMES" runs a joiner.
func (p *process) command(words []string) error {
	switch {
	case len(words) == 1 && words[0] == "begin" && p.profile != nil:
		return pprof.StartCPUProfile(p.profile)
	case len(words) == 1 && words[0] == "end":
		pprof.StopCPUProfile()
	case len(words) == 1 && words[0] == "free":
		for range 3 { // pools empty in two rounds, stacks shrink by half in each
			debug.FreeOSMemory()
		}
	case len(words) == 3 && words[0] == "joins":
		return p.joins(words[1], words[2])
	}
	return nil
}

func (p *process) joins(rooms, times string) error {
	j, ok := p.handler.(joiner)
	if !ok {
		return errors.ErrUnsupported
	}
	r, err1 := strconv.Atoi(rooms)
	n, err2 := strconv.Atoi(times)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return j.joins(r, n)
}

func usage() (u Usage, err error) {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return u, err
	}
	u.User = time.Duration(r.Utime.Nano())
	u.System = time.Duration(r.Stime.Nano())
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	u.Objects = sample[0].Value.Uint64()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return u, err
	}
	u.Resident, err = ResidentOf(string(status))
	return u, err
}

// ResidentOf finds the anonymous resident memory in the text of /proc/PID/status.
func ResidentOf(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("server: no RssAnon in the process's status")
}
