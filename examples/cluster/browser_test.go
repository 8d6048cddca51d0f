package main

import (
	"context"
	"flag"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wsroom/wsroom/internal/browser"
)

// TestMain lets the test's own program be a node.
func TestMain(m *testing.M) {
	if slices.Contains(os.Args, "-node") {
		main()
		return
	}
	os.Exit(m.Run())
}

// awaitNodes waits until a node answers behind the load balancer.
func awaitNodes(t *testing.T, url string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(url)
		if err != nil {
			continue
		}
		res.Body.Close()
		if res.StatusCode == http.StatusOK {
			return
		}
	}
	t.Fatal("no node is there")
}

// Two tabs on different nodes talk; when the node of one is killed, it comes back on another.
func TestInTheBrowser(t *testing.T) {
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	if err := flag.Set("addr", addr); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- runAll(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	browser.Each(t, func(t *testing.T, b *browser.Browser) { testTabs(t, b, addr) })
}

func testTabs(t *testing.T, b *browser.Browser, addr string) {
	awaitNodes(t, "http://"+addr)

	open := func() *browser.Tab {
		tab := b.Person(t).Open("http://" + addr)
		tab.WaitText("#state", "Connected")
		tab.WaitText("#node", "node ")
		return tab
	}
	nodeOf := func(tab *browser.Tab) string {
		return browser.Eval[string](tab, `document.querySelector("#node").textContent`)
	}
	first := open()
	first.WaitText("#empty", "Nothing has been said yet")
	first.WaitText("#alone", "Nobody else.")
	first.CheckLook()
	second := open()
	for range nodes {
		if nodeOf(second) != nodeOf(first) {
			break
		}
		second.Close()
		second = open()
	}
	if nodeOf(first) == nodeOf(second) {
		t.Fatalf("both tabs are on %s", nodeOf(first))
	}
	second.Write("#text", "Hello from elsewhere.")
	first.WaitText("#log", "Hello from elsewhere.")
	first.WaitText("#log li:last-child .node", nodeOf(second))
	first.Write("#text", "And hello to your node.")
	first.WaitText("#log li:last-child .node", nodeOf(first))
	first.Wait(`document.querySelector("#empty").hidden && document.querySelector("#alone").textContent === ""`)
	first.Picture("cluster")
	first.CheckLook()
	for _, hostile := range browser.Hostile {
		second.Write("#text", hostile)
		first.WaitText("#log li:last-child .text", hostile)
	}
	first.CheckUnharmed()

	hint := browser.Eval[string](first, `document.querySelector("#hint code").textContent`)
	pid, err := strconv.Atoi(strings.TrimPrefix(hint, "kill "))
	if err != nil {
		t.Fatal(err)
	}
	gone := nodeOf(first)
	first.MayLoseServer()
	second.MayLoseServer()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	first.Wait(`document.querySelector("#state").dataset.state === "open" && document.querySelector("#node").textContent !== ` + strconv.Quote(gone))
	second.Write("#text", "Welcome back.")
	first.WaitText("#log", "Welcome back.")
}
