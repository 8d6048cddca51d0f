package main

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom/wsroomtest"
)

const (
	address  = "localhost:8080"
	patience = 20 * time.Second
)

// The README's first program is this one. It serves its page, and what one client says reaches another.
func TestFirstProgramRunsAsItStands(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "```go\n"+string(program)+"```\n") {
		t.Error("the README shows another program")
	}

	addr := run(t, string(program))
	if page := get(t, "http://"+addr+"/"); !strings.Contains(page, "new WebSocket(") {
		t.Errorf("the page is %q", page)
	}
	ann := wsroomtest.Dial(t, nil, "http://"+addr+"/chat/general", wsroomtest.WithTimeout(patience))
	bob := wsroomtest.Dial(t, nil, "http://"+addr+"/chat/general", wsroomtest.WithTimeout(patience))
	ann.SendText("hello")
	bob.ExpectText("hello")
	ann.Close(websocket.StatusNormalClosure, "")
	bob.Close(websocket.StatusNormalClosure, "")
}

// run builds the program with another address, which is free, starts it, and returns the address.
func run(t *testing.T, program string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()

	dir := t.TempDir()
	moved := filepath.Join(dir, "main.go")
	if err := os.WriteFile(moved, []byte(strings.Replace(program, address, addr, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Abs("main.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {here: moved}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "start")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	cmd := exec.Command(binary)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return addr
}

// get returns the page, once the server listens.
func get(t *testing.T, url string) string {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		res, err := http.Get(url)
		if err != nil {
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		}
		defer res.Body.Close()
		page, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(page)
	}
}
