package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/loopback"
)

// startNginx starts nginx in front of a server, with the location block of docs/behind-a-proxy.md, and
// returns its address. Where there is no nginx the test is skipped; with WSROOM_INTEROP=all it fails.
func startNginx(t *testing.T, upstream string) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		if os.Getenv("WSROOM_INTEROP") == "all" {
			t.Fatal("nginx isn't installed")
		}
		t.Skip("nginx isn't installed")
	}
	dir := t.TempDir()
	addr := loopback.FreeAddr(t)
	config := fmt.Sprintf(nginxConfig, addr, upstream, documentedLocation(t))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-p", dir, "-c", "nginx.conf", "-e", "error.log")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt) // it was running until here, or the test has failed
		_ = cmd.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "error.log")); strings.Contains(string(log), "[emerg]") || strings.Contains(string(log), "[alert]") {
			t.Errorf("nginx says: %s", log)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return addr
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// nginxConfig takes nginx's address, the server's, and a location.
const nginxConfig = `
daemon off;
master_process off;
pid nginx.pid;
worker_rlimit_nofile 16384;
events { worker_connections 8192; }
http {
	access_log off;
	client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
	server {
		listen %s backlog=4096;
		set $app http://%s;
%s	}
}
`

// documentedLocation is what docs/behind-a-proxy.md shows.
func documentedLocation(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../../docs/behind-a-proxy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```nginx\n")
	location, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/behind-a-proxy.md shows no configuration of nginx")
	}
	return location
}
