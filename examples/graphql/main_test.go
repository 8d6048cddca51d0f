package main

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/adapters/brokertest"
	"github.com/wsroom/wsroom/examples/internal/graphqlws"
	"github.com/wsroom/wsroom/internal/browser"
	"github.com/wsroom/wsroom/wsroomtest"
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

// Where messages of a room are missing on a node, its members come anew, and ask for what they need.
func TestMembersComeAnewWhereMessagesAreMissing(t *testing.T) {
	hub, site := newChat()
	wsroomtest.CheckHub(t, hub)
	ann := wsroomtest.Dial(t, site, "/graphql/a", wsroomtest.WithSubprotocols(graphqlws.Protocol))
	hear(hub.Members("a"), websocket.MessageText, []byte("not of this chat"))
	ann.ExpectNothing()
	hear(hub.Members("a"), 0, nil)
	ann.ExpectClose(websocket.StatusTryAgainLater)
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
