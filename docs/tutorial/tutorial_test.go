// Package tutorial_test builds and runs the programs of the tutorial.
package tutorial_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/internal/loopback"
	"github.com/wsroom/wsroom/internal/redistest"
	"github.com/wsroom/wsroom/wsroomtest"
)

const (
	steps    = 8
	patience = 30 * time.Second
)

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// The page shows code that stands in the program of its step, and each step has some.
func TestPageShowsThePrograms(t *testing.T) {
	page, err := os.ReadFile("../tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := regexp.MustCompile(`(?m)^## Step \d.*$`).Split(string(page), -1)
	if len(parts) != steps+1 {
		t.Fatalf("%d steps", len(parts)-1)
	}
	for step := 1; step <= steps; step++ {
		source, err := os.ReadFile(fmt.Sprintf("step%d/main.go", step))
		if err != nil {
			t.Fatal(err)
		}
		program := unindented(string(source))
		blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(parts[step], -1)
		if len(blocks) == 0 {
			t.Errorf("step %d shows no code", step)
		}
		for _, block := range blocks {
			if !strings.Contains(program, unindented(block[1])) {
				t.Errorf("step %d has no\n%s", step, block[1])
			}
		}
	}
}

// unindented returns the lines without the space before and after them.
func unindented(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// Every program builds, serves its page, and does what its step is about.
func TestStepsRun(t *testing.T) {
	for i, check := range []func(t *testing.T, url string){oneRoom, roomOfURL, json, names, people, history, limits} {
		step := i + 1
		t.Run(fmt.Sprint(step), func(t *testing.T) {
			t.Parallel()
			addr := loopback.FreeAddr(t)
			start(t, build(t, step), addr)
			check(t, "http://"+addr)
		})
	}
}

func oneRoom(t *testing.T, url string) {
	ann, bob := dial(t, url+"/chat", ""), dial(t, url+"/chat", "")
	ann.SendText("hello")
	ann.ExpectText("hello")
	bob.ExpectText("hello")
}

func roomOfURL(t *testing.T, url string) {
	ann, bob, carl := dial(t, url+"/chat/kitchen", ""), dial(t, url+"/chat/kitchen", ""), dial(t, url+"/chat/garden", "")
	ann.SendText("hello")
	ann.ExpectText("hello")
	bob.ExpectText("hello")
	carl.ExpectNothing()
}

func json(t *testing.T, url string) {
	ann, bob := dial(t, url+"/chat/kitchen", ""), dial(t, url+"/chat/kitchen", "")
	ann.SendText(`{"text":"  "}`)
	ann.ExpectText(`{"type":"error","text":"A message has 1 to 1000 bytes."}`)
	ann.SendText(`{"text":" hello "}`)
	ann.ExpectText(`{"type":"text","text":"hello"}`)
	bob.ExpectText(`{"type":"text","text":"hello"}`)
}

func names(t *testing.T, url string) {
	wsroomtest.Refused(t, nil, url+"/chat/kitchen", http.StatusUnauthorized)
	res, err := (&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}).
		Post(url+"/login", "application/x-www-form-urlencoded", strings.NewReader("name=+ann+"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	ann := wsroomtest.Dial(t, nil, url+"/chat/kitchen", wsroomtest.WithCookies(res.Cookies()...), wsroomtest.WithTimeout(patience))
	ann.SendText(`{"text":"hello"}`)
	ann.ExpectText(`{"type":"text","from":"ann","text":"hello"}`)
}

func people(t *testing.T, url string) {
	ann := dial(t, url+"/chat/kitchen", "ann")
	until(ann, `"people":["ann"]`)
	bob := dial(t, url+"/chat/kitchen", "bob")
	until(ann, `"people":["ann","bob"]`)
	until(bob, `"people":["ann","bob"]`)
}

func history(t *testing.T, url string) {
	nameless(t, url)
	ann := dial(t, url+"/chat/kitchen", "ann", wsroomtest.WithCursor(""))
	ann.SendText(`{"text":"one"}`)
	until(ann, `"one"`)
	ann.Cut()
	missed(t, ann, url, url)
}

// nameless is told to log in by a close code, which the page sees: by a status it would only see that there is no connection.
func nameless(t *testing.T, url string) {
	t.Helper()
	dial(t, url+"/chat/kitchen", "").ExpectClose(4401)
}

// missed has bob talk on one node, and ann come back to another one, where she has missed that.
func missed(t *testing.T, ann *wsroomtest.Client, bobs, anns string) {
	t.Helper()
	bob := dial(t, bobs+"/chat/kitchen", "bob")
	until(bob, `"one"`) // is sent what was said before
	bob.SendText(`{"text":"two"}`)
	until(bob, `"two"`)

	ann = dial(t, anns+"/chat/kitchen", "ann", wsroomtest.WithCursor(ann.Cursor()))
	ann.ExpectRoom("kitchen", true)
	if text := until(ann, `"text":"`); !strings.Contains(text, `"two"`) {
		t.Errorf("ann is sent %s first", text)
	}
}

// until reads up to a message that contains the text, and returns it.
func until(c *wsroomtest.Client, text string) string {
	for {
		if got := c.NextText(); strings.Contains(got, text) {
			return got
		}
	}
}

func limits(t *testing.T, url string) {
	nameless(t, url)
	ann := dial(t, url+"/chat/kitchen", "ann")
	ann.SendText(`{"text":"` + strings.Repeat("x", 5<<10) + `"}`)
	ann.ExpectClose(websocket.StatusMessageTooBig)
}

// The two nodes of the last step share a room, the people in it and its history. SIGTERM sends the clients away.
func TestTwoNodes(t *testing.T) {
	server := redistest.Start(t)
	binary := build(t, steps)
	t.Setenv("RESUME_KEY", strings.Repeat("4f", 32))
	var nodes []*exec.Cmd
	var urls []string
	for range 2 {
		addr := loopback.FreeAddr(t)
		nodes = append(nodes, start(t, binary, addr, "-redis", server.Addr, "-drain", "0s"))
		urls = append(urls, "http://"+addr)
	}
	ann, carl := dial(t, urls[0]+"/chat/kitchen", "ann", wsroomtest.WithCursor("")), dial(t, urls[1]+"/chat/kitchen", "carl")
	until(carl, `"people":["ann","carl"]`)
	nameless(t, urls[0])
	ann.SendText(`{"text":"one"}`)
	until(ann, `"one"`)
	until(carl, `"one"`)

	if err := nodes[0].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := nodes[0].Wait(); err != nil {
		t.Errorf("the node ended with %v", err)
	}
	ann.ExpectClose(websocket.StatusServiceRestart)
	missed(t, ann, urls[1], urls[1])
}

func dial(t *testing.T, url, name string, opts ...wsroomtest.Option) *wsroomtest.Client {
	t.Helper()
	if name != "" {
		opts = append(opts, wsroomtest.WithCookies(&http.Cookie{Name: "name", Value: name}))
	}
	return wsroomtest.Dial(t, nil, url, append(opts, wsroomtest.WithTimeout(patience))...)
}

// build builds a step's program.
func build(t *testing.T, step int) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "chat")
	if out, err := exec.Command("go", "build", "-o", binary, fmt.Sprintf("./step%d", step)).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return binary
}

// start starts a program and returns it once it serves its page.
func start(t *testing.T, binary, addr string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(binary, append(args, "-addr", addr)...)
	var log strings.Builder
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		res, err := http.Get("http://" + addr)
		if err == nil {
			defer res.Body.Close()
			if page, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(page), "</script>") {
				t.Errorf("the page is %q, %v", page, err)
			}
			return cmd
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
