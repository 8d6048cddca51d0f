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

// attacks are what an attacker can do with its connection, until that ends. A deaf one reads nothing
// before.
var attacks = map[string]struct {
	deaf bool
	do   func(c *kit.RawConn, sent ...[]byte)
}{
	"hold":       {deaf: true, do: hold},
	"drip":       {do: drip},
	"flood":      {do: flood},
	"deaf flood": {deaf: true, do: flood},
	"sip":        {deaf: true, do: sip},
	"reset":      {do: reset},
}

// hold sends what it is given and leaves it at that.
func hold(c *kit.RawConn, sent ...[]byte) {
	c.Write(bytes.Join(sent, nil))
	select {}
}

// drip sends the first and then the second one, byte by byte, again and again: a byte a second.
func drip(c *kit.RawConn, sent ...[]byte) {
	c.Write(sent[0])
	for i := 0; ; i++ {
		if _, err := c.Write(sent[1][i%len(sent[1]):][:1]); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// flood sends the first and then the second one as often and as fast as it can.
func flood(c *kit.RawConn, sent ...[]byte) {
	c.Write(sent[0])
	many := bytes.Repeat(sent[1], 1+(16<<10)/len(sent[1]))
	for {
		if _, err := c.Write(many); err != nil {
			return
		}
	}
}

// sip reads a byte a second.
func sip(c *kit.RawConn, _ ...[]byte) {
	for {
		if _, err := c.Read(make([]byte, 1)); err != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

// reset hangs up without a word, as if its network were gone.
func reset(c *kit.RawConn, _ ...[]byte) {
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// A siege is a process of its own with peers that have connected and wait for their attack to begin.
type siege struct {
	t     testing.TB
	n     int
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	once  sync.Once
	watch stopwatch // since the attack's beginning
}

// order is what the attackers' process is told.
type order struct {
	Addr   string
	N      int
	Attack string
	Sent   [][]byte
}

// A fate is how an attacker's connection ended: by a close frame with this code, or, where it is 0,
// without one that the attacker saw.
type fate struct {
	Code  int
	After time.Duration // since the attack began
}

// siegeVariable makes the test binary the attackers' process.
const siegeVariable = "WSROOM_TEST_SIEGE"

// besiege connects n attackers to the room /attack, and returns once they all are.
func besiege(t testing.TB, srv *httptest.Server, n int, attack string, sent ...string) *siege {
	t.Helper()
	s := &siege{t: t, n: n, cmd: exec.Command(os.Args[0])}
	s.cmd.Env = append(os.Environ(), siegeVariable+"=1", "GOMAXPROCS=1") // theirs is another machine, in life
	s.cmd.Stderr = os.Stderr
	s.in, _ = s.cmd.StdinPipe()
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.lift)
	o := order{Addr: srv.Listener.Addr().String(), N: n, Attack: attack}
	for _, text := range sent {
		o.Sent = append(o.Sent, []byte(text))
	}
	json.NewEncoder(s.in).Encode(o)
	s.out = bufio.NewScanner(out)
	if !s.out.Scan() || s.out.Text() != "ready" {
		t.Fatalf("%s: the attackers can't connect: %q", attack, s.out.Text())
	}
	return s
}

// begin lets the attackers go.
func (s *siege) begin() {
	s.watch = startWatch()
	io.WriteString(s.in, "true\n")
}

// fates waits until every attacker's connection has ended.
func (s *siege) fates() []fate {
	s.t.Helper()
	var fates []fate
	for len(fates) < s.n && s.out.Scan() {
		var f fate
		if err := json.Unmarshal(s.out.Bytes(), &f); err != nil {
			s.t.Fatalf("an attacker says %q", s.out.Text())
		}
		fates = append(fates, f)
	}
	if len(fates) < s.n {
		s.t.Errorf("%d of %d attackers' connections ended", len(fates), s.n)
	}
	s.lift()
	return fates
}

// want checks how the attackers' connections ended.
func (s *siege) want(most time.Duration, codes ...int) {
	s.t.Helper()
	var longest time.Duration
	for _, f := range s.fates() {
		if longest = max(longest, f.After); !slices.Contains(codes, f.Code) {
			s.t.Errorf("close code %d after %v, want %v", f.Code, f.After, codes)
			break
		}
	}
	s.watch.within(s.t, "the attackers' end", longest, most)
}

// lift ends the attackers' process, and their connections with it.
func (s *siege) lift() {
	s.once.Do(func() {
		s.in.Close()
		_ = s.cmd.Wait()
	})
}

// laySiege is the attackers' process.
func laySiege() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var o order
	if err := in.Decode(&o); err != nil {
		attackerTB{}.Fatal(err)
	}
	conns := make([]*kit.RawConn, o.N)
	for i := range conns {
		conns[i] = dialFrom(o.Addr, i)
	}
	fmt.Println("ready")
	var told bool
	_ = in.Decode(&told)
	attack, begin := attacks[o.Attack], time.Now()
	var mu sync.Mutex // guards out
	for _, c := range conns {
		go func() {
			if attack.deaf {
				attack.do(c, o.Sent...)
			} else {
				go attack.do(c, o.Sent...)
			}
			code, _, _ := c.CloseFrame()
			mu.Lock()
			defer mu.Unlock()
			out.Encode(fate{code, time.Since(begin)})
		}()
	}
	_ = in.Decode(&told) // the end
}

// dialFrom connects the i-th attacker, from an address that it shares with few others. Its receive
// buffer is small, so that a deaf one can't leave its messages to the kernel.
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
