package attack_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/tests/kit"
)

// attacks are what an attacker can do with its connection, until that ends.
var attacks = map[string]struct {
	unread bool // nothing else reads the connection meanwhile
	do     func(c *kit.RawConn, sent ...[]byte)
}{
	"idle":         {unread: true, do: idle},
	"slow send":    {do: slowSend},
	"flood":        {do: flood},
	"unread flood": {unread: true, do: flood},
	"slow read":    {unread: true, do: slowRead},
	"reset":        {do: reset},
}

// idle sends what it is given, and then neither sends nor reads.
func idle(c *kit.RawConn, sent ...[]byte) {
	c.Write(bytes.Join(sent, nil))
	select {}
}

// slowSend sends the first one at once, and then the second one again and again, a byte a second.
func slowSend(c *kit.RawConn, sent ...[]byte) {
	c.Write(sent[0])
	for i := 0; ; i++ {
		if _, err := c.Write(sent[1][i%len(sent[1]):][:1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// flood sends the first one, and then the second one as often and as fast as it can.
func flood(c *kit.RawConn, sent ...[]byte) {
	c.Write(sent[0])
	many := bytes.Repeat(sent[1], 1+(16<<10)/len(sent[1]))
	for {
		if _, err := c.Write(many); err != nil {
			return
		}
	}
}

// slowRead reads a byte a second.
func slowRead(c *kit.RawConn, _ ...[]byte) {
	for {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// reset closes with a TCP reset and no close frame.
func reset(c *kit.RawConn, _ ...[]byte) {
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// attackers are a process of its own, with clients that are connected and wait for their attack to begin.
type attackers struct {
	t     testing.TB
	n     int
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	once  sync.Once
	watch stopwatch // since the attack's beginning
}

// job is what the attackers' process is to do.
type job struct {
	Addr   string
	N      int
	Attack string
	Sent   [][]byte
}

// ending is how an attacker's connection ended: by a close frame with this code, or, if it is 0, without
// one that the attacker saw.
type ending struct {
	Code  int
	After time.Duration // since the attack began
}

// attackersVariable makes the test binary the attackers' process.
const attackersVariable = "WSROOM_TEST_ATTACKERS"

// connectAttackers connects n attackers to the room /attack, and returns once all are connected.
func connectAttackers(t testing.TB, srv *httptest.Server, n int, attack string, sent ...string) *attackers {
	t.Helper()
	a := &attackers{t: t, n: n, cmd: exec.Command(os.Args[0])}
	a.cmd.Env = append(os.Environ(), attackersVariable+"=1", "GOMAXPROCS=1") // in practice they are on other machines
	a.cmd.Stderr = os.Stderr
	a.in, _ = a.cmd.StdinPipe()
	out, err := a.cmd.StdoutPipe()
	if err == nil {
		err = a.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.stop)
	j := job{Addr: srv.Listener.Addr().String(), N: n, Attack: attack}
	for _, text := range sent {
		j.Sent = append(j.Sent, []byte(text))
	}
	json.NewEncoder(a.in).Encode(j)
	a.out = bufio.NewScanner(out)
	if !a.out.Scan() || a.out.Text() != "ready" {
		t.Fatalf("%s: the attackers can't connect: %q", attack, a.out.Text())
	}
	return a
}

// begin starts the attack.
func (a *attackers) begin() {
	a.watch = startWatch()
	io.WriteString(a.in, "true\n")
}

// ends waits until every attacker's connection has ended.
func (a *attackers) ends() []ending {
	a.t.Helper()
	var ends []ending
	for len(ends) < a.n && a.out.Scan() {
		var e ending
		if err := json.Unmarshal(a.out.Bytes(), &e); err != nil {
			a.t.Fatalf("an attacker reports %q", a.out.Text())
		}
		ends = append(ends, e)
	}
	if len(ends) < a.n {
		a.t.Errorf("%d of %d attackers' connections ended", len(ends), a.n)
	}
	a.stop()
	return ends
}

// want checks how the attackers' connections ended.
func (a *attackers) want(most time.Duration, codes ...int) {
	a.t.Helper()
	var longest time.Duration
	for _, e := range a.ends() {
		if longest = max(longest, e.After); !slices.Contains(codes, e.Code) {
			a.t.Errorf("close code %d after %v, want %v", e.Code, e.After, codes)
			break
		}
	}
	a.watch.within(a.t, "the attackers' end", longest, most)
}

// stop ends the attackers' process, and their connections with it.
func (a *attackers) stop() {
	a.once.Do(func() {
		a.in.Close()
		_ = a.cmd.Wait()
	})
}

// runAttackers is the attackers' process.
func runAttackers() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var j job
	if err := in.Decode(&j); err != nil {
		attackerTB{}.Fatal(err)
	}
	conns := make([]*kit.RawConn, j.N)
	for i := range conns {
		conns[i] = dialFrom(j.Addr, i)
	}
	fmt.Println("ready")
	var signal bool
	_ = in.Decode(&signal)
	attack, begin := attacks[j.Attack], time.Now()
	var mu sync.Mutex // guards out
	for _, c := range conns {
		go func() {
			if attack.unread {
				attack.do(c, j.Sent...)
			} else {
				go attack.do(c, j.Sent...)
			}
			code, _, _ := c.CloseFrame()
			mu.Lock()
			defer mu.Unlock()
			out.Encode(ending{code, time.Since(begin)})
		}()
	}
	_ = in.Decode(&signal) // the end
}

// dialFrom connects the i-th attacker, from an address that it shares with few others. Its receive
// buffer is small, so that the kernel doesn't take the messages that it doesn't read.
func dialFrom(addr string, i int) *kit.RawConn {
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%250))}
	conn, err := (&net.Dialer{LocalAddr: local, Timeout: kit.Patience}).Dial("tcp", addr)
	if err != nil {
		attackerTB{}.Fatal(err)
	}
	conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	return kit.UpgradeRaw(attackerTB{}, conn, "/attack", kit.OfferDeflate)
}

// attackerTB is a testing.TB as far as upgradeRaw needs one.
type attackerTB struct{ testing.TB }

func (attackerTB) Helper() {}

func (attackerTB) Fatal(args ...any) {
	fmt.Println(args...)
	os.Exit(1)
}

func (a attackerTB) Fatalf(format string, args ...any) { a.Fatal(fmt.Sprintf(format, args...)) }
