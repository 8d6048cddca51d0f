package interop_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
)

// nodeClient is clients/node_NAME.mjs, of the npm package of that name.
func nodeClient(name string) func(*testing.T, session) {
	return func(t *testing.T, s session) {
		node, err := exec.LookPath("node")
		if err != nil {
			node = "node"
		}
		need(t, node, "install Node 20 or newer")
		need(t, "clients/node_modules/"+name, "npm ci --prefix internal/tests/interop/clients")
		run(t, node, "node_"+name+".mjs", s)
	}
}

// pythonClient is clients/python_NAME.py, of the Debian package python3-NAME.
func pythonClient(name string) func(*testing.T, session) {
	return func(t *testing.T, s session) {
		need(t, "/usr/lib/python3/dist-packages/"+name, "apt-get install python3-"+name)
		run(t, "/usr/bin/python3", "python_"+name+".py", s)
	}
}

// run runs a program of clients/, which goes through the session and exits with 0.
func run(t *testing.T, interpreter, file string, s session) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s.url = "ws" + strings.TrimPrefix(s.url, "http")
	program := exec.CommandContext(ctx, interpreter, append([]string{"clients/" + file}, s.args()...)...)
	if out, err := program.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", file, err, out)
	}
}
