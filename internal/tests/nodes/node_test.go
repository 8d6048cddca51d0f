package nodes_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
)

// The environment by which the test's own program becomes a node.
const (
	kindVariable   = "WSROOM_NODE"
	brokerVariable = "WSROOM_NODE_BROKER"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(kindVariable); kind != "" {
		if err := runNode(brokers[kind], os.Getenv(brokerVariable)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// runNode serves a hub whose members talk to their rooms until SIGTERM. To its standard output go its
// address, and the rooms in which there was a gap.
func runNode(kind brokerKind, brokerAddr string) error {
	broker, disconnect, err := kind.connect(brokerAddr)
	if err != nil {
		return err
	}
	defer disconnect()
	hub := wsroom.New(
		wsroom.WithBroker(broker),
		wsroom.WithBrokerBuffer(patience, 64<<20),
		wsroom.OnText(func(c *wsroom.Conn, text string, err error) {
			if err == nil && c.SendTextToThisRoom(text) != nil {
				c.SendText("refused " + text)
			}
		}),
		wsroom.OnGap(func(room string, err error) { fmt.Println("gap", room, err) }),
	)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("address", ln.Addr())
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Handler: hub}
	go func() { _ = srv.Serve(ln) }() // ends with Close
	<-term.Done()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer srv.Close()
	return hub.Shutdown(ctx)
}

// node is a process with a hub.
type node struct {
	t    *testing.T
	cmd  *exec.Cmd
	addr string
	over chan struct{} // closed when its output has ended

	mu   sync.Mutex // guards the rest
	gaps map[string]int
}

// startNode starts a process whose hub uses the broker at that address.
func startNode(t *testing.T, kind, brokerAddr string) *node {
	t.Helper()
	n := &node{t: t, cmd: exec.Command(os.Args[0]), over: make(chan struct{}), gaps: map[string]int{}}
	n.cmd.Env = append(os.Environ(), kindVariable+"="+kind, brokerVariable+"="+brokerAddr)
	n.cmd.Stderr = os.Stderr
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stop)
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the node said nothing: %v", lines.Err())
	}
	n.addr = strings.TrimPrefix(lines.Text(), "address ")
	go func() {
		defer close(n.over)
		for lines.Scan() {
			n.note(lines.Text())
		}
	}()
	return n
}

func (n *node) note(line string) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "gap" || !strings.HasPrefix(words[1], "/") {
		return // a gap in what is sent to all, of which there is nothing
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gaps[words[1]]++
}

// gapsIn returns how many gaps the node has reported in a room.
func (n *node) gapsIn(room string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gaps[room]
}

// kill ends the process at once.
func (n *node) kill() {
	_ = n.cmd.Process.Kill() // it is ours, and hasn't been waited for
	<-n.over
	_ = n.cmd.Wait() // "signal: killed"
	n.cmd = nil
}

// stop ends the process as an operator does.
func (n *node) stop() {
	if n.cmd == nil {
		return
	}
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	deadline := time.AfterFunc(2*patience, func() { _ = n.cmd.Process.Kill() })
	<-n.over
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("a node ended with: %v", err)
	}
	deadline.Stop()
	n.cmd = nil
}
