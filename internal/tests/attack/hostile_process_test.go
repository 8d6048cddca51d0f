package attack_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/internal/tests/kit"
)

const (
	// serverVariable makes the test binary a server process.
	serverVariable = "WSROOM_TEST_SERVER"
	// heartbeatVariable gives it an interval and a timeout other than the defaults: "300ms,1s".
	heartbeatVariable = "WSROOM_TEST_HEARTBEAT"
)

// runServer is a server process with little of everything, until its input ends.
func runServer() {
	hub := wsroom.New(heartbeatOf(os.Getenv(heartbeatVariable)), wsroom.OnText(kit.EchoRoom), wsroom.WithCompression(0), wsroom.WithRateLimit(1000, 1000),
		wsroom.WithMessageTimeout(2*time.Second), wsroom.WithWriteTimeout(time.Second), wsroom.WithSendQueue(64, 256<<10))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr())
	go (&http.Server{Handler: hub, ReadHeaderTimeout: time.Minute}).Serve(ln)
	io.Copy(io.Discard, os.Stdin)
}

// heartbeatOf returns no option for an empty text.
func heartbeatOf(text string) wsroom.Option {
	interval, timeout, ok := strings.Cut(text, ",")
	if !ok {
		return nil
	}
	i, _ := time.ParseDuration(interval)
	p, _ := time.ParseDuration(timeout)
	return wsroom.WithHeartbeat(i, p)
}

// remote is the address of a server in another process.
type remote struct {
	net.Listener
	addr    net.Addr
	process *os.Process
}

func (r remote) Addr() net.Addr { return r.addr }

// serveRemotely starts a server process by a line for the shell, in which exec starts it. peak returns
// the most memory that it has had resident so far, in KiB; 0 where the system doesn't say.
func serveRemotely(t *testing.T, line string) (srv *httptest.Server, peak func() int) {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(shell, "-c", line+` exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), serverVariable+"=1")
	in, _ := cmd.StdinPipe()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	addr, _ := bufio.NewReader(out).ReadString('\n')
	tcp, err := net.ResolveTCPAddr("tcp", strings.TrimSpace(addr))
	if err != nil {
		t.Fatal(err)
	}
	peak = func() (kib int) {
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		_, rest, _ := strings.Cut(string(status), "VmHWM:")
		fmt.Sscan(rest, &kib)
		return kib
	}
	return &httptest.Server{URL: "http://" + tcp.String(), Listener: remote{addr: tcp, process: cmd.Process}}, peak
}

// A server that runs out of file descriptors keeps its connections, and accepts others within a second once
// there are descriptors again.
func TestHostileFileLimit(t *testing.T) {
	srv, _ := serveRemotely(t, "ulimit -n 256 &&")
	honest := connectBystanders(t, srv)
	honest.sendWhile(func() {
		var conns []net.Conn
		for range 1000 { // the kernel lets them wait
			conns = append(conns, kit.Connect(t, srv))
		}
		<-time.After(time.Second)
		for _, c := range conns {
			c.Close()
		}
		watch := startWatch()
		kit.Dial(t, srv, "/late")
		watch.within(t, "accepting again", time.Since(watch.start), time.Second)
	})
	honest.disconnect()
}

// With one processor, or with little memory, all attacks together stop neither honest members nor new
// clients, and don't take more memory than there is.
func TestHostileTogether(t *testing.T) {
	few, many := 20, kit.Scale(50, 1000)
	bomb := strings.Repeat(deflatedZeros(), 50)
	for name, line := range map[string]string{
		"one processor": "GOMAXPROCS=1 GOMEMLIMIT=200MiB", "256 MiB": "GOMEMLIMIT=200MiB",
	} {
		t.Run(name, func(t *testing.T) {
			srv, peak := serveRemotely(t, line)
			honest := connectBystanders(t, srv)
			p99 := honest.sendWhile(func() {
				all := []*attackers{
					connectAttackers(t, srv, few, "flood", "", string(kit.RawFrame(0x89, "ping"))),
					connectAttackers(t, srv, few, "unread flood", "", string(kit.RawFrame(0x8a, ""))),
					connectAttackers(t, srv, few, "flood", "", string(kit.RawFrame(0x81, strings.Repeat("x", 1000)))),
					connectAttackers(t, srv, 4, "flood", string(kit.RawFrame(0x01, "")), string(kit.RawFrame(0x00, ""))),
					connectAttackers(t, srv, few, "flood", "", string(kit.RawFrame(0xc1, bomb))),
					connectAttackers(t, srv, many, "slow send", string(kit.RawFrame(0x01, "x")), string(kit.RawFrame(0x00, "x"))),
					connectAttackers(t, srv, many, "idle", string(kit.RawFrame(0x01, strings.Repeat("x", 60<<10)))),
					connectAttackers(t, srv, many, "slow read"),
					connectAttackers(t, srv, many, "reset"),
				}
				for _, a := range all {
					a.begin()
				}
				<-time.After(time.Duration(kit.Scale(1, 10)) * time.Second)
				watch := startWatch()
				kit.Dial(t, srv, "/late")
				watch.within(t, "a new client's handshake", time.Since(watch.start), time.Second)
				for _, a := range all {
					a.stop()
				}
			})
			honest.disconnect()
			t.Logf("p99 of the honest members: %v; at most %d KiB resident", p99, peak())
			if peak() > 256<<10 && !kit.UnderRace() {
				t.Errorf("%d KiB resident", peak())
			}
		})
	}
}
