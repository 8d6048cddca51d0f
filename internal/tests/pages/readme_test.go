package pages_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The Go code of the README and the pages is compiled: each block stands, but for its indent, in a Go file
// of this repository.
func TestPagesShowCompiledCode(t *testing.T) {
	compiled := ""
	for _, source := range files(t, ".go") {
		compiled += "\n" + withoutIndent(source)
	}
	blocks := 0
	for page, text := range files(t, ".md") {
		for _, block := range strings.Split(text, "```go\n")[1:] {
			blocks++
			code, _, ok := strings.Cut(block, "```")
			if !ok || !strings.Contains(compiled, "\n"+withoutIndent(code)) {
				t.Errorf("%s shows what no Go file has:\n%s", page, code)
			}
		}
	}
	if blocks < 20 {
		t.Errorf("%d blocks of Go", blocks)
	}
}

// Each page is linked from the README, and what a page links to exists.
func TestPagesAreLinked(t *testing.T) {
	pages := files(t, ".md")
	for page, text := range pages {
		for _, link := range pageLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), link[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
		if filepath.Dir(page) == "docs" && !strings.Contains(pages["README.md"], "("+filepath.ToSlash(page)) {
			t.Errorf("the README doesn't link to %s", page)
		}
	}
}

var codeBlock = regexp.MustCompile("(?s)```.*?```")

var pageLink = regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)

// root is the repository's folder.
var root, _ = filepath.Abs("../../..")

// files are the repository's files whose names end so, by path.
func files(t *testing.T, ending string) map[string]string {
	t.Helper()
	t.Chdir(root)
	found := map[string]string{}
	for _, folder := range []string{"", "*/", "*/*/", "internal/tests/*/", "docs/tutorial/*/"} {
		paths, err := filepath.Glob(folder + "*" + ending)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[path] = string(text)
		}
	}
	return found
}

func withoutIndent(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = strings.TrimSpace(line)
	}
	return strings.Join(lines, "\n")
}

// Every threat in SECURITY.md names the tests that play it; each of them exists.
func TestThreatsNameTheirTests(t *testing.T) {
	security, err := os.ReadFile(filepath.Join(root, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(security), "## Threats")
	rows := strings.Split(strings.TrimSpace(table), "\n")[2:]
	tests := testNames(t)
	for _, row := range rows {
		named := testName.FindAllString(row, -1)
		if len(named) == 0 {
			t.Errorf("no test: %s", row)
		}
		for _, name := range named {
			if !tests[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if len(rows) < 30 {
		t.Errorf("%d threats", len(rows))
	}
}

var testName = regexp.MustCompile(`\b(Test|Fuzz)\w+`)

// testNames are the functions of that kind in the repository.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, source := range files(t, "_test.go") {
		for line := range strings.Lines(source) {
			if strings.HasPrefix(line, "func ") {
				names[testName.FindString(line)] = true
			}
		}
	}
	return names
}
