// Package docs_test holds the pages to what they say: their tables and their code.
package docs_test

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wsroom/wsroom"
	"github.com/wsroom/wsroom/wsroomtest"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { os.Exit(wsroomtest.Main(m)) }

// table returns the cells of a page's n-th table, without its head.
func table(t *testing.T, page string, n int) (rows [][]string) {
	t.Helper()
	file, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	within := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if starts := strings.HasPrefix(line, "|"); starts && !within {
			n--
		}
		if within = strings.HasPrefix(line, "|"); within && n < 0 {
			rows = append(rows, cells(line))
		} else if n < 0 {
			break
		}
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no such table", page)
	}
	return rows[2:]
}

func cells(line string) []string {
	cells := strings.Split(strings.Trim(line, "|"), "|")
	for i, cell := range cells {
		cells[i] = strings.TrimSpace(cell)
	}
	return cells
}

// The page on options has all of them, and nothing else. Callbacks for messages and the like stand below.
func TestPageOfOptionsHasThemAll(t *testing.T) {
	documented := map[string]bool{}
	for _, row := range table(t, "options.md", 0) {
		for name := range strings.SplitSeq(row[0], ", ") {
			documented[code(name)] = true
		}
	}
	below := " Serve OnJSON OnText OnBinary OnConnect OnClose OnJoin OnLeave OnExpire "

	sources, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	option := regexp.MustCompile(`(?m)^func (\w+)(?:\[.*\])?\(.*\) Option \{`)
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range option.FindAllStringSubmatch(string(text), -1) {
			there[m[1]] = true
			if !documented[m[1]] && !strings.Contains(below, " "+m[1]+" ") {
				t.Errorf("options.md lacks %s", m[1])
			}
		}
	}
	for name := range documented {
		if !there[name] {
			t.Errorf("options.md has %q, which isn't there", name)
		}
	}
	if len(there) < 40 {
		t.Errorf("%d options", len(there))
	}
}

// code returns what stands in a cell as code; "" if it is something else.
func code(cell string) string {
	if inner, ok := strings.CutPrefix(cell, "`"); ok {
		if inner, ok = strings.CutSuffix(inner, "`"); ok {
			return inner
		}
	}
	return ""
}

// serve starts a server of h and shuts hub down at the test's end.
func serve(t *testing.T, h http.Handler, hub *wsroom.Hub) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	wsroomtest.CheckHub(t, hub)
	return srv
}

// knock asks for an upgrade, as a browser does: it follows no redirect. The caller closes the response's
// body, which is the connection.
func knock(t *testing.T, srv *httptest.Server, target string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	headers = append(headers, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
	for _, header := range headers {
		key, value, _ := strings.Cut(header, ": ")
		r.Header.Set(key, value)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// await waits for a value.
func await[T any](t *testing.T, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

// Every page says in its first sentence whom it is for.
func TestPagesSayWhomTheyAreFor(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	first := regexp.MustCompile(`\A# [^\n]+\n\nThis page is for (developers|operators|developers and operators) (that|whose)\s`)
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if !first.Match(text) {
			t.Errorf("%s: %.80s", page, text)
		}
	}
}
