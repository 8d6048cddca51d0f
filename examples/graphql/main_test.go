package main

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/internal/browser"
)

const packages = "npm/node_modules"

// needPackages skips the test where the packages of npm are missing. With WSROOM_INTEROP=all it fails.
func needPackages(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(packages); err == nil {
		return
	}
	const how = packages + " is missing: npm ci --prefix examples/graphql/npm --ignore-scripts"
	if os.Getenv("WSROOM_INTEROP") == "all" {
		t.Fatal(how)
	}
	t.Skip(how)
}

// The unchanged npm package graphql-ws, at two nodes: npm/graphql.test.mjs says what is expected.
func TestGraphqlWS(t *testing.T) {
	needPackages(t)
	server := brokertest.NewMemory()
	node := func() (*wsroom.Hub, http.Handler) { return newChat(wsroom.WithBroker(server.Open())) }
	nodes := []string{browser.Serve(t, node).URL, browser.Serve(t, node).URL}

	cmd := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=spec", "graphql.test.mjs")
	cmd.Dir = "npm"
	cmd.Env = append(os.Environ(), "NODES="+strings.ReplaceAll(strings.Join(nodes, ","), "http", "ws"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}

// The page's client is the one of npm, unchanged.
func TestTheClientIsOfNpm(t *testing.T) {
	needPackages(t)
	for own, theirs := range map[string]string{"graphql-ws.js": "umd/graphql-ws.min.js", "graphql-ws.LICENSE": "LICENSE.md"} {
		want, err := os.ReadFile(packages + "/graphql-ws/" + theirs)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(own); err != nil || string(got) != string(want) {
			t.Errorf("%s isn't %s of npm (%v)", own, theirs, err)
		}
	}
}
